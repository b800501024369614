//! stub
use std::sync::Arc;
use tokio::sync::watch;
/// s
#[derive(Clone, Debug, Default)]
pub struct SourceView {
    /** s */
    pub name: String,
    /** s */
    pub settled: bool,
    /** s */
    pub rounds: u64,
}
/// s
pub struct Context {
    /** s */
    pub config: Arc<crate::config::Config>,
    /** s */
    pub workdir: crate::workdir::Workdir,
    /** s */
    pub ledger: crate::ledger::Ledger,
    /** s */
    pub progress: crate::status::Progress,
}
/// s
pub fn spawn(
    _: Context,
    _: &mut tokio::task::JoinSet<anyhow::Result<()>>,
    _: watch::Receiver<bool>,
) -> Vec<watch::Receiver<SourceView>> {
    vec![]
}
