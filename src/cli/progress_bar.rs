//! The progress bar of commands that wait for jobs, drawn on standard error when that is a terminal.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::job::State;
use crate::ledger::Counts;

/// Between two redraws while nothing changes, so that the elapsed time moves.
const TICK: Duration = Duration::from_millis(500);

/// How many of the jobs that were open at first, or came since, are over.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    ended_before: Option<u64>,
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Bar {
    /// A bar; it draws nothing when standard error is no terminal.
    #[must_use]
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{elapsed} [{bar:32}] {pos}/{len} {msg}")
            .expect("the template is valid");
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(TICK);
        Self { bar, ended_before: None }
    }

    /// Shows where the jobs stand.
    pub fn draw(&mut self, counts: &Counts) {
        let before = *self.ended_before.get_or_insert(counts.ended());
        let ended = counts.ended().saturating_sub(before);
        self.bar.set_length(ended + counts.open());
        self.bar.set_position(ended);
        let told = [State::Running, State::Retrying, State::Failed, State::Rejected];
        let words: Vec<String> = told
            .into_iter()
            .filter(|&state| counts.of(state) > 0)
            .map(|state| format!("{state} {}", counts.of(state)))
            .collect();
        self.bar.set_message(words.join(", "));
    }

    /// Shows what is waited for beside jobs.
    pub fn say(&self, what: Option<&impl std::fmt::Display>) {
        if let Some(what) = what {
            self.bar.set_message(what.to_string());
        }
    }

    /// Leaves the last state on the screen.
    pub fn finish(&self) {
        self.bar.finish();
    }
}

/// Draws `counts` as they change, until `stop` completes or their sender is gone.
pub async fn show(mut counts: watch::Receiver<Counts>, stop: impl Future<Output = ()>) {
    let mut bar = Bar::new();
    let mut stop = pin!(stop);
    loop {
        bar.draw(&counts.borrow_and_update());
        tokio::select! {
            () = &mut stop => break,
            changed = counts.changed() => if changed.is_err() { break },
        }
    }
    bar.draw(&counts.borrow());
    bar.finish();
}
