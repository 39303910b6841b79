//! Apps and where they are. Only what hosts reported, masked there: never a secret.

use std::{collections::BTreeMap, sync::Arc};

use api::{AppDetail, AppInstance as Shown, AppSummary};
use axum::{Json, extract::State};
use fleet::model::AppInstance;
use ids::AppName;

use crate::{
    input::PathParameter,
    problem::{ApiError, Kind},
    state::Shared,
    view,
};

fn instance(instance: &AppInstance) -> Shown {
    Shown {
        host: instance.host_name.clone(),
        release: instance.release,
        deployed_at: instance.deployed_at.into(),
        state: instance.state.as_str().to_owned(),
        verified: view::is_verified(&view::json(&instance.result)),
    }
}

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Vec<AppSummary>>, ApiError> {
    let mut apps: BTreeMap<AppName, Vec<Shown>> = BTreeMap::new();
    for found in shared.store.apps(None).await? {
        apps.entry(found.app.clone()).or_default().push(instance(&found));
    }
    Ok(Json(apps.into_iter().map(|(name, instances)| AppSummary { name, instances }).collect()))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    PathParameter(name): PathParameter<AppName>,
) -> Result<Json<AppDetail>, ApiError> {
    let instances = shared.store.apps(Some(name.clone())).await?;
    if instances.is_empty() {
        return Err(ApiError::new(Kind::AppNotFound, format!("no app {name} is deployed; see `serverflow app list`")));
    }
    Ok(Json(AppDetail {
        summary: AppSummary { name, instances: instances.iter().map(instance).collect() },
        results: instances.iter().map(|found| (found.host_name.clone(), view::json(&found.result))).collect(),
    }))
}
