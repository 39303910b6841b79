//! `serverflow-agent`: one per host. It dials the control plane, verifies every order by itself, asks
//! its owner's policy, carries orders out, and reports with its own signature.
//!
//! `enrol` makes this machine a host, `run` is the agent itself, `status`, `doctor` and `policy_check`
//! tell people how it stands. What may happen to the host is decided elsewhere: the protocol in
//! `session`, actions and policy in `actions`, effects in `host`.

mod admission;
mod cli;
mod doctor;
mod enrol;
mod failure;
mod host_keys;
mod limits;
mod log;
mod policy_check;
mod run;
mod setup;
mod state_dir;
mod status;
mod status_show;
mod trust;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match manual::parse::<cli::Arguments>(cli::SECTION, std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    log::start(arguments.log_level, arguments.log_format);
    // Opened secrets and the identity key are in this process's memory; a core dump would write them down.
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps of this process cannot be switched off");
    }
    match cli::dispatch(arguments) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("serverflow-agent: {failure}");
            failure.kind.exit_code()
        }
    }
}
