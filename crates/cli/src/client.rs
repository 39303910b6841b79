//! The REST client: one request, one answer, every way it can fail said in words.

use std::{error::Error as _, time::Duration};

use api::Problem;
use envelope::messages::PublicKeyBytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header, redirect};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{
    exit::{Failure, Kind},
    limits,
    session_file::{Place, Target, is_loopback, target},
    trust::{self, Trust},
};

/// A control plane to ask.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Zeroizing<String>>,
    trust: Option<Trust>,
    root: Option<PublicKeyBytes>,
}

impl Client {
    /// As whoever is signed in. `place` is what flags or environment say.
    pub(crate) fn signed_in(place: Place<'_>) -> Result<Self, Failure> {
        let Target { url, token, trust, root } = target(place)?;
        if header::HeaderValue::from_str(&token).is_err() {
            let why = "the session token holds characters that no token has";
            return Err(Failure::new(Kind::NotAllowed, why).hint(crate::exit::SIGN_IN_HINT));
        }
        Ok(Self { root, ..Self::new(url, Some(token), trust)? })
    }

    /// The same control plane, as whoever has this token.
    pub(crate) fn with_token(&self, token: &str) -> Result<Self, Failure> {
        Self::new(self.base.clone(), Some(Zeroizing::new(token.to_owned())), self.trust.clone())
    }

    /// The fleet's root key, if it was kept with the session.
    pub(crate) fn root(&self) -> Option<PublicKeyBytes> {
        self.root
    }

    /// As nobody yet, or with a token.
    pub(crate) fn new(base: Url, token: Option<Zeroizing<String>>, trust: Option<Trust>) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("serverflow/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits::CONNECT_TIMEOUT)
            // A redirect could carry the token somewhere else.
            .redirect(redirect::Policy::none());
        if let Some(trust) = &trust {
            builder = builder.tls_certs_only(trust.certificates());
        }
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|e| Failure::new(Kind::NotWell, format!("cannot set up HTTP and TLS: {}", root_cause(&e))))?;
        Ok(Self { http, base, token, trust, root: None })
    }

    /// The control plane's address.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The same, as it was read.
    pub(crate) const fn base(&self) -> &Url {
        &self.base
    }

    /// The certificates trusted for it (PEM), when they are not the system's.
    pub(crate) fn trusted(&self) -> Option<&str> {
        self.trust.as_ref().map(Trust::pem)
    }

    /// The address of something below `/api/v1`, each part percent-encoded.
    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, String)], timeout: Duration) -> RequestBuilder {
        let mut request = self.http.request(method, self.url(path, query)).timeout(timeout);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.as_str());
        }
        request
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        self.get_with(path, &[]).await
    }

    /// Reads something, with a query.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        let request = self.request(Method::GET, path, query, limits::REQUEST_TIMEOUT);
        self.decode(self.send(request).await?).await
    }

    /// Reads something large, as it came.
    pub(crate) async fn get_bytes(&self, path: &[&str]) -> Result<Vec<u8>, Failure> {
        let request = self.request(Method::GET, path, &[], limits::EXPORT_TIMEOUT);
        self.body(self.send(request).await?, limits::EXPORT_FETCHED_BYTES_MAX).await
    }

    /// Reads something large into `into`, piece by piece; answers how many bytes there were.
    pub(crate) async fn download(&self, path: &[&str], into: &mut impl std::io::Write) -> Result<u64, Failure> {
        let request = self.request(Method::GET, path, &[], limits::EXPORT_TIMEOUT);
        let mut response = self.send(request).await?;
        let mut bytes = 0u64;
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::new(Kind::OutputClosed, "nobody reads the output"),
            _ => {
                Failure::new(Kind::NotWell, format!("cannot write what was fetched: {}", crate::exit::io_words(&error)))
            }
        };
        while let Some(piece) = response.chunk().await.map_err(|e| self.failed(&e))? {
            into.write_all(&piece).map_err(failed)?;
            bytes += piece.len() as u64;
        }
        into.flush().map_err(failed)?;
        Ok(bytes)
    }

    /// Changes a part of something.
    pub(crate) async fn patch<B: Serialize, T: DeserializeOwned>(&self, path: &[&str], body: &B) -> Result<T, Failure> {
        let request = self.request(Method::PATCH, path, &[], limits::REQUEST_TIMEOUT).json(body);
        self.decode(self.send(request).await?).await
    }

    /// Asks for something once.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &[&str], body: &B) -> Result<T, Failure> {
        let request = self.request(Method::POST, path, &[], limits::REQUEST_TIMEOUT).json(body);
        self.decode(self.send(request).await?).await
    }

    /// Puts something in place of what is there.
    pub(crate) async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &[&str], body: &B) -> Result<T, Failure> {
        let request = self.request(Method::PUT, path, &[], limits::REQUEST_TIMEOUT).json(body);
        self.decode(self.send(request).await?).await
    }

    /// Asks for something that the control plane recognises when it comes again: a broken connection
    /// is no reason to give up. `again` hears about each further attempt.
    pub(crate) async fn post_repeatedly<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &B,
        mut again: impl FnMut(&Failure),
    ) -> Result<T, Failure> {
        let mut wait = limits::BACKOFF_FIRST;
        let mut attempt = 1;
        loop {
            let failure = match self.post(path, body).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.kind != Kind::Unreachable || attempt >= limits::ATTEMPTS_MAX {
                return Err(failure);
            }
            again(&failure);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(limits::BACKOFF_MAX);
            attempt += 1;
        }
    }

    /// Takes something away, and has it answered what became of it.
    pub(crate) async fn delete_for<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        let request = self.request(Method::DELETE, path, &[], limits::REQUEST_TIMEOUT);
        self.decode(self.send(request).await?).await
    }

    /// Takes something away.
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<(), Failure> {
        let request = self.request(Method::DELETE, path, &[], limits::REQUEST_TIMEOUT);
        self.body(self.send(request).await?, limits::ANSWER_BYTES_MAX).await.map(drop)
    }

    /// Opens a stream of events. It has no limit of time as a whole.
    pub(crate) async fn events(&self, path: &[&str]) -> Result<Response, Failure> {
        let request = self.request(Method::GET, path, &[], limits::EXPORT_TIMEOUT * 48);
        let sent = self.send(request.header(header::ACCEPT, "text/event-stream"));
        tokio::time::timeout(limits::REQUEST_TIMEOUT, sent)
            .await
            .map_err(|_| self.unreachable("it did not answer in time"))?
    }

    /// The next piece of a stream; `None` at its end.
    pub(crate) async fn piece(&self, response: &mut Response) -> Result<Option<Vec<u8>>, Failure> {
        match tokio::time::timeout(limits::EVENTS_SILENCE_MAX, response.chunk()).await {
            Err(_) => Err(self.unreachable("it went silent")),
            Ok(Err(error)) => Err(self.failed(&error)),
            Ok(Ok(piece)) => Ok(piece.map(|bytes| bytes.to_vec())),
        }
    }

    /// Sends a request; an answer that is no success is a failure.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|e| self.failed(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response, limits::ANSWER_BYTES_MAX).await.unwrap_or_default();
        Err(self.refused(status, &body))
    }

    /// Reads a whole body, bounded.
    async fn body(&self, mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| self.failed(&e))? {
            if body.len() + piece.len() > max {
                let why = format!("{} answered with more than {max} bytes, which were not read", self.address());
                return Err(Failure::new(Kind::NotWell, why));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, Failure> {
        let body = self.body(response, limits::ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let what = if error.is_data() { error.to_string() } else { "no JSON document".to_owned() };
            Failure::new(Kind::NotWell, format!("{} answered something this program does not understand: {what}", self.address()))
                .hint("check that the address is a ServerFlow control plane's, and that both have the same version (`serverflow version`)")
        })
    }

    /// What an answer without success means.
    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
            return Failure::refused(status.as_u16(), problem);
        }
        let words = status.canonical_reason().unwrap_or("no known status");
        let detail = format!("{} answered {} ({words}) without an explanation", self.address(), status.as_u16());
        let kind = if status.is_redirection() { Kind::Invalid } else { crate::exit::kind_of_status(status.as_u16()) };
        let mut failure = Failure::new(kind, detail).hint("check that the address is a ServerFlow control plane's");
        failure.status = Some(status.as_u16());
        failure
    }

    fn failed(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return self.unreachable("it did not answer in time");
        }
        if error.is_builder() {
            return Failure::new(Kind::NotWell, format!("the request could not be made: {}", root_cause(error)));
        }
        if let Some((what, hint)) = trust::words(error, self.trust.is_some()) {
            let why = format!("cannot speak with the control plane at {}: {what}", self.address());
            return Failure::new(Kind::Unreachable, why).hint(hint);
        }
        let cause = root_cause(error);
        if self.base.scheme() == "http" && cause.contains(NO_HTTP) {
            let why = format!("what answers at {} does not speak plain HTTP", self.address());
            return Failure::new(Kind::Unreachable, why)
                .hint("if it speaks TLS, begin the address with https://; else check the port");
        }
        self.unreachable(&cause)
    }

    /// The control plane did not answer.
    fn unreachable(&self, why: &str) -> Failure {
        Failure::new(Kind::Unreachable, format!("cannot reach the control plane at {}: {why}", self.address())).hint(
            "check that it runs, that the address is right (--url, SERVERFLOW_URL, or the last `serverflow login`), and that no firewall or proxy stands between",
        )
    }
}

/// What the HTTP library says, in small letters, of an answer that is no HTTP, such as a TLS listener's alert.
const NO_HTTP: &str = "invalid http version";

/// The innermost cause: what the outer ones say is known from where it happened.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    if error.source().is_none() { "the connection failed".to_owned() } else { words.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base: &str) -> Client {
        Client::new(Url::parse(base).unwrap(), None, None).unwrap()
    }

    #[test]
    fn paths_are_below_the_base_and_their_parts_encoded() {
        let below = client("https://x/sub/").url(&["hosts", "a/b?c"], &[]);
        assert_eq!(below.as_str(), "https://x/sub/api/v1/hosts/a%2Fb%3Fc");
        let top = client("http://127.0.0.1:1/").url(&["commands"], &[("host", "a&b".to_owned())]);
        assert_eq!(top.as_str(), "http://127.0.0.1:1/api/v1/commands?host=a%26b");
    }

    #[test]
    fn an_answer_without_explanation_names_the_address_and_the_status() {
        let client = client("http://127.0.0.1:1/");
        let failure = client.refused(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(failure.kind, Kind::Unreachable);
        assert!(failure.lines().contains("http://127.0.0.1:1 answered 502 (Bad Gateway)"), "{}", failure.lines());
        assert_eq!(client.refused(StatusCode::MOVED_PERMANENTLY, b"").kind, Kind::Invalid);
    }
}
