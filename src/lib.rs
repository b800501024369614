//! stallproof: a job runner for one machine whose queue is plain JSON files.
//!
//! Data flows one way:
//!
//! ```text
//! queue files, drop folder ─► inbox ─► ledger ─► scheduler ─► runner ─► ledger ─► inbox (prune)
//! ```
//!
//! Read the modules in this order: [`job`] is the vocabulary, [`config`] and [`workdir`] say where things are,
//! [`inbox`] reads what other people write, [`ledger`] is the durable record, [`scheduler`] chooses, [`runner`]
//! owns every process, [`materialize`] and [`generate`] produce, [`gate`] and [`inspection`] judge that, [`retry`]
//! decides what a failure leads to, [`worker`] wires them together, [`status`] tells the outside about it and
//! [`queue_report`] tells programs what to mend; [`monitor`] is a program of its own that reads all this, proves that
//! work gets done and brings the worker back when it does not; [`selftest`] puts all of it under fire. Only `inbox`
//! touches queue files, only `ledger` opens the database, only `runner` creates or signals processes; only `worker`
//! knows them all.

pub mod cli;
pub mod clock;
pub mod config;
pub mod duration;
pub mod exit_code;
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod generate;
pub mod inbox;
pub mod inspection;
pub mod job;
pub mod ledger;
pub mod lock;
pub mod logging;
pub mod materialize;
pub mod monitor;
pub mod queue_report;
pub mod recurrence;
pub mod result_file;
mod retention;
pub mod retry;
pub mod runner;
pub mod scheduler;
pub mod selftest;
pub mod slug;
pub mod status;
pub mod terminal;
pub mod words;
pub mod workdir;
pub mod worker;
