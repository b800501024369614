//! The folders with what attempts left: what they weigh, and their removal.
//!
//! Blocks. Nothing outside the folder of all jobs is ever touched: each step goes by descriptor, and a link that was
//! planted is removed or refused, not followed.

use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::materialize::folder::Folder;

/// Jobs between two signs of life while all are weighed.
const BREATH: usize = 256;

/// Bytes on the disk of what attempts of all jobs wrote; `tick` is called now and then.
pub(super) fn weigh(jobs: &Path, tick: impl Fn()) -> io::Result<u64> {
    let mut bytes = 0;
    for (n, job) in std::fs::read_dir(jobs)?.enumerate() {
        if n % BREATH == 0 {
            tick();
        }
        let job = job?;
        // Whatever goes meanwhile weighs nothing.
        if !job.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        for attempt in std::fs::read_dir(job.path()).into_iter().flatten().flatten() {
            if attempt.file_type().is_ok_and(|kind| kind.is_dir()) {
                bytes += weight(&attempt.path());
            }
        }
    }
    Ok(bytes)
}

/// Bytes on the disk of the files below a folder; links are not followed.
fn weight(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => bytes += meta.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Removes everything of a job that has no row any more.
pub(super) fn remove_job(jobs: &Path, key: &str) -> io::Result<()> {
    Folder::open(jobs)?.remove(key)
}

/// Removes the folders of these attempts of a job; the bytes that were freed. The job's own folder stays, because a person
/// may retry the job at any moment.
pub(super) fn remove_attempts(jobs: &Path, key: &str, attempts: &RangeInclusive<u32>) -> io::Result<u64> {
    let job = match Folder::open(jobs)?.open_inside(key) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut bytes = 0;
    for name in job.names()? {
        // Only as we spell it.
        let number = name.parse::<u32>().ok().filter(|number| number.to_string() == name);
        if number.is_some_and(|number| attempts.contains(&number)) {
            bytes += weight(&jobs.join(key).join(&name));
            job.remove(&name)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_the_attempts_that_are_meant_go_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (jobs, precious) = (dir.path().join("jobs"), dir.path().join("precious"));
        for folder in ["a/1", "a/2/deep", "a/3", "a/01"] {
            fs::create_dir_all(jobs.join(folder)).unwrap();
        }
        fs::create_dir_all(precious.join("1")).unwrap();
        fs::copy("/proc/self/exe", jobs.join("a/2/deep/stdout.log")).unwrap();
        std::os::unix::fs::symlink(&precious, jobs.join("a/1/out")).unwrap();
        std::os::unix::fs::symlink(&precious, jobs.join("link")).unwrap();
        let before = weigh(&jobs, || {}).unwrap();
        assert!(before > 100_000, "{before}");
        assert_eq!(remove_attempts(&jobs, "a", &(1..=2)).unwrap(), before);
        assert_eq!(names(&jobs.join("a")), ["01", "3"]);
        assert_eq!(remove_attempts(&jobs, "gone", &(1..=2)).unwrap(), 0);
        assert!(remove_attempts(&jobs, "link", &(1..=2)).is_err(), "the job's folder is a link");
        remove_job(&jobs, "link").unwrap();
        remove_job(&jobs, "a").unwrap();
        remove_job(&jobs, "a").unwrap();
        assert_eq!(names(&jobs), [""; 0]);
        assert_eq!(names(&precious), ["1"], "what a link leads to stays");
    }
}
