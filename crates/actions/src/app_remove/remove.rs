//! A removal from beginning to end. What is gone cannot be put back, so once it has begun neither a
//! crash nor a cancellation changes its end. Only an order that became void halts: what is still
//! there is started again, and the end says what is gone.

use ids::{AppName, ReleaseId};
use serde_json::json;

use crate::{
    app_deploy::{Earlier, Settled, settle_earlier, switch::grace_of},
    effect::{AppState, Effect},
    engine::{Engine, count},
    limits,
    outcome::{Outcome, OutcomeStatus},
    port::{ActionContext, ActionPort},
    release::{Before, Book, ImageTag, Pending, RecordedEnd, app_key},
    spec_read,
    stop::Stop,
};

/// What a removal took away, and what it left.
pub(crate) struct Removed {
    containers: Vec<String>,
    networks: Vec<String>,
    /// Somebody else's container has joined them.
    networks_left: Vec<String>,
    volumes_kept: Vec<String>,
}

pub(super) async fn run<P: ActionPort>(app: &AppName, context: &ActionContext, port: &mut P) -> Outcome {
    let mut engine = Engine::patient(port, limits::CHANGE_TIMEOUT);
    let (mut book, mut state) = match look(app, &mut engine).await {
        Ok(found) => found,
        Err(stop) => return stop.untouched(&format!("{app} was not removed")),
    };
    if !context.dry_run
        && let Some(end) = book.end_of(context.command)
    {
        return end.into_outcome();
    }
    let begun = matches!(book.record.pending, Some(Pending::Remove { .. }));
    let empty = state.containers.is_empty() && state.networks.is_empty();
    if !book.known && empty && (state.volumes.is_empty() || context.resumed) {
        return nothing_here(app, &state, context);
    }
    if context.dry_run {
        return outcome(app, "would be removed", &from_state(&state), &book);
    }
    if !begun && engine.is_cancelled() {
        return Stop::Cancelled.untouched(app.as_str());
    }
    if !begun && context.backwards_only {
        return Outcome::failed(format!(
            "{app} was not removed: the order became void before it began. Nothing was changed"
        ));
    }
    let (mut settled, untouched) = (Earlier::default(), format!("{app} was not removed"));
    if matches!(book.record.pending, Some(Pending::Run(_))) {
        match settle_earlier(context, &mut book, &mut engine).await {
            Settled::Ended(outcome) => return outcome,
            Settled::Before(earlier) => settled = earlier,
            Settled::Forward => {}
        }
        state = match engine.observe(app).await {
            Ok(state) => state,
            Err(error) => return settled.untouched(error.into(), &untouched),
        };
    }
    if !begun && let Err(stop) = begin(context, &state, &mut book, &mut engine).await {
        return settled.untouched(stop, &untouched);
    }
    if context.backwards_only && !state.containers.is_empty() {
        return match halt(&mut book, &state, context, &mut engine).await {
            Ok(end) => end.into_outcome(),
            Err(stop) => half_way(app, &stop),
        };
    }
    match remove_pending(&mut book, &mut engine).await {
        Ok(removed) => outcome(app, "removed", &removed, &book),
        Err(stop) => half_way(app, &stop),
    }
}

async fn look<P: ActionPort>(app: &AppName, engine: &mut Engine<'_, P>) -> Result<(Book, AppState), Stop> {
    let book = Book::open(engine, app).await?;
    let state = engine.observe(app).await?;
    Ok((book, state))
}

fn nothing_here(app: &AppName, state: &AppState, context: &ActionContext) -> Outcome {
    // A crash between the last step and the report finds nothing either; only then is that no mistake.
    if context.resumed {
        return Outcome::succeeded(
            format!("nothing of {app} is left on this host"),
            json!({ "app": app, "removed": [], "networks_removed": [], "volumes_kept": state.volumes }),
        );
    }
    let mut outcome = Outcome::failed(format!("this host has no app named {app}; see `serverflow app list`"));
    // The control plane may list it still, after an end that did not say that it was gone.
    outcome.result = json!({ "app": app, "absent": true });
    outcome
}

async fn begin<P: ActionPort>(
    context: &ActionContext,
    state: &AppState,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    // A deploy that is half-way is removed with the rest: its release and tags join the list.
    if let Some(Pending::Deploy(pending)) = &book.record.pending
        && !book.keeps(pending.to)
    {
        let entry = crate::release::ReleaseEntry { release: pending.to, tags: pending.tags.clone() };
        book.record.releases.push(entry);
    }
    book.record.pending = Some(Pending::Remove {
        command: context.command,
        ran: state.containers.iter().filter(|c| Before::of(c).ran()).map(|c| c.name.clone()).collect(),
    });
    book.write(engine).await?;
    Ok(())
}

/// Leaves off: starts what ran and still exists, and says what does not.
async fn halt<P: ActionPort>(
    book: &mut Book,
    state: &AppState,
    context: &ActionContext,
    engine: &mut Engine<'_, P>,
) -> Result<RecordedEnd, Stop> {
    engine.touched();
    let app = book.record.app.clone();
    let Some(Pending::Remove { ran, .. }) = book.record.pending.clone() else {
        return Err(Stop::fault("the agent lost track of this removal; order it again"));
    };
    let (there, gone): (Vec<String>, Vec<String>) =
        ran.into_iter().partition(|name| state.containers.iter().any(|container| container.name == *name));
    for name in &there {
        engine.done(Effect::ContainerStart { name: name.clone() }).await?;
    }
    let lost = if gone.is_empty() {
        "All of its containers run again".to_owned()
    } else {
        format!("Gone already: {}; deploy the app again", gone.join(", "))
    };
    let end = RecordedEnd {
        command: context.command,
        status: OutcomeStatus::Failed,
        message: format!("the order to remove {app} became void while it was carried out, so it was left off. {lost}"),
        result: json!({ "app": app, "removed": gone, "started_again": there, "volumes_kept": state.volumes }),
    };
    book.record.pending = None;
    book.record.last_end = Some(end.clone());
    book.write(engine).await?;
    Ok(end)
}

fn from_state(state: &AppState) -> Removed {
    Removed {
        containers: state.containers.iter().map(|container| container.name.clone()).collect(),
        networks: state.networks.clone(),
        networks_left: Vec::new(),
        volumes_kept: state.volumes.clone(),
    }
}

/// Removes what is left of the app, and its records last.
pub(crate) async fn remove_pending<P: ActionPort>(
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Result<Removed, Stop> {
    engine.touched();
    let app = book.record.app.clone();
    let current = book.release(engine, book.record.current).await?;
    let order = current.as_ref().and_then(|record| spec_read::start_order(&record.spec).ok()).unwrap_or_default();
    let mut state = engine.observe(&app).await?;
    // Last to start, first to stop.
    let place = |service: &str| order.iter().position(|name| name.as_str() == service).unwrap_or(order.len());
    state.containers.sort_by(|a, b| place(&b.service).cmp(&place(&a.service)).then_with(|| a.name.cmp(&b.name)));
    for container in &state.containers {
        let grace = grace_of(current.as_ref(), &container.service).0;
        engine.in_time()?;
        engine.progress(format!("removing {}", container.name));
        engine.done(Effect::ContainerStop { name: container.name.clone(), grace_ms: grace }).await?;
        engine.done(Effect::ContainerRemove { name: container.name.clone() }).await?;
    }
    engine.files_sweep(&app).await?;
    let mut networks_left = Vec::new();
    for network in core::mem::take(&mut state.networks) {
        let is_gone = engine.network_drop(&network).await?;
        let list = if is_gone { &mut state.networks } else { &mut networks_left };
        list.push(network);
    }
    let releases = book.record.releases.clone();
    for tag in releases.iter().flat_map(|entry| &entry.tags) {
        let ImageTag { repository, tag } = tag.clone();
        engine.done(Effect::ImageUntag { repository, tag }).await?;
    }
    let forgotten: Vec<ReleaseId> = releases.iter().map(|entry| entry.release).collect();
    for release in forgotten {
        book.release_forget(engine, release).await?;
    }
    engine.record_write(&app_key(&app), None).await?;
    book.record.pending = None;
    book.record.current = None;
    book.record.releases.clear();
    book.record.stopped.clear();
    book.record.last_end = None;
    book.known = false;
    Ok(Removed { networks_left, ..from_state(&state) })
}

fn outcome(app: &AppName, done: &str, removed: &Removed, book: &Book) -> Outcome {
    let what =
        format!("{} and {}", count(removed.containers.len(), "container"), count(removed.networks.len(), "network"));
    let kept = match removed.volumes_kept.as_slice() {
        [] => String::new(),
        volumes => format!("; its volumes stay: {}", volumes.join(", ")),
    };
    let left = match removed.networks_left.as_slice() {
        [] => String::new(),
        networks => format!(
            "; network {} stays, because a container of somebody else has joined it; remove the network by hand when that is gone",
            networks.join(", ")
        ),
    };
    let message = if removed.containers.is_empty() && removed.networks.is_empty() && !book.known {
        format!("nothing to remove: {app} has no containers on this host{kept}{left}")
    } else {
        format!("{app}: {what} {done}{kept}{left}")
    };
    Outcome::succeeded(
        message,
        json!({
            "app": app,
            "removed": removed.containers,
            "networks_removed": removed.networks,
            "networks_left": removed.networks_left,
            "volumes_kept": removed.volumes_kept,
        }),
    )
}

fn half_way(app: &AppName, stop: &Stop) -> Outcome {
    let mut outcome = Outcome::failed(format!(
        "the removal of {app} stopped half-way: {}. It goes on before the next change to {app}; mend the cause, then remove it again",
        stop.words().trim_end_matches('.')
    ));
    outcome.result = json!({ "app": app, "removal_pending": true });
    outcome
}
