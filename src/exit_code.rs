//! Exit codes that mean something: what a handler tells the worker by them, and what our programs tell whoever ran them.
//!
//! Numbers only. What follows from a handler's is decided by [`crate::retry`]; which error of ours leads to which is said
//! where the error is reported.

/// A handler: not this time; another attempt may do better.
pub const AGAIN: i32 = 1;
/// A handler of ours was not called the way the worker calls it.
pub const MISUSED: i32 = 2;
/// A handler: its input is wrong, so another attempt would end the same way (sysexits, EX_DATAERR).
pub const DATA: i32 = 65;
/// A handler: it cannot be done at the moment (sysexits, EX_TEMPFAIL).
pub const TEMPORARY: i32 = 75;
/// A program that cannot be run, as shells have it.
pub const CANNOT_RUN: i32 = 126;
/// A program that is not there, as shells have it.
pub const NO_PROGRAM: i32 = 127;

/// `stallproof`: what was asked is done.
pub const DONE: u8 = 0;
/// Both programs: what was asked failed.
pub const FAILED: u8 = 1;
/// Both programs: wrong usage, as clap has it.
pub const USAGE: u8 = 2;
/// Both programs: another worker, or another monitor, holds the directory.
pub const HELD: u8 = 3;
/// A part of the worker panicked (sysexits, EX_SOFTWARE).
pub const PANICKED: u8 = 70;
/// The ledger cannot be written (sysexits, EX_IOERR).
pub const STORAGE: u8 = 74;
