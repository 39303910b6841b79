//! Reading requests: bodies, path parameters, queries. Whatever is wrong is answered as a problem
//! that names the field.

use core::str::FromStr;

use api::{DeployBundleRequest, DeployRequest, OperationRequest, SingleRequest};
use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Path, Request,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    limits,
    problem::{ApiError, Kind},
};

/// A JSON body of the type.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        json(&json_bytes(request, state).await?).map(Self)
    }
}

/// A JSON body that may be left out.
pub(crate) struct JsonBodyMaybe<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for JsonBodyMaybe<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let typed = is_json(request.headers());
        let bytes = body_bytes(request, state).await?;
        match (bytes.is_empty(), typed) {
            (true, _) => Ok(Self(T::default())),
            (false, true) => json(&bytes).map(Self),
            (false, false) => Err(not_json()),
        }
    }
}

/// The body of `POST /operations`, whose fields are named even below its `kind`.
pub(crate) struct OperationBody(pub(crate) OperationRequest);

impl<S: Send + Sync> FromRequest<S> for OperationBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        operation_request(&json_bytes(request, state).await?).map(Self)
    }
}

/// serde loses the path inside an enum that is told apart by a tag, so the tag is taken off here.
pub(crate) fn operation_request(bytes: &[u8]) -> Result<OperationRequest, ApiError> {
    let mut value: Value = json(bytes)?;
    let kind = value.as_object_mut().and_then(|object| object.remove("kind"));
    match kind.as_ref().and_then(Value::as_str) {
        Some("single") => from_value::<SingleRequest>("", value).map(OperationRequest::Single),
        Some("deploy") => from_value::<DeployRequest>("", value).map(OperationRequest::Deploy),
        Some("deploy_bundle") => from_value::<DeployBundleRequest>("", value).map(OperationRequest::DeployBundle),
        _ => Err(ApiError::field("kind", "say `single`, `deploy` or `deploy_bundle`")),
    }
}

/// A value as a type; wrong fields are named below `prefix`.
pub(crate) fn from_value<T: DeserializeOwned>(prefix: &str, value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        ApiError::field(joined(prefix, &path), error.into_inner().to_string())
    })
}

fn joined(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, ".") => prefix.to_owned(),
        (prefix, path) if path.starts_with('[') => format!("{prefix}{path}"),
        (prefix, path) => format!("{prefix}.{path}"),
    }
}

/// Bytes as a type: 400 when they are no JSON, 422 when they are and a field is wrong.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut deserializer);
    let value = read.map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() { ApiError::field(path, error.to_string()) } else { unreadable(&error) }
    })?;
    deserializer.end().map_err(|error| unreadable(&error))?;
    Ok(value)
}

fn unreadable(error: &serde_json::Error) -> ApiError {
    ApiError::new(Kind::RequestUnreadable, format!("the body is not a JSON document: {error}"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

fn not_json() -> ApiError {
    ApiError::new(Kind::NotJson, "send the body as JSON, with `Content-Type: application/json`")
}

async fn json_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    if !is_json(request.headers()) {
        return Err(not_json());
    }
    body_bytes(request, state).await
}

async fn body_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    let read = timeout(limits::BODY_TIME_MAX, Bytes::from_request(request, state)).await.map_err(|_| {
        let seconds = limits::BODY_TIME_MAX.as_secs();
        ApiError::new(Kind::BodyTooSlow, format!("the body did not arrive within {seconds} s; send it again"))
    })?;
    read.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            let detail = format!(
                "the body is too large: at most {} bytes, and {} to sign in",
                limits::BODY_BYTES_MAX,
                limits::BODY_BYTES_OPEN_MAX
            );
            ApiError::new(Kind::TooLarge, detail)
        }
        _ => ApiError::new(Kind::RequestUnreadable, "the body ended before it was complete; send it again"),
    })
}

/// The one parameter of a path.
pub(crate) struct PathParameter<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for PathParameter<T>
where
    T: FromStr<Err: core::fmt::Display>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|rejection| ApiError::new(Kind::RequestUnreadable, rejection.body_text()))?;
        text.parse().map(Self).map_err(|error: T::Err| ApiError::new(Kind::RequestUnreadable, error.to_string()))
    }
}

/// The query, as a type that refuses what it does not know.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        match query {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::new(Kind::RequestUnreadable, rejection.body_text())),
        }
    }
}

/// How many entries of a list are asked for.
pub(crate) fn list_limit(asked: Option<u32>) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(limits::LIST_DEFAULT);
    if (1..=limits::LIST_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::field("limit", format!("between 1 and {}", limits::LIST_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_fields_of_an_operation_are_named_by_their_path() {
        let check = |body: &str, field: &str| {
            let problem = operation_request(body.as_bytes()).expect_err(body).problem();
            assert_eq!(problem.errors.first().map(|error| error.field.as_str()), Some(field), "{body}: {problem:?}");
        };
        check("{}", "kind");
        check("[]", "kind");
        check(r#"{"kind":"other"}"#, "kind");
        check(r#"{"kind":"single","operation_id":"x"}"#, "operation_id");
        let id = "018bcfe5-6800-7fff-bfff-ffffffffffff";
        let single =
            |rest: &str| format!(r#"{{"kind":"single","operation_id":"{id}","action":"a.b","parameters":{{}}{rest}}}"#);
        check(&single(r#","hosts":["a","B"]"#), "hosts[1]");
        check(&single(r#","sealed":{"a":[{"name":"x"}]}"#), "sealed.a[0]");
        check(&single(r#","other":1"#), "other");
        assert!(operation_request(single("").as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_json_is_unreadable_and_has_no_fields() {
        for body in ["", "{", "{} {}", "\u{feff}{}"] {
            let error = operation_request(body.as_bytes()).expect_err(body);
            assert_eq!(error.kind(), Kind::RequestUnreadable, "{body:?}");
        }
    }
}
