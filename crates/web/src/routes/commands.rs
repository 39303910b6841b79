//! Commands: single orders to single hosts, with what was signed.

use std::sync::Arc;

use api::{CancelRequest, CancelResponse, CommandDetail, CommandSummary, Page, Timestamp};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use fleet::{
    list::CommandListFilter,
    model::{Command, CommandStatus, Principal},
    operation::{CancelDecision, CancelOrigin, command_cancel},
    ports::{Event, HostChange, StoreError, Write},
};
use ids::{ActionName, AppName, CommandId, HostId, HostName, OperationId, UserName};
use serde::Deserialize;

use crate::{
    access::{self, Actor},
    events::{self, Subject},
    fresh::FreshCommands,
    input::{JsonBodyMaybe, PathParameter, Query},
    lasting::to_the_end,
    limits,
    list::{List, ListQuery},
    problem::{ApiError, Kind},
    routes::{hosts, operations},
    state::Shared,
    view,
};

pub(super) const LIST: List = List { name: "commands", sorts: &["-proposed_at"] };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    host: Option<HostName>,
    status: Option<api::CommandStatus>,
    operation: Option<OperationId>,
    app: Option<AppName>,
    action: Option<ActionName>,
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
) -> Result<Json<Page<CommandSummary>>, ApiError> {
    let sorted = LIST.read(ListQuery { limit: filter.limit, after: filter.after, sort: filter.sort })?;
    let host = match filter.host {
        None => None,
        Some(name) => Some(hosts::find(&shared, &name).await?.id),
    };
    let filter = CommandListFilter {
        host,
        operation: filter.operation,
        status: filter.status.map(view::status_read),
        app: filter.app,
        action: filter.action,
        requested_by: filter.requested_by,
        since: filter.since.map(|time| time.0),
        until: filter.until.map(|time| time.0),
    };
    let listed = shared.store.commands_list(filter, sorted.page.clone()).await?;
    Ok(Json(sorted.answer(listed, view::command_line)))
}

pub(super) async fn find(shared: &Shared, id: CommandId) -> Result<Command, ApiError> {
    let missing =
        || ApiError::new(Kind::CommandNotFound, format!("there is no command {id}; see `serverflow command list`"));
    shared.store.command(id).await?.ok_or_else(missing)
}

pub(super) async fn host_of(shared: &Shared, command: &Command) -> Result<fleet::model::Host, ApiError> {
    shared.store.host(command.order.host).await?.ok_or_else(|| hosts::not_found(&command.host_name))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    PathParameter(id): PathParameter<CommandId>,
) -> Result<Json<CommandDetail>, ApiError> {
    let command = find(&shared, id).await?;
    let host = host_of(&shared, &command).await?;
    let reporter = view::Reporter::of(&*shared.store, host).await?;
    Ok(Json(view::command_detail(&command, &reporter, &shared.root())))
}

pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<CommandId>,
) -> Result<Response, ApiError> {
    find(&shared, id).await?;
    events::open(&shared, Subject::Command(id), &actor).await
}

/// 200 when the command was ended here (also when it was before: a request sent again is the same
/// request), 202 when its host was ordered to stop it.
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<CommandId>,
    JsonBodyMaybe(request): JsonBodyMaybe<CancelRequest>,
) -> Result<Response, ApiError> {
    let operation = match request.operation_id {
        None => operations::fresh_id(shared.now())?,
        Some(operation) => {
            if let Some(known) = shared.store.operation(operation).await? {
                return known_cancel(&shared, id, &known, &actor).await;
            }
            operation
        }
    };
    for _ in 0..limits::CANCEL_TRIES_MAX {
        match cancel_once(&shared, id, operation, &actor).await {
            Err(Moved::Meanwhile) => {}
            Err(Moved::Refused(error)) => return Err(error),
            Ok(ordered) => {
                let status = if ordered.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
                return cancel_answer(&shared, id, ordered, status).await;
            }
        }
    }
    Err(ApiError::new(Kind::Changed, format!("command {id} keeps moving; try again")))
}

/// Why one try at cancelling came to nothing.
enum Moved {
    /// The command was sealed, or ended, between reading and writing.
    Meanwhile,
    Refused(ApiError),
}

impl<E: Into<ApiError>> From<E> for Moved {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// The operation that was ordered, if one had to be.
async fn cancel_once(
    shared: &Shared,
    id: CommandId,
    operation: OperationId,
    actor: &Principal,
) -> Result<Option<OperationId>, Moved> {
    let command = find(shared, id).await?;
    if command.status == CommandStatus::Cancelled {
        return Ok(None);
    }
    let host = host_of(shared, &command).await?;
    let now = shared.now();
    let origin = CancelOrigin { fleet: shared.root().current().fleet, operation, actor, now };
    match command_cancel(origin, &command, &host, &mut FreshCommands::new(now)?)? {
        CancelDecision::Order(proposed) => {
            operations::store(shared, actor, *proposed).await?;
            Ok(Some(operation))
        }
        CancelDecision::End(write) => match end(shared, access::by(shared, actor, *write), command.order.host).await {
            Ok(()) => {
                let command = find(shared, id).await?;
                shared.notifier.publish(Event::Command {
                    command: id,
                    operation: command.order.operation,
                    host: command.order.host,
                    status: command.status,
                    message: command.message,
                });
                Ok(None)
            }
            Err(StoreError::Conflict(_)) => Err(Moved::Meanwhile),
            Err(error) => Err(error.into()),
        },
    }
}

/// Ends what waits, and tells its host's session, whatever becomes of whoever asked.
async fn end(shared: &Shared, write: Write, host: HostId) -> Result<(), StoreError> {
    let (store, notifier) = (shared.store.clone(), shared.notifier.clone());
    to_the_end(async move {
        store.write(write).await?;
        notifier.host_changed(host, HostChange::Queue);
        Ok(())
    })
    .await
}

/// The operation exists: a cancellation of this command sent again, or something else.
async fn known_cancel(
    shared: &Shared,
    id: CommandId,
    operation: &fleet::model::Operation,
    actor: &Principal,
) -> Result<Response, ApiError> {
    let commands = view::operation_commands(&*shared.store, operation.id).await?;
    let cancels = |command: &Command| {
        let parameters = view::json(&command.order.parameters);
        command.order.action.as_str() == "command.cancel" && parameters["command_id"] == id.to_string().as_str()
    };
    if operation.requested_by != actor.user_name || !commands.iter().any(cancels) {
        let detail =
            format!("operation {} exists already and asks for something else; choose a new operation id", operation.id);
        return Err(ApiError::new(Kind::OperationConflict, detail));
    }
    cancel_answer(shared, id, Some(operation.id), StatusCode::OK).await
}

async fn cancel_answer(
    shared: &Shared,
    id: CommandId,
    ordered: Option<OperationId>,
    status: StatusCode,
) -> Result<Response, ApiError> {
    let operation = match ordered {
        None => None,
        Some(ordered) => Some(view::operation_read(&*shared.store, ordered).await?),
    };
    let command = view::command_summary(&find(shared, id).await?);
    Ok((status, Json(CancelResponse { command, operation })).into_response())
}
