//! `serverflow`: the command line of a fleet.
//!
//! A REST client and little more: it signs in, asks, follows and shows. Two things it does itself,
//! because they must not be left to the control plane: it reads Compose files and seals their
//! secrets to each host, and it verifies the audit log from the root's public key. Each noun of the
//! command line has a module; how a run ends is in [`exit`], what is printed in [`output`].

mod action;
mod app;
mod app_files;
mod app_move;
mod approval;
mod approver;
mod arguments;
mod audit;
mod check;
mod client;
mod clock;
mod command;
mod deploy;
mod doctor;
mod events;
mod exit;
mod files;
mod follow;
mod generate;
mod host;
mod join;
mod key;
mod limits;
mod list;
mod logs_follow;
mod operation;
mod operations;
mod output;
mod owner;
mod parameters;
mod password;
mod prompt;
mod quarantine;
mod recovery;
mod retire;
mod root;
mod roots;
#[cfg(test)]
mod sample;
mod sealing;
mod secret;
mod session;
mod session_file;
mod sign_in;
mod spans;
mod standing;
mod table;
mod token;
mod trust;
mod user;

use std::{env, ffi::OsString, process::ExitCode};

use serde::Serialize;

use crate::{
    arguments::{App, Arguments, Color, Noun},
    client::Client,
    exit::{Ended, Failure, Kind},
    output::Output,
    session_file::Place,
};

fn main() -> ExitCode {
    let given: Vec<OsString> = env::args_os().collect();
    let arguments = match manual::parse::<Arguments>(manual::Section::User, given.clone()) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error, &given),
    };
    let global = &arguments.global;
    let output = Output::new(global.json, global.quiet, global.color);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(&output, arguments)),
        Err(error) => Err(Failure::new(Kind::NotWell, format!("cannot wait for the network: {error}"))),
    };
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::NotWell) => ExitCode::from(Kind::NotWell.code()),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.kind.code())
        }
    }
}

/// What clap has to say: help goes to standard output, what is wrong to standard error.
fn usage(error: &clap::Error, given: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // Nobody may be there to read it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if given.iter().any(|argument| argument == "--json") {
        let text = error.to_string();
        let failure = Failure::invalid(text.strip_prefix("error: ").unwrap_or(&text).trim());
        Output::new(true, true, Color::Never).failure(&failure);
    } else {
        let _ = error.print();
    }
    ExitCode::from(Kind::Invalid.code())
}

async fn run(output: &Output, arguments: Arguments) -> Result<Ended, Failure> {
    let place = Place { url: arguments.global.url.as_deref(), ca: arguments.global.ca.as_deref() };
    match arguments.noun {
        Noun::Login(login) => sign_in::login(output, place, login).await,
        Noun::Logout => sign_in::logout(output, place.ca).await,
        Noun::Whoami => sign_in::whoami(output, &Client::signed_in(place)?).await,
        Noun::Host(verb) => host::run(output, &Client::signed_in(place)?, verb).await,
        Noun::App(App::Check(files)) => check::run(output, &files),
        Noun::App(verb) => app::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Action(verb) => action::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Command(verb) => command::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Operation(verb) => operations::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Audit(verb) => audit::run(output, place, verb).await,
        Noun::Key(verb) => key::run(output, place, verb).await,
        Noun::Root(verb) => root::run(output, place, verb).await,
        Noun::Secret(verb) => secret::run(output, place, verb).await,
        Noun::Standing(verb) => standing::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Recovery(verb) => recovery::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Approver(verb) => approver::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Approval(verb) => approval::run(output, &Client::signed_in(place)?, verb).await,
        Noun::User(verb) => user::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Session(verb) => session::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Token(verb) => token::run(output, &Client::signed_in(place)?, verb).await,
        Noun::Generate(what) => generate::run(output, &what),
        Noun::Doctor => doctor::run(output, place).await,
        Noun::Version => version(output),
    }
}

/// What `version --json` prints.
#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

fn version(output: &Output) -> Result<Ended, Failure> {
    let version = Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") };
    output.result(&version, |version, _| format!("{} {}\n", version.name, version.version))?;
    Ok(Ended::Well)
}
