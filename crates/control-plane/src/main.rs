//! `serverflow-control-plane`: makes a fleet (`init`), runs it (`serve`), checks its configuration.
//!
//! This program is the control plane's shell: it brings clocks, randomness, sockets and files to the
//! machines of `session` and `fleet`, and holds the wiring between the rooms. It decides nothing.

mod admin;
mod admin_socket;
mod agent_programs;
mod agents;
mod backup;
mod certificate;
mod chores;
mod clock;
mod config;
mod doctor;
mod enrolment;
mod files;
mod health;
mod hub;
mod init;
mod key_keeper;
mod keys;
mod limits;
mod listener;
mod next;
mod online_keys;
mod patience;
mod people_tls;
mod random;
mod recovering;
mod refusals;
mod root_keeper;
mod roots_taken;
mod serve;
mod session_task;
mod signer_process;
mod stamp;
mod standing_keeper;
mod tls;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat, Settings},
    next::Next,
};

/// Thousands of sessions allocate and free pieces of all sizes on all threads. glibc's allocator spends a fifth of an order to
/// all hosts on it, and more on the locks; see the figures in `docs/BENCHMARKS.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for usage and invalid input.
const EXIT_INVALID: u8 = 2;
/// Exit code when the control plane that runs here does not answer.
const EXIT_UNREACHABLE: u8 = 4;

/// Where its man pages stand.
const SECTION: manual::Section = manual::Section::System;

/// How a failure ends the program: the codes are those of the command line.
trait Ending: Error {
    /// 1: it did not work.
    fn exit_code(&self) -> u8 {
        1
    }
}

impl Ending for serve::ServeError {}
impl Ending for signer_process::SignerError {}
// A container engine knows well and unwell, no more.
impl Ending for health::HealthError {}

impl Ending for certificate::MakeError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Name { .. } | Self::NoDirectory { .. } => EXIT_INVALID,
            _ => 1,
        }
    }
}

impl Ending for init::InitError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Exists { .. } | Self::Address { .. } | Self::Elsewhere(_) => EXIT_INVALID,
            Self::Certificate(error) => error.exit_code(),
            _ => 1,
        }
    }
}

impl Ending for admin::AdminError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::NotInitialised { .. } | Self::Refused(_) | Self::Credentials(_) | Self::PasswordFile { .. } => {
                EXIT_INVALID
            }
            Self::Socket(_) => EXIT_UNREACHABLE,
            _ => 1,
        }
    }
}

/// The ServerFlow control plane: one place that orders, hosts that verify.
#[derive(Debug, Parser)]
#[command(name = "serverflow-control-plane", version, propagate_version = true)]
struct Arguments {
    /// Configuration file (TOML); environment and flags win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new fleet: keys, root metadata, database, first owner
    ///
    /// Example: serverflow-control-plane init --data-dir /var/lib/serverflow --agent-address control.example.org:7443
    Init(init::InitArgs),
    /// Run the control plane until it is asked to end (SIGTERM, SIGINT)
    ///
    /// Example: serverflow-control-plane serve --data-dir /var/lib/serverflow --agent-listen 0.0.0.0:7443
    Serve,
    /// Hold the command keys and sign for a control plane that asks at a socket, until asked to end (SIGTERM, SIGINT)
    ///
    /// Without it `serve` starts one by itself. As a service of its own it has its own user and its own directory; see
    /// `serverflow-signer.service`.
    ///
    /// Example: serverflow-control-plane signer --signer-dir /var/lib/serverflow-signer --signer-socket /run/serverflow-signer/signer.sock --signer-allow serverflow
    Signer(signer_process::SignerArgs),
    /// Ask the control plane that runs with this configuration whether it is well; exit 0 when it is
    ///
    /// Example: serverflow-control-plane health --config /etc/serverflow/control-plane.toml
    Health,
    /// Look at everything the control plane needs, running or not, and say what to mend; exit 1 if something is wrong
    ///
    /// Example: serverflow-control-plane doctor --config /etc/serverflow/control-plane.toml
    Doctor(doctor::DoctorArgs),
    /// Write shell completions and man pages
    ///
    /// Example: serverflow-control-plane generate man --out /usr/local/share/man/man8
    #[command(subcommand)]
    Generate(manual::Generate),
    /// Make a self-signed certificate for the people's listener (HTTPS), in place of one made before
    ///
    /// Example: serverflow-control-plane certificate --name fleet.example.org --name 192.0.2.7
    Certificate(certificate::CertificateArgs),
    /// Write all that this control plane is into one encrypted file, also while it runs
    ///
    /// Example: serverflow-control-plane backup /mnt/backups/fleet-2026-03-01.sfb --passphrase-file /etc/serverflow/backup.passphrase
    Backup(backup::BackupArgs),
    /// Make a control plane of a backup, on this machine or another; it orders nothing before `serverflow recovery confirm`
    ///
    /// Example: serverflow-control-plane restore fleet-2026-03-01.sfb --root root.pub --passphrase-file /etc/serverflow/backup.passphrase
    Restore(backup::RestoreArgs),
    /// Look after accounts on this machine, also while the control plane runs
    Admin {
        #[command(subcommand)]
        command: admin::AdminCommand,
    },
    /// Work with the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check file, environment and flags, and print what is in force
    ///
    /// Example: serverflow-control-plane config check --config /etc/serverflow/control-plane.toml
    Check,
}

fn main() -> ExitCode {
    let arguments = match manual::parse::<Arguments>(SECTION, std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    if let Command::Generate(what) = &arguments.command {
        return generate(what);
    }
    let given = arguments.settings.given(arguments.config.as_deref());
    let config = match config::load(arguments.config.as_deref(), environment(), arguments.settings) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_INVALID),
    };
    let next = Next::new(given, &config);
    match arguments.command {
        Command::Config { command: ConfigCommand::Check } => {
            print!("{config}");
            ExitCode::SUCCESS
        }
        Command::Generate(what) => generate(&what),
        Command::Certificate(args) => match certificate::run(&config.data_dir, &args, &next) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        Command::Health => run(health::run(config)),
        Command::Doctor(args) => examine(&config, args),
        Command::Admin { command } => run(admin::run(config.data_dir, command, &next)),
        Command::Backup(args) => run(backup::make(config, args)),
        Command::Restore(args) => run(backup::restore(config, args, &next)),
        Command::Init(args) => run(init::run(config, args, &next)),
        Command::Serve => serve(&config, serve::serve(config.clone())),
        Command::Signer(args) => serve(&config, signer_process::run(config.clone(), args)),
    }
}

/// Runs what stays, and holds private keys.
fn serve<E: Ending>(config: &Config, task: impl Future<Output = Result<(), E>>) -> ExitCode {
    if let Err(error) = log_to_standard_error(config) {
        return fail(error.as_ref(), EXIT_INVALID);
    }
    // Private keys are in this process's memory; a core dump would write them down.
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps of this process cannot be switched off");
    }
    run(task)
}

fn examine(config: &Config, args: doctor::DoctorArgs) -> ExitCode {
    match runtime() {
        Ok(runtime) => runtime.block_on(doctor::run(config, args)),
        Err(error) => fail(&error, 1),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn generate(what: &manual::Generate) -> ExitCode {
    match manual::generate(&manual::command::<Arguments>(SECTION), SECTION, what) {
        Ok(files) => {
            files.iter().for_each(|file| println!("{}", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    // A variable that is not UTF-8 cannot be one of ours.
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn run<E: Ending>(task: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Prints an error and what it came from, each once.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("serverflow-control-plane: {}", told(error));
    ExitCode::from(code)
}

/// An error and its causes, a line each; a cause whose words an error above it took in is left out.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str("\n  because: ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

fn log_to_standard_error(config: &Config) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_new(&config.log_level)
        .map_err(|error| format!("log_level {:?} is no level and no filter: {error}", config.log_level))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Told {
        #[error("{0}")]
        As(#[source] std::io::Error),
        #[error("the port is taken")]
        Over(#[source] std::io::Error),
    }

    #[test]
    fn each_cause_is_told_once() {
        let cause = || std::io::Error::other("no such luck");
        assert_eq!(told(&Told::As(cause())), "no such luck");
        assert_eq!(told(&Told::Over(cause())), "the port is taken\n  because: no such luck");
    }
}
