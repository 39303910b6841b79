//! The fleet as a whole.

use std::sync::Arc;

use api::FleetInfo;
use axum::{Json, extract::State};

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
