//! Keeps the ledger and the folders of attempts from growing for ever: retires what is over, by `[retention]`.
//!
//! Owns the rhythm: when a pass begins, and how small a share of the ledger's time it takes, however much there is to
//! retire. What may go is the ledger's decision. Rows go first, in one transaction with a note of the folder; the folder
//! follows, and then the note: a kill at any moment leaves a note at most, and the next pass begins with those. Never
//! ends the worker for a file that cannot be removed: that is told, and tried again.

mod files;

use std::io;
use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::watch;

use crate::clock::Millis;
use crate::config::{Live, Retention};
use crate::job::{JobId, Seq};
use crate::ledger::{Ledger, LedgerError, Logs, Sweep};
use crate::logging;
use crate::slug::job_key;
use crate::status::Part;
use crate::workdir::Workdir;

/// A step of the ledger that took so long is followed by so many times as long without one,
const STEP_SHARE: u32 = 4;
/// within these limits.
const STEP_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// The same for whole passes.
const PASS_SHARE: u32 = 50;
const PASS_PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3600));
/// A worker that lives on has more urgent things to do at first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between two signs of life while nothing is to be done.
const TICK: Duration = Duration::from_secs(5);
/// When the logs weigh too much, so much less than the limit is left of them: one part in so many.
const LEEWAY: u64 = 10;

/// The part of the worker that does it.
pub(crate) struct Keeper {
    ledger: Ledger,
    settings: Live,
    workdir: Workdir,
    part: Part,
    /// Counts what has changed in the ledger.
    news: watch::Receiver<u64>,
    /// What could not be removed, as it was last told.
    told: Option<String>,
}

/// What a pass did.
#[derive(Default)]
struct Tally {
    retired: u64,
    cleared: u64,
    trouble: Option<String>,
}

impl Tally {
    /// Keeps the first of them.
    fn failed(&mut self, what: &str, err: &io::Error) {
        self.trouble.get_or_insert_with(|| format!("cannot remove {what}: {err}"));
    }
}

impl Keeper {
    pub(crate) fn new(ledger: Ledger, settings: Live, workdir: Workdir, part: Part) -> Self {
        Self { news: ledger.changed(), ledger, settings, workdir, part, told: None }
    }

    /// Goes on for ever; `at_once` for a worker that may end soon.
    pub(crate) async fn run(mut self, at_once: bool) -> anyhow::Result<()> {
        if !at_once {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
        loop {
            let begun = Instant::now();
            let mut tally = Tally::default();
            self.news.mark_unchanged();
            self.part.phase("retiring what is over");
            match self.pass(&mut tally).await {
                Ok(()) => {}
                // Of this one request; whatever concerns the ledger as a whole ends the worker by those who need it.
                Err(LedgerError::Sqlite(err)) => {
                    tally.trouble.get_or_insert_with(|| format!("the ledger refused to retire a job: {err}"));
                }
                Err(err) => return Err(err.into()),
            }
            self.tell(tally);
            self.rest(begun.elapsed()).await;
        }
    }

    /// Until there is something that a pass could find, but not too soon after the last one, which took so long. Age alone
    /// can wait for the longest pause.
    async fn rest(&mut self, took: Duration) {
        let mut settings = self.settings.clone();
        let begun = Instant::now();
        let soonest = begun + (PASS_SHARE * took).clamp(PASS_PAUSE.0, PASS_PAUSE.1);
        loop {
            self.part.round_done();
            let now = Instant::now();
            let has_news = self.told.is_some() || self.news.has_changed().unwrap_or(true);
            if now >= begun + PASS_PAUSE.1 || now >= soonest && has_news {
                return;
            }
            let left = soonest.saturating_duration_since(now);
            tokio::select! {
                () = tokio::time::sleep(if left.is_zero() { TICK } else { TICK.min(left) }) => {}
                () = settings.changed() => return,
            }
        }
    }

    fn tell(&mut self, tally: Tally) {
        self.part.phase("waiting for the next pass");
        self.part.round_done();
        if tally.retired + tally.cleared > 0 {
            tracing::info!(
                jobs = tally.retired,
                logs = tally.cleared,
                "what is over was removed, by [retention]"
            );
        }
        match &tally.trouble {
            None => self.part.recovered(),
            Some(trouble) => {
                self.part.degraded(trouble.clone());
                if self.told != tally.trouble {
                    tracing::warn!(trouble, "not everything could be removed; it is tried again");
                }
            }
        }
        self.told = tally.trouble;
    }

    /// Once through all jobs.
    async fn pass(&self, tally: &mut Tally) -> Result<(), LedgerError> {
        let config = self.settings.config();
        let rules = &config.retention;
        self.remove_leftovers(tally).await?;
        self.remove_old_logs(rules, tally).await;
        let ended = self.ledger.counts().await?.ended();
        let mut surplus = rules.jobs.map_or(0, |jobs| ended.saturating_sub(jobs));
        let mut excess = self.excess(rules, tally).await;
        let now = Millis::now();
        let before = |span: Option<Duration>| span.map(|span| now.plus_ms(-millis(span)));
        let nothing_by_age = rules.jobs_for.is_none() && rules.logs_for.is_none();
        let mut next = Some(0);
        while let Some(after) = next
            && !(nothing_by_age && surplus == 0 && excess == 0)
        {
            let step = Sweep {
                after,
                ended_before: before(rules.jobs_for),
                surplus,
                logs_before: before(rules.logs_for),
                any_logs: excess > 0,
            };
            let begun = Instant::now();
            let swept = self.ledger.sweep(step).await?;
            let took = begun.elapsed();
            next = swept.next;
            surplus = surplus.saturating_sub(swept.retired);
            tally.retired += swept.retired;
            if swept.retired > 0 {
                self.remove_leftovers(tally).await?;
            }
            if !swept.logs.is_empty() {
                excess = self.clear(swept.logs, excess, tally).await?;
            }
            self.part.round_done();
            tokio::time::sleep((STEP_SHARE * took).clamp(STEP_PAUSE.0, STEP_PAUSE.1)).await;
        }
        Ok(())
    }

    /// Removes the folders of retired jobs, also those that a kill has left.
    async fn remove_leftovers(&self, tally: &mut Tally) -> Result<(), LedgerError> {
        let mut after = 0;
        loop {
            let leftovers = self.ledger.leftovers(after).await?;
            let Some((last, _)) = leftovers.last() else { return Ok(()) };
            after = *last;
            let jobs = self.workdir.jobs();
            let remove = move |(seq, id): (Seq, JobId)| {
                let key = job_key(&id.0);
                files::remove_job(&jobs, &key).map(|()| seq).map_err(|err| (jobs.join(key), err))
            };
            let done = blocking(move || Ok(leftovers.into_iter().map(remove).collect::<Vec<_>>())).await;
            let mut gone = Vec::new();
            for one in done.unwrap_or_default() {
                match one {
                    Ok(seq) => gone.push(seq),
                    Err((path, err)) => tally.failed(&format!("`{}`", path.display()), &err),
                }
            }
            self.ledger.removed(gone).await?;
            self.part.round_done();
        }
    }

    /// Removes logs of jobs that stay: those that are old, and others until `excess` bytes are free. What is left of that.
    async fn clear(&self, logs: Vec<Logs>, excess: u64, tally: &mut Tally) -> Result<u64, LedgerError> {
        let jobs = self.workdir.jobs();
        let cleared = blocking(move || {
            let (mut left, mut gone, mut failed) = (excess, Vec::new(), None);
            for one in logs {
                if !one.is_old && left == 0 {
                    continue;
                }
                match files::remove_attempts(&jobs, &job_key(&one.id.0), &(one.first..=one.last)) {
                    Ok(bytes) => {
                        left = left.saturating_sub(bytes);
                        gone.push((one.seq, one.last));
                    }
                    Err(err) => failed = failed.or(Some(err)),
                }
            }
            Ok((left, gone, failed))
        });
        let (left, gone, failed) = match cleared.await {
            Ok(cleared) => cleared,
            Err(err) => (0, Vec::new(), Some(err)),
        };
        if let Some(err) = failed {
            tally.failed("logs of jobs that are over", &err);
        }
        tally.cleared += gone.len() as u64;
        self.ledger.cleared(gone).await?;
        Ok(left)
    }

    /// Bytes by which the logs weigh too much.
    async fn excess(&self, rules: &Retention, tally: &mut Tally) -> u64 {
        let Some(limit) = rules.logs_bytes else { return 0 };
        let (jobs, part) = (self.workdir.jobs(), self.part.clone());
        match blocking(move || files::weigh(&jobs, || part.round_done())).await {
            Ok(bytes) if bytes > limit => bytes - (limit - limit / LEEWAY),
            Ok(_) => 0,
            Err(err) => {
                tally.failed("logs that are too much; their folder cannot be read", &err);
                0
            }
        }
    }

    /// Removes the worker's and the monitor's log files of days that are over for long.
    async fn remove_old_logs(&self, rules: &Retention, tally: &mut Tally) {
        let Some(span) = rules.logs_for else { return };
        let folder = self.workdir.logs();
        let Ok(oldest) = Timestamp::from_millisecond(Millis::now().plus_ms(-millis(span)).0) else { return };
        let oldest = oldest.to_zoned(TimeZone::UTC).date();
        if let Err(err) = blocking(move || logging::remove_before(&folder, oldest)).await {
            tally.failed("old files in `logs/`", &err);
        }
    }
}

/// More than any clock can show is as good as for ever.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
}
