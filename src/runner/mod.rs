//! Every process stallproof starts or ends.

pub mod process;
pub mod protocol;
pub mod record;
