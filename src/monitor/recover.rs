//! `--recover`: acts on exactly what a diagnosis reports, one action per remedy, each of them logged and told.
//!
//! A restart is not made on the word of one look: the worker is watched for three more heartbeats first, and is left
//! alone when it moves. Only processes the lock or an attempt's token names are ended, only broken queue files that
//! stand still are touched, and nothing is ever reset to empty.

use std::path::Path;
use std::time::{Duration, Instant};

use super::checks::{self, Depth};
use super::look;
use super::report::{Finding, Remedy, Report};
use super::restart::Restarter;
use super::salvage;
use super::scene::{Scene, error_chain};
use super::verdict::Seen;
use crate::lock::{DirLock, Holder};
use crate::runner::process::{ProcessId, end_all};
use crate::status::HEARTBEAT;

/// How long orphans may take to die.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);

/// What became of one finding.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Action {
    /// The check that complained.
    pub check: &'static str,
    /// What it said.
    pub finding: String,
    /// The remedy.
    pub remedy: &'static str,
    /// What was done; in a dry run, what would be.
    pub result: String,
    /// Whether it is mended.
    pub done: bool,
}

/// Diagnoses and mends what can be mended; with `dry_run` only says what would be done.
///
/// # Errors
/// When the state folder cannot be used.
pub fn recover(scene: &Scene, dry_run: bool) -> Result<(Report, Vec<Action>), crate::workdir::WorkdirError> {
    let report = checks::diagnose(scene, Depth::Full);
    let actions = act(scene, &report, dry_run)?;
    Ok((report, actions))
}

/// One action per remedy of the report.
fn act(scene: &Scene, report: &Report, dry_run: bool) -> Result<Vec<Action>, crate::workdir::WorkdirError> {
    let bad = report.findings.iter().filter_map(|finding| Some((finding, finding.remedy.as_ref()?)));
    let mut plan: Vec<(&Finding, &Remedy)> = Vec::new();
    for (finding, remedy) in bad {
        // Several findings may ask for the same: a stale status and a stopped process are one restart.
        let again = plan.iter().any(|(_, planned)| *planned == remedy && *remedy != Remedy::ByHand);
        if !again {
            plan.push((finding, remedy));
        }
    }
    // Queue files and orphans come before a worker that would meet them.
    plan.sort_by_key(|(_, remedy)| matches!(remedy, Remedy::RestartWorker | Remedy::StartWorker));
    if !dry_run && plan.iter().any(|(_, remedy)| **remedy != Remedy::ByHand) {
        scene.workdir.prepare()?;
    }
    let actions = plan.into_iter().map(|(finding, remedy)| {
        let outcome = if dry_run { Ok(intention(remedy)) } else { carry_out(scene, remedy) };
        let done = !dry_run && outcome.is_ok() && *remedy != Remedy::ByHand;
        let result = outcome.unwrap_or_else(|why| format!("not done: {why}"));
        if !dry_run && *remedy != Remedy::ByHand {
            tracing::warn!(check = finding.check, remedy = remedy.as_str(), result, done, "recover acts");
        }
        Action {
            check: finding.check,
            finding: finding.summary.clone(),
            remedy: remedy.as_str(),
            result,
            done,
        }
    });
    Ok(actions.collect())
}

fn intention(remedy: &Remedy) -> String {
    match remedy {
        Remedy::RestartWorker => "would end the worker and start one; its jobs go on".to_owned(),
        Remedy::StartWorker => "would start a worker".to_owned(),
        Remedy::EndOrphans(orphans) => format!("would end {} processes: {}", orphans.len(), pids(orphans)),
        Remedy::Salvage(path) => format!("would keep the whole entries of `{}`", path.display()),
        Remedy::ClearLeftovers(paths) => format!("would remove {} files", paths.len()),
        Remedy::ByHand => "nothing: this is for a person".to_owned(),
    }
}

fn carry_out(scene: &Scene, remedy: &Remedy) -> Result<String, String> {
    match remedy {
        Remedy::RestartWorker => restart(scene),
        Remedy::StartWorker => start(scene, None),
        Remedy::EndOrphans(_) => end_orphans(scene),
        Remedy::Salvage(path) => {
            let salvaged = salvage::salvage(&scene.workdir, path).map_err(|err| error_chain(&err))?;
            Ok(format!(
                "kept {} whole entries; {} bytes were no part of one; the original is {}",
                salvaged.kept,
                salvaged.left_out,
                salvaged.original.display()
            ))
        }
        Remedy::ClearLeftovers(paths) => clear(scene, paths),
        Remedy::ByHand => Ok("for a person".to_owned()),
    }
}

/// Ends all orphans there are now, found anew: those of the diagnosis may have got an owner since.
///
/// # Errors
/// Says what could not be found out, or who is left.
pub fn end_orphans(scene: &Scene) -> Result<String, String> {
    let before = checks::find_orphans(scene)?;
    let find = || {
        let orphans = checks::find_orphans(scene).map_err(std::io::Error::other)?;
        Ok(orphans.into_iter().map(|orphan| orphan.process).collect())
    };
    let left = end_all(find, Instant::now() + ORPHAN_LIMIT).map_err(|err| err.to_string())?;
    if left.is_empty() {
        return Ok(format!("ended {} processes", before.len()));
    }
    Err(format!("these do not end: {}", pids(&left)))
}

fn restart(scene: &Scene) -> Result<String, String> {
    let first = look::take(scene);
    let Seen::Alive { id, beat } = first.seen else { return start(scene, None) };
    if beat.is_some() && !is_stopped(&id) && moves(scene, &id) {
        return Err("the worker moves; look again with --diagnose, or let --monitor decide".to_owned());
    }
    let mut restarter = Restarter::new(scene).map_err(|err| err.to_string())?;
    let ended = restarter.end(&id).map_err(|err| error_chain(&err))?;
    let started = start(scene, Some(&id))?;
    Ok(format!("{ended}; {started}"))
}

fn is_stopped(id: &ProcessId) -> bool {
    matches!(id.state(), Ok(Some('T' | 't')))
}

/// Whether the worker shows any progress of its work over a few heartbeats.
fn moves(scene: &Scene, id: &ProcessId) -> bool {
    let progress = |seen: &Seen| match seen {
        Seen::Alive { id: now, beat: Some(beat) } if now == id => Some(beat.last_progress_ms),
        _ => None,
    };
    let before = look::take(scene);
    let until = Instant::now() + 4 * HEARTBEAT;
    while Instant::now() < until {
        std::thread::sleep(HEARTBEAT);
        let now = look::take(scene);
        if progress(&now.seen) != progress(&before.seen) {
            return true;
        }
        let (Seen::Alive { beat: Some(new), .. }, Seen::Alive { beat: Some(old), .. }) =
            (&now.seen, &before.seen)
        else {
            continue;
        };
        let stuck =
            |name: &String| new.parts[name].counter == old.parts.get(name).map_or(0, |part| part.counter);
        let all_turn = !new.parts.iter().any(|(name, part)| part.critical && stuck(name));
        if new.seq != old.seq && all_turn && new.startable != Some(true) {
            return true;
        }
    }
    false
}

fn start(scene: &Scene, old: Option<&ProcessId>) -> Result<String, String> {
    if let Ok(Holder::Somebody(Some(id))) = scene.holder()
        && Some(&id) != old
    {
        return Ok(format!("pid {} holds the directory by now; somebody else has started it", id.pid));
    }
    let mut restarter = Restarter::new(scene).map_err(|err| err.to_string())?;
    let new = restarter.start(old).map_err(|err| error_chain(&err))?;
    Ok(format!("started a worker: pid {} is ready and works", new.pid))
}

/// Removes left-over files, each only while its writer is provably not there.
fn clear(scene: &Scene, paths: &[std::path::PathBuf]) -> Result<String, String> {
    let mut removed = 0;
    for path in paths {
        let is_of_monitor = path.ends_with(super::memory::TEMPORARY_NAME);
        let lock = if is_of_monitor { scene.workdir.monitor_lock() } else { scene.workdir.worker_lock() };
        // Held while the file goes, so that no writer can begin in between.
        let _held = DirLock::acquire(&lock).map_err(|err| error_chain(&err))?;
        remove(path)?;
        removed += 1;
    }
    Ok(format!("removed {removed} files"))
}

fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {err}", path.display()))
        }
        _ => Ok(()),
    }
}

fn pids(processes: &[ProcessId]) -> String {
    let pids: Vec<String> = processes.iter().take(20).map(|process| process.pid.to_string()).collect();
    pids.join(", ")
}

#[cfg(test)]
mod tests;
