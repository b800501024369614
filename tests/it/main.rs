//! Black-box tests, one module per topic; `support` is the harness.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how a broken assumption is reported")]

mod chaos;
mod cli;
mod holder;
mod worker;

mod support;
