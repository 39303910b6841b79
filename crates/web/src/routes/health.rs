//! For whoever watches the control plane itself.

use std::sync::Arc;

use api::Health;
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use tokio::time::timeout;

use crate::{
    limits, metrics,
    problem::{ApiError, Kind},
    state::Shared,
};

/// Well when the store answers, and nothing else keeps the control plane from its work.
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Result<Json<Health>, ApiError> {
    let Ok(answered) = timeout(limits::HEALTH_TIME_MAX, shared.store.audit_heads(true)).await else {
        let detail = format!("the database did not answer within {} s", limits::HEALTH_TIME_MAX.as_secs());
        return Err(ApiError::new(Kind::StoreUnavailable, detail));
    };
    answered?;
    let problems = shared.figures.problems();
    if !problems.is_empty() {
        return Err(ApiError::new(Kind::StoreUnavailable, problems.join("; ")));
    }
    Ok(Json(Health { status: "ok".to_owned() }))
}

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let text = shared.metrics.text(&*shared.figures);
    let text = text.map_err(|_| ApiError::new(Kind::Internal, "the metrics could not be written down"))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
