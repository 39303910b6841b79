//! The command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    doctor, enrol,
    failure::{Failure, FailureKind},
    policy_check, run,
    setup::{self, InstallArguments, UninstallArguments},
    state_dir::{self, StateDir},
    status_show, trust,
};

/// Where its man pages stand.
pub(crate) const SECTION: manual::Section = manual::Section::System;

/// The agent of ServerFlow: carries out signed orders on this machine, as far as its owner's policy allows.
#[derive(Debug, Parser)]
#[command(name = "serverflow-agent", version, propagate_version = true)]
pub(crate) struct Arguments {
    /// Where keys, journal and policy lie.
    #[arg(long, global = true, env = "SERVERFLOW_AGENT_STATE_DIR", value_name = "DIR", default_value = state_dir::DEFAULT)]
    state_dir: PathBuf,
    /// How much is logged (to standard error).
    #[arg(
        long,
        global = true,
        env = "SERVERFLOW_AGENT_LOG_LEVEL",
        value_enum,
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub(crate) log_level: LogLevel,
    /// The form of log lines.
    #[arg(
        long,
        global = true,
        env = "SERVERFLOW_AGENT_LOG_FORMAT",
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make this machine a host of a fleet, with a token from `serverflow host enroll NAME`.
    #[command(
        visible_alias = "enrol",
        after_help = "Example:\n  serverflow-agent enroll                     # asks for the token\n  \
            serverflow-agent enroll --token-file -      # from standard input"
    )]
    Enroll(EnrollArguments),
    /// Install this program as a service, enrol unless this machine is a host, start, and check. Again: upgrade.
    #[command(
        after_help = "Example:\n  serverflow-agent install --token-file -\n  serverflow-agent install    # upgrades"
    )]
    Install(InstallArguments),
    /// End the agent and remove program and service; with --purge its state too. Says what stays.
    #[command(after_help = "Example:\n  serverflow-agent uninstall --purge")]
    Uninstall(UninstallArguments),
    /// Run the agent. Ends on SIGTERM or SIGINT.
    #[command(after_help = "Example:\n  serverflow-agent run --policy /etc/serverflow/policy.toml")]
    Run {
        /// The owner's policy; `policy.toml` in the state directory unless said here or at enrolment.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Leave the session of the terminal it was started from.
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Say how the agent stands. Exit code 0: connected, 4: running but not connected, 1: otherwise.
    #[command(after_help = "Example:\n  serverflow-agent status --json")]
    Status {
        /// One JSON document instead of words.
        #[arg(long)]
        json: bool,
    },
    /// Check address, TLS key, clock, Docker, policy, state directory and disk; say what to do.
    #[command(after_help = "Example:\n  serverflow-agent doctor")]
    Doctor {
        /// One JSON document instead of words.
        #[arg(long)]
        json: bool,
        /// The owner's policy, as in `run`.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Write shell completions and man pages.
    #[command(subcommand)]
    Generate(manual::Generate),
    /// The root metadata this host goes by: which keys count, where it dials, until when.
    Trust {
        #[command(subcommand)]
        verb: TrustVerb,
    },
    /// The owner's policy.
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
}

#[derive(Debug, Args)]
struct EnrollArguments {
    /// The file with the join token, or - for standard input. Without it, it is asked for on the terminal.
    /// It is never an argument: those can be seen by every user of this machine.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the owner's policy shall lie; `policy.toml` in the state directory otherwise. An existing
    /// file is left as it is.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum TrustVerb {
    /// Say which version it is, the ids of its keys by role, pins, epoch and end.
    #[command(after_help = "Example:\n  serverflow-agent trust show")]
    Show {
        /// One JSON document instead of words.
        #[arg(long)]
        json: bool,
    },
    /// Take newer root metadata from a file, on a host that its control plane does not reach.
    ///
    /// It counts if it follows what this host was enrolled with, whoever brings it; the agent may run or not.
    #[command(after_help = "Example:\n  serverflow-agent trust apply root-v2.json")]
    Apply {
        /// A file of `serverflow root`, with all its signatures.
        file: PathBuf,
        /// One JSON document instead of words.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Say whether a policy file is valid, and what it allows.
    #[command(after_help = "Example:\n  serverflow-agent policy check policy.toml")]
    Check {
        /// The file; the one `run` would use unless given.
        file: Option<PathBuf>,
        /// One JSON document instead of words.
        #[arg(long)]
        json: bool,
    },
}

/// Does what was asked for.
pub(crate) fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    let state = StateDir::new(arguments.state_dir);
    match arguments.command {
        Verb::Enroll(EnrollArguments { token_file, policy }) => {
            let policy = policy.map(|path| absolute(&path)).transpose()?;
            block_on(enrol::enrol(&state, token_file.as_deref(), policy, enrol::Next::Said))??;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Install(arguments) => block_on(setup::install(&state, arguments))?,
        Verb::Uninstall(arguments) => block_on(setup::uninstall(&state, arguments))?,
        Verb::Run { policy, detached } => {
            if detached {
                // It fails only for whoever leads a session already, and then nothing is to be left.
                let _ = rustix::process::setsid();
            }
            let policy = policy.map(|path| absolute(&path)).transpose()?;
            match block_on(run::run(state.clone(), policy))?.map_err(Failure::failed)? {
                run::Ran::ToItsEnd => Ok(ExitCode::SUCCESS),
                run::Ran::Retired => {
                    let message = format!(
                        "this host has left its fleet; its containers run on. `serverflow-agent uninstall{} --purge` removes \
                         what is left of the agent",
                        state.option()
                    );
                    Err(Failure::new(FailureKind::Retired, message))
                }
            }
        }
        Verb::Status { json } => status_show::status(&state, json),
        Verb::Doctor { json, policy } => block_on(doctor::doctor(&state, policy, json))?,
        Verb::Generate(what) => {
            let program = manual::command::<Arguments>(SECTION);
            for file in manual::generate(&program, SECTION, &what).map_err(Failure::failed)? {
                println!("{}", file.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Trust { verb: TrustVerb::Show { json } } => block_on(trust::show(&state, json))?,
        Verb::Trust { verb: TrustVerb::Apply { file, json } } => block_on(trust::apply(&state, &file, json))?,
        Verb::Policy { verb: PolicyVerb::Check { file, json } } => policy_check::check(&state, file, json),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::new(FailureKind::Usage, format!("{}: {error}", path.display())))
}

/// One thread for everything: the agent waits most of the time, and threads cost memory.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(crate::limits::BLOCKING_THREADS_MAX)
        .build()
        .map_err(Failure::failed)?;
    let value = runtime.block_on(future);
    // A look-up of a name that hangs must not hold up the end.
    runtime.shutdown_background();
    Ok(value)
}
