//! A log file a day, `NAME.log.<date>`, appended, with the oldest removed.
//!
//! The names can be guessed, so whatever stands there is looked at first: a link is not followed, a FIFO not waited
//! for, and only a regular file is written to. What cannot be written is dropped, and tried again with the next
//! record: a log must never stop the work.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use nix::libc;

/// The log of the current day, in UTC.
#[derive(Debug)]
pub(super) struct Daily {
    folder: PathBuf,
    prefix: String,
    /// Files that stay.
    kept: usize,
    open: Option<(Date, File)>,
}

impl Daily {
    /// In `folder`, for the program called `name`. Opens the file of today.
    pub(super) fn new(folder: &Path, name: &str, kept: usize) -> io::Result<Self> {
        let (folder, prefix) = (folder.to_owned(), format!("{name}.log."));
        let mut daily = Self { folder, prefix, kept, open: None };
        daily.file()?;
        Ok(daily)
    }

    fn file(&mut self) -> io::Result<&mut File> {
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        if self.open.as_ref().is_none_or(|(date, _)| *date != today) {
            let file = open(&self.folder.join(format!("{}{today}", self.prefix)))?;
            self.open = Some((today, file));
            self.remove_oldest();
        }
        self.open.as_mut().map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_oldest(&self) {
        let Ok(listing) = std::fs::read_dir(&self.folder) else { return };
        let names = listing.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| day_of(name, &self.prefix).is_some()).collect();
        names.sort_unstable();
        let surplus = names.len().saturating_sub(self.kept);
        for name in &names[..surplus] {
            // One that cannot be removed is tried again tomorrow.
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }
}

/// The day of a log file of ours.
fn day_of(name: &str, prefix: &str) -> Option<Date> {
    name.strip_prefix(prefix).filter(|date| date.len() == 10)?.parse().ok()
}

/// Removes the files of the program called `name` that are of days before `oldest`.
pub(super) fn remove_before(folder: &Path, name: &str, oldest: Date) -> io::Result<()> {
    let prefix = format!("{name}.log.");
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.to_str().and_then(|name| day_of(name, &prefix)).is_some_and(|day| day < oldest) {
            std::fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

impl Write for Daily {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.file()?.write(record)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open.as_mut().map_or(Ok(()), |(_, file)| file.flush())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let explain = |err: io::Error| {
        let what = match err.raw_os_error() {
            Some(libc::ELOOP) => "it is a symbolic link".to_owned(),
            Some(libc::ENXIO) => "it is a FIFO".to_owned(),
            _ => err.to_string(),
        };
        io::Error::new(err.kind(), format!("cannot log to `{}`: {what}; take it away", path.display()))
    };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)
        .map_err(explain)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(explain(io::Error::other("it is not a regular file")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn records_are_appended_and_old_days_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["w.log.2020-01-01", "w.log.2020-01-02", "w.log.notes", "v.log.2020-01-01"] {
            write(&dir.path().join(name), "old\n");
        }
        for _ in 0..2 {
            Daily::new(dir.path(), "w", 2).unwrap().write_all(b"line\n").unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[..2], ["v.log.2020-01-01", "w.log.2020-01-02"]);
        assert_eq!(std::fs::read_to_string(dir.path().join(&names[2])).unwrap(), "line\nline\n");
    }

    #[test]
    fn files_of_days_before_another_go() {
        let dir = tempfile::tempdir().unwrap();
        let kept = ["v.log.2020-01-01", "w.log.2020-01-03", "w.log.2020-01-03.bak", "w.log.notes"];
        for name in kept.iter().chain(&["w.log.2019-12-31", "w.log.2020-01-02"]) {
            write(&dir.path().join(name), "old\n");
        }
        remove_before(dir.path(), "w", "2020-01-03".parse().unwrap()).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, kept);
    }
}
