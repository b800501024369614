//! Carries out the steps of a plan against the real processes and files.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use super::driver::{Driver, RunError};
use super::order::{Kind, Order};
use super::place::{QUEUES, publish, stale_after};
use super::plan::{Fault, Step};
use super::random::Random;
use super::side_log::Log;
use super::writer::{dropped, in_turn};
use super::{clock, small_disk};
use crate::monitor::memory::Memory;
use crate::runner::process::ProcessId;

/// Between two looks for what the monitor does.
const LOOK: Duration = Duration::from_millis(50);
/// How long the monitor may take beyond its limit: looks, the end of the old worker, the start of a new one.
const MONITOR_SLACK: Duration = Duration::from_secs(20);

impl Driver<'_> {
    /// Whether it was done; nobody may have been there to do it to.
    pub(super) fn inject(&mut self, step: &Step) -> Result<bool, RunError> {
        let mut random = Random::new(step.detail);
        match step.fault {
            Fault::KillWorker => self.kill_worker(Duration::from_millis(random.below(60))),
            Fault::KillWorkerUnaided => self.kill_worker_unaided(),
            Fault::KillMonitor => self.kill_monitor(),
            Fault::KillHolder => self.kill_holder(&mut random),
            Fault::KillWriter => Ok(self.rig.kill_writer(step.detail)?),
            Fault::FreezeShort => self.freeze_short(),
            Fault::FreezeLong => self.freeze_long(),
            Fault::CorruptQueue => self.corrupt(&mut random),
            Fault::HalfWritten => self.half_written(&mut random),
            Fault::Fifo => self.fifo(&mut random),
            Fault::Flood => self.drop_job(Kind::Flood, &mut random),
            Fault::Grandchild => self.drop_job(Kind::Leaver, &mut random),
            Fault::Deaf => self.drop_job(Kind::Deaf, &mut random),
            Fault::DiskFull => self.disk_full(&mut random),
            Fault::ClockStep => self.clock_step(),
        }
    }

    fn kill_worker(&mut self, back_in: Duration) -> Result<bool, RunError> {
        let Some(worker) = self.rig.worker() else { return Ok(false) };
        self.kill(&worker)?;
        self.rig.want_worker_in(back_in);
        Ok(true)
    }

    /// Kills a process and waits until it is gone, so that nobody takes it for its successor.
    fn kill(&mut self, id: &ProcessId) -> Result<(), RunError> {
        id.signal(Signal::SIGKILL)?;
        while id.is_alive()? {
            self.pause(Duration::from_millis(1))?;
        }
        Ok(())
    }

    fn kill_worker_unaided(&mut self) -> Result<bool, RunError> {
        let Some(worker) = self.rig.worker() else { return Ok(false) };
        worker.signal(Signal::SIGKILL)?;
        self.wait_for_another(&worker, "was killed")?;
        Ok(true)
    }

    /// Gives the monitor its time to bring back a worker; what it fails to do is trouble.
    fn wait_for_another(&mut self, old: &ProcessId, what: &str) -> Result<(), RunError> {
        let limit = stale_after() + MONITOR_SLACK;
        let until = Instant::now() + limit;
        self.rig.want_worker_in(limit * 2);
        // A monitor that has restarted too often waits on purpose.
        while !self.monitor_waits()? {
            if self.rig.worker().is_some_and(|id| id != *old) {
                return Ok(());
            }
            if Instant::now() >= until {
                let pid = old.pid;
                let text = format!("worker {pid} {what}, and the monitor brought none back in {limit:?}");
                self.tally.trouble.push(text);
                break;
            }
            self.pause(LOOK)?;
        }
        old.signal(Signal::SIGCONT)?;
        self.rig.want_worker_in(Duration::ZERO);
        Ok(())
    }

    fn monitor_waits(&self) -> Result<bool, RunError> {
        Ok(Memory::read(self.rig.place().workdir()).is_ok_and(|memory| memory.backoff.has_given_up()))
    }

    fn kill_monitor(&mut self) -> Result<bool, RunError> {
        let Some(monitor) = self.rig.monitor() else { return Ok(false) };
        self.kill(&monitor)?;
        self.rig.want_monitor_in(Duration::from_millis(200));
        Ok(true)
    }

    fn kill_holder(&mut self, random: &mut Random) -> Result<bool, RunError> {
        let holders = self.rig.holders();
        if holders.is_empty() {
            return Ok(false);
        }
        let chosen = usize::try_from(random.below(holders.len() as u64)).unwrap_or(0);
        let with_worker = random.chance(50);
        // Worker first in one half of these, holder first in the other.
        let worker_first = random.chance(50);
        if with_worker && worker_first {
            self.kill_worker(Duration::ZERO)?;
        }
        holders[chosen].signal(Signal::SIGKILL)?;
        if with_worker && !worker_first {
            self.kill_worker(Duration::ZERO)?;
        }
        Ok(true)
    }

    fn freeze_short(&mut self) -> Result<bool, RunError> {
        let Some(worker) = self.rig.worker() else { return Ok(false) };
        worker.signal(Signal::SIGSTOP)?;
        self.pause(stale_after() / 3)?;
        worker.signal(Signal::SIGCONT)?;
        if self.rig.worker().as_ref() != Some(&worker) {
            let pid = worker.pid;
            self.tally
                .trouble
                .push(format!("worker {pid} was replaced while frozen for less than the limit"));
        }
        Ok(true)
    }

    fn freeze_long(&mut self) -> Result<bool, RunError> {
        let Some(worker) = self.rig.worker() else { return Ok(false) };
        worker.signal(Signal::SIGSTOP)?;
        self.wait_for_another(&worker, "was frozen")?;
        Ok(true)
    }

    fn corrupt(&mut self, random: &mut Random) -> Result<bool, RunError> {
        let queue = QUEUES[usize::from(random.chance(50))];
        let (place, hold) = (self.rig.place().clone(), Duration::from_millis(random.between(200, 900)));
        let file = place.queue(queue);
        // Nobody else writes meanwhile: what is put back is everything that was there.
        let whole = in_turn(&place, queue, || {
            let whole = std::fs::read(&file)?;
            let mut broken = whole[..whole.len() / 2].to_vec();
            broken.extend_from_slice(b"}\x00]{");
            publish(&file, &broken)?;
            Ok(self.pause(hold).and_then(|()| Ok(publish(&file, &whole)?)))
        })?;
        whole.map(|()| true)
    }

    fn half_written(&mut self, random: &mut Random) -> Result<bool, RunError> {
        let queue = QUEUES[usize::from(random.chance(50))];
        let (place, hold) = (self.rig.place().clone(), Duration::from_millis(random.between(100, 700)));
        let path = place.queue(queue);
        let done = in_turn(&place, queue, || {
            let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
            let mut whole = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut whole)?;
            file.set_len(whole.len() as u64 / 2)?;
            let paused = self.pause(hold);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&whole)?;
            Ok(paused)
        })?;
        done.map(|()| true)
    }

    fn fifo(&mut self, random: &mut Random) -> Result<bool, RunError> {
        let path = self.rig.place().drop_folder().join("0-fifo.json");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(std::io::Error::from)?;
        let paused = self.pause(Duration::from_millis(random.between(300, 1000)));
        std::fs::remove_file(&path)?;
        paused.map(|()| true)
    }

    fn drop_job(&mut self, kind: Kind, random: &mut Random) -> Result<bool, RunError> {
        let order = Order::plain(format!("{}-{:x}", kind.as_str(), random.draw()), kind);
        let place = self.rig.place();
        let mut log = Log::open(&place.writer_log())?;
        log.append(&order.line(false))?;
        dropped(place, &order.id, &order.entry(self.rig.stallproof(), place), random)?;
        log.append(&order.line(true))?;
        Ok(true)
    }

    fn disk_full(&mut self, random: &mut Random) -> Result<bool, RunError> {
        let jobs = self.rig.place().workdir().jobs();
        small_disk::fill(&jobs)?;
        let paused = self.pause(Duration::from_millis(random.between(300, 1500)));
        small_disk::make_room(&jobs)?;
        paused.map(|()| true)
    }

    fn clock_step(&mut self) -> Result<bool, RunError> {
        if self.rig.worker().is_none() {
            return Ok(false);
        }
        for prefix in [clock::a_day_ahead(), Vec::new()] {
            // The one on the other clock may have ended by itself; its place is taken all the same.
            if let Some(worker) = self.rig.worker() {
                self.kill(&worker)?;
            }
            self.rig.start_worker(&prefix)?;
            self.pause(Duration::from_millis(1000))?;
        }
        Ok(true)
    }
}
