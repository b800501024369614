//! The hidden command that the self test's jobs are: says in the side log what it does, and misbehaves as ordered.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, signal};

use super::order::Kind;
use super::side_log::{Log, SideLine, What, monotonic_ns};
use crate::exit_code;
use crate::runner::leave;

/// Between two signs of life.
const TICK: Duration = Duration::from_millis(50);
/// What a flood prints on each stream.
const FLOOD_BYTES: usize = 8 << 20;
/// A process that was left behind ends by itself, should nobody end it.
const LEFT_FOR: Duration = Duration::from_secs(120);

/// The arguments of the hidden commands for a job.
#[derive(Debug, clap::Args)]
pub struct JobArgs {
    /// What to do
    #[arg(long)]
    kind: Kind,
    /// For how long
    #[arg(long)]
    ms: u64,
    /// The side log
    #[arg(long)]
    side: PathBuf,
}

/// A job; its exit code.
#[must_use]
pub fn run(args: &JobArgs) -> ExitCode {
    match Job::begin(&args.side).and_then(|mut job| job.work(args)) {
        Ok(code) => ExitCode::from(code),
        Err(err) => complain(&err),
    }
}

/// What a [`Kind::Leaver`] leaves behind.
#[must_use]
pub fn linger(side: &Path) -> ExitCode {
    let said = Job::open(side).and_then(|mut job| {
        let until = Instant::now() + LEFT_FOR;
        while Instant::now() < until {
            job.say(What::Left)?;
            std::thread::sleep(TICK);
        }
        Ok(())
    });
    said.map_or_else(|err| complain(&err), |()| ExitCode::SUCCESS)
}

fn complain(err: &std::io::Error) -> ExitCode {
    // There is nobody else to tell; the balance will not be even.
    let _ = writeln!(std::io::stderr(), "selftest job: {err}");
    ExitCode::FAILURE
}

struct Job {
    log: Log,
    id: String,
    attempt: u32,
}

impl Job {
    fn begin(side: &Path) -> std::io::Result<Self> {
        let mut job = Self::open(side)?;
        job.say(What::Start)?;
        Ok(job)
    }

    fn open(side: &Path) -> std::io::Result<Self> {
        let variable = |name: &str| {
            std::env::var(name)
                .map_err(|_| std::io::Error::other(format!("{name} is not set; only jobs run this")))
        };
        let attempt = variable("STALLPROOF_ATTEMPT")?.parse().map_err(std::io::Error::other)?;
        Ok(Self { log: Log::open(side)?, id: variable("STALLPROOF_JOB_ID")?, attempt })
    }

    fn say(&mut self, what: What) -> std::io::Result<()> {
        let pid = std::process::id().cast_signed();
        let line = SideLine { what, id: self.id.clone(), attempt: self.attempt, pid, ns: monotonic_ns() };
        self.log.append(&line)
    }

    fn work(&mut self, args: &JobArgs) -> std::io::Result<u8> {
        let mut code = 0;
        match args.kind {
            Kind::Work => {}
            Kind::Flaky => code = u8::from(self.attempt == 1),
            Kind::Hopeless => code = u8::try_from(exit_code::DATA).unwrap_or(1),
            Kind::Flood => flood(),
            Kind::Leaver => {
                let side = args.side.to_string_lossy().into_owned();
                let words = ["selftest-part".to_owned(), "left".to_owned(), "--side".to_owned(), side];
                leave::behind(&std::env::current_exe()?, &words)?;
            }
            Kind::Deaf => {
                // SAFETY: "ignore" is set, so no code of ours ever runs in signal context.
                unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }?;
                self.live_for(LEFT_FOR)?;
            }
        }
        self.live_for(Duration::from_millis(args.ms))?;
        self.say(What::End)?;
        Ok(code)
    }

    fn live_for(&mut self, span: Duration) -> std::io::Result<()> {
        let until = Instant::now() + span;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
            if left > TICK {
                self.say(What::Tick)?;
            }
        }
    }
}

fn flood() {
    let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>().repeat(64);
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    for _ in 0..FLOOD_BYTES / line.len() {
        // A reader that went away is no failure of the job's.
        let _ = out.write_all(&line).and_then(|()| err.write_all(&line));
    }
}
