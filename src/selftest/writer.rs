//! The hidden command that writes entries as other people's programs do, each in its own careless way.
//!
//! Writers wait for each other's turn by a lock that the worker does not know of, because two of them at once would
//! destroy each other's entries; against the worker they have no protection. A writer ends when it is told to, and when
//! whoever started it is gone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use super::order::Order;
use super::place::{Place, QUEUES, publish};
use super::random::Random;
use super::side_log::Log;
use crate::runner::launch::{Launch, ToolEnd};
use crate::words::words;

/// How long `stallproof add` may take.
const ADD_LIMIT: Duration = Duration::from_secs(30);
/// How often a refused one is tried.
const ADD_TRIES: u32 = 30;
/// Between two looks at whether to go on.
const LOOK: Duration = Duration::from_millis(20);

words! {
    /// How a writer writes.
    Manner {
        /// Reads the queue file, writes a new one, renames it over the old one.
        Rename = "rename",
        /// Truncates the queue file and writes it again, in place.
        InPlace = "in_place",
        /// Takes `flock` on the queue file and cuts its entry in before the last bracket.
        Flock = "flock",
        /// Puts a file into the drop folder, half of the time slowly and in place.
        Drop = "drop",
        /// Runs `stallproof add`.
        Add = "add",
    }
}

impl Manner {
    /// Whether a kill at any moment destroys nothing that somebody else wrote.
    #[must_use]
    pub fn may_be_killed(self) -> bool {
        matches!(self, Self::Rename | Self::Add)
    }

    /// Most milliseconds between two entries.
    fn pause_ms(self) -> u64 {
        match self {
            Self::Rename => 250,
            Self::InPlace | Self::Flock | Self::Drop => 350,
            Self::Add => 600,
        }
    }
}

/// The arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub struct WriterArgs {
    /// How to write
    #[arg(long)]
    manner: Manner,
    /// What its entries' ids begin with
    #[arg(long)]
    name: String,
    /// Seed of what it writes
    #[arg(long)]
    seed: u64,
    /// The scratch folder
    #[arg(long)]
    root: PathBuf,
}

/// Writes until it is told to end.
#[must_use]
pub fn run(args: &WriterArgs) -> ExitCode {
    let parent = parent_id();
    match write_on(args, parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let _ = writeln!(io::stderr(), "selftest writer {}: {err}", args.name);
            ExitCode::FAILURE
        }
    }
}

fn write_on(args: &WriterArgs, parent: u32) -> io::Result<()> {
    let place = Place::open(&args.root)?;
    let mut writer = Writer::open(args, &place)?;
    for n in 0_u64.. {
        if !wait(&place, parent, writer.random.below(args.manner.pause_ms())) {
            break;
        }
        writer.one(&format!("{}-{n}", args.name))?;
    }
    Ok(())
}

/// Waits for `ms` and while there is a pause; whether to go on.
fn wait(place: &Place, parent: u32, ms: u64) -> bool {
    std::thread::sleep(Duration::from_millis(ms));
    loop {
        if place.stop().exists() || parent_id() != parent {
            return false;
        }
        if !place.pause().exists() {
            return true;
        }
        std::thread::sleep(LOOK);
    }
}

struct Writer<'a> {
    place: &'a Place,
    manner: Manner,
    random: Random,
    log: Log,
    program: PathBuf,
}

impl<'a> Writer<'a> {
    fn open(args: &WriterArgs, place: &'a Place) -> io::Result<Self> {
        Ok(Self {
            place,
            manner: args.manner,
            random: Random::named(args.seed, &args.name),
            log: Log::open(&place.writer_log())?,
            program: std::env::current_exe()?,
        })
    }

    fn one(&mut self, id: &str) -> io::Result<()> {
        let order = Order::random(id.to_owned(), &mut self.random);
        self.log.append(&order.line(false))?;
        let entry = order.entry(&self.program, self.place);
        let queue = QUEUES[usize::from(self.random.chance(30))];
        let file = self.place.queue(queue);
        match self.manner {
            Manner::Rename => in_turn(self.place, queue, || by_rename(&file, &entry))?,
            Manner::InPlace => in_turn(self.place, queue, || in_place(&file, &entry))?,
            Manner::Flock => in_turn(self.place, queue, || under_flock(&file, &entry))?,
            Manner::Drop => dropped(self.place, id, &entry, &mut self.random)?,
            Manner::Add => self.added(&entry)?,
        }
        self.log.append(&order.line(true))
    }

    /// `stallproof add` says so when the ledger is locked, as by a worker that is frozen; then its user tries again.
    fn added(&self, entry: &Value) -> io::Result<()> {
        let output = OpenOptions::new().create(true).append(true).open(self.place.output())?;
        let dir = self.place.workdir().root().to_string_lossy().into_owned();
        let program = self.program.to_string_lossy().into_owned();
        let command = [program, "--dir".to_owned(), dir, "add".to_owned(), "-".to_owned()];
        let launch = Launch { command: &command, cwd: self.place.root(), output: &output };
        let mut last = None;
        for _ in 0..ADD_TRIES {
            match launch.run(entry.to_string().as_bytes(), ADD_LIMIT)? {
                ToolEnd::Exited(status) if status.success() => return Ok(()),
                end => last = Some(end),
            }
            std::thread::sleep(LOOK * 10);
        }
        let output = self.place.output();
        Err(io::Error::other(format!("`stallproof add` ended with {last:?}; see {}", output.display())))
    }
}

/// Does something to a queue file while no other writer does.
///
/// # Errors
/// Those of `write`, and when the lock cannot be had.
pub fn in_turn<T>(place: &Place, queue: &str, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let file = OpenOptions::new().create(true).append(true).open(place.turn(queue))?;
    let _turn = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    write()
}

/// The text of a queue file with one more entry.
fn with_entry(text: &str, entry: &Value) -> io::Result<String> {
    let mut entries: Vec<Value> = serde_json::from_str(text)?;
    entries.push(entry.clone());
    Ok(serde_json::to_string_pretty(&entries)? + "\n")
}

fn by_rename(file: &Path, entry: &Value) -> io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    publish(file, with_entry(&text, entry)?.as_bytes())
}

fn in_place(path: &Path, entry: &Value) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let text = with_entry(&text, entry)?;
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())
}

fn under_flock(path: &Path, entry: &Value) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the queue file is no array");
    let kept = text.trim_end().strip_suffix(']').ok_or_else(bad)?.trim_end();
    let comma = if kept.ends_with('[') { "" } else { "," };
    file.set_len(kept.len() as u64)?;
    file.seek(SeekFrom::End(0))?;
    write!(file, "{comma}\n  {entry}\n]\n")
}

/// Puts an entry into the drop folder: whole, or in two halves with a pause between.
///
/// # Errors
/// When it cannot be written.
pub fn dropped(place: &Place, id: &str, entry: &Value, random: &mut Random) -> io::Result<()> {
    let path = place.drop_folder().join(format!("{id}.json"));
    let text = entry.to_string();
    if random.chance(50) {
        return publish(&path, text.as_bytes());
    }
    let (head, tail) = text.split_at(text.len() / 2);
    let mut file = File::create_new(&path)?;
    file.write_all(head.as_bytes())?;
    std::thread::sleep(Duration::from_millis(random.below(150)));
    file.write_all(tail.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_manner_of_writing_keeps_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("queue.json");
        publish(&file, b"[]").unwrap();
        for (n, write) in [by_rename, in_place, under_flock, under_flock, in_place].iter().enumerate() {
            write(&file, &json!({"id": n})).unwrap();
        }
        let entries: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(entries, (0..5).map(|n| json!({"id": n})).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_dropped_arrives_whole_in_both_manners() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        place.prepare().unwrap();
        let mut random = Random::new(1);
        for n in 0..8 {
            dropped(&place, &format!("d{n}"), &json!({"id": n}), &mut random).unwrap();
            let text = std::fs::read_to_string(place.drop_folder().join(format!("d{n}.json"))).unwrap();
            assert_eq!(text, format!("{{\"id\":{n}}}"));
        }
    }
}
