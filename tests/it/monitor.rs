//! The health monitor against real workers, real stalls and real impostors.

mod alerts;
mod diagnose;
mod hung_input;
mod incidents;
mod keys;
mod ops;
mod recover;
mod restart;
mod strangers;
mod stuck;
