//! A working directory with a real ledger, for tests of the sources.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::source::{Round, Source};
use crate::config::Config;
use crate::job::State;
use crate::ledger::{Claim, FinishedAttempt, HolderId, JobFilter, JobRow, Ledger, Reader};
use crate::status::Progress;
use crate::workdir::Workdir;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct TestBed {
    pub(crate) workdir: Workdir,
    pub(crate) config: Arc<Config>,
    pub(crate) ledger: Ledger,
    pub(crate) runtime: Runtime,
    _actor: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl TestBed {
    pub(crate) fn new() -> Self {
        Self::with_config("")
    }

    pub(crate) fn with_config(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        let config = Arc::new(Config::parse(text, Path::new("stallproof.toml"), &workdir).unwrap());
        let part = Progress::default().part("ledger", PATIENCE);
        let (ledger, actor) = Ledger::open(&workdir.ledger(), part).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { workdir, config, ledger, runtime, _actor: actor, _dir: dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.workdir.root().join(name)
    }

    /// Publishes a file by rename, as a careful writer does.
    pub(crate) fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let temp = self.path("writer.tmp");
        File::create(&temp).unwrap().write_all(text.as_ref()).unwrap();
        std::fs::rename(temp, self.path(name)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// All jobs, oldest first.
    pub(crate) fn jobs(&self) -> Vec<JobRow> {
        let mut jobs = Reader::open(&self.workdir.ledger()).unwrap().jobs(&JobFilter::default()).unwrap();
        jobs.reverse();
        jobs
    }

    pub(crate) fn job(&self, id: &str) -> JobRow {
        Reader::open(&self.workdir.ledger())
            .unwrap()
            .job(id)
            .unwrap()
            .unwrap_or_else(|| panic!("no job {id}"))
    }

    /// Starts the job with this id.
    pub(crate) fn start(&self, id: &str) {
        let holder = HolderId { pid: 1, start_ticks: 1, boot_id: "boot".to_owned() };
        let claim = Claim { seq: self.job(id).seq, slot: 0, holder };
        let claimed = self.runtime.block_on(self.ledger.claim(vec![claim])).unwrap();
        assert!(claimed[0].is_some(), "{id} cannot be started");
    }

    /// Completes the job with this id.
    pub(crate) fn complete(&self, id: &str) {
        self.start(id);
        let end = FinishedAttempt::completed(self.job(id).seq, 1);
        assert!(self.runtime.block_on(self.ledger.finish(end)).unwrap());
        assert_eq!(self.job(id).state, State::Completed);
    }
}

/// Polls `source` until a round satisfies `condition`, and returns that round.
pub(crate) fn poll_until(
    source: &mut impl Source,
    what: &str,
    mut condition: impl FnMut(&Round) -> bool,
) -> Round {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let round = source.round().unwrap();
        if condition(&round) {
            return round;
        }
        assert!(Instant::now() < deadline, "never came: {what}; last round {round:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
