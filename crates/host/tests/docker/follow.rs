//! Logs as they are written: across a stop and a start, by a reader that stands still, and by one that goes.

use std::time::Duration;

use actions::{
    effect::{Effect, EffectErrorKind, RunState},
    port::LogStart,
};
use futures_util::{FutureExt as _, StreamExt as _};
use host::{LogFollow, LogLine};

use crate::support::{Agent, secret};

const PATIENCE: Duration = Duration::from_secs(30);
const BEGINNING: LogStart = LogStart { tail: None, since: None, after: None };

/// The next line; none when the container has ended.
async fn next(follow: &mut LogFollow) -> Option<LogLine> {
    let line = tokio::time::timeout(PATIENCE, follow.next()).await.expect("a line, or the end");
    line.map(|line| line.expect("a log that can be read"))
}

async fn rest(follow: &mut LogFollow) -> Vec<LogLine> {
    let mut lines = Vec::new();
    while let Some(line) = next(follow).await {
        lines.push(line);
    }
    lines
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test]
async fn a_log_is_followed_to_a_stop_and_from_the_start_behind_it() {
    let agent = Agent::new();
    let name = agent.create_and_start(agent.spec("web")).await;
    let mut follow = agent.engine.log_follow(&name, &BEGINNING).await.expect("opened");
    let first = next(&mut follow).await.expect("it says that it listens");
    assert_eq!(first.text, "sample: listening on port 8080");
    assert!(follow.next().now_or_never().is_none(), "it says no more, and runs");

    agent.done(Effect::ContainerStop { name: name.clone(), grace_ms: 20_000 }).await;
    assert_eq!(texts(&rest(&mut follow).await), ["sample: ending"], "the container's end is the log's end");
    let down = agent.inspect(&name).await.expect("kept");
    assert_eq!(down.run, RunState::Exited { code: 0 });

    // The same container again: what was read before does not come a second time.
    agent.done(Effect::ContainerStart { name: name.clone() }).await;
    let up = agent.wait(&name, |state| state.run == RunState::Running).await;
    assert!(up.id == down.id && up.started_at != down.started_at, "{up:?}");
    let start = LogStart { after: Some(first.time.clone()), ..BEGINNING };
    let mut follow = agent.engine.log_follow(&name, &start).await.expect("opened");
    let again = [next(&mut follow).await, next(&mut follow).await].map(|line| line.expect("written meanwhile"));
    assert_eq!(texts(&again), ["sample: ending", "sample: listening on port 8080"]);
    assert!(again.iter().all(|line| line.time > first.time), "{again:?}");
    let newest = LogStart { tail: Some(1), ..BEGINNING };
    let mut newest = agent.engine.log_follow(&name, &newest).await.expect("opened");
    assert_eq!(next(&mut newest).await.as_ref(), again.last());

    // Two that read the same log: the one that goes takes nothing from the other.
    drop(newest);
    agent.done(Effect::ContainerRemove { name: name.clone() }).await;
    rest(&mut follow).await;
    let gone = agent.engine.log_follow(&name, &BEGINNING).await.err().expect("there is nothing to read");
    assert_eq!(gone.kind, EffectErrorKind::NotFound, "{}", gone.message);
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_nobody_up_and_misses_nothing() {
    const LINES: usize = 4_000;
    let agent = Agent::new();
    // More than the connection holds while nobody takes from it.
    let said: Vec<String> = (0..LINES).map(|number| format!("line {number:05} {}", "x".repeat(18))).collect();
    let spec = actions::effect::ContainerSpec {
        command: Some(vec![secret("once"), secret("0"), secret(&said.join("\n"))]),
        healthcheck: None,
        ..agent.spec("job")
    };
    let name = agent.create_and_start(spec).await;
    let mut follow = agent.engine.log_follow(&name, &BEGINNING).await.expect("opened");
    assert_eq!(next(&mut follow).await.expect("a line").text, said[0]);
    // Nothing is read here until the container has ended: it does so all the same.
    agent.wait(&name, |state| state.run == RunState::Exited { code: 0 }).await;
    let rest = rest(&mut follow).await;
    assert_eq!(rest.len(), LINES - 1);
    assert!(texts(&rest).into_iter().eq(said[1..].iter().map(String::as_str)), "in order, none twice");
}
