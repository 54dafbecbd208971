//! The command line: what it understands, and which code it ends with.
//!
//! One file per command. What a command prints goes to standard output, for people or with `--json` for programs; why it
//! failed goes to standard error in the same form.

pub mod ask;
pub mod bypass;
pub mod check;
pub mod explain;
pub mod logging;
pub mod order;
pub mod plan;
pub mod reload;
pub mod render;
pub mod replay;
pub mod run;
pub mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::api::Client;
use crate::exit::{Exit, Failure, TABLE};

/// Where the daemon's socket is unless the configuration says otherwise.
const SOCKET: &str = "/run/burst/burst.sock";
/// How long the command line waits for the daemon: longer than the daemon waits for its own task.
const DEADLINE: Duration = Duration::from_secs(8);

/// How long a standard error that is not read may keep a command from ending.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// Keeps payment on premises and shifts promotion traffic to the cloud, in XDP.
#[derive(Debug, Parser)]
#[command(name = "burst", version, after_help = TABLE, disable_help_subcommand = true)]
pub struct Cli {
    /// What is the same for all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What is the same for all commands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The daemon's Unix socket (edge.socket in its configuration); /run/burst/burst.sock when nothing says otherwise.
    #[arg(long, global = true, value_name = "PATH", env = "BURST_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Form of the log on standard error; BURST_LOG chooses what is logged (for example burst=debug).
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value_t)]
    pub log: logging::Form,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground.
    #[command(after_help = TABLE)]
    Run(run::RunArgs),
    /// Check a configuration; errors point into the file.
    #[command(after_help = TABLE)]
    Check(check::CheckArgs),
    /// Say what becomes of a packet, step by step and why. Changes nothing.
    #[command(after_help = TABLE)]
    Explain(explain::ExplainArgs),
    /// Put each packet of a capture to the program and say what becomes of it. Changes nothing.
    #[command(after_help = TABLE)]
    Replay(replay::ReplayArgs),
    /// Show shares, rates, load, links and endpoints, and why.
    #[command(after_help = TABLE)]
    Status(status::StatusArgs),
    /// Set by hand what share of a class leaves, for a time; or end that. An order ends with the daemon.
    #[command(after_help = TABLE)]
    Override(order::OrderArgs),
    /// Say what a reload would change, what it would break, and why it would be refused. Changes nothing.
    #[command(after_help = TABLE)]
    Plan(plan::PlanArgs),
    /// Have the daemon read its configuration anew: a wrong one, or one that does not fit, changes nothing.
    #[command(after_help = TABLE)]
    Reload(reload::ReloadArgs),
    /// Keep what `burst reload --confirm TIME` loaded.
    #[command(after_help = TABLE)]
    Confirm(reload::ConfirmArgs),
    /// Let everything pass, or end that, within a second and without a daemon, too: connections in the cloud break.
    #[command(after_help = TABLE)]
    Bypass(bypass::BypassArgs),
    /// Remove all that is burst's from this host: traffic goes on without it, but flows that are in the cloud break.
    #[command(after_help = TABLE)]
    Detach(run::DetachArgs),
}

/// Parses the command line, does what it says and ends with its code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to the parser, but not to anybody else. Nobody is left to tell if this fails.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let json = cli.global.json;
    // The log has been written, or given up, before the failure is told.
    let result = logging::start(cli.global.log).and_then(|_log| dispatch(cli));
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            report(&failure, json);
            failure.exit.into()
        }
    }
}

fn dispatch(Cli { global, command }: Cli) -> Result<(), Failure> {
    let said = global.socket.as_deref();
    let client = |config: Option<&Path>| Ok::<_, Failure>(Client::new(socket(said, config)?, DEADLINE));
    match command {
        Command::Run(args) => block_on(run::run(&args, said)),
        Command::Check(args) => check::check(&args, global.json),
        Command::Explain(args) => explain::explain(&args, global.json),
        Command::Replay(args) => replay::replay(&args, global.json),
        Command::Status(args) => block_on(status::status(&client(args.config.as_deref())?, global.json)),
        Command::Override(args) => block_on(order::order(&client(args.config.as_deref())?, &args, global.json)),
        Command::Plan(args) => block_on(plan::plan(&args, said, global.json)),
        Command::Reload(args) => {
            let client = Client::new(socket(said, args.config.as_deref())?, reload::LOADING);
            block_on(reload::reload(&client, &args, global.json))
        }
        Command::Confirm(args) => block_on(reload::confirm(&client(args.config.as_deref())?, global.json)),
        Command::Bypass(args) => block_on(bypass::bypass(&args, said, global.json)),
        Command::Detach(args) => block_on(run::detach(&args, said.unwrap_or(Path::new(SOCKET)), global.json)),
    }
}

/// The daemon's socket: what the command line or the environment says, else the configuration, else the default.
fn socket(said: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, Failure> {
    Ok(match (said, config) {
        (Some(said), _) => said.to_owned(),
        (None, Some(config)) => crate::config::load(config)?.config.edge.socket,
        (None, None) => SOCKET.into(),
    })
}

/// Runs a command that waits for the daemon or the kernel.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(command)
}

/// Tells why the command failed. A standard error that is full, stuck or gone does not change the exit code, nor keep the
/// command from ending.
fn report(failure: &Failure, json: bool) {
    use std::io::Write;
    let text = if json {
        let exit = failure.exit;
        json!({ "error": { "exit": exit.number(), "code": exit.name(), "message": failure.to_string() } }).to_string()
    } else {
        format!("burst: {failure}")
    };
    let (told, heard) = std::sync::mpsc::channel();
    let writing = std::thread::Builder::new().spawn(move || {
        // Nobody is left to tell that nobody could be told.
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
        let _ = told.send(());
    });
    if writing.is_ok() {
        let _ = heard.recv_timeout(LAST_WORDS);
    }
}

/// Prints to standard output. A reader that went away (`burst status | head -1`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| anyhow::Error::from(error).context("cannot write the output").into()),
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
    print(&(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_behind_the_command() {
        let cli =
            Cli::try_parse_from(["burst", "status", "--json", "--socket", "/tmp/b.sock", "--log", "json"]).unwrap();
        assert!(cli.global.json && cli.global.socket.is_some_and(|socket| socket.ends_with("b.sock")));
        assert_eq!(cli.global.log, logging::Form::Json);
    }
}
