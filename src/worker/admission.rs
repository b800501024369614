//! Pauses new starts while the machine is short of memory or disk, and jobs of handlers whose program is not there.
//!
//! What runs goes on. Each finding is a hold in the ledger, where the scheduler obeys it and `why` finds it; it is
//! lifted as soon as it is true no more. Memory has a hysteresis, so that one job more or less does not flip it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::sync::watch;

use crate::clock::Millis;
use crate::config::{Admission, Live};
use crate::job::{HoldKind, HoldReason};
use crate::ledger::{Hold, Ledger, LedgerError};
use crate::runner::handler::Workshop;
use crate::status::Part;
use crate::workdir::Workdir;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Starts are allowed again when so much more than the limit is free, as a share of it.
const MARGIN: f64 = 0.25;
/// On a small disk the limit is this share of it.
const DISK_SHARE: u64 = 20;

/// Looks once a second, for ever.
pub(super) struct Watch {
    ledger: Ledger,
    settings: Live,
    shop: Arc<Workshop>,
    workdir: Workdir,
    part: Part,
    ready: watch::Receiver<u64>,
    known: Option<Known>,
}

/// What the ledger says, as long as it does not change.
#[derive(Clone)]
struct Known {
    held: Vec<Hold>,
    handlers: Vec<String>,
}

impl Watch {
    /// Takes the first look: nothing starts before it.
    pub(super) async fn start(
        ledger: Ledger,
        settings: Live,
        shop: Arc<Workshop>,
        workdir: Workdir,
        part: Part,
    ) -> Result<Self, LedgerError> {
        let ready = ledger.ready();
        let mut watch = Self { ledger, settings, shop, workdir, part, ready, known: None };
        watch.look().await?;
        Ok(watch)
    }

    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut settings = self.settings.clone();
        self.part.phase("waiting for the next look");
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = settings.changed() => {}
            }
            self.look().await?;
        }
    }

    /// New holds and new handlers come with a change that may make jobs ready.
    async fn known(&mut self) -> Result<Known, LedgerError> {
        if let Some(known) = &self.known
            && !self.ready.has_changed().unwrap_or(true)
        {
            return Ok(known.clone());
        }
        self.ready.mark_unchanged();
        let ours = |hold: &Hold| {
            matches!(hold.reason, HoldReason::LowMemory | HoldReason::LowDisk | HoldReason::Missing)
        };
        let held = self.ledger.holds().await?.into_iter().filter(ours).collect();
        let known = Known { held, handlers: self.ledger.handlers_in_use().await? };
        self.known = Some(known.clone());
        Ok(known)
    }

    async fn look(&mut self) -> Result<(), LedgerError> {
        let Known { held, handlers } = self.known().await?;
        let config = self.settings.config();
        let mut handlers: BTreeSet<String> = handlers.into_iter().collect();
        handlers.extend(config.handlers_named().map(str::to_owned));
        let (limits, shop) = (config.admission.clone(), self.shop.clone());
        let (root, was_low) =
            (self.workdir.root().to_owned(), held.iter().any(|hold| hold.reason == HoldReason::LowMemory));
        let looked = tokio::task::spawn_blocking(move || {
            let machine = [low_memory(&limits, was_low), low_disk(&limits, &root)];
            let missing = handlers.iter().filter_map(|handler| missing(&shop, handler));
            machine.into_iter().flatten().chain(missing).collect::<Vec<Hold>>()
        });
        // A look that panicked found nothing; the next one is due in a second.
        let Ok(wanted) = looked.await else { return Ok(()) };
        self.show(&wanted);
        for hold in &wanted {
            if !held.iter().any(|held| is_same(held, hold)) {
                tracing::warn!(kind = %hold.kind, name = hold.name, why = hold.note, "new starts are held");
                self.ledger.hold(hold.clone()).await?;
            }
        }
        for held in &held {
            if !wanted.iter().any(|hold| is_same(held, hold)) {
                tracing::info!(kind = %held.kind, name = held.name, why = %held.reason, "new starts go on");
                self.ledger.lift(held.kind, held.name.clone(), held.reason).await?;
            }
        }
        Ok(())
    }

    fn show(&self, wanted: &[Hold]) {
        match wanted.first() {
            Some(hold) => self.part.degraded(format!("new starts are held: {}", hold.note)),
            None => self.part.recovered(),
        }
        self.part.round_done();
    }
}

fn is_same(one: &Hold, other: &Hold) -> bool {
    (one.kind, &one.name, one.reason) == (other.kind, &other.name, other.reason)
}

fn hold(kind: HoldKind, name: &str, reason: HoldReason, note: String) -> Hold {
    Hold { kind, name: name.to_owned(), reason, since: Millis::now(), until: None, note }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of memory, to within a few"
)]
fn low_memory(limits: &Admission, was_low: bool) -> Option<Hold> {
    let limit = limits.min_free_memory;
    let wanted = if was_low { (limit as f64 * (1.0 + MARGIN)) as u64 } else { limit };
    let free = available_memory()?;
    (free < wanted).then(|| {
        let note = format!(
            "{} MB of memory are available, `admission.min_free_memory` is {} MB",
            free / 1_000_000,
            limit / 1_000_000
        );
        hold(HoldKind::All, "", HoldReason::LowMemory, note)
    })
}

/// `MemAvailable`: what can be had without swapping, as the kernel estimates it.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn low_disk(limits: &Admission, root: &Path) -> Option<Hold> {
    let space = statvfs(root).ok()?;
    let free = space.blocks_available() * space.fragment_size();
    let limit = limits.min_free_disk.unwrap_or_else(|| {
        let all = space.blocks() * space.fragment_size();
        DEFAULT_FREE_DISK.min(all / DISK_SHARE)
    });
    (free < limit).then(|| {
        let note = format!(
            "{} kB are free on the disk, `admission.min_free_disk` asks for {} kB",
            free / 1000,
            limit / 1000
        );
        hold(HoldKind::All, "", HoldReason::LowDisk, note)
    })
}

/// The limit on a disk of a usual size, in bytes.
const DEFAULT_FREE_DISK: u64 = 64 << 20;

fn missing(shop: &Workshop, handler: &str) -> Option<Hold> {
    let why = shop.what_is_missing(handler)?;
    Some(hold(HoldKind::Handler, handler, HoldReason::Missing, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_go_on_only_a_quarter_above_the_limit() {
        // What is free changes by a little while this runs; a tenth is more.
        let limits = Admission { min_free_memory: available_memory().unwrap() / 10 * 9, min_free_disk: None };
        assert!(low_memory(&limits, false).is_none(), "above the limit");
        assert!(low_memory(&limits, true).is_some(), "above the limit, but not by a quarter");
        let limits = Admission { min_free_memory: limits.min_free_memory / 2, ..limits };
        assert!(low_memory(&limits, true).is_none(), "well above the limit");
    }
}
