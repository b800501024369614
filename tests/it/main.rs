//! Black-box tests, one module per topic; `support` is the harness.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how a broken assumption is reported")]

mod bad_input;
mod chaos;
mod cli;
mod dead_letters;
mod holder;
mod monitor;
mod queue_files;
mod report;
mod why;
mod worker;

mod support;
