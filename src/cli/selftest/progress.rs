//! How far a self test is, on standard error: a bar on a terminal, else a line now and then.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::note;
use crate::selftest::driver::{Snapshot, Watch};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    phase: String,
    said: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{elapsed:>4} [{bar:32}] {wide_msg}")
                .expect("the template is valid");
            bar.set_style(style.progress_chars("=> "));
            bar
        });
        Self { bar, phase: String::new(), said: None }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Progress {
    fn phase(&mut self, text: &str) {
        text.clone_into(&mut self.phase);
        match &self.bar {
            Some(bar) => bar.set_message(self.phase.clone()),
            None => note(&format!("{text} ...")),
        }
    }

    fn show(&mut self, now: &Snapshot) {
        let (open, ended) = (now.counts.open(), now.counts.ended());
        let told = format!("{} jobs, {ended} over, {} faults", open + ended, now.faults);
        if let Some(bar) = &self.bar {
            bar.set_length(now.span.as_secs().max(1));
            bar.set_position(now.elapsed.min(now.span).as_secs());
            bar.set_message(format!("{}: {told}", self.phase));
        } else if self.said.is_none_or(|said| said.elapsed() >= LINE_EVERY) {
            self.said = Some(Instant::now());
            note(&format!("{:>6} s  {told}", now.elapsed.as_secs()));
        }
    }
}
