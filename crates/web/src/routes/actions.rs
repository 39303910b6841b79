//! What can be asked of hosts.

use ::actions::{ActionInfo, latest};
use api::ActionSummary;
use axum::Json;
use ids::ActionName;

use crate::{
    input::PathParameter,
    problem::{ApiError, Kind},
    view,
};

fn summary(info: &ActionInfo) -> ActionSummary {
    ActionSummary {
        name: info.name.to_owned(),
        version: info.version,
        title: info.title.to_owned(),
        class: info.class.to_string(),
        timeout_seconds: info.timeout.0 / 1000,
        schema_sha256: info.schema_sha256().to_string(),
        schema: view::json(info.schema.as_bytes()),
    }
}

pub(super) async fn list() -> Json<Vec<ActionSummary>> {
    Json(::actions::actions().iter().map(summary).collect())
}

/// The newest version.
pub(super) async fn show(PathParameter(name): PathParameter<ActionName>) -> Result<Json<ActionSummary>, ApiError> {
    let missing =
        || ApiError::new(Kind::ActionNotFound, format!("there is no action {name}; see `serverflow action list`"));
    latest(&name).map(summary).map(Json).ok_or_else(missing)
}
