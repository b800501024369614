//! The hidden folder a project is built in, and the ways out of it: published, rejected, or removed.
//!
//! Owns everything that happens to names in the outputs folder. A killed attempt leaves at most one hidden folder,
//! named after its job so that the job's next attempt can take it away; no other job touches it.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::error::Failure;
use super::folder::Folder;
use super::project::{METADATA_FILE, owner_of};

/// Largest metadata file that is read to learn whose a folder is, in bytes.
const MAX_METADATA_BYTES: u64 = 1 << 20;
/// Tries for a free name.
const MAX_NAMES: u32 = 100;

/// A project that is being built. Dropped before it was published or rejected, it disappears.
pub(super) struct Staging {
    outputs: Folder,
    outputs_path: PathBuf,
    folder: Folder,
    name: String,
    /// `name` still is a folder that has to be removed.
    pending: bool,
}

/// Whose project is being built, and which time round.
pub(super) struct Owner<'a> {
    pub job_id: &'a str,
    pub job_key: &'a str,
    pub attempt: u32,
}

impl Staging {
    /// Starts a project in `outputs_path`, which is created if need be; removes what earlier attempts left.
    pub(super) fn create(outputs_path: &Path, owner: &Owner) -> Result<Self, Failure> {
        let failed = |action| failed(action, outputs_path);
        let outputs = Folder::open_or_create(outputs_path).map_err(failed("open the outputs folder"))?;
        sweep(&outputs, owner.job_key).map_err(failed("remove the leftovers of earlier attempts in"))?;
        for number in 0..MAX_NAMES {
            let prefix = prefix(owner.job_key);
            let name = format!("{prefix}{}@{}-{number}", owner.attempt, std::process::id());
            match outputs.create_inside(&name) {
                Ok(folder) => {
                    let outputs_path = outputs_path.to_owned();
                    return Ok(Self { outputs, outputs_path, folder, name, pending: true });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("create a folder in")(error)),
            }
        }
        Err(failed("find a free name in")(Errno::EEXIST.into()))
    }

    /// Writes one file of the project.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.folder.create_file(name, bytes).map_err(failed("write", &self.path_of(name)))
    }

    /// Reads one file of the project back.
    pub(super) fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, Failure> {
        self.folder.read_file(name, max_bytes).map_err(failed("read back", &self.path_of(name)))
    }

    /// Makes the project appear as `final_name`, in one step. An earlier project of the same job is replaced;
    /// anything else that has the name stays and is an error.
    pub(super) fn publish(mut self, final_name: &str, owner: &Owner) -> Result<(), Failure> {
        let final_path = self.outputs_path.join(final_name);
        let failed = |action| failed(action, &final_path);
        self.folder.set_mode(0o755).map_err(failed("set the mode of"))?;
        self.folder.sync().map_err(failed("sync"))?;
        match self.outputs.rename(&self.name, final_name) {
            Ok(()) => self.pending = false,
            Err(error) if is_taken(&error) => self.replace(final_name, &final_path, owner)?,
            Err(error) => return Err(failed("publish")(error)),
        }
        self.outputs.sync().map_err(failed("sync the outputs folder of"))
    }

    /// Swaps the project with the earlier one of the same job; `Drop` removes what is then left under our name.
    fn replace(&mut self, final_name: &str, final_path: &Path, owner: &Owner) -> Result<(), Failure> {
        let failed = |action| failed(action, final_path);
        require_owner(&self.outputs, final_name, final_path, owner)?;
        match self.outputs.exchange(&self.name, final_name) {
            Ok(()) => {
                // Somebody may have put another folder there since we looked: then it goes back, and until it has,
                // nothing under our name may be removed.
                self.pending = false;
                let checked = require_owner(&self.outputs, &self.name, final_path, owner);
                if checked.is_err() {
                    self.outputs.exchange(&self.name, final_name).map_err(failed("put back"))?;
                }
                self.pending = true;
                checked
            }
            // No exchange on this file system: the name is free for a moment, and should we die in it, the
            // next attempt publishes again.
            Err(error) if is_unsupported(&error) => {
                let old = format!("{}-old", self.name);
                self.outputs.rename(final_name, &old).map_err(failed("move away"))?;
                if let Err(error) = self.outputs.rename(&self.name, final_name) {
                    self.outputs.rename(&old, final_name).map_err(failed("put back"))?;
                    return Err(failed("publish")(error));
                }
                self.pending = false;
                self.outputs.remove(&old).map_err(failed("remove the earlier project of"))
            }
            Err(error) => Err(failed("replace")(error)),
        }
    }

    /// Keeps the project as evidence in `evidence` (or `evidence-2`, ...) instead of publishing it.
    pub(super) fn reject(mut self, evidence: &Path) -> Result<PathBuf, Failure> {
        self.folder.sync().map_err(failed("sync", &self.outputs_path))?;
        for number in 1..=MAX_NAMES {
            let to = if number == 1 { evidence.to_owned() } else { numbered(evidence, number) };
            match self.outputs.move_out(&self.name, &to) {
                Ok(()) => {
                    self.pending = false;
                    return Ok(to);
                }
                Err(error) if is_taken(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return self.copy_to(&to),
                Err(error) => return Err(failed("keep the rejected project in", &to)(error)),
            }
        }
        Err(failed("find a free name for", evidence)(Errno::EEXIST.into()))
    }

    /// Copies the files of the project, which has no folders, to a new folder on another file system.
    fn copy_to(&self, to: &Path) -> Result<PathBuf, Failure> {
        let copy = || -> io::Result<()> {
            std::fs::create_dir(to)?;
            let target = Folder::open(to)?;
            target.set_mode(0o700)?;
            for name in self.folder.names()? {
                target.create_file(&name, &self.folder.read_file(&name, u64::MAX)?)?;
            }
            target.sync()
        };
        copy().map_err(failed("copy the rejected project to", to)).map(|()| to.to_owned())
    }

    /// Where the project stands until it is published.
    pub(super) fn path(&self) -> PathBuf {
        self.outputs_path.join(&self.name)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.pending {
            // Nothing is lost if this fails: the job's next attempt tries again.
            let _ = self.outputs.remove(&self.name);
        }
    }
}

/// Removes the hidden folders that killed attempts of the job `job_key` left in `outputs`; returns how many there
/// were. Only to be called when no attempt of that job is alive.
///
/// # Errors
/// When the folder cannot be read or a leftover cannot be removed; a missing folder is no error.
pub fn remove_leftovers(outputs: &Path, job_key: &str) -> io::Result<usize> {
    match Folder::open(outputs) {
        Ok(folder) => sweep(&folder, job_key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn sweep(outputs: &Folder, job_key: &str) -> io::Result<usize> {
    let prefix = prefix(job_key);
    let leftovers: Vec<_> = outputs.names()?.into_iter().filter(|name| name.starts_with(&prefix)).collect();
    leftovers.iter().try_for_each(|name| outputs.remove(name))?;
    Ok(leftovers.len())
}

/// What the hidden folders of a job begin with. No job key holds an `@`, so no prefix begins another.
fn prefix(job_key: &str) -> String {
    format!(".staging-{job_key}@")
}

/// Succeeds only if the folder `name` holds the metadata of this very job.
fn require_owner(outputs: &Folder, name: &str, shown: &Path, owner: &Owner) -> Result<(), Failure> {
    let refused = |reason: String| Failure::Refused { path: shown.to_owned(), reason };
    let folder =
        outputs.open_inside(name).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP | Errno::ENOTDIR) => refused("it is not a folder".to_owned()),
            _ => failed("open", shown)(error),
        })?;
    let metadata = folder.read_file(METADATA_FILE, MAX_METADATA_BYTES).ok();
    match metadata.as_deref().and_then(owner_of) {
        Some(job_id) if job_id == owner.job_id => Ok(()),
        Some(job_id) => Err(refused(format!("it belongs to job `{}`", crate::gate::printable(&job_id)))),
        None => Err(refused("it is a folder that no job of this program published".to_owned())),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR | Errno::EISDIR)
    )
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP)
    )
}

/// `path` with a number behind its last component.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-{number}"));
    PathBuf::from(name)
}

/// Turns an answer of the system into a failure; a link or file where a folder belongs is not temporary.
fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.to_owned();
    move |source| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP | Errno::ENOTDIR) => Failure::Refused {
            path: path.clone(),
            reason: format!("cannot {action} it, a link or a file stands where a folder belongs"),
        },
        _ => Failure::Io { action, path: path.clone(), source },
    }
}
