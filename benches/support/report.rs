//! Numbers into medians, and medians into a table or a JSON document.
//!
//! Progress goes to stderr, results to stdout, so that `--json` can be piped.

use clap::Args;
use serde::Serialize;

use super::machine::Machine;

/// What every bench can be asked for.
#[derive(Args)]
pub struct Mode {
    /// A small version that only shows that the bench works
    #[arg(long)]
    quick: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

impl Mode {
    /// Of two sizes of the same work, the one that was asked for.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Prints what was found: with `--json` one document, else the machine and what `print` says of it.
    pub fn report<T: Serialize>(
        &self,
        bench: &'static str,
        machine: Machine,
        results: &T,
        print: impl FnOnce(&T),
    ) -> anyhow::Result<()> {
        if self.json {
            let document = Document { bench, machine, quick: self.quick, results };
            println!("{}", serde_json::to_string_pretty(&document)?);
        } else {
            println!("{}", machine.line());
            print(results);
        }
        Ok(())
    }
}

/// What a bench prints with `--json`.
#[derive(Serialize)]
struct Document<'a, T: Serialize> {
    bench: &'static str,
    /// Where and when.
    machine: Machine,
    quick: bool,
    results: &'a T,
}

/// Tells a person who waits what is being done.
pub fn progress(text: &str) {
    eprintln!("· {text}");
}

/// The value below which the share `q` (0 to 1) of the values lies, by nearest rank; NaN of none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank among a few thousand values"
)]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Rows under a heading, first column to the left, the others to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row, as wide as the heading.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it.
    pub fn print(&self) {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let cell = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
                line += &cell;
            }
            println!("{}", line.trim_end());
        }
    }
}

/// A number with as many digits as mean something.
pub fn digits(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
