//! The entries of a run: what a job does, and where that has to lead.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::place::{NARROW, Place};
use super::random::Random;
use super::side_log::WriterLine;
use crate::job::State;
use crate::words::words;

words! {
    /// What a job does.
    Kind {
        /// Works for a while and ends well.
        Work = "work",
        /// Fails at its first attempt and ends well at the next.
        Flaky = "flaky",
        /// Says that it can never succeed (exit status 65).
        Hopeless = "hopeless",
        /// Prints without end, and ends well.
        Flood = "flood",
        /// Leaves a process behind in a session of its own, and ends well.
        Leaver = "leaver",
        /// Ignores TERM and works for ever; has a short time limit and one attempt.
        Deaf = "deaf",
    }
}

impl Kind {
    /// The state its job has to end in.
    #[must_use]
    pub fn ends(self) -> State {
        match self {
            Self::Hopeless | Self::Deaf => State::Failed,
            Self::Work | Self::Flaky | Self::Flood | Self::Leaver => State::Completed,
        }
    }
}

/// One entry that is going to be written.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// What its job does.
    pub kind: Kind,
    /// For how long, in milliseconds.
    pub ms: u64,
    /// Lane, if it asks for one.
    pub lane: Option<&'static str>,
    /// Concurrency key, if it has one.
    pub key: Option<String>,
}

impl Order {
    /// An everyday entry.
    #[must_use]
    pub fn random(id: String, random: &mut Random) -> Self {
        let kind = match random.below(100) {
            0..=5 => Kind::Flaky,
            6..=8 => Kind::Hopeless,
            _ => Kind::Work,
        };
        let ms = if random.chance(5) { random.between(300, 1200) } else { random.between(1, 40) };
        let lane = random.chance(10).then_some(NARROW);
        let key = random.chance(30).then(|| format!("k{}", random.below(3)));
        Self { id, kind, ms, lane, key }
    }

    /// One that does this and nothing else of note.
    #[must_use]
    pub fn plain(id: String, kind: Kind) -> Self {
        Self { id, kind, ms: 30, lane: None, key: None }
    }

    /// What the writer says of it.
    #[must_use]
    pub fn line(&self, done: bool) -> WriterLine {
        let lane = self.lane.map(str::to_owned);
        WriterLine { done, id: self.id.clone(), ends: self.kind.ends(), lane, key: self.key.clone() }
    }

    /// The entry as it goes into a queue file. `program` is `stallproof` itself.
    #[must_use]
    pub fn entry(&self, program: &Path, place: &Place) -> Value {
        let mut command = vec![program.to_string_lossy().into_owned()];
        let side: PathBuf = place.side_log();
        let ms = self.ms.to_string();
        let side = side.to_string_lossy();
        command.extend(
            ["selftest-part", "job", "--kind", self.kind.as_str(), "--ms", &ms, "--side", &side]
                .map(str::to_owned),
        );
        let mut entry = json!({ "id": self.id, "title": self.id, "command": command });
        let mut set = |name: &str, value: Value| entry[name] = value;
        if let Some(lane) = self.lane {
            set("lane", lane.into());
        }
        if let Some(key) = &self.key {
            set("concurrency_key", key.as_str().into());
        }
        if self.kind == Kind::Deaf {
            set("timeout", "700ms".into());
            set("max_retries", 0.into());
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let orders = |seed| {
            let mut random = Random::named(seed, "writer");
            (0..50).map(|n| format!("{:?}", Order::random(format!("x{n}"), &mut random))).collect::<Vec<_>>()
        };
        assert_eq!(orders(7), orders(7));
        assert_ne!(orders(7), orders(8));
    }
}
