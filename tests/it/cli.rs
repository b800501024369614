//! The command line as people and programs use it: the real binary on real directories.

#![expect(clippy::unwrap_used, reason = "a test whose stage cannot be set has failed")]

mod bed;
mod change;
mod check;
mod look;
mod stop;
