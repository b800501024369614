//! stub
use std::sync::Arc;
use tokio::sync::watch;
#[derive(Clone, Debug, Default)] pub struct SourceView { pub name: String, pub settled: bool, pub rounds: u64 }
pub struct Context { pub config: Arc<crate::config::Config>, pub workdir: crate::workdir::Workdir, pub ledger: crate::ledger::Ledger, pub progress: crate::status::Progress }
pub fn spawn(_: Context, _: &mut tokio::task::JoinSet<anyhow::Result<()>>, _: watch::Receiver<bool>) -> Vec<watch::Receiver<SourceView>> { vec![] }
