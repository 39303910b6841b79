//! What this API is, for programs: `docs/openapi.json`, as it was when this was built. The tests make it
//! from the route table and the types, and hold every answer they get to it.

use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};

pub(crate) const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
