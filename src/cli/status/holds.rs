//! What is held back, in lines for a person.

use std::io::{self, Write as _};

use super::super::output::Out;
use super::super::pause;
use super::super::when;
use crate::clock::Millis;
use crate::job::{HoldKind, HoldReason};
use crate::ledger::Hold;
use crate::terminal::{Colour, escape};

/// One line per hold: what, why, for how long, until when.
pub(super) fn print(holds: &[Hold], out: &mut Out) -> io::Result<()> {
    let now = Millis::now();
    for hold in holds {
        let head = out.style.paint(Colour::Warning, "held  ");
        let name = pause::name(hold.kind, &hold.name);
        let mut line = format!(
            "{head} {}: {} for {}",
            escape(&name),
            hold.reason.as_str().replace('_', " "),
            when::age(hold.since, now)
        );
        if let Some(until) = hold.until {
            line += &format!(", until {}", when::local(until));
        }
        if hold.reason == HoldReason::Paused {
            line += &format!("; `{}` ends it", escape(&resume(hold)));
        } else if !hold.note.is_empty() {
            line += &format!("; {}", escape(&hold.note));
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn resume(hold: &Hold) -> String {
    match hold.kind {
        HoldKind::All => "stallproof resume".to_owned(),
        kind => format!("stallproof resume --{kind} {}", hold.name),
    }
}
