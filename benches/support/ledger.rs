//! A look into the ledger of a bed, beside the worker that writes it.

use stallproof::ledger::{LedgerError, Reader};

use crate::support::bed::Bed;

/// The ledger, when there is one yet.
pub fn open(bed: &Bed) -> anyhow::Result<Option<Reader>> {
    match Reader::open(&bed.join(".stallproof/ledger.db")) {
        Ok(reader) => Ok(Some(reader)),
        Err(LedgerError::Missing(_)) => Ok(None),
        Err(err) => Err(err.into()),
    }
}
