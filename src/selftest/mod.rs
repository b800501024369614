//! `stallproof selftest`: the real programs under fire in a scratch folder, and the balance at the end.

pub mod history;
pub mod side_log;
