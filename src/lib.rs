//! The library behind the binaries; each module says what it owns.

pub mod gate;
pub mod materialize;
pub mod slug;
