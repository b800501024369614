//! The progress bar of `stallproof worker --until-idle`, drawn on standard error when that is a terminal.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::job::State;
use crate::ledger::Counts;

/// Between two redraws while nothing changes, so that the elapsed time moves.
const TICK: Duration = Duration::from_millis(500);

/// Shows how many of the jobs that were open at the start, or came since, are over.
///
/// Ends when `stop` completes or the sender of the counts is gone. Draws nothing when standard error is no terminal.
pub async fn show(mut counts: watch::Receiver<Counts>, stop: impl Future<Output = ()>) {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{elapsed} [{bar:32}] {pos}/{len} {msg}")
        .expect("the template is valid");
    bar.set_style(style.progress_chars("=> "));
    bar.enable_steady_tick(TICK);
    let ended_before = counts.borrow().ended();
    let mut stop = pin!(stop);
    loop {
        draw(&bar, &counts.borrow_and_update(), ended_before);
        tokio::select! {
            () = &mut stop => break,
            changed = counts.changed() => if changed.is_err() { break },
        }
    }
    draw(&bar, &counts.borrow(), ended_before);
    bar.finish();
}

fn draw(bar: &ProgressBar, counts: &Counts, ended_before: u64) {
    let ended = counts.ended().saturating_sub(ended_before);
    bar.set_length(ended + counts.open());
    bar.set_position(ended);
    let told = [State::Running, State::Retrying, State::Failed, State::Rejected];
    let words: Vec<String> = told
        .into_iter()
        .filter(|&state| counts.of(state) > 0)
        .map(|state| format!("{state} {}", counts.of(state)))
        .collect();
    bar.set_message(words.join(", "));
}
