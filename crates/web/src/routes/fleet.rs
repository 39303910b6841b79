//! The fleet as a whole, and its root metadata.

use std::sync::Arc;

use api::{FleetInfo, FleetRoot, FleetRootRequest};
use axum::{Json, extract::State};
use data_encoding::BASE64;
use envelope::root::{RootError, TrustedRoot};
use fleet::{
    ports::{StoreError, Write},
    recovery,
};

use crate::{
    access::{self, Actor},
    input::JsonBody,
    lasting::to_the_end,
    problem::{ApiError, Kind},
    records,
    state::Shared,
};

pub(super) async fn info(State(shared): State<Arc<Shared>>) -> Json<FleetInfo> {
    let root = shared.root();
    let metadata = root.current();
    Json(FleetInfo {
        fleet_id: metadata.fleet,
        version: shared.version.to_owned(),
        epoch: metadata.epoch.0,
        root_version: metadata.version.0,
        root_expires_at: metadata.expires.into(),
        agent_addresses: metadata.addresses.clone(),
    })
}

pub(super) async fn root(State(shared): State<Arc<Shared>>) -> Json<FleetRoot> {
    Json(shown(&shared.root()))
}

fn shown(root: &TrustedRoot) -> FleetRoot {
    FleetRoot { root_chain: root.chain().iter().map(|envelope| BASE64.encode(envelope)).collect() }
}

/// Puts the next version in force. Its authority is its signatures alone; that an owner must send it keeps
/// everybody else from choosing the moment. Sending the present version again changes nothing.
pub(super) async fn root_advance(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(FleetRootRequest { envelope }): JsonBody<FleetRootRequest>,
) -> Result<Json<FleetRoot>, ApiError> {
    let envelope = BASE64.decode(envelope.as_bytes()).map_err(|_| ApiError::field("envelope", "it is not base64"))?;
    let turn = shared.key_keeper.turn().await;
    let (current, now) = (shared.root(), shared.now());
    if current.is_present(&envelope) {
        return Ok(Json(shown(&current)));
    }
    let mut next = TrustedRoot::clone(&current);
    next.advance(&envelope).map_err(|error| refused(&error))?;
    if next.is_expired(now) {
        let detail = "this version has expired already, so no host would take an order; propose one anew";
        return Err(ApiError::new(Kind::RootRefused, detail));
    }
    if let Some(why) = shared.root_keeper.hindered_by(next.current()).await {
        return Err(ApiError::new(Kind::RootKeyInUse, why));
    }
    if let Some(recovery) = shared.store.recovery().await? {
        let (hosts, claims) = (shared.store.recovery_hosts(None).await?, shared.store.recovery_claims(None).await?);
        let heads = recovery::heads(&hosts, &claims);
        if let Some(why) = recovery::hindered_by(&recovery, &current, next.current(), &heads, now) {
            return Err(ApiError::new(Kind::Recovering, why));
        }
    }
    let (version, next) = (next.version(), Arc::new(next));
    let audit = records::root_changed(&actor, &current, &next, now);
    let write = access::by(&shared, &actor, Write::RootAdvance { version, envelope, audit });
    let (store, keeper, taken) = (shared.store.clone(), shared.root_keeper.clone(), next.clone());
    // What is stored must come into force, whoever waits for the answer.
    let written = to_the_end(async move {
        let written = store.write(write).await;
        if written.is_ok() {
            keeper.in_force(taken).await;
        }
        drop(turn);
        written
    });
    written.await.map_err(|error| match error {
        StoreError::Conflict(why) => not_next(&why),
        other => other.into(),
    })?;
    Ok(Json(shown(&next)))
}

fn refused(error: &RootError) -> ApiError {
    match error {
        RootError::NotNext { .. } => not_next(&error.to_string()),
        RootError::Threshold { .. } => {
            let detail = format!("{error}; have it signed with `serverflow root sign`");
            ApiError::new(Kind::RootRefused, detail)
        }
        _ => ApiError::new(Kind::RootRefused, with_sources(error)),
    }
}

fn with_sources(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

fn not_next(why: &str) -> ApiError {
    let detail = format!("{why}; somebody may have been first: propose the change anew with `serverflow root propose`");
    ApiError::new(Kind::RootNotNext, detail)
}
