//! The commands there are, and the way from arguments to an exit code.
//!
//! Exit codes: 0 done, 1 what was asked failed, 2 wrong usage (clap's own), 3 another worker holds the directory.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::context::Context;
use super::output::Out;
use super::{
    add, cancel, check, cleanup, completions, demo, failure, handle, init, list, log, man, pause, reload,
    retry, schema, selftest, show, slots, status, stop, wait, why, worker,
};
use crate::exit_code::DONE;

/// Runs jobs from plain JSON queue files, and neither hangs silently nor loses work.
#[derive(Debug, Parser)]
#[command(name = "stallproof", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 another worker holds the directory.")]
pub(super) struct Cli {
    /// Working directory, with the queue files in it [default: the current one]
    #[arg(long, global = true, value_name = "DIR", env = "STALLPROOF_DIR", hide_env_values = true)]
    dir: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run jobs: poll the queue files, run every entry, record the result
    Worker(worker::Args),
    /// Add a job to the ledger; prints its id
    Add(add::Args),
    /// List jobs, newest first
    List(list::Args),
    /// Show everything about one job
    Show(show::Args),
    /// Say why a job does not run, or why it ran again, and what would change that
    Why(why::Args),
    /// Print what an attempt of a job wrote
    Log(log::Args),
    /// Tell what the worker is doing
    Status(status::Args),
    /// Wait until jobs are over
    Wait(wait::Args),
    /// Cancel jobs that wait or run
    Cancel(cancel::Args),
    /// Queue failed or cancelled jobs again
    Retry(retry::Args),
    /// Start nothing new of a lane, source or handler, or at all; what runs goes on
    Pause(pause::Args),
    /// End a pause
    Resume(pause::Args),
    /// Run another number of attempts at once
    Slots(slots::Args),
    /// Let the worker read its configuration again
    Reload(reload::Args),
    /// Stop the worker: no new work, then running attempts get their grace
    Drain(stop::DrainArgs),
    /// Stop the worker and leave running attempts to the next one
    Handover(stop::Args),
    /// Look for mistakes in the configuration and the queue files
    Check(check::Args),
    /// List stale workers, orphaned processes and abandoned locks, and end them with --force
    Cleanup(cleanup::Args),
    /// Create the files and folders that are missing in the working directory
    Init(init::Args),
    /// Run a handful of sample ideas in a scratch folder
    Demo(demo::Args),
    /// Run the real programs under fire in a scratch folder and draw the balance
    Selftest(selftest::Args),
    /// A job or a writer of a self test
    #[command(hide = true)]
    SelftestPart(selftest::PartArgs),
    /// Carry out a built-in handler for the entry on standard input
    #[command(hide = true)]
    Handle(handle::Args),
    /// Print the JSON Schema of an entry
    Schema,
    /// Print the completion script of a shell
    Completions(completions::Args),
    /// Print the manual page, of a command or of the whole program
    Man(man::Args),
}

/// The program: reads the arguments, runs the command, reports the error, returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match super::usage::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Command::Handle(args) = &cli.command {
        // Its exit code is the handler's word to the worker, not ours to a person.
        return handle::run(args);
    }
    if let Command::SelftestPart(args) = &cli.command {
        return selftest::part(args);
    }
    let context = Context::new(cli.dir, cli.json);
    let mut out = Out::stdout();
    let mut result = run(&cli.command, &context, &mut out);
    if let Err(err) = out.flush() {
        result = result.and(Err(err.into()));
    }
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has seen enough, as in `stallproof list | head -1`.
        Err(_) if out.is_closed() => ExitCode::from(DONE),
        Err(err) => {
            failure::report(&err, context.json);
            ExitCode::from(failure::exit_code(&err))
        }
    }
}

/// The command-line interface as data, for completions and manual pages.
pub(super) fn interface() -> clap::Command {
    Cli::command()
}

fn run(command: &Command, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    match command {
        Command::Worker(args) => worker::run(args, context),
        Command::Add(args) => add::run(args, context, out),
        Command::List(args) => list::run(args, context, out),
        Command::Show(args) => show::run(args, context, out),
        Command::Why(args) => why::run(args, context, out),
        Command::Log(args) => log::run(args, context, out),
        Command::Status(args) => status::run(args, context, out),
        Command::Wait(args) => wait::run(args, context, out),
        Command::Cancel(args) => cancel::run(args, context, out),
        Command::Retry(args) => retry::run(args, context, out),
        Command::Pause(args) => pause::pause(args, context, out),
        Command::Resume(args) => pause::resume(args, context, out),
        Command::Slots(args) => slots::run(args, context, out),
        Command::Reload(args) => reload::run(args, context, out),
        Command::Drain(args) => stop::drain(args, context, out),
        Command::Handover(args) => stop::handover(args, context, out),
        Command::Check(args) => check::run(args, context, out),
        Command::Cleanup(args) => cleanup::run(args, context, out),
        Command::Init(args) => init::run(args, context, out),
        Command::Demo(args) => demo::run(args, context, out),
        Command::Selftest(args) => selftest::run(args, context, out),
        Command::Handle(_) | Command::SelftestPart(_) => unreachable!("`main` runs these itself"),
        Command::Schema => schema::run(out),
        Command::Completions(args) => completions::run(args, out),
        Command::Man(args) => man::run(args, out),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_interface_is_consistent() {
        super::interface().debug_assert();
    }
}
