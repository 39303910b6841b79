//! `serverflow-agent uninstall`.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use host::{Belongings, Engine, EngineConfig};

use super::{
    FileError, demand_no_package, demand_root,
    process::is_in_use,
    program::{PROGRAM, Program},
    service::Keeper,
};
use crate::{
    failure::{Failure, FailureKind, printable},
    state_dir::{Enrolment, StateDir},
};

/// How much goes.
#[derive(Debug, Args)]
pub(crate) struct UninstallArguments {
    /// Remove the state directory too: identity, journal, policy and log. This machine is no host any more then.
    #[arg(long)]
    purge: bool,
    /// Do not ask before the identity is removed.
    #[arg(long, short = 'y')]
    yes: bool,
}

/// Ends the agent and removes what `install` put here; says what stays.
///
/// # Errors
/// In words for a person. Running it again goes on where it ended.
pub(crate) async fn uninstall(state: &StateDir, arguments: UninstallArguments) -> Result<ExitCode, Failure> {
    demand_root("uninstall")?;
    demand_no_package("remove it with `apt-get remove serverflow-agent`, or `purge` for the state too")?;
    let enrolment = Enrolment::read(state).unwrap_or_default();
    if arguments.purge && !arguments.yes && state.path().exists() {
        confirm(state, enrolment.as_ref())?;
    }
    let keeper = Keeper::of_this_machine();
    // Asked while the labels are known.
    let belongings = match &enrolment {
        Some(enrolment) => Some(belongings(enrolment).await),
        None => None,
    };
    keeper.stop(state).await?;
    if is_in_use(state) {
        let why = format!(
            "another process still uses {}: end it the way it was started, then run this again",
            state.path().display()
        );
        return Err(Failure::new(FailureKind::Failed, why));
    }
    keeper.remove()?;
    let policy = enrolment.as_ref().and_then(|enrolment| enrolment.policy.clone());
    if arguments.purge {
        purge(state)?;
    }
    // Last: until here, the same command can be run again.
    Program::new(PROGRAM).remove().map_err(Failure::failed)?;
    let text = words(state, enrolment.as_ref(), arguments.purge, belongings.as_ref(), policy);
    print!("{}", printable(&text));
    Ok(ExitCode::SUCCESS)
}

fn confirm(state: &StateDir, enrolment: Option<&Enrolment>) -> Result<(), Failure> {
    let name = enrolment.map_or("purge", |enrolment| enrolment.name.as_str());
    if !io::stdin().is_terminal() {
        let why = "nobody is there to confirm that the identity shall go: add --yes, or leave out --purge";
        return Err(Failure::new(FailureKind::Usage, why));
    }
    eprintln!("{} will be removed: this host's identity, its journal and its policy.", state.path().display());
    eprintln!("Nothing brings them back; the machine would have to be enrolled anew.");
    eprint!("Type {name} to go on: ");
    let fail = |source| Failure::failed(FileError::of("read from", "the terminal")(source));
    io::stderr().flush().map_err(fail)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(fail)?;
    if line.trim() == name {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Usage, format!("that is not {name}; nothing was changed")))
}

/// The state directory is removed only if it is one.
fn purge(state: &StateDir) -> Result<(), Failure> {
    let path = state.path();
    if !path.exists() {
        return Ok(());
    }
    state.guard().map_err(Failure::failed)?;
    let is_state =
        [state.enrolment(), state.pending(), state.identity_key(), state.journal()].iter().any(|it| it.exists());
    if !is_state && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        let why =
            format!("{} holds nothing that an agent makes, so it was not removed: check --state-dir", path.display());
        return Err(Failure::new(FailureKind::Usage, why));
    }
    fs::remove_dir_all(path).map_err(|source| Failure::failed(FileError::of("remove", path)(source)))
}

async fn belongings(enrolment: &Enrolment) -> Result<Belongings, String> {
    let config = EngineConfig { socket: None, fleet: enrolment.fleet, host: enrolment.host };
    let engine = Engine::new(config).map_err(|error| error.to_string())?;
    engine.belongings().await.map_err(|error| error.message)
}

fn words(
    state: &StateDir,
    enrolment: Option<&Enrolment>,
    purged: bool,
    belongings: Option<&Result<Belongings, String>>,
    policy: Option<PathBuf>,
) -> String {
    let mut text = "The agent is gone from this machine: its process, its program and its unit.\n".to_owned();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    if purged {
        line(format!("{} is removed, and with it this host's identity and policy.", state.path().display()));
        if let Some(policy) = policy.filter(|policy| policy.exists()) {
            line(format!("The policy {} is yours and stays.", policy.display()));
        }
    } else if state.path().exists() {
        line(format!(
            "{} stays: `install` makes it the same host again. `uninstall --purge` would have removed it.",
            state.path().display()
        ));
    }
    match (enrolment, belongings) {
        (Some(_), Some(Ok(found))) => line(left(found).trim_end().to_owned()),
        (Some(host), Some(Err(why))) => line(format!(
            "What it leaves in Docker could not be seen ({why}). Look for the label io.serverflow.host={}.",
            host.host
        )),
        _ => {}
    }
    if let Some(host) = enrolment {
        line(format!(
            "The control plane was not told: `serverflow host revoke {}` shuts this host out for good.",
            host.name
        ));
    }
    text
}

/// What stays in Docker, by name, and how it would go.
fn left(found: &Belongings) -> String {
    if *found == Belongings::default() {
        return "Docker holds nothing of this host.".to_owned();
    }
    let mut text = "Left as it is in Docker, running or not:\n".to_owned();
    for (kind, names, command) in [
        ("containers", &found.containers, "docker rm --force"),
        ("networks", &found.networks, "docker network rm"),
        ("volumes", &found.volumes, "docker volume rm"),
    ] {
        if !names.is_empty() {
            let data = if kind == "volumes" { "   # deletes their data" } else { "" };
            let names = names.join(" ");
            text.push_str(&format!("  {kind:<11} {names}\n              to remove: {command} {names}{data}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_stays_is_named_with_the_commands_that_remove_it() {
        let found = Belongings {
            containers: vec!["shop-db-1".to_owned(), "shop-web-1".to_owned()],
            networks: Vec::new(),
            volumes: vec!["shop_data".to_owned()],
        };
        expect![[r"
            Left as it is in Docker, running or not:
              containers  shop-db-1 shop-web-1
                          to remove: docker rm --force shop-db-1 shop-web-1
              volumes     shop_data
                          to remove: docker volume rm shop_data   # deletes their data
        "]]
        .assert_eq(&left(&found));
        assert_eq!(left(&Belongings::default()), "Docker holds nothing of this host.");
    }

    #[test]
    fn only_a_state_directory_is_purged() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state");
        let state = StateDir::new(path.clone());
        purge(&state).expect("absent is fine");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("letters.txt"), "mine").expect("written");
        let refused = purge(&state).expect_err("somebody's files");
        assert!(refused.message.contains("holds nothing that an agent makes"), "{}", refused.message);
        fs::write(state.enrolment(), "{}").expect("written");
        purge(&state).expect("purged");
        assert!(!path.exists());
    }
}
