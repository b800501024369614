//! How many lived at once in a lane, and of a concurrency key.

use std::collections::{BTreeMap, BTreeSet};

use super::{History, Violation};
use crate::selftest::side_log::What;

pub(super) fn check(history: &History<'_>, found: &mut BTreeSet<Violation>) {
    let mut last = BTreeMap::new();
    for (at, line) in history.side.iter().enumerate().filter(|(_, line)| line.what != What::Left) {
        last.insert((line.id.as_str(), line.attempt), at);
    }
    let groups = Groups::of(history);
    let mut live: BTreeMap<&str, usize> = BTreeMap::new();
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    let mut started = BTreeSet::new();
    for (at, line) in history.side.iter().enumerate().filter(|(_, line)| line.what != What::Left) {
        let attempt = (line.id.as_str(), line.attempt);
        for group in groups.with(&line.id) {
            let n = live.entry(group).or_default();
            if !started.contains(&attempt) {
                *n += 1;
                let most = most.entry(group).or_default();
                *most = (*most).max(*n);
            }
            if last.get(&attempt) == Some(&at) {
                *n -= 1;
            }
        }
        started.insert(attempt);
    }
    for (name, seen) in most {
        if let Some(limit) = groups.limit(name).filter(|limit| seen > *limit) {
            found.insert(Violation::Exceeded { name: name.to_owned(), limit, seen });
        }
    }
}

/// Which limits an entry counts against: `lane NAME`, `key NAME`.
struct Groups {
    of_job: BTreeMap<String, Vec<String>>,
    limits: BTreeMap<String, usize>,
}

impl Groups {
    fn of(history: &History<'_>) -> Self {
        let mut limits: BTreeMap<String, usize> =
            history.limits.lanes.iter().map(|(lane, limit)| (format!("lane {lane}"), *limit)).collect();
        let mut of_job = BTreeMap::new();
        for line in history.written {
            let mut groups: Vec<String> = line.lane.iter().map(|lane| format!("lane {lane}")).collect();
            if let (Some(key), Some(limit)) = (&line.key, history.limits.per_key) {
                groups.push(format!("key {key}"));
                limits.insert(format!("key {key}"), limit);
            }
            of_job.insert(line.id.clone(), groups);
        }
        Self { of_job, limits }
    }

    fn with(&self, id: &str) -> impl Iterator<Item = &str> {
        self.of_job.get(id).into_iter().flatten().map(String::as_str)
    }

    fn limit(&self, group: &str) -> Option<usize> {
        self.limits.get(group).copied()
    }
}
