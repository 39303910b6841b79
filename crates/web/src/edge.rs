//! What every request passes through, whatever its route: an id and a span, the check of the name
//! it was sent to, a time limit, headers that keep browsers careful, and the counters.

use core::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
};
use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use crate::{
    access, limits,
    problem::{ApiError, Kind},
    rate::Key,
    state::Shared,
};

/// Route of a request that matched none.
const NO_ROUTE: &str = "none";

/// Where a connection came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Headers of every response.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// For everything but pages, which bring their own.
const POLICY_NOTHING: HeaderValue =
    HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");

/// The middleware around all routes.
pub(crate) async fn around(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let id = shared.request_ids.next();
    let method = method_word(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    // The path itself may hold anything someone pasted, so only the route's pattern is logged.
    let span = tracing::info_span!("http", request = %id, method, route, user = tracing::field::Empty);
    let answered = async {
        let mut response = answer(&shared, request, next).await;
        dress(&mut response, &id);
        let (status, took) = (response.status().as_u16(), begin.elapsed());
        shared.metrics.answered(method, &route, status, took);
        tracing::debug!(status, took_ms = took.as_secs_f64() * 1e3, "answered");
        response
    };
    answered.instrument(span).await
}

async fn answer(shared: &Shared, request: Request, next: Next) -> Response {
    if !is_ours(request.uri(), request.headers(), &|name| shared.is_called(name)) {
        let detail = "the request names a host this control plane is not known by; use http://localhost or http://127.0.0.1 with its port. A name must be in the certificate or in `host_names` of the control plane; a proxy in front must send such a name as `Host`";
        return ApiError::new(Kind::WrongHost, detail).into_response();
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    if let Some(peer) = peer
        && let Err(wait) = shared.request_rate.take(&[Key::address(peer)], shared.now())
    {
        return access::too_many(wait, "from this address").into_response();
    }
    timeout(limits::RESPONSE_TIME_MAX, caught(next.run(request))).await.unwrap_or_else(|_| {
        let detail = format!(
            "no answer within {} s; look whether the request took effect before you repeat it",
            limits::RESPONSE_TIME_MAX.as_secs()
        );
        ApiError::new(Kind::TooSlow, detail).into_response()
    })
}

/// A handler that panics is answered as any other fault of ours.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    // What a handler shares with others is behind locks that forgive a panic, or in the store.
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("answering a request panicked; the line before says where");
        let detail = "the control plane met a fault of its own while it answered; its log says where. Look whether the request took effect before you repeat it";
        ApiError::new(Kind::Internal, detail).into_response()
    })
}

fn dress(response: &mut Response, id: &str) {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY_NOTHING);
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
}

/// Methods as labels; whatever a stranger invents is one of them.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Whether the request was sent to a name of ours. A page of a stranger's can make a browser send
/// requests here under the stranger's own name, by letting that name resolve to a loopback address
/// (DNS rebinding); the name gives it away.
fn is_ours(uri: &Uri, headers: &HeaderMap, is_called: &dyn Fn(&str) -> bool) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    is_our_name(host.as_str(), host.host(), is_called)
        && uri.authority().is_none_or(|uri| is_our_name(uri.as_str(), uri.host(), is_called))
}

fn is_our_name(authority: &str, host: &str, is_called: &dyn Fn(&str) -> bool) -> bool {
    if authority.contains('@') {
        return false;
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback() || is_called(bare);
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || is_called(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_as_a_problem() {
        let response = caught(async {
            assert_eq!(1, 2, "on purpose");
            Response::default()
        });
        let response = response.await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn only_names_of_ours_are_answered() {
        let called = |name: &str| ["control.example.org", "192.0.2.7"].contains(&name);
        let check = |uri: &str, hosts: &[&str], ours: bool| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().unwrap());
            }
            assert_eq!(is_ours(&uri.parse().unwrap(), &headers, &called), ours, "{uri} {hosts:?}");
        };
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.8.9.1",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "control.example.org:443",
            "Control.Example.Org",
            "192.0.2.7",
        ] {
            check("/", &[host], true);
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.8",
            "0.0.0.0",
            "[::]",
            "localhost@evil.example",
            "evil.example@localhost",
            "notlocalhost",
        ] {
            check("/", &[host], false);
        }
        check("/", &[], false);
        check("/", &["localhost", "localhost"], false);
        check("http://evil.example/", &["localhost"], false);
        check("http://localhost:8080/", &["localhost:8080"], true);
    }
}
