//! Apps and where they are. Only what hosts reported, masked there: never a secret.

use std::sync::Arc;

use api::{AppDetail, AppInstance as Shown, AppSummary, Page};
use axum::{Json, extract::State};
use fleet::{list::AppLine, model::AppInstance};
use ids::{AppName, HostName};
use serde::Deserialize;

use crate::{
    input::{PathParameter, Query},
    list::{List, ListQuery},
    problem::{ApiError, Kind},
    routes::hosts,
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

pub(super) const LIST: List = List { name: "apps", sorts: &["name"] };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    host: Option<HostName>,
    limit: Option<u32>,
    after: Option<String>,
    sort: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<AppSummary>>, ApiError> {
    let sorted = LIST.read(ListQuery { limit: filter.limit, after: filter.after, sort: filter.sort })?;
    let host = match filter.host {
        None => None,
        Some(name) => Some(hosts::find(&shared, &name).await?.id),
    };
    let listed = shared.store.apps_list(host, sorted.page.clone()).await?;
    let show = |app: AppLine| AppSummary { name: app.name, instances: app.instances.iter().map(instance).collect() };
    Ok(Json(sorted.answer(listed, show)))
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
