//! Smaller parts of a service's specification.

use serde::{Deserialize, Serialize};

use super::{PortProtocol, SealedText};

/// One resource limit of a process (`setrlimit(2)`); -1 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UlimitSpec {
    /// What holds now.
    pub soft: i64,
    /// How far the process may raise it.
    pub hard: i64,
}

/// A port that a container listens on, for others on its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExposedPort {
    /// Port inside the container.
    pub port: u16,
    /// Transport.
    pub protocol: PortProtocol,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Each time a deploy is planned.
    Always,
    /// Only if the host has no image of that name.
    Missing,
    /// Never: the host must have it.
    Never,
}

/// One file put into the container, read-only: a `config` or a `secret` of the Compose file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Absolute path inside the container.
    pub target: String,
    /// The content; always sealed.
    pub content: SealedText,
    /// How the sealed text stands for the file's bytes.
    #[serde(default, skip_serializing_if = "TextEncoding::is_plain")]
    pub encoding: TextEncoding,
    /// Owner inside the container; absent means 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group inside the container; absent means 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Permission bits; absent means 0o444.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// How a sealed text stands for bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TextEncoding {
    /// As UTF-8.
    #[default]
    Plain,
    /// As base64 (RFC 4648 section 4, padded), for what is not UTF-8.
    Base64,
}

impl TextEncoding {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}
