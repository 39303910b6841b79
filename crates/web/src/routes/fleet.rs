//! The fleet as a whole.

use std::sync::Arc;

use api::{FleetInfo, FleetRoot};
use axum::{Json, extract::State};
use data_encoding::BASE64;

use crate::state::Shared;

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
    Json(FleetRoot { root_chain: shared.root().chain().iter().map(|envelope| BASE64.encode(envelope)).collect() })
}
