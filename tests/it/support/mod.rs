//! What several topics need to drive the real programs. One file per program.

pub mod bed;
pub mod history;
pub mod holder_client;
pub mod monitor;
pub mod pipeline;
pub mod wait;
