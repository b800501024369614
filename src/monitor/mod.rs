//! The health monitor: proves that the worker works, says what is wrong when it does not, and brings it back.
//!
//! A program of its own with nothing in common with the worker but the files between them: plain threads, no runtime,
//! no write to a queue file except on `--recover`. Data flows one way: [`look`] and [`checks`] read, [`verdict`] and
//! [`backoff`] decide (pure, with time as an argument), [`incident`] keeps the evidence, [`restart`] and [`recover`]
//! act, [`alerts`] tells. Whatever may never answer is asked through [`probe`]. Processes are started and ended by
//! `runner` alone, and only those that a lock or a token names.

pub mod alerts;
pub mod backoff;
pub mod checks;
pub mod cleanup;
pub mod command;
pub mod evidence;
pub mod handlers;
pub mod incident;
pub mod look;
pub mod memory;
pub mod probe;
pub mod recover;
pub mod report;
pub mod restart;
pub mod salvage;
pub mod scene;
pub mod service;
mod stop;
#[cfg(test)]
mod testbed;
pub mod verdict;
