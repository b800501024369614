//! What a diagnosis says: findings with a level, a sentence, and what to do; as text and as JSON.
//!
//! Plain data and its two renderings. A finding that is not fine cannot be made without a [`Remedy`], so that
//! recovery acts on exactly what diagnosis reports.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::clock::Millis;
use crate::runner::process::ProcessId;
use crate::terminal::escape;

/// The last line of a report without a complaint.
pub const HEALTHY: &str = "SYSTEM HEALTHY - All checks passed";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to say against it.
    Ok,
    /// Somebody should look at it.
    Warning,
    /// Work does not get done, or data is in danger.
    Critical,
    /// It could not be found out.
    Unknown,
}

impl Level {
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "[ok]      ",
            Self::Warning => "[warning] ",
            Self::Critical => "[CRITICAL]",
            Self::Unknown => "[unknown] ",
        }
    }

    /// The exit code of monitoring plugins.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// The worse of two: what is known to be critical counts more than what is not known.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |level| match level {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// What mends a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// End the worker that holds the directory, and start one.
    RestartWorker,
    /// Start a worker.
    StartWorker,
    /// End these processes: their attempts are over, or unknown to the ledger.
    EndOrphans(Vec<ProcessId>),
    /// Keep every whole entry of this queue file, and the original bytes in quarantine.
    Salvage(PathBuf),
    /// Remove these files, which nobody writes any more.
    ClearLeftovers(Vec<PathBuf>),
    /// Nothing a program should do.
    ByHand,
}

impl Remedy {
    /// The word for it in reports.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RestartWorker => "restart the worker",
            Self::StartWorker => "start a worker",
            Self::EndOrphans(_) => "end the orphans",
            Self::Salvage(_) => "salvage the queue file",
            Self::ClearLeftovers(_) => "clear left-over files",
            Self::ByHand => "by hand",
        }
    }
}

/// One line of a diagnosis.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The section it belongs to.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub summary: String,
    /// What to do about it; empty when it is fine.
    pub advice: String,
    /// What `--recover` does about it; `None` when it is fine.
    pub remedy: Option<Remedy>,
}

impl Finding {
    /// Nothing to complain about.
    pub fn ok(check: &'static str, summary: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, summary: summary.into(), advice: String::new(), remedy: None }
    }

    /// Something to complain about, with what a person can do and what `--recover` does.
    pub fn bad(
        (check, level): (&'static str, Level),
        summary: impl Into<String>,
        advice: impl Into<String>,
        remedy: Remedy,
    ) -> Self {
        Self { check, level, summary: summary.into(), advice: advice.into(), remedy: Some(remedy) }
    }

    /// It could not be found out; nothing is to be done on such ground.
    pub fn unknown(check: &'static str, summary: impl Into<String>) -> Self {
        let advice = "nothing is concluded from a check that failed; look at what it names and run it again";
        Self::bad((check, Level::Unknown), summary, advice, Remedy::ByHand)
    }
}

/// A whole diagnosis.
#[derive(Clone, Debug)]
pub struct Report {
    /// The directory it is about.
    pub dir: PathBuf,
    /// When it was made.
    pub at: Millis,
    /// Process id and state of the worker, where there is one.
    pub worker: Option<(i32, String)>,
    /// Process id of the monitor that watches the directory.
    pub monitor: Option<i32>,
    /// All findings, in the order of the sections.
    pub findings: Vec<Finding>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    check: &'a str,
    status: Level,
    summary: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl<'a> From<&'a Finding> for JsonFinding<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            check: finding.check,
            status: finding.level,
            summary: &finding.summary,
            advice: &finding.advice,
            remedy: finding.remedy.as_ref().map(Remedy::as_str),
        }
    }
}

impl Report {
    /// The worst level of all findings.
    #[must_use]
    pub fn level(&self) -> Level {
        self.findings.iter().fold(Level::Ok, |worst, finding| worst.worse(finding.level))
    }

    /// 0 healthy, 1 warnings, 2 critical, 3 unknown.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.level().code())
    }

    /// For people: one line per finding, then the complaints with what to do, or [`HEALTHY`].
    #[must_use]
    pub fn to_text(&self) -> String {
        let dir = self.dir.to_string_lossy();
        let mut text = format!("stallproof health of {} at {}\n\n", escape(&dir), self.at);
        for finding in &self.findings {
            let _ =
                writeln!(text, "{} {:<14} {}", finding.level.mark(), finding.check, escape(&finding.summary));
        }
        text.push('\n');
        for (level, title) in
            [(Level::Critical, "CRITICAL"), (Level::Unknown, "UNKNOWN"), (Level::Warning, "WARNINGS")]
        {
            let found: Vec<&Finding> =
                self.findings.iter().filter(|finding| finding.level == level).collect();
            if found.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{title}");
            for finding in found {
                let _ = writeln!(text, "  {}: {}", finding.check, escape(&finding.summary));
                let _ = writeln!(text, "    -> {}", escape(&finding.advice));
            }
        }
        if self.level() == Level::Ok {
            let _ = writeln!(text, "{HEALTHY}");
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let of = |level: Level| -> Vec<JsonFinding<'_>> {
            self.findings.iter().filter(|finding| finding.level == level).map(JsonFinding::from).collect()
        };
        let status = match self.level() {
            Level::Ok => "healthy".to_owned(),
            other => serde_json::to_value(other)
                .map_or_else(|_| String::new(), |v| v.as_str().unwrap_or("").to_owned()),
        };
        serde_json::json!({
            "status": status,
            "exit_code": self.level().code(),
            "dir": self.dir,
            "checked_at": self.at,
            "worker": self.worker.as_ref().map(|(pid, state)| serde_json::json!({"pid": pid, "state": state})),
            "monitor": self.monitor.map(|pid| serde_json::json!({"pid": pid})),
            "checks": self.findings.iter().map(JsonFinding::from).collect::<Vec<_>>(),
            "criticals": of(Level::Critical),
            "warnings": of(Level::Warning),
            "unknowns": of(Level::Unknown),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(levels: &[Level]) -> Report {
        let finding = |level: &Level| match level {
            Level::Ok => Finding::ok("disk", "fine"),
            level => Finding::bad(("queue", *level), "a title \u{1b}[31m", "look\nat it", Remedy::ByHand),
        };
        Report {
            dir: "/d\u{1b}[8m".into(),
            at: Millis(0),
            worker: Some((7, "ready".to_owned())),
            monitor: None,
            findings: levels.iter().map(finding).collect(),
        }
    }

    #[test]
    fn the_worst_known_level_decides_the_exit_code() {
        use Level::{Critical, Ok, Unknown, Warning};
        for (levels, code) in [
            (vec![], 0),
            (vec![Ok, Ok], 0),
            (vec![Ok, Warning], 1),
            (vec![Warning, Unknown], 3),
            (vec![Unknown, Critical, Warning], 2),
        ] {
            assert_eq!(report(&levels).level().code(), code, "{levels:?}");
        }
    }

    #[test]
    fn only_a_report_without_complaints_ends_healthy() {
        assert!(report(&[Level::Ok]).to_text().ends_with(&format!("{HEALTHY}\n")));
        for level in [Level::Warning, Level::Critical, Level::Unknown] {
            let text = report(&[Level::Ok, level]).to_text();
            assert!(!text.contains("HEALTHY"), "{text}");
            assert!(text.contains("-> look"), "{text}");
            assert!(!text.contains('\u{1b}'), "an escape byte reached the terminal");
        }
    }

    #[test]
    fn json_names_what_is_wrong() {
        let json = report(&[Level::Ok, Level::Critical]).to_json();
        assert_eq!(json["status"], "critical");
        assert_eq!(json["exit_code"], 2);
        assert_eq!(json["criticals"][0]["remedy"], "by hand");
        assert_eq!(json["checks"].as_array().map(Vec::len), Some(2));
        assert_eq!(report(&[]).to_json()["status"], "healthy");
    }

    #[test]
    fn a_report_is_told_in_full() {
        let all = report(&[Level::Warning, Level::Ok, Level::Critical, Level::Unknown]).to_text();
        insta::assert_snapshot!(all, @r"
        stallproof health of /d\u{1b}[8m at 1970-01-01T00:00:00.000Z

        [warning]  queue          a title \u{1b}[31m
        [ok]       disk           fine
        [CRITICAL] queue          a title \u{1b}[31m
        [unknown]  queue          a title \u{1b}[31m

        CRITICAL
          queue: a title \u{1b}[31m
            -> look\u{a}at it
        UNKNOWN
          queue: a title \u{1b}[31m
            -> look\u{a}at it
        WARNINGS
          queue: a title \u{1b}[31m
            -> look\u{a}at it
        ");
        let json = report(&[Level::Warning, Level::Ok, Level::Unknown]).to_json();
        let number = |name: &str| json[name].as_array().map(Vec::len);
        assert_eq!(
            (number("criticals"), number("warnings"), number("unknowns")),
            (Some(0), Some(1), Some(1))
        );
        assert_eq!((&json["status"], &json["worker"]["pid"]), (&"unknown".into(), &7.into()));
        let fine = &json["checks"][1];
        assert_eq!(
            (&fine["status"], &fine["check"], &fine["summary"]),
            (&"ok".into(), &"disk".into(), &"fine".into())
        );
        assert!(fine.get("advice").is_none() && fine.get("remedy").is_none());
        assert!(json["monitor"].is_null() && json["dir"].is_string() && json["checked_at"].is_string());
    }

    #[test]
    fn every_remedy_has_its_word_and_what_failed_has_none_but_a_person() {
        let words: Vec<_> = [
            Remedy::RestartWorker,
            Remedy::StartWorker,
            Remedy::EndOrphans(Vec::new()),
            Remedy::Salvage(PathBuf::new()),
            Remedy::ClearLeftovers(Vec::new()),
            Remedy::ByHand,
        ]
        .iter()
        .map(Remedy::as_str)
        .collect();
        let wanted = [
            "restart the worker",
            "start a worker",
            "end the orphans",
            "salvage the queue file",
            "clear left-over files",
            "by hand",
        ];
        assert_eq!(words, wanted);
        let failed = Finding::unknown("disk", "why");
        assert_eq!((failed.level, failed.remedy), (Level::Unknown, Some(Remedy::ByHand)));
        assert_eq!((failed.check, failed.summary.as_str(), failed.advice.is_empty()), ("disk", "why", false));
    }
}
