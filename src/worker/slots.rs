//! The tasks behind the slots: as many as are in force, whatever the number becomes while they work.
//!
//! A slot that is one too many is not ended: the scheduler no longer takes its offers, so it closes when its attempt is
//! over. A number that is in force and has no task gets one, at once or as soon as the task that has it is through.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use super::task_failure;
use crate::ledger::LiveAttempt;
use crate::runner::slot::{Shared, Slot};

pub(super) struct Slots {
    tasks: JoinSet<anyhow::Result<()>>,
    numbers: HashMap<Id, u32>,
    shared: Shared,
    in_force: usize,
}

impl Slots {
    /// One task per slot; attempts of the last worker go to the slots first, and to tasks of their own beyond.
    pub(super) fn start(shared: Shared, inherited: Vec<LiveAttempt>, count: usize) -> Self {
        let mut slots = Self { tasks: JoinSet::new(), numbers: HashMap::new(), shared, in_force: count };
        for (number, live) in (0..).zip(inherited) {
            slots.spawn(number, Some(live));
        }
        slots.fill();
        slots
    }

    /// Puts another number of slots in force.
    pub(super) fn set(&mut self, count: usize) {
        self.in_force = count;
        self.fill();
    }

    /// Resolves when a slot has failed; one that closed is no news.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let (id, ended) = match ended {
                Ok((id, ended)) => (id, Ok(ended)),
                Err(err) => (err.id(), Err(err)),
            };
            self.numbers.remove(&id);
            if let Some(failure) = task_failure(ended) {
                return failure;
            }
            self.fill();
        }
    }

    /// The tasks, for whoever waits for their end.
    pub(super) fn tasks(&mut self) -> &mut JoinSet<anyhow::Result<()>> {
        &mut self.tasks
    }

    fn fill(&mut self) {
        let missing: Vec<u32> = (0_u32..)
            .take(self.in_force)
            .filter(|number| !self.numbers.values().any(|n| n == number))
            .collect();
        for number in missing {
            self.spawn(number, None);
        }
    }

    fn spawn(&mut self, number: u32, inherited: Option<LiveAttempt>) {
        let slot = Slot::new(number, self.shared.clone());
        let is_slot = usize::try_from(number).is_ok_and(|number| number < self.in_force);
        let task = match inherited {
            Some(live) if !is_slot => self.tasks.spawn(slot.run_inherited(live)),
            inherited => self.tasks.spawn(slot.run(inherited)),
        };
        self.numbers.insert(task.id(), number);
    }
}
