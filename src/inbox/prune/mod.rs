//! Takes finished entries out of a queue file that other programs write at any moment, and loses none of theirs.
//!
//! The new content goes to a file of our own; both are exchanged in one step; what was displaced is kept in a private
//! folder, the limbo, until nobody can write to it any more. Whatever turns up there that the ledger had not seen is
//! recorded, put back into the queue file, and watched: a writer may hold a view without it and write that back.
//! Everything that is not a finished entry stays byte for byte as it is. Read in this order: [`Judge`] says what is
//! finished, `plan` which bytes go, `replacement` writes the new file, [`Pruner`] exchanges, `limbo` keeps the old one.
//! All of it blocks: it runs inside the one call its source has in flight.

mod attributes;
mod judge;
mod limbo;
pub(crate) mod plan;
mod pruner;
mod refused;
mod replacement;
mod site;
mod view;

pub use judge::{Judge, Standing};
pub use pruner::{Pruned, Pruner, Tended};
pub use refused::Refused;
pub(in crate::inbox) use site::create_private;
pub use site::{Site, Support};

#[cfg(test)]
mod tests;
