//! The landing page: what this is, and how to sign in. One document, nothing fetched, no script.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use data_encoding::BASE64;
use ids::sha256;

use crate::state::Shared;

const PAGE: &str = include_str!("landing.html");
const STYLE: &str = include_str!("landing.css");

/// Allows that one style, by its hash, and nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = BASE64.encode(sha256(STYLE.as_bytes()).as_bytes());
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

pub(super) async fn landing(State(shared): State<Arc<Shared>>) -> Response {
    let page = PAGE.replace("{{style}}", STYLE).replace("{{version}}", &escaped(shared.version));
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY.as_str())];
    (headers, page).into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
