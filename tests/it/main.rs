//! Black-box tests, one module per topic; `support` is the harness.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how a broken assumption is reported")]

mod backlog;
mod bad_input;
mod chaos;
mod cli;
mod control;
mod damage;
mod dead_letters;
mod disk;
mod faults;
mod gates;
mod generate;
mod holder;
mod monitor;
mod pacing;
mod queue_files;
mod removed;
mod report;
mod retention;
mod rework;
mod runs;
mod scarce;
mod security;
mod selftest;
mod settings;
mod wait;
mod waiting;
mod why;
mod worker;

mod support;
