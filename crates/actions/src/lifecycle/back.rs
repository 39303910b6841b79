//! The way back: what did not run is stopped again, what ran is started, and then it is verified.

use serde_json::{Map, Value, json};

use super::{LOST, Verb};
use crate::{
    app_deploy::{
        commit::state_word,
        deploy::masked,
        put_back::{in_starting_order, start},
        switch::{grace_of, restart_of},
        verify::{Findings, verify},
    },
    effect::{AppState, ContainerState, Effect},
    engine::Engine,
    outcome::{Outcome, OutcomeStatus},
    port::{ActionContext, ActionPort},
    release::{Before, Book, Pending, PendingRun, RecordedEnd, ReleaseRecord, RunPhase},
    spec::RestartPolicy,
    stop::Stop,
};

/// Writes down that this change goes back and how it will have ended, then goes back.
pub(crate) async fn put_back<P: ActionPort>(
    end: RecordedEnd,
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let Some(Pending::Run(pending)) = &mut book.record.pending else {
        return end.into_outcome();
    };
    pending.phase = RunPhase::Back(end.clone());
    if let Err(error) = book.write(engine).await {
        return stuck(&end, &Stop::from(error), book);
    }
    go_back(context, book, engine).await
}

/// Goes back, or goes on with that.
pub(crate) async fn go_back<P: ActionPort>(
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let Some(Pending::Run(pending)) = book.record.pending.clone() else {
        return Outcome::failed(LOST);
    };
    let RunPhase::Back(end) = pending.phase.clone() else {
        return Outcome::failed(LOST);
    };
    engine.turned_back();
    engine.progress(format!("putting {} back: {}", book.record.app, end.message));
    let restored = match restore(&pending, book, engine).await {
        Ok(restored) => restored,
        Err(stop) => return stuck(&end, &stop, book),
    };
    let end = masked(context, finished(end.clone(), &restored, book));
    let record = book.record.clone();
    book.record.pending = None;
    book.record.last_end = Some(end.clone());
    if let Err(error) = book.write(engine).await {
        book.record = record;
        return stuck(&end, &Stop::from(error), book);
    }
    end.into_outcome()
}

/// What is there after going back, and what is not as it was, in words.
struct Restored {
    state: AppState,
    wrong: Vec<String>,
}

async fn restore<P: ActionPort>(
    pending: &PendingRun,
    book: &Book,
    engine: &mut Engine<'_, P>,
) -> Result<Restored, Stop> {
    let app = &book.record.app;
    let release = book.release(engine, book.record.current).await?;
    let state = engine.observe(app).await?;
    let mut found = Findings::default();
    let mut there: Vec<(&Before, &ContainerState)> = Vec::new();
    for old in in_starting_order(&pending.before, release.as_ref()) {
        match state.containers.iter().find(|container| container.id == old.id) {
            Some(current) => there.push((old, current)),
            None => found.lose(old, format!("container {} does not exist any more", old.name)),
        }
    }
    for (old, current) in there.iter().rev().filter(|(old, _)| !old.ran()) {
        let done = policy_back(old, pending, book, release.as_ref(), engine).await;
        found.note(&old.name, "get its restart policy back", done)?;
        if Before::of(current).ran() {
            let grace_ms = grace_of(release.as_ref(), &old.service).0;
            let stopped = engine.done(Effect::ContainerStop { name: old.name.clone(), grace_ms }).await;
            found.note(&old.name, "be stopped", stopped.map_err(Stop::from))?;
        }
    }
    for (old, current) in there.iter().filter(|(old, _)| old.ran()) {
        let done = policy_back(old, pending, book, release.as_ref(), engine).await;
        found.note(&old.name, "get its restart policy back", done)?;
        start(old, current, &mut found, engine).await?;
    }
    let state = verify(&pending.before, release.as_ref(), app, &mut found, engine).await?;
    Ok(Restored { state, wrong: found.all_done()? })
}

/// Gives a container the restart policy that it had.
async fn policy_back<P: ActionPort>(
    old: &Before,
    pending: &PendingRun,
    book: &Book,
    release: Option<&ReleaseRecord>,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let restart = restart_of(release, &old.service);
    if restart == RestartPolicy::No || pending.verb == Verb::Restart {
        return Ok(());
    }
    let stopped = book.record.stopped.iter().any(|name| name.as_str() == old.service);
    let restart = if stopped { RestartPolicy::No } else { restart };
    engine.done(Effect::ContainerRestartPolicy { name: old.name.clone(), restart }).await?;
    Ok(())
}

/// Says how it ended: rolled back or cancelled if all is as it was, failed otherwise.
fn finished(mut end: RecordedEnd, restored: &Restored, book: &Book) -> RecordedEnd {
    let (why, app) = (end.message.trim_end_matches('.').to_owned(), &book.record.app);
    if restored.wrong.is_empty() {
        end.message = format!("{why}. {app} was put back as it was, and verified");
    } else {
        end.status = OutcomeStatus::Failed;
        end.message = format!(
            "{why}. {app} is not as it was: {}. Look at it with `serverflow app logs {app}`",
            restored.wrong.join("; ")
        );
    }
    if let Value::Object(result) = &mut end.result {
        let mut services = Map::new();
        for container in &restored.state.containers {
            let entry = json!({ "container": container.name, "state": state_word(container) });
            services.insert(container.service.clone(), entry);
        }
        result.insert("services".to_owned(), Value::Object(services));
        result.insert("release".to_owned(), json!(book.record.current));
        if !restored.wrong.is_empty() {
            result.insert("rollback_failed".to_owned(), Value::Bool(true));
        }
    }
    end
}

/// Going back is not finished; the record stays, and the next change goes on with it.
fn stuck(end: &RecordedEnd, stop: &Stop, book: &Book) -> Outcome {
    let (why, app) = (end.message.trim_end_matches('.'), &book.record.app);
    let mut outcome = Outcome::failed(format!(
        "{why}. Putting {app} back is not finished: {}. It goes on before the next change to {app}; mend the cause, then order it again",
        stop.words().trim_end_matches('.')
    ));
    outcome.result = json!({ "app": app, "changed": true, "rollback_pending": true });
    outcome
}
