//! Errors as problem+json (RFC 9457).

use serde::{Deserialize, Serialize};

/// What went wrong: the same words the CLI prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable identifier such as `urn:serverflow:host-not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short summary of the kind.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What happened, to what, and what to do next.
    pub detail: String,
    /// Single fields that were wrong, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One field that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Path of the field, such as `parameters.spec.services.web.image`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}
