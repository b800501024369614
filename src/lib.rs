//! A job runner for one machine whose queue is plain JSON files.
//!
//! `runner` is the only part that creates or signals processes.

pub mod runner;
