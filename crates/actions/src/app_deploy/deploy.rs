//! A deploy from beginning to end, as one straight line.
//!
//! The order of things is what makes it safe to die anywhere:
//!
//! 1. look, pull, plan: nothing on the host changes, a crash here leaves nothing;
//! 2. write down what there was and where this goes ([`Phase::Forward`]);
//! 3. switch service by service: the old container is stopped and renamed, never removed;
//! 4. healthy: write down that the new release is the one ([`Phase::Clean`]), and only then remove the old;
//! 5. otherwise: write down that it goes back ([`Phase::Back`]), and put the old ones back.
//!
//! After a crash the record says which of these lines to go on with.

use std::collections::BTreeMap;

use ids::ServiceName;
use serde_json::{Value, json};

use super::{AppDeploy, Settled, commit, put_back, settle_earlier, switch};
use crate::{
    app_plan::{Change, PlanResult, decide, resolve},
    effect::ContainerSpec,
    engine::Engine,
    foreign, limits,
    mask::Masker,
    outcome::{Outcome, OutcomeStatus},
    port::{ActionContext, ActionPort},
    release::{
        Before, Book, ImageTag, Pending, PendingDeploy, Phase, RecordedEnd, ReleaseRecord, release_of, release_short,
    },
    stop::Stop,
};

/// What a deploy knows while it runs.
pub(super) struct Deploy<'a> {
    pub(super) order: &'a AppDeploy,
    pub(super) context: &'a ActionContext,
    pub(super) desired: BTreeMap<ServiceName, ContainerSpec>,
    pub(super) decision: decide::Decision,
    pub(super) from_record: Option<ReleaseRecord>,
    /// What there was when it was decided.
    seen: Seen,
}

/// The app's things on the host before this deploy touched any of them.
struct Seen {
    before: Vec<Before>,
    networks: Vec<String>,
    volumes: Vec<String>,
}

pub(super) async fn run<P: ActionPort>(order: &AppDeploy, context: &ActionContext, port: &mut P) -> Outcome {
    let mut engine = Engine::patient(port, limits::CHANGE_TIMEOUT);
    let app = &order.spec.app;
    if context.dry_run {
        return match dry_run(order, context, &mut engine).await {
            Ok(outcome) => outcome,
            Err(stop) => stop.untouched(&format!("a deploy of {app} cannot be planned")),
        };
    }
    let mut book = match Book::open(&mut engine, app).await {
        Ok(book) => book,
        Err(error) => return Stop::from(error).untouched(&format!("{app} was not deployed")),
    };
    if let Some(end) = book.end_of(context.command) {
        return end.into_outcome();
    }
    let settled = match settle_earlier(context, &mut book, &mut engine).await {
        Settled::Before(earlier) => earlier,
        Settled::Forward if context.backwards_only => {
            return put_back::put_back(void(order, context), context, &mut book, &mut engine).await;
        }
        Settled::Forward => {
            engine.touched();
            let deploy = survey(order, context, &book, &mut engine).await;
            return carry_out(deploy, order, context, book, &mut engine).await;
        }
        Settled::Ended(outcome) => return outcome,
    };
    let untouched = format!("{app} was not deployed");
    if context.backwards_only {
        return settled.untouched(Stop::fault("the order became void before it began"), &untouched);
    }
    let deploy = match survey(order, context, &book, &mut engine).await {
        Ok(deploy) => deploy,
        Err(stop) => return settled.untouched(stop, &untouched),
    };
    if let Some(stop) = other_than_planned(order, &deploy.decision.plan) {
        return settled.untouched(stop, &untouched);
    }
    if deploy.decision.plan.unchanged && book.record.current.is_some() {
        return nothing_to_change(&deploy, &book, &mut engine).await;
    }
    if let Err(stop) = engine.may_go_on() {
        return settled.untouched(stop, &untouched);
    }
    if let Err(stop) = begin(&deploy, &mut book, &mut engine).await {
        return settled.untouched(stop, &untouched);
    }
    carry_out(Ok(deploy), order, context, book, &mut engine).await
}

/// An order may say which plan it was granted for; another one is not carried out in its name.
fn other_than_planned(order: &AppDeploy, plan: &PlanResult) -> Option<Stop> {
    let granted = order.plan_sha256.filter(|granted| *granted != plan.plan_sha256)?;
    Some(Stop::fault(format!(
        "the host is not as it was when this deploy was planned (plan {granted}, now {}); plan it again, look at what would change, and deploy that",
        plan.plan_sha256
    )))
}

/// From the written intention to the end, whichever it is.
async fn carry_out<P: ActionPort>(
    deploy: Result<Deploy<'_>, Stop>,
    order: &AppDeploy,
    context: &ActionContext,
    mut book: Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let switched = match &deploy {
        Ok(deploy) => switch::switch(deploy, &book, engine).await,
        Err(stop) => Err(stop.clone()),
    };
    match (switched, deploy) {
        (Ok(health), Ok(deploy)) => commit::commit(&deploy, &health, &mut book, engine).await,
        (Err(stop), _) => failed(stop, order, context, &mut book, engine).await,
        (Ok(_), Err(stop)) => failed(stop, order, context, &mut book, engine).await,
    }
}

/// It cannot go forward: goes back, unless nothing at all can be done.
async fn failed<P: ActionPort>(
    stop: Stop,
    order: &AppDeploy,
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let app = &order.spec.app;
    let (status, message, failing) = match stop {
        Stop::Journal(message) => {
            return half_way(order, &format!("the agent's journal cannot be written ({message})"));
        }
        Stop::Unreachable(message) => {
            return half_way(
                order,
                &format!("Docker did not answer until the time for this order was over ({message})"),
            );
        }
        Stop::Cancelled => (OutcomeStatus::Cancelled, format!("the deploy of {app} was cancelled"), Vec::new()),
        Stop::Fault(fault) => {
            let logs = put_back::last_words(&fault, engine).await;
            (OutcomeStatus::RolledBack, fault.message, logs)
        }
    };
    let end = masked(context, recorded(order, context, status, message, json!({ "failing": failing })));
    put_back::put_back(end, context, book, engine).await
}

/// The end of an order that became void while it was carried out.
fn void(order: &AppDeploy, context: &ActionContext) -> RecordedEnd {
    let message = "the order became void while it was carried out (its key was dropped)".to_owned();
    recorded(order, context, OutcomeStatus::RolledBack, message, json!({ "failing": [] }))
}

fn recorded(
    order: &AppDeploy,
    context: &ActionContext,
    status: OutcomeStatus,
    message: String,
    more: Value,
) -> RecordedEnd {
    let mut result = json!({ "app": order.spec.app, "changed": false });
    if let (Value::Object(result), Value::Object(more)) = (&mut result, more) {
        result.extend(more);
    }
    RecordedEnd { command: context.command, status, message, result }
}

/// Hides the order's secrets in what will be written down and reported.
pub(crate) fn masked(context: &ActionContext, mut end: RecordedEnd) -> RecordedEnd {
    let app = end.result["app"].to_string();
    let masker =
        Masker::new(context.secrets.values().chain(&context.remembered).map(|value| value.as_str())).except_open(&app);
    end.message = masker.mask(&end.message);
    masker.mask_json(&mut end.result);
    end
}

/// Neither forward nor backward is possible now; the record stays, and the next change goes back first.
fn half_way(order: &AppDeploy, why: &str) -> Outcome {
    let app = &order.spec.app;
    let mut outcome = Outcome::failed(format!(
        "the deploy of {app} stopped half-way: {why}. What it began is put back before the next change to {app}; start Docker, then deploy again"
    ));
    outcome.result = json!({ "app": app, "changed": true, "rollback_pending": true });
    outcome
}

async fn dry_run<P: ActionPort>(
    order: &AppDeploy,
    context: &ActionContext,
    engine: &mut Engine<'_, P>,
) -> Result<Outcome, Stop> {
    let mut states = BTreeMap::new();
    for (name, image) in &order.images {
        if let Some(state) = engine.image(&image.pinned).await? {
            states.insert(name.clone(), state);
        }
    }
    let plan = resolve::plan_pinned(&order.spec, (order.images.clone(), states), context, engine).await?;
    Ok(plan.into_outcome())
}

/// Everything that is looked up and pulled before anything is touched, and the decision from it.
async fn survey<'a, P: ActionPort>(
    order: &'a AppDeploy,
    context: &'a ActionContext,
    book: &Book,
    engine: &mut Engine<'_, P>,
) -> Result<Deploy<'a>, Stop> {
    context.policy.judge_demands(&crate::spec_read::demands_resolved(&order.spec, &order.images))?;
    let desired = resolve::desired(&order.spec, &order.images, context)?;
    let image_states = images_present(order, engine).await?;
    foreign::check(&order.spec, &context.policy, engine).await?;
    let seen = match &book.record.pending {
        Some(Pending::Deploy(pending)) => Seen {
            before: pending.before.clone(),
            networks: pending.networks_before.clone(),
            volumes: pending.volumes_before.clone(),
        },
        _ => {
            let state = engine.observe(&order.spec.app).await?;
            let before = state.containers.iter().map(Before::of).collect();
            Seen { before, networks: state.networks, volumes: state.volumes }
        }
    };
    let from_record = book.release(engine, book.record.current).await?;
    let decision = decide::decide(&decide::Known {
        spec: &order.spec,
        images: &order.images,
        image_states: &image_states,
        desired: &desired,
        before: &seen.before,
        networks: &seen.networks,
        volumes: &seen.volumes,
        from: book.record.current,
        from_record: from_record.as_ref(),
        fingerprints: &resolve::fingerprints(context),
        stopped: &book.record.stopped,
    })
    .map_err(Stop::fault)?;
    Ok(Deploy { order, context, desired, decision, from_record, seen })
}

/// Has every image on the host before the first container is touched.
async fn images_present<P: ActionPort>(
    order: &AppDeploy,
    engine: &mut Engine<'_, P>,
) -> Result<BTreeMap<ServiceName, crate::effect::ImageState>, Stop> {
    let mut states = BTreeMap::new();
    for (name, image) in &order.images {
        engine.may_go_on()?;
        let mut state = engine.image(&image.pinned).await?;
        if state.is_none() && !image.local {
            engine.progress(format!("{name}: pulling {}", image.reference));
            let platform = order.spec.services.get(name).and_then(|service| service.platform.as_deref());
            resolve::pull(name, &image.pinned, platform, engine).await?;
            state = engine.image(&image.pinned).await?;
        }
        let state = state.ok_or_else(|| {
            Stop::fault(format!(
                "image {} of service {name} ({}) is not on this host any more; build or import it again, and deploy again",
                image.reference, image.pinned
            ))
        })?;
        states.insert(name.clone(), state);
    }
    Ok(states)
}

/// Writes down where this goes and what there was, then the release itself. From here on every
/// failure goes back.
async fn begin<P: ActionPort>(deploy: &Deploy<'_>, book: &mut Book, engine: &mut Engine<'_, P>) -> Result<(), Stop> {
    let to = release_of(deploy.context.operation);
    book.record.pending = Some(Pending::Deploy(Box::new(PendingDeploy {
        command: deploy.context.command,
        from: book.record.current,
        to,
        phase: Phase::Forward,
        before: deploy.seen.before.clone(),
        networks_before: deploy.seen.networks.clone(),
        volumes_before: deploy.seen.volumes.clone(),
        tags: deploy.order.images.keys().map(|name| image_tag(deploy.order, name, to)).collect(),
    })));
    book.write(engine).await?;
    engine.touched();
    Ok(())
}

/// The release's own record; written while the deploy is under way, so that going back removes it.
pub(super) fn release_record<P: ActionPort>(deploy: &Deploy<'_>, engine: &Engine<'_, P>) -> ReleaseRecord {
    let sealed = deploy.context.sealed.iter();
    ReleaseRecord {
        version: ReleaseRecord::VERSION,
        release: release_of(deploy.context.operation),
        command: deploy.context.command,
        created_at: engine.now(),
        spec: deploy.order.spec.clone(),
        images: deploy.order.images.clone(),
        fingerprints: resolve::fingerprints(deploy.context),
        sealed: sealed.map(|(name, bytes)| (name.clone(), data_encoding::BASE64.encode(bytes))).collect(),
    }
}

/// The tag that keeps a service's image: `serverflow/<app>-<service>:<release>`. Repositories allow
/// fewer characters than service names do; where letters are lost, a hash keeps two names apart.
fn image_tag(order: &AppDeploy, service: &ServiceName, release: ids::ReleaseId) -> ImageTag {
    let plain = format!("{}-{service}", order.spec.app);
    let mut safe: String =
        plain.chars().map(|c| if c.is_ascii_digit() || c.is_ascii_lowercase() { c } else { '-' }).collect();
    safe = safe.trim_matches('-').to_owned();
    if safe != plain {
        safe = format!("{safe}-{}", &ids::sha256(plain.as_bytes()).to_string()[..8]);
    }
    ImageTag { repository: format!("serverflow/{safe}"), tag: release_short(release) }
}

async fn nothing_to_change<P: ActionPort>(deploy: &Deploy<'_>, book: &Book, engine: &mut Engine<'_, P>) -> Outcome {
    let app = &deploy.order.spec.app;
    let state = match engine.observe(app).await {
        Ok(state) => state,
        Err(error) => return Stop::from(error).untouched(&format!("{app} was not deployed")),
    };
    let services = commit::services(deploy, &state);
    let poor: Vec<String> = state
        .containers
        .iter()
        .filter(|container| container.health == crate::effect::Health::Unhealthy)
        .map(|container| container.service.clone())
        .collect();
    let verified = deploy.decision.plan.verifiable && poor.is_empty();
    let mut message = format!("nothing to change: {app} already runs as asked");
    if !poor.is_empty() {
        message = format!("{message}, but Docker finds {} unhealthy; see `serverflow app logs {app}`", poor.join(", "));
    }
    let unchanged = deploy.decision.changes.values().all(|change| *change == Change::Unchanged);
    Outcome::succeeded(
        message,
        json!({
            "app": app,
            "release": book.record.current,
            "from": book.record.current,
            "changed": !unchanged,
            "verified": verified,
            "services": services,
        }),
    )
}
