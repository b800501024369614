//! Every process stallproof starts or ends.

pub mod launch;
pub mod process;
pub mod protocol;
pub mod record;
pub mod stop;
