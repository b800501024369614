//! The command line as people and programs use it: the real binary on real directories.

mod bed;
mod change;
mod check;
mod look;
mod stop;
