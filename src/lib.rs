//! x
pub mod gate;
pub mod materialize;
pub mod slug;
