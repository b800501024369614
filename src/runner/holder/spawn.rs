//! Starts the command of an attempt: folder, stdin, pipes, one `posix_spawn`.
//!
//! `posix_spawn` itself rather than `std::process::Command`, which takes the same road but passes the holder's
//! blocked signals on to the command. The program's file is named whole, so nothing is searched, and neither
//! shell nor `PATH` is involved.

use std::ffi::{CString, NulError, OsStr};
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, chdir, fchdir, pipe2};
use thiserror::Error;

use crate::runner::protocol::Request;

/// Why a command could not be started.
#[derive(Debug, Error)]
pub(super) enum SpawnError {
    #[error("cannot use the working directory `{}`: {source}", path.display())]
    Cwd { path: PathBuf, source: io::Error },
    #[error("cannot prepare {what} for `{}`: {source}", program.display())]
    Plumbing { program: PathBuf, what: &'static str, source: io::Error },
    #[error("cannot start `{}`: {what}", program.display())]
    Refused { program: PathBuf, what: &'static str },
    #[error("cannot start `{}`: {}{}", program.display(), errno.desc(), hint(*errno))]
    Start { program: PathBuf, errno: Errno },
}

impl SpawnError {
    /// The error number behind it.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Cwd { source, .. } | Self::Plumbing { source, .. } => source.raw_os_error(),
            Self::Refused { .. } => Some(Errno::EINVAL as i32),
            Self::Start { errno, .. } => Some(*errno as i32),
        }
    }
}

/// What to do about it, where the error number alone is known to mislead.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "; the file, or the interpreter its first line names, is missing",
        Errno::EACCES => "; it is not executable for this user",
        Errno::ENOEXEC => "; it is neither a program for this machine nor a script with a `#!` line",
        Errno::E2BIG => "; arguments and environment are too long, pass long text by stdin or file",
        Errno::EAGAIN | Errno::ENOMEM => "; a limit on processes or memory is reached, try again later",
        _ => "",
    }
}

/// A command that runs, and the ends of its output pipes that we read, both non-blocking.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) leader: Pid,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Starts commands; holds what is the same for each.
#[derive(Debug)]
pub(super) struct Launcher {
    attributes: PosixSpawnAttr,
    dev_null: File,
}

impl Launcher {
    pub(super) fn new() -> io::Result<Self> {
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
        )?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::all())?;
        Ok(Self { attributes, dev_null: File::open("/dev/null")? })
    }

    /// Starts the command of `request` in a process group of its own.
    pub(super) fn start(&self, request: &Request) -> Result<Started, SpawnError> {
        enter_cwd(request)?;
        let plumbing = |what| {
            move |source: io::Error| SpawnError::Plumbing { program: request.program.clone(), what, source }
        };
        let stdin = stdin_file(&request.stdin).map_err(plumbing("stdin"))?;
        let (stdout, child_stdout) = output_pipe().map_err(plumbing("stdout"))?;
        let (stderr, child_stderr) = output_pipe().map_err(plumbing("stderr"))?;
        let child_stdin = stdin.as_ref().unwrap_or(&self.dev_null).as_raw_fd();
        let actions = redirect([child_stdin, child_stdout.as_raw_fd(), child_stderr.as_raw_fd()])
            .map_err(|errno| plumbing("redirections")(errno.into()))?;
        let leader = self.spawn(request, &actions)?;
        Ok(Started { leader, stdout, stderr })
    }

    fn spawn(&self, request: &Request, actions: &PosixSpawnFileActions) -> Result<Pid, SpawnError> {
        let refused = |what| SpawnError::Refused { program: request.program.clone(), what };
        if !request.program.is_absolute() {
            return Err(refused("the program is not an absolute path"));
        }
        let arguments = std::iter::once(request.arg0.as_os_str())
            .chain(request.args.iter().map(AsRef::as_ref))
            .map(c_string)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| refused("an argument contains a NUL byte"))?;
        let environment = request
            .env
            .iter()
            .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| refused("an environment variable contains a NUL byte"))?;
        posix_spawn(request.program.as_path(), actions, &self.attributes, &arguments, &environment)
            .map_err(|errno| SpawnError::Start { program: request.program.clone(), errno })
    }
}

/// Makes the command's folder ours, for it to inherit. Everything of the holder's own is named by absolute paths.
fn enter_cwd(request: &Request) -> Result<(), SpawnError> {
    let path = request.cwd.as_path();
    let entered = match (path.parent(), path.file_name()) {
        (Some(outputs), Some(name)) if path.is_absolute() && request.create_cwd => {
            create_and_enter(outputs, name)
        }
        _ if path.is_absolute() => chdir(path).map_err(io::Error::from),
        _ => Err(io::Error::from(Errno::EINVAL)),
    };
    entered.map_err(|source| SpawnError::Cwd { path: path.to_owned(), source })
}

/// Enters `outputs/name`, both created when missing. A link in the place of either, which anybody could have put there
/// since the names can be guessed, is not followed.
fn create_and_enter(outputs: &Path, name: &OsStr) -> io::Result<()> {
    const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
    let real = |errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP => {
            io::Error::other("it, or the folder it stands in, is a link or a file; take that away")
        }
        errno => errno.into(),
    };
    create_folder(outputs, 0o755).or_else(already_there)?;
    let outputs = open(outputs, FOLDER, Mode::empty()).map_err(real)?;
    match mkdirat(&outputs, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let folder = openat(&outputs, name, FOLDER, Mode::empty()).map_err(real)?;
    Ok(fchdir(&folder)?)
}

/// Creates a folder, and the ones above it when they are missing. Fails with `AlreadyExists` as mkdir does.
pub(super) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(mode);
    match (builder.create(path), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
            create_folder(parent, mode).or_else(already_there)?;
            builder.create(path)
        }
        (done, _) => done,
    }
}

fn already_there(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

/// `content` as a file nobody can change, read from its start: no one has to feed a pipe. `None` when it is empty.
fn stdin_file(content: &[u8]) -> io::Result<Option<File>> {
    if content.is_empty() {
        return Ok(None);
    }
    let file =
        File::from(memfd_create(c"stallproof-stdin", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    // At an offset, so that the file's own position stays at the start.
    file.write_all_at(content, 0)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(Some(file))
}

/// A pipe whose reading end, ours, never blocks; the writing end is an ordinary one.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reading, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reading, writing))
}

fn redirect(descriptors: [i32; 3]) -> nix::Result<PosixSpawnFileActions> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (descriptor, target) in descriptors.into_iter().zip(0..) {
        actions.add_dup2(descriptor, target)?;
    }
    Ok(actions)
}

fn c_string(text: &OsStr) -> Result<CString, NulError> {
    CString::new(text.as_bytes())
}
