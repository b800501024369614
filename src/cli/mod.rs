//! The command line: one file per command, each a struct of arguments and a `run`.
//!
//! Commands read and change the ledger themselves, so that they work when the worker is hung or dead. Everything they
//! print goes through `output::Out`; everything in it that others wrote goes through [`crate::terminal::escape`].
//! Nothing here starts processes or touches queue files, except `init` and `demo`, which create what is missing.

mod add;
mod args;
mod cancel;
mod check;
mod cleanup;
mod completions;
mod context;
mod demo;
mod drain;
mod entries;
mod failure;
mod handle;
mod init;
mod job_ref;
mod known;
mod list;
mod log;
mod man;
mod order;
mod outcomes;
mod output;
mod pause;
pub mod progress_bar;
mod reload;
mod retry;
mod schema;
mod selftest;
mod show;
mod slots;
mod status;
mod stop;
pub mod usage;
mod wait;
mod when;
mod why;
mod worker;

pub use args::main;
