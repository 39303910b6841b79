//! The quarantine of a host: what is known of it, and its end.

use std::sync::Arc;

use api::{HostQuarantine, HostReleaseRequest, HostReleaseResponse, QuarantinedAgent};
use axum::{Json, extract::State, http::StatusCode};
use fleet::{
    model::{CommandStatus, Host, HostStanding, QuarantineSeen, UserRole},
    ports::{HostChange, Write},
};
use ids::HostName;

use super::hosts::living;
use crate::{
    access::{self, Actor},
    input::{JsonBody, PathParameter},
    problem::{ApiError, Kind},
    records,
    state::Shared,
};

pub(super) async fn detail(shared: &Shared, host: &Host) -> Result<Option<HostQuarantine>, ApiError> {
    if !matches!(host.standing, HostStanding::Quarantined { .. }) {
        return Ok(None);
    }
    let seen = shared.store.host_quarantines(host.id).await?;
    let open = shared.store.commands_open(host.id).await?;
    Ok(Some(HostQuarantine {
        since: host.quarantine.since.map(Into::into),
        is_alarm: host.quarantine.is_alarm,
        release: host.quarantine.release,
        agents: seen.iter().map(|seen| agent(host, seen)).collect(),
        commands_open: open.iter().filter(|command| command.status != CommandStatus::Queued).count() as u64,
    }))
}

fn agent(host: &Host, seen: &QuarantineSeen) -> QuarantinedAgent {
    QuarantinedAgent {
        quarantine_id: seen.id,
        seen_at: seen.at.into(),
        boot_id: seen.boot,
        host_epoch: seen.host_epoch.0,
        highest_sequence: seen.high.0,
        last_report_sequence: seen.last_report.0,
        hindrance: seen.hindrance(host),
    }
}

/// Asked again it is the same.
pub(super) async fn release(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<HostName>,
    JsonBody(request): JsonBody<HostReleaseRequest>,
) -> Result<(StatusCode, Json<HostReleaseResponse>), ApiError> {
    let host = living(&shared, &name).await?;
    if !matches!(host.standing, HostStanding::Quarantined { .. }) {
        return Err(ApiError::new(Kind::Changed, format!("host {name} is not quarantined; nothing was changed")));
    }
    if host.quarantine.is_alarm && actor.role < UserRole::Owner {
        return Err(access::too_low(&actor, UserRole::Owner));
    }
    let seen = shared.store.host_quarantines(host.id).await?;
    let chosen = match (request.quarantine_id, seen.as_slice()) {
        (Some(id), seen) => Some(seen.iter().find(|seen| seen.id == id).ok_or_else(|| {
            ApiError::field("quarantine_id", format!("no agent of host {name} said that it is in this quarantine"))
        })?),
        (None, []) => None,
        (None, [only]) => Some(only),
        (None, several) => {
            let detail = format!(
                "{} agents say that they are {name}: look which machine is to go on, name its quarantine, and see that the \
                 others never come back",
                several.len()
            );
            return Err(ApiError::field("quarantine_id", detail));
        }
    };
    if let Some(why) = chosen.and_then(|seen| seen.hindrance(&host)) {
        return Err(ApiError::new(Kind::HostNotActive, format!("host {name} cannot be released: {why}")));
    }
    let quarantine_id = chosen.map(|seen| seen.id);
    let audit = records::quarantine_release(&host, quarantine_id, &actor, shared.now());
    let write = Write::HostRelease { host: host.id, quarantine: quarantine_id, audit };
    access::write(&shared, &actor, write).await?;
    // A session that is open goes on with it, or begins anew to tell its agent.
    let change = if quarantine_id.is_some() { HostChange::Queue } else { HostChange::Renamed };
    shared.notifier.host_changed(host.id, change);
    Ok((StatusCode::ACCEPTED, Json(HostReleaseResponse { quarantine_id })))
}
