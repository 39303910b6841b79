//! The project's own checks and measurements, as a program: `cargo xtask tidy`, `cargo xtask figures`.
//!
//! What the compiler, clippy and cargo-deny cannot know is checked here: which room of the workspace may reach
//! which other one, who may start programs, how long a function may grow, which files are frozen. Each rule is a
//! pure function from files or metadata to findings, with a test that passes and a test that fails; only this
//! file and `workspace.rs` touch the machine. It uses nothing but the standard library and `serde_json`, so it
//! builds in seconds.

use std::process::ExitCode;

mod figures;
mod fuzz;
mod sim;
mod tidy;
mod workspace;

use tidy::Mode;

const USAGE: &str = "\
usage: cargo xtask tidy [--bless]
       cargo xtask fuzz [--seconds N] [TARGET…]
       cargo xtask sim [--seeds N] [--steps M] [--first N]
       cargo xtask figures HOST [ROUNDS] [PID…]
       cargo xtask figures audit [LEAVES]

  tidy           check the rules of the workspace; exit 1 with every finding listed when one is broken
  tidy --bless   first record what may be recorded: shorter functions and files in crates/xtask/ratchet.json
                 (entries only shrink), and new action schemas in crates/xtask/frozen-schemas.json
  fuzz           run the fuzzers of tests/fuzz, all or those named, each for --seconds (60); needs a nightly toolchain
  sim            run the simulation, optimised, over N seeds of M steps each, from seed --first on
  figures        measure a fleet that runs: time of one command to HOST until its report is durable, and the
                 resident memory of the processes named; SERVERFLOW_URL and SERVERFLOW_TOKEN say which fleet
  figures audit  what the audit log costs, optimised: writing, opening, proving and verifying a log of so many leaves
                 (a million when absent)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mode = match arguments.as_slice() {
        ["tidy"] => Mode::Check,
        ["tidy", "--bless"] => Mode::Bless,
        ["figures", "audit", rest @ ..] if rest.len() < 2 => return ended("figures", figures::audit(rest)),
        ["figures", rest @ ..] => return ended("figures", figures::run(rest)),
        ["fuzz", rest @ ..] => return ended("fuzz", fuzz::run(rest)),
        ["sim", rest @ ..] => return ended("sim", sim::run(rest)),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match tidy::run(mode) {
        Ok(findings) if findings.is_empty() => {
            println!("tidy: every rule holds");
            ExitCode::SUCCESS
        }
        Ok(findings) => {
            for finding in &findings {
                println!("{finding}\n");
            }
            println!("tidy: {} finding(s)", findings.len());
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("tidy: could not look: {message}");
            ExitCode::from(2)
        }
    }
}

fn ended(what: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{what}: {message}");
            ExitCode::FAILURE
        }
    }
}
