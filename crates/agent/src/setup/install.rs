//! `serverflow-agent install`.

use std::{env, fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use journal::Journal;

use super::{
    demand_no_package, demand_root,
    process::{Running, is_in_use, wait_for_session},
    program::{PROGRAM, Program, Put},
    service::Keeper,
};
use crate::{
    doctor, enrol,
    failure::{Failure, FailureKind},
    limits,
    state_dir::{Enrolment, StateDir},
};

/// How this machine becomes a host that stays one.
#[derive(Debug, Args)]
pub(crate) struct InstallArguments {
    /// The file with the join token, or - for standard input. Not needed where this machine is a host already.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Put program, unit and enrolment in place, and start nothing.
    #[arg(long)]
    no_start: bool,
    /// Seconds to wait for the session of the agent it starts, before the one before is put back.
    #[arg(long, value_name = "SECONDS", default_value_t = limits::SESSION_PATIENCE_SECONDS, value_parser = clap::value_parser!(u64).range(1..=600))]
    wait: u64,
}

/// Enrols, puts this program in its place, has it started, and waits for its session.
///
/// # Errors
/// In words for a person. Running it again goes on where it ended.
pub(crate) async fn install(state: &StateDir, arguments: InstallArguments) -> Result<ExitCode, Failure> {
    demand_root("install")?;
    demand_no_package("upgrade it with apt, and enrol with `serverflow-agent enroll`")?;
    let keeper = Keeper::of_this_machine();
    keeper.demand_usual_state(state)?;
    let schema = journal_schema(state).await;
    enrolled(state, &arguments).await?;

    let program = Program::new(PROGRAM);
    // This very file, even if its path was replaced or removed meanwhile.
    let own = env::current_exe().and_then(fs::canonicalize).unwrap_or_else(|_| "/proc/self/exe".into());
    let put = program.put(&own, schema).map_err(Failure::failed)?;
    let unit_changed = keeper.set_up()?;
    match put {
        Put::New => eprintln!("Installed {} {}.", PROGRAM, env!("CARGO_PKG_VERSION")),
        Put::Same => eprintln!("{PROGRAM} is this program already."),
        Put::Replaced => eprintln!("Replaced {PROGRAM}; the old one is kept until the new one's session is open."),
    }
    if arguments.no_start {
        program.settle().map_err(Failure::failed)?;
        eprintln!("Not started, as you asked. Whatever starts it: `{PROGRAM} run`.");
        return Ok(ExitCode::SUCCESS);
    }
    started(state, keeper, &program, put == Put::Same && !unit_changed, Duration::from_secs(arguments.wait)).await?;
    if keeper == Keeper::Nobody {
        said_nobody(state);
    }
    doctor::doctor(state, None, false).await
}

async fn enrolled(state: &StateDir, arguments: &InstallArguments) -> Result<(), Failure> {
    let is_host = Enrolment::read(state).map_err(Failure::failed)?.is_some();
    match (&arguments.token_file, is_host) {
        (None, true) => Ok(()),
        (None, false) if !state.pending().exists() => {
            let why = "this machine is not a host yet, so a join token is needed: `serverflow host enroll NAME` prints lines with one";
            Err(Failure::new(FailureKind::Usage, why))
        }
        (token, _) => enrol::enrol(state, token.as_deref(), None, enrol::Next::Unsaid).await,
    }
}

/// Has the agent run as this program, with an open session; or puts the one before back.
async fn started(
    state: &StateDir,
    keeper: Keeper,
    program: &Program,
    is_unchanged: bool,
    patience: Duration,
) -> Result<(), Failure> {
    let before = Running::find(state);
    if is_unchanged && before.is_some() && !program.is_on_trial() {
        eprintln!("The agent runs already; it was left alone.");
        return Ok(());
    }
    if before.is_none() && is_in_use(state) {
        let why = format!(
            "another process uses {}, and it is no agent that this one knows: end it the way it was started, then run this again",
            state.path().display()
        );
        return Err(Failure::new(FailureKind::Failed, why));
    }
    keeper.restart(program.path(), state).await?;
    eprintln!("Waiting for its session …");
    let Err(why) = wait_for_session(state, before, patience).await else {
        eprintln!("The agent runs, and its session is open.");
        return program.settle().map_err(Failure::failed);
    };
    let seconds = patience.as_secs();
    if !program.is_on_trial() {
        // There is nothing to go back to, and the agent goes on trying; `doctor` says more.
        eprintln!("No session within {seconds} s: {why}. The agent goes on trying.");
        return Ok(());
    }
    if !may_go_back(state, program).await {
        eprintln!("No session within {seconds} s: {why}. The new agent has brought its journal forward, which the old");
        eprintln!("one could not read, so the new one stays and goes on trying.");
        return program.settle().map_err(Failure::failed);
    }
    let failed = Running::find(state);
    program.put_back().map_err(Failure::failed)?;
    keeper.restart(program.path(), state).await?;
    let back = match wait_for_session(state, failed, patience).await {
        Ok(()) => "the old one is back, and its session is open".to_owned(),
        Err(why) => format!(
            "the old one is back, without a session so far ({why}): see `serverflow-agent doctor{}`",
            state.option()
        ),
    };
    let message = format!("the new agent opened no session within {seconds} s ({why}); {back}");
    Err(Failure::new(FailureKind::Failed, message))
}

/// The schema of this machine's journal, if it has one that can be read.
async fn journal_schema(state: &StateDir) -> Option<i64> {
    Journal::schema(&state.journal()).await.ok().flatten()
}

/// Whether the program before the present one can go on where the present one stands. A journal is brought
/// forward as soon as it is opened, and orders go on before there is a session.
async fn may_go_back(state: &StateDir, program: &Program) -> bool {
    program.kept_reads(journal_schema(state).await)
}

fn said_nobody(state: &StateDir) {
    let pid = Running::find(state).map_or_else(|| "?".to_owned(), |running| running.pid().to_string());
    eprintln!("There is no service manager (systemd) on this machine. The agent runs in the background, pid {pid},");
    eprintln!("and its log is {}. Nothing starts it again after a crash or a", state.log().display());
    eprintln!("reboot: have whatever starts this machine's programs run `{PROGRAM} run`.");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn an_older_agent_is_not_put_back_to_a_journal_that_was_brought_forward() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().join("state"));
        let program = Program::new(directory.path().join("serverflow-agent"));
        let put = |text: &str, schema| {
            let source = directory.path().join("source");
            fs::write(&source, text).expect("written");
            program.put(&source, schema).expect("put in its place")
        };
        fs::create_dir(state.path()).expect("a directory");
        let left = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/upgrade/fixtures/0.1.0/agent/journal.db");
        fs::copy(left, state.journal()).expect("the journal that 0.1.0 left");
        put("0.1.0", None);
        let schema = journal_schema(&state).await;
        assert_eq!(schema, Some(1));
        assert_eq!(put("0.2", schema), Put::Replaced);
        assert!(may_go_back(&state, &program).await, "nothing has opened the journal yet");

        let opened = Journal::open(&state.journal()).await.expect("opened by the new one");
        assert!(journal_schema(&state).await > Some(1), "read beside a running agent");
        assert!(!may_go_back(&state, &program).await);
        opened.journal.close().await;
        assert!(!may_go_back(&state, &program).await);

        // An installation that was cut off, and is run again.
        assert_eq!(put("0.2", journal_schema(&state).await), Put::Same);
        assert!(!may_go_back(&state, &program).await);
    }
}
