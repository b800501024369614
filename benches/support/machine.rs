//! What the figures were measured on: without it they mean nothing.

use std::fs;
use std::path::Path;

use serde::Serialize;
use stallproof::clock::Millis;

/// The machine, the build and the moment.
#[derive(Serialize)]
pub struct Machine {
    at: Millis,
    version: &'static str,
    optimised: bool,
    kernel: String,
    cpu: String,
    cpus: usize,
    memory_mib: u64,
    /// Of the scratch folders, as `/proc/mounts` names it.
    file_system: String,
    /// One-minute load when the bench began: above 0 the machine did something else as well.
    load: f64,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let load = read("/proc/loadavg");
        Self {
            at: Millis::now(),
            version: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib / 1024,
            file_system: file_system(Path::new(env!("CARGO_TARGET_TMPDIR")), &read("/proc/mounts")),
            load: load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let Self { at, version, kernel, cpu, cpus, memory_mib, file_system, load, .. } = self;
        let build = if self.optimised { "" } else { ", NOT OPTIMISED" };
        format!(
            "stallproof {version}{build}; {cpus} × {cpu}, {memory_mib} MiB, {file_system}, Linux {kernel}, load {load}, {at}"
        )
    }
}

/// Type of the file system that holds `path`: of the mounts above it, the deepest and last one.
fn file_system(path: &Path, mounts: &str) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        path.starts_with(at).then_some((at.len(), kind))
    });
    mounted.max_by_key(|&(depth, _)| depth).map_or("unknown", |(_, kind)| kind).to_owned()
}
