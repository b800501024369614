//! Builds a source for everything that is configured and starts the loop around each.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::array_source::{ArrayParts, ArraySource};
use super::canonical;
use super::drop_folder::DropFolder;
use super::exposure::exposures;
use super::intake::Intake;
use super::look::MAX_FILE_BYTES;
use super::lookout::Lookout;
use super::poller::{Shell, run};
use super::problem::{Board, Desk};
use super::prune::Site;
use super::quarantine::Quarantine;
use super::source::{Doing, SourceView};
use super::tidy::Tidy;
use crate::config::{self, Live, SourceKind};
use crate::ledger::Ledger;
use crate::status::Progress;
use crate::terminal;
use crate::workdir::Workdir;

/// A poller that completes no round for so long is stuck; one that waits for its input still completes them.
const LIMIT: Duration = Duration::from_secs(30);

/// What the sources need of the worker.
#[derive(Clone, Debug)]
pub struct Context {
    /// Which sources there are, and how often they are looked at.
    pub settings: Live,
    /// Where limbo and quarantine are; its folders exist.
    pub workdir: Workdir,
    /// Where entries go.
    pub ledger: Ledger,
    /// Where the pollers show that they are alive.
    pub progress: Progress,
    /// Where the sources say what is wrong with their input.
    pub problems: Board,
}

/// Starts a poller per source on `tasks`; each ends when `stop` becomes true, or with an error that must end the
/// worker. Returns a view of each source. Must be called within a runtime.
pub fn spawn(
    ctx: Context,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    stop: watch::Receiver<bool>,
) -> Vec<watch::Receiver<SourceView>> {
    let (mut views, mut shells) = (Vec::new(), Vec::new());
    let config = ctx.settings.config();
    let (asked, workdir) = (config.clone(), ctx.workdir.clone());
    // Asked once and waited for by nobody: one that does not answer costs a thread, as everywhere. A diagnosis asks again.
    Handle::current().spawn_blocking(move || {
        for (source, what) in exposures(&asked, &workdir) {
            tracing::warn!(source, what, "others may have commands run");
        }
    });
    for (name, source) in &config.sources {
        let unread = SourceView { name: name.clone(), ..SourceView::default() };
        let (view, receiver) = watch::channel(unread);
        let label = source.path.file_name().unwrap_or(source.path.as_os_str()).to_string_lossy();
        let part = ctx.progress.part(&format!("poller {}", terminal::escape(&label)), LIMIT);
        let shell = Arc::new(Shell::new(name, part, view));
        shells.push(Arc::clone(&shell));
        let intake = Intake::new(name, ctx.settings.clone(), ctx.ledger.clone(), Handle::current());
        match source.kind {
            SourceKind::Array => tasks.spawn(run(ctx.array(name, source, intake), shell, stop.clone())),
            SourceKind::Directory => {
                tasks.spawn(run(ctx.directory(name, source, intake), shell, stop.clone()))
            }
        };
        views.push(receiver);
    }
    tasks.spawn(Lookout::new(config.poll_interval, shells, stop).run());
    views
}

impl Context {
    fn array(&self, name: &str, source: &config::Source, intake: Intake) -> ArraySource {
        let limbo = self.workdir.limbo().join(folder_name(name));
        let doing = Doing::default();
        let site = Site::new(source.path.clone(), limbo, self.workdir.quarantine(), MAX_FILE_BYTES);
        let site = Site { doing: doing.clone(), ..site };
        let label = source.path.file_name().unwrap_or(source.path.as_os_str()).to_string_lossy();
        let parts = ArrayParts {
            path: source.path.clone(),
            tidy: Tidy::new(site, &label, intake.clone()),
            intake,
            quarantine: Quarantine::new(&self.workdir.quarantine()),
            ready: self.ledger.changed(),
        };
        ArraySource::new(parts, doing).with_desk(self.desk(name, source))
    }

    fn directory(&self, name: &str, source: &config::Source, intake: Intake) -> DropFolder {
        let limbo = self.workdir.limbo().join(folder_name(name));
        DropFolder::new(&source.path, limbo, intake, Doing::default()).with_desk(self.desk(name, source))
    }

    fn desk(&self, name: &str, source: &config::Source) -> Desk {
        Desk::new(&self.problems, name, &source.path, self.workdir.root())
    }
}

/// A folder name for a source: its own name where that is one, else made unique by a hash.
fn folder_name(source: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !source.is_empty() && source.len() <= 64 && source.chars().all(is_safe) {
        return source.to_owned();
    }
    let hash = canonical::hash(source.as_bytes()).0;
    let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("source.{hex}")
}

#[cfg(test)]
mod tests {
    use super::super::testbed::TestBed;
    use super::*;

    #[test]
    fn folder_names_stay_inside_and_apart() {
        assert_eq!(folder_name("ideas"), "ideas");
        let names = ["", "..", "a/b", "a.b", "a b"].map(folder_name);
        assert!(names.iter().all(|name| name.starts_with("source.") && !name.contains('/')));
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn every_configured_source_is_polled_until_the_stop() {
        let bed = TestBed::new();
        bed.put("ideas_log.json", r#"[{"title":"idea"}]"#);
        bed.put("QAissue.json", r#"[{"title":"issue"}]"#);
        std::fs::create_dir(bed.path("implementations")).unwrap();
        bed.put("implementations/x.json", r#"{"title":"dropped"}"#);
        let progress = Progress::default();
        let ctx = Context {
            settings: Live::fixed(bed.config.clone()),
            workdir: bed.workdir.clone(),
            ledger: bed.ledger.clone(),
            progress: progress.clone(),
            problems: Board::default(),
        };
        bed.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            let (stop, stop_rx) = watch::channel(false);
            for mut view in spawn(ctx, &mut tasks, stop_rx) {
                let settled = view.wait_for(|view| view.settled);
                tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap().unwrap();
            }
            stop.send(true).unwrap();
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap().unwrap();
            }
        });
        let mut titles: Vec<_> = bed.jobs().into_iter().map(|job| (job.source, job.title)).collect();
        titles.sort();
        let wanted = [("drop", "dropped"), ("ideas", "idea"), ("qa", "issue")];
        assert_eq!(titles, wanted.map(|(source, title)| (source.to_owned(), title.to_owned())));
        let parts: Vec<_> = progress.snapshot().into_keys().collect();
        assert_eq!(parts, ["poller QAissue.json", "poller ideas_log.json", "poller implementations"]);
    }
}
