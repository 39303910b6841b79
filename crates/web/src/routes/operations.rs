//! Operations: asking for something, and how it goes.
//!
//! `POST` answers 202 when the operation was taken up and 200 when the same request was known
//! already; both with the operation as it stands. The id is the client's, so a request whose answer
//! was lost is simply sent again, whatever has happened to its hosts since.

use std::{collections::BTreeMap, sync::Arc};

use ::actions::{DecodeError, host_retire::RETIRE_ACTION, spec::AppSpec};
use api::{
    DeployRequest, FileProblem, OperationRequest, OperationResponse, OperationSummary, Page,
    SealedValue as SealedShown, SingleRequest, Timestamp,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use data_encoding::BASE64;
use envelope::{
    messages::{SealedRef, SealedValue},
    recovery::RecoveryCopy,
};
use fleet::{
    limits::{QUEUE_FOR_APPROVAL_DEFAULT, QUEUE_FOR_DEFAULT, TARGETS_MAX},
    list::{HostFilter, HostSort, ListPage, OperationFilter, StandingKind},
    model::{Command, CommandStatus, Host, HostStanding, NewCommand, Operation, OperationKind, Principal},
    operation::{
        DeployTiming, Grounds, OperationRequest as Asked, ProposeError, Proposed, Target, Work, app_targets,
        operation_propose,
    },
    ports::{Event, HostChange, StoreError, Write, Written},
    selector::Selector,
};
use ids::{ActionName, AppName, DurationMs, HostName, OperationId, UnixMs, UserName, sha256};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    access::{self, Actor},
    events::{self, Subject},
    fresh::FreshCommands,
    input::{OperationBody, PathParameter, Query, from_value},
    lasting::to_the_end,
    limits,
    list::{List, ListQuery},
    problem::{ApiError, Kind},
    routes::{bundle, hosts, recovery},
    state::Shared,
    streams, view,
};

/// A request, taken apart and not yet judged.
pub(super) struct Wanted {
    pub(super) id: OperationId,
    pub(super) work: Work,
    pub(super) hosts: Vec<HostName>,
    pub(super) selector: Option<Selector>,
    pub(super) sealed: BTreeMap<HostName, Vec<SealedValue>>,
    /// Sealed here, anew with each request: only the names can be compared.
    pub(super) sealed_here: bool,
    pub(super) dry_run: bool,
    pub(super) queue_for: Option<DurationMs>,
    /// The values sealed to the owner.
    pub(super) recovery: Option<RecoveryCopy>,
    /// Worth knowing about the files it came from.
    pub(super) notes: Vec<FileProblem>,
}

impl Wanted {
    async fn read(shared: &Shared, actor: &Principal, request: OperationRequest) -> Result<Self, ApiError> {
        match request {
            OperationRequest::Single(request) => Self::single(request),
            OperationRequest::Deploy(request) => Self::deploy(shared, request),
            OperationRequest::DeployBundle(request) => bundle::wanted(shared, actor, request).await,
        }
    }

    fn single(request: SingleRequest) -> Result<Self, ApiError> {
        let action: ActionName =
            request.action.parse().map_err(|error| ApiError::field("action", format!("{error}")))?;
        let parameters = request.parameters.to_string().into_bytes();
        Ok(Self {
            id: request.operation_id,
            work: Work::Action { action, version: None, parameters },
            selector: selector(&request.hosts, request.selector.as_deref())?,
            hosts: request.hosts,
            sealed: sealed(request.sealed)?,
            dry_run: request.dry_run,
            queue_for: span(request.queue_for_seconds),
            sealed_here: false,
            recovery: None,
            notes: Vec::new(),
        })
    }

    fn deploy(shared: &Shared, request: DeployRequest) -> Result<Self, ApiError> {
        // Decoded and written again, so that one specification is one sequence of bytes.
        let spec: AppSpec = from_value("spec", request.spec)?;
        Ok(Self {
            id: request.operation_id,
            work: Work::Deploy {
                spec: view::value(&spec).to_string().into_bytes(),
                timing: timing(request.healthy_within_seconds, request.min_healthy_seconds),
            },
            selector: selector(&request.hosts, request.selector.as_deref())?,
            hosts: request.hosts,
            sealed: sealed(request.sealed)?,
            dry_run: request.dry_run,
            queue_for: span(request.queue_for_seconds),
            sealed_here: false,
            recovery: request.recovery.map(|copy| recovery::read(shared, copy)).transpose()?,
            notes: Vec::new(),
        })
    }

    /// Whether this is the request that made an operation. Only what the client sent is compared.
    fn made(&self, operation: &Operation, commands: &[Command], actor: &Principal) -> bool {
        // Of a deploy, later stages repeat what the first was given.
        let first_of = |host: &HostName| commands.iter().find(|command| command.host_name == *host);
        let same_work = match (&self.work, operation.kind) {
            (Work::Deploy { spec, timing }, OperationKind::Deploy) => operation.detail == timing.detail(spec),
            (Work::Action { action, parameters, .. }, OperationKind::Single) => commands
                .iter()
                .all(|command| command.order.action == *action && command.order.parameters == *parameters),
            _ => false,
        };
        let same_hosts = self.hosts.is_empty()
            || (self.hosts.iter().all(|host| first_of(host).is_some())
                && commands.iter().all(|command| self.hosts.contains(&command.host_name)));
        let same_sealed = commands.iter().all(|command| {
            let given = self.sealed.get(&command.host_name).map_or(&[][..], Vec::as_slice);
            given.len() == command.order.sealed.len()
                && given.iter().all(|given| {
                    let hash = sha256(&given.bytes);
                    let same = |kept: &SealedRef| kept.name == given.name && (self.sealed_here || kept.sha256 == hash);
                    command.order.sealed.iter().any(same)
                })
        });
        // As it was then, whatever root metadata asks for by now.
        let queue_for_default = if operation.approvals > 0 { QUEUE_FOR_APPROVAL_DEFAULT } else { QUEUE_FOR_DEFAULT };
        operation.requested_by == actor.user_name
            && operation.dry_run == self.dry_run
            && operation.queue_for_ms == self.queue_for.unwrap_or(queue_for_default).0
            && operation.selector.as_deref() == self.selector.as_ref().map(Selector::as_str)
            && same_work
            && same_hosts
            && same_sealed
    }
}

pub(super) fn timing(healthy_within_seconds: Option<u64>, min_healthy_seconds: Option<u64>) -> DeployTiming {
    DeployTiming { healthy_within: span(healthy_within_seconds), min_healthy: span(min_healthy_seconds) }
}

pub(super) fn span(seconds: Option<u64>) -> Option<DurationMs> {
    seconds.map(|seconds| DurationMs(seconds.saturating_mul(1000)))
}

fn sealed(shown: BTreeMap<HostName, Vec<SealedShown>>) -> Result<BTreeMap<HostName, Vec<SealedValue>>, ApiError> {
    let mut all = BTreeMap::new();
    for (host, shown) in shown {
        let mut values = Vec::with_capacity(shown.len());
        for (index, SealedShown { name, sealed }) in shown.into_iter().enumerate() {
            let bytes = BASE64.decode(sealed.as_bytes()).map_err(|error| {
                ApiError::field(
                    format!("sealed.{host}[{index}].sealed"),
                    format!("not base64 (RFC 4648 section 4): {error}"),
                )
            })?;
            values.push(SealedValue { name, bytes });
        }
        all.insert(host, values);
    }
    Ok(all)
}

pub(super) async fn propose(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    OperationBody(request): OperationBody,
) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&shared, &actor, request).await?;
    if let Some(operation) = shared.store.operation(wanted.id).await? {
        return known(&shared, &operation, &wanted, &actor).await;
    }
    let targets = targets(&shared, &wanted).await?;
    check_retirement(&shared, &wanted.work, &targets)?;
    let id = wanted.id;
    let asked = Asked {
        id,
        work: wanted.work.clone(),
        targets: targets.iter().map(|host| target(host, &wanted)).collect(),
        queue_for: wanted.queue_for,
        dry_run: wanted.dry_run,
        selector: wanted.selector.as_ref().map(ToString::to_string),
        recovery: wanted.recovery.clone(),
    };
    let now = shared.now();
    let root = shared.root();
    let fleet = root.current().fleet;
    let account = shared.store.user_by_name(actor.user_name.clone()).await?;
    let requester = account.and_then(|account| account.approver).map(|(key, _)| envelope::key_id(&key));
    let grounds = Grounds { approvals: root.current().approvals, requester };
    let proposed = operation_propose(fleet, grounds, asked, &actor, &targets, now, &mut FreshCommands::new(now)?);
    let proposed = proposed.map_err(|error| refused(error, &wanted.work))?;
    let written = store(&shared, &actor, proposed).await;
    let status = match written {
        Ok(Written::Done) => StatusCode::ACCEPTED,
        Ok(Written::AlreadyProposed) => StatusCode::OK,
        // Someone was faster with the same id.
        Err(StoreError::Conflict(why)) => match shared.store.operation(id).await? {
            Some(operation) => return known(&shared, &operation, &wanted, &actor).await,
            None => return Err(StoreError::Conflict(why).into()),
        },
        Err(error) => return Err(error.into()),
    };
    answer(&shared, id, status, wanted.notes).await
}

/// A host that is away cannot drop its secrets now, and whoever wants it gone does not want to wait: there is another word.
fn check_retirement(shared: &Shared, work: &Work, targets: &[Host]) -> Result<(), ApiError> {
    let Work::Action { action, .. } = work else { return Ok(()) };
    let is_away = |host: &&Host| host.standing == HostStanding::Active && shared.notifier.connected(host.id).is_none();
    match targets.iter().find(is_away).filter(|_| action.as_str() == RETIRE_ACTION) {
        Some(Host { name, .. }) => {
            let detail = format!(
                "host {name} is offline, so its agent cannot be told to drop its orders and secrets; start the agent there, or \
                 shut the host out without it with `serverflow host revoke {name}`"
            );
            Err(ApiError::new(Kind::HostNotActive, detail))
        }
        None => Ok(()),
    }
}

/// A deploy's first stage has the specification as its parameters; the client knows it as `spec`.
fn refused(error: ProposeError, work: &Work) -> ApiError {
    match (error, work) {
        (ProposeError::Parameters(DecodeError::Parameter { path, message, .. }), Work::Deploy { .. }) => {
            ApiError::field(path, message)
        }
        (error, _) => error.into(),
    }
}

/// Stores what was granted and tells the hosts' sessions and whoever watches.
pub(super) async fn store(shared: &Shared, actor: &Principal, proposed: Proposed) -> Result<Written, StoreError> {
    stored(shared, actor, proposed.into_write()).await
}

/// The same of a write that makes commands.
pub(super) async fn stored(shared: &Shared, actor: &Principal, write: Write) -> Result<Written, StoreError> {
    let commands: &[NewCommand] = match &write {
        Write::OperationPropose { commands, .. } => commands,
        Write::StandingPropose(proposal) => &proposal.commands,
        _ => &[],
    };
    let announcements: Vec<Event> = commands.iter().map(|new| queued(&new.order)).collect();
    let mut hosts: Vec<_> = commands.iter().map(|new| new.order.host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let write = access::by(shared, actor, write);
    let (store, notifier) = (shared.store.clone(), shared.notifier.clone());
    to_the_end(async move {
        let written = store.write(write).await?;
        if written == Written::Done {
            announcements.into_iter().for_each(|event| notifier.publish(event));
        }
        for host in hosts {
            notifier.host_changed(host, HostChange::Queue);
        }
        Ok(written)
    })
    .await
}

fn queued(order: &envelope::messages::Order) -> Event {
    Event::Command {
        command: order.command,
        operation: order.operation,
        host: order.host,
        status: CommandStatus::Queued,
        message: String::new(),
    }
}

/// An operation of that id exists: the same request again, or another one.
async fn known(
    shared: &Shared,
    operation: &Operation,
    wanted: &Wanted,
    actor: &Principal,
) -> Result<Response, ApiError> {
    let commands = view::operation_commands(&*shared.store, operation.id).await?;
    if wanted.made(operation, &commands, actor) {
        // Whoever asks again may have reason to: a session that missed the first word hears it now.
        let waiting = commands.iter().filter(|command| command.status == CommandStatus::Queued);
        waiting.for_each(|command| shared.notifier.host_changed(command.order.host, HostChange::Queue));
        return answer(shared, operation.id, StatusCode::OK, wanted.notes.clone()).await;
    }
    let detail =
        format!("operation {} exists already and asks for something else; choose a new operation id", operation.id);
    Err(ApiError::new(Kind::OperationConflict, detail))
}

pub(super) async fn answer(
    shared: &Shared,
    id: OperationId,
    status: StatusCode,
    notes: Vec<FileProblem>,
) -> Result<Response, ApiError> {
    let mut operation = view::operation_read(&*shared.store, id).await?;
    operation.notes = notes;
    let mut response = (status, Json(operation)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/operations/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn target(host: &Host, wanted: &Wanted) -> Target {
    Target { host: host.id, sealed: wanted.sealed.get(&host.name).cloned().unwrap_or_default() }
}

/// The hosts asked for; for an action on an app that names none, those that carry it.
async fn targets(shared: &Shared, wanted: &Wanted) -> Result<Vec<Host>, ApiError> {
    let hosts = match (&wanted.work, wanted.hosts.as_slice()) {
        // A bundle comes with the hosts that were selected: it is sealed to them.
        (work, []) if let Some(selector) = &wanted.selector => {
            let app = match work {
                Work::Action { action, parameters, .. } if acts_on_app(action) => Some(app_of(parameters)?),
                _ => None,
            };
            selected_hosts(shared, app, selector).await?
        }
        (Work::Action { action, parameters, .. }, []) if action.as_str().starts_with("app.") => {
            app_hosts(shared, parameters).await?
        }
        (_, names) => named_hosts(shared, names).await?,
    };
    if let Some(stray) = wanted.sealed.keys().find(|name| hosts.iter().all(|host| host.name != **name)) {
        return Err(ApiError::field(
            format!("sealed.{stray}"),
            "values for a host that is not among the hosts asked for",
        ));
    }
    Ok(hosts)
}

/// Hosts that may get orders and that the selector selects; for an action on an app, those of them
/// that carry it.
pub(super) async fn selected_hosts(
    shared: &Shared,
    app: Option<AppName>,
    selector: &Selector,
) -> Result<Vec<Host>, ApiError> {
    let carrying = app.as_ref().map(|app| format!(" and carries {app}")).unwrap_or_default();
    let filter = HostFilter { standing: Some(StandingKind::Active), selector: Some(selector.clone()), app };
    let mut page = ListPage { descending: false, after: None, limit: limits::LIST_MAX };
    let mut found = Vec::new();
    loop {
        let listed = shared.store.hosts_list(filter.clone(), HostSort::Name, page.clone()).await?;
        page.after = listed.items.last().map(|(key, _)| key.clone());
        found.extend(listed.items.into_iter().map(|(_, host)| host));
        if !listed.more || found.len() > TARGETS_MAX {
            break;
        }
    }
    if found.is_empty() {
        let message =
            format!("no host that may get orders is selected by {selector}{carrying}; see `serverflow host list`");
        return Err(ApiError::field("selector", message));
    }
    Ok(found)
}

/// Whether an action is about an app that is there already. What brings one takes a specification.
fn acts_on_app(action: &ActionName) -> bool {
    action.as_str().starts_with("app.") && !["app.plan", "app.deploy"].contains(&action.as_str())
}

fn app_of(parameters: &[u8]) -> Result<AppName, ApiError> {
    let parameters: Value = view::json(parameters);
    let app = parameters.get("app").and_then(Value::as_str);
    let app = app.ok_or_else(|| ApiError::field("parameters.app", "name the app, or name hosts"))?;
    app.parse().map_err(|error| ApiError::field("parameters.app", format!("{error}")))
}

async fn app_hosts(shared: &Shared, parameters: &[u8]) -> Result<Vec<Host>, ApiError> {
    let app = app_of(parameters)?;
    let instances = shared.store.apps(Some(app.clone())).await?;
    let mut hosts = Vec::new();
    for id in app_targets(&app, None, &instances)? {
        hosts.extend(shared.store.host(id).await?);
    }
    Ok(hosts)
}

pub(super) async fn named_hosts(shared: &Shared, names: &[HostName]) -> Result<Vec<Host>, ApiError> {
    let stored = shared.store.hosts_named(names.to_vec()).await?;
    let mut by_name: BTreeMap<&HostName, &Host> = BTreeMap::new();
    for host in &stored {
        // Revoked ones come last and do not take a name from one that is not.
        by_name.entry(&host.name).or_insert(host);
    }
    let found = names.iter().map(|name| by_name.get(name).copied().cloned().ok_or_else(|| hosts::not_found(name)));
    found.collect()
}

/// Either hosts or a selector: with both, nobody could say which of the two is meant.
pub(super) fn selector(hosts: &[HostName], text: Option<&str>) -> Result<Option<Selector>, ApiError> {
    if text.is_some() && !hosts.is_empty() {
        return Err(ApiError::field("selector", "name hosts or select them, not both"));
    }
    hosts::selector(text)
}

pub(super) const LIST: List = List { name: "operations", sorts: &["-created_at"] };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    requested_by: Option<UserName>,
    /// From then on.
    since: Option<Timestamp>,
    /// Before then.
    until: Option<Timestamp>,
    limit: Option<u32>,
    after: Option<String>,
    sort: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<OperationSummary>>, ApiError> {
    let sorted = LIST.read(ListQuery { limit: filter.limit, after: filter.after, sort: filter.sort })?;
    let filter = OperationFilter {
        requested_by: filter.requested_by,
        since: filter.since.map(|time| time.0),
        until: filter.until.map(|time| time.0),
    };
    let listed = shared.store.operations_list(filter, sorted.page.clone()).await?;
    Ok(Json(sorted.answer(listed, view::operation_line)))
}

pub(super) fn not_found(id: OperationId) -> ApiError {
    ApiError::new(Kind::OperationNotFound, format!("there is no operation {id}; see `serverflow operation list`"))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    PathParameter(id): PathParameter<OperationId>,
) -> Result<Json<OperationResponse>, ApiError> {
    shared.store.operation(id).await?.ok_or_else(|| not_found(id))?;
    Ok(Json(view::operation_read(&*shared.store, id).await?))
}

pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<OperationId>,
) -> Result<Response, ApiError> {
    shared.store.operation(id).await?.ok_or_else(|| not_found(id))?;
    events::open(&shared, Subject::Operation(id), &actor).await
}

/// The streams of the operation's commands, for as long as whoever asked reads them.
pub(super) async fn output(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<OperationId>,
) -> Result<Response, ApiError> {
    shared.store.operation(id).await?.ok_or_else(|| not_found(id))?;
    streams::open(&shared, id, &actor).await
}

/// An id for an operation that the client gave none.
pub(super) fn fresh_id(now: UnixMs) -> Result<OperationId, ApiError> {
    Ok(crate::fresh::id(now)?)
}
