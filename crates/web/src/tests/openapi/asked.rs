//! A request of a test, and whether what came back is what the document says of it.

use axum::{
    body::{Body, HttpBody as _, to_bytes},
    http::{Method, Request, StatusCode},
};
use serde_json::Value;

use super::{SERVED, schema::Check};
use crate::tests::world::Answer;

/// What the document speaks of in a request.
pub(in crate::tests) struct Asked {
    method: Method,
    path: String,
    query: String,
    /// Absent when it is a stream.
    body: Option<Vec<u8>>,
}

impl Asked {
    /// The request is the same afterwards.
    pub(in crate::tests) async fn of(request: Request<Body>) -> (Self, Request<Body>) {
        let (head, body) = request.into_parts();
        let (bytes, body) = if body.size_hint().exact().is_some() {
            let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
            (Some(bytes.clone()), Body::from(bytes))
        } else {
            (None, body)
        };
        let uri = &head.uri;
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
        let asked = Self { method: head.method.clone(), path, query, body: bytes };
        (asked, Request::from_parts(head, body))
    }

    /// # Panics
    /// When the answer, or the request that was granted by it, is none that the document tells of.
    pub(in crate::tests) fn held_to_the_document(&self, answer: &Answer) {
        let what = format!("{} {} {}", self.method, self.path, answer.status);
        if let Err(why) = self.check(answer) {
            panic!("{what} is not as docs/openapi.json says: {why}\n{answer:?}");
        }
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        let check = Check { document: &SERVED };
        let Some(operation) = self.operation() else {
            // No path or no method of ours.
            let problem = &SERVED["components"]["schemas"]["Problem"];
            return check.value(problem, &answer.json, "problem");
        };
        let status = answer.status.as_u16().to_string();
        let response = operation["responses"].get(status).ok_or("the status is not documented")?;
        let response = response["$ref"].as_str().and_then(|name| check.resolved(name)).unwrap_or(response);
        if self.method != Method::HEAD {
            content(&check, response, answer)?;
        }
        if answer.status.is_success() { self.granted(&check, operation) } else { Ok(()) }
    }

    fn operation(&self) -> Option<&'static Value> {
        let fits = |pattern: &str| {
            let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), self.path.split('/').collect());
            let mut parts = pattern.iter().zip(&path);
            pattern.len() == path.len()
                && parts.all(|(pattern, part)| pattern == part || (pattern.starts_with('{') && !part.is_empty()))
        };
        let (_, methods) = SERVED["paths"].as_object()?.iter().find(|(pattern, _)| fits(pattern))?;
        // GET answers HEAD as well.
        let method = if self.method == Method::HEAD { "get".to_owned() } else { self.method.as_str().to_lowercase() };
        methods.get(method)
    }

    /// What was granted could be asked for by the document alone.
    fn granted(&self, check: &Check<'_>, operation: &Value) -> Result<(), String> {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let known: Vec<&str> = parameters
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or_default();
            // A query that the route does not read at all is passed over by it.
            if !known.is_empty() && !known.contains(&name) {
                return Err(format!("the query's {name} is not documented"));
            }
        }
        let Some(bytes) = self.body.as_deref() else { return Ok(()) };
        match (&operation["requestBody"], bytes.is_empty()) {
            (Value::Null, _) => Ok(()),
            (body, true) if body["required"] == true => Err("it was granted without a body".to_owned()),
            (_, true) => Ok(()),
            (body, false) => {
                let sent = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
                check.value(&body["content"]["application/json"]["schema"], &sent, "body")
            }
        }
    }
}

fn content(check: &Check<'_>, response: &Value, answer: &Answer) -> Result<(), String> {
    let Some(content) = response.get("content") else {
        let silent = answer.text.is_empty() && answer.header("content-type").is_empty();
        return if silent { Ok(()) } else { Err("no body is documented".to_owned()) };
    };
    let media_type = answer.header("content-type");
    let body = content.get(media_type).ok_or_else(|| format!("{media_type:?} is not documented"))?;
    match media_type {
        "application/json" | "application/problem+json" => check.value(&body["schema"], &answer.json, "answer"),
        "text/event-stream" => {
            assert_eq!(answer.status, StatusCode::OK);
            let mut events = answer.text.lines().filter_map(|line| line.strip_prefix("data:"));
            events.try_for_each(|data| {
                let event = serde_json::from_str(data).map_err(|error| error.to_string())?;
                check.value(&body["x-serverflow-event-data"], &event, "event")
            })
        }
        _ => Ok(()),
    }
}
