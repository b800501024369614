//! What several topics need to drive the real programs. One file per program.

pub mod bed;
pub mod gated;
pub mod history;
pub mod holder_client;
pub mod monitor;
pub mod mount;
pub mod pipeline;
pub mod rights;
pub mod strace;
pub mod wait;
