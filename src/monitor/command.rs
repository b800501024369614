//! The command line of `health_monitor`: what is asked, and the exit code of the answer.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Parser};

use super::alerts::{self, Event, Kind};
use super::checks::{self, Depth};
use super::recover::{self, Action};
use super::report::{Level, Report};
use super::scene::{LimitFlags, Scene, error_chain};
use super::service::{ServiceError, Watch};
use super::stop;
use crate::duration::parse_duration;
use crate::exit_code::{FAILED, HELD, USAGE};
use crate::lock::LockError;
use crate::logging;
use crate::terminal::escape;
use crate::workdir::Workdir;

/// Proves that the worker of a directory works, and brings it back when it does not.
#[derive(Debug, Parser)]
#[command(name = "health_monitor", version, arg_required_else_help = true)]
#[command(group = ArgGroup::new("task").required(true))]
#[command(after_help = "Exit codes of --diagnose: 0 healthy, 1 warnings, 2 critical, 3 unknown. \
    --recover: 0 all mended, 1 something is left. --monitor: 3 another monitor watches the directory.")]
struct Cli {
    /// Look at everything and change nothing
    #[arg(long, group = "task")]
    diagnose: bool,
    /// Mend what a diagnosis reports and a program may mend
    #[arg(long, group = "task")]
    recover: bool,
    /// Watch the worker, and restart it when it is stale or stalled
    #[arg(long, group = "task")]
    monitor: bool,
    /// Send a test event to every configured receiver
    #[arg(long, group = "task")]
    test_alert: bool,
    /// End the monitor that watches the directory; the worker goes on
    #[arg(long, group = "task")]
    stop: bool,
    /// With --recover: say what would be done, and do nothing
    #[arg(long, conflicts_with_all = ["diagnose", "monitor", "test_alert", "stop"])]
    dry_run: bool,
    /// Working directory [default: the current one]
    #[arg(long, value_name = "DIR", env = "STALLPROOF_DIR", hide_env_values = true)]
    dir: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long)]
    json: bool,
    /// No sign of life for so long: stale [default: 120s]
    #[arg(long, value_name = "SPAN", value_parser = parse_duration)]
    stale_after: Option<Duration>,
    /// Between two looks [default: 30s]
    #[arg(long, value_name = "SPAN", value_parser = parse_duration)]
    interval: Option<Duration>,
    /// Command that restarts the worker, split at blanks, instead of starting it ourselves
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["diagnose", "recover", "test_alert", "stop"])]
    restart_with: Option<String>,
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match crate::cli::usage::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let named = cli.dir.clone().filter(|dir| !dir.as_os_str().is_empty());
    let workdir = match Workdir::open(&named.unwrap_or_else(|| ".".into())) {
        Ok(workdir) => workdir,
        // To whoever reads the code of a diagnosis, 2 would be a verdict.
        Err(err) => {
            return fail(&error_chain(&err), if cli.diagnose { Level::Unknown.code() } else { USAGE });
        }
    };
    let scene = match scene(&cli, workdir) {
        Ok(scene) => scene,
        Err(err) => return fail(&err, USAGE),
    };
    if cli.diagnose {
        diagnose(&scene, cli.json)
    } else if cli.recover {
        run_recover(&scene, &cli)
    } else if cli.test_alert {
        test_alert(&scene, cli.json)
    } else if cli.stop {
        end_monitor(&scene, cli.json)
    } else {
        watch(scene)
    }
}

fn scene(cli: &Cli, workdir: Workdir) -> Result<Scene, String> {
    let flags = LimitFlags { stale_after: cli.stale_after, interval: cli.interval };
    let mut scene = Scene::open(workdir, flags)?;
    if let Some(command) = &cli.restart_with {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err("--restart-with names no command".to_owned());
        }
        scene.config.monitor.restart = Some(words);
    }
    Ok(scene)
}

fn end_monitor(scene: &Scene, json: bool) -> ExitCode {
    match stop::stop(&scene.workdir) {
        Err(err) => fail(&err, FAILED),
        Ok(pid) => {
            let text = match pid {
                _ if json => format!("{}\n", serde_json::json!({ "stopped": pid })),
                Some(pid) => format!("the monitor, pid {pid}, has ended\n"),
                None => "no monitor watches the directory\n".to_owned(),
            };
            print(&text);
            ExitCode::SUCCESS
        }
    }
}

fn diagnose(scene: &Scene, json: bool) -> ExitCode {
    let report = checks::diagnose(scene, Depth::Full);
    print(&if json { format!("{:#}\n", report.to_json()) } else { report.to_text() });
    report.exit_code()
}

fn run_recover(scene: &Scene, cli: &Cli) -> ExitCode {
    // A dry run leaves the directory as it was, so it keeps no log either.
    let logs = scene.workdir.logs();
    let _logs = (!cli.dry_run && logs.is_dir()).then(|| logging::start(&logs, "health_monitor"));
    let (report, actions) = match recover::recover(scene, cli.dry_run) {
        Ok(answer) => answer,
        Err(err) => return fail(&error_chain(&err), FAILED),
    };
    let text = if cli.json {
        let json =
            serde_json::json!({ "before": report.to_json(), "dry_run": cli.dry_run, "actions": actions });
        format!("{json:#}\n")
    } else {
        told(&report, &actions)
    };
    print(&text);
    let left = actions.iter().any(|action| !action.done) && report.level() != Level::Ok;
    ExitCode::from(if left && !cli.dry_run { FAILED } else { 0 })
}

fn told(report: &Report, actions: &[Action]) -> String {
    if actions.is_empty() {
        return format!("{}\nnothing to recover\n", report.to_text().trim_end());
    }
    let mut text = String::new();
    for action in actions {
        text.push_str(&format!(
            "{}: {}\n  {}: {}\n",
            action.check,
            escape(&action.finding),
            action.remedy,
            escape(&action.result)
        ));
    }
    text
}

fn test_alert(scene: &Scene, json: bool) -> ExitCode {
    if let Some(what) = &scene.config_error {
        return fail(what, FAILED);
    }
    let channels = alerts::channels(scene);
    if channels.is_empty() {
        return fail(
            "no receiver is configured; set `alert` or `[monitor.webhook]` in stallproof.toml",
            USAGE,
        );
    }
    if let Err(err) = scene.workdir.prepare() {
        return fail(&error_chain(&err), FAILED);
    }
    let event = Event::new(scene, Kind::Test, "a test: alerts of this directory reach you".to_owned());
    let results: Vec<_> =
        channels.into_iter().map(|channel| (channel, alerts::deliver(scene, channel, &event))).collect();
    let failed = results.iter().any(|(_, result)| result.is_err());
    let mut text = String::new();
    for (channel, result) in &results {
        let said = result.as_ref().err().map_or("delivered", String::as_str);
        if json {
            let line = serde_json::json!({"channel": channel, "delivered": result.is_ok(), "error": result.as_ref().err()});
            text.push_str(&format!("{line}\n"));
        } else {
            text.push_str(&format!("{channel:?}: {}\n", escape(said)));
        }
    }
    print(&text);
    ExitCode::from(if failed { FAILED } else { 0 })
}

fn watch(scene: Scene) -> ExitCode {
    let monitor = &scene.config.monitor;
    let begun = format!(
        "watching {} (pid {}): stale after {:?}, a look every {:?}\n",
        escape(&scene.workdir.root().to_string_lossy()),
        std::process::id(),
        monitor.stale_after,
        monitor.interval
    );
    match Watch::begin(scene) {
        Ok(watch) => {
            print(&begun);
            watch.forever()
        }
        Err(err @ ServiceError::Lock(LockError::Held { .. })) => fail(&error_chain(&err), HELD),
        Err(err) => fail(&error_chain(&err), FAILED),
    }
}

/// To standard output; a reader that went away is no failure of ours.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn fail(what: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "health_monitor: {}", escape(what));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests;
