//! What an audit of a whole ledger asks, beside what everybody asks: how often each job reached an end.

use std::collections::BTreeMap;

use super::LedgerError;
use super::read::Reader;
use crate::job::JobId;

impl Reader {
    /// How often each job became terminal; jobs that never did are missing.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn times_ended(&self) -> Result<BTreeMap<JobId, u32>, LedgerError> {
        let sql = "SELECT job.id, count(*) FROM ended JOIN job ON job.seq = ended.job GROUP BY ended.job";
        let mut query = self.conn.prepare_cached(sql)?;
        let rows = query.query_map([], |row| Ok((JobId(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
