//! Disks that are full, slow, read-only, failing or cut off: real file systems, in mount namespaces of their own.

mod failing;
mod full;
mod power;
mod stamps;
