//! Errors as problem+json (RFC 9457).

use serde::{Deserialize, Serialize};

/// What went wrong: the same words the CLI prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Places in files that were wrong, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<FileProblem>,
    /// How many more places there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub problems_omitted: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// One place in a file of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileProblem {
    /// Path of the file as the request names it.
    pub file: String,
    /// From 1; 0 when it concerns the file as a whole.
    pub line: u32,
    /// In characters, from 1; 0 when it concerns the file as a whole.
    pub column: u32,
    /// Path of the key, such as `services.web.ports[0]`; empty when there is none.
    pub key: String,
    /// What is wrong, or worth knowing.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One field that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FieldError {
    /// Path of the field, such as `parameters.spec.services.web.image`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}
