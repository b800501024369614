//! Looks at what an attempt produced and says what the configured gate makes of it.
//!
//! `judgement` goes through the checks, `folder` finds and reads the files, `command` runs a gate of the user's. Runs
//! in the process of the attempt, so that hostile output costs that attempt and nothing else. It looks at what was
//! produced, never at the entry that asked for it, and changes nothing of it. A check that cannot finish is never a
//! pass.

mod command;
mod folder;
mod gated;
mod judgement;

pub use gated::main;
pub use judgement::{Judgement, Produced, Subject, inspect};
