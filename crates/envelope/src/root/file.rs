//! What travels between the machine of a control plane and the machines on which root keys are kept:
//! one JSON document with a chain and a version that is being signed, and one with the public halves
//! of root keys. Both are described in `docs/KEYS.md`.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{Proposal, RootError, TrustedRoot};
use crate::{
    limits,
    messages::{PublicKeyBytes, RootMetadata},
};

/// Bytes of such a document.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
const ROOT_FORMAT: &str = "serverflow-root";
const KEYS_FORMAT: &str = "serverflow-root-keys";
const FORMAT_VERSION: u32 = 1;

/// Why a document cannot be used. The words name the place.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// More than is ever read.
    #[error("it has {length} bytes; at most {FILE_BYTES_MAX} are read")]
    TooLarge { length: usize },
    /// No JSON, or of another shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Another document.
    #[error("format: it is {found:?}; expected {expected:?}")]
    Format { expected: &'static str, found: String },
    /// Of a later release.
    #[error("format_version: this release reads version {FORMAT_VERSION}, and it is {found}; use a newer `serverflow`")]
    FormatVersion { found: u32 },
    /// A field that is not what it should be.
    #[error("{place}: {why}")]
    Field { place: String, why: String },
    /// A version of the chain does not verify.
    #[error("{place}: {source}")]
    Root {
        place: String,
        #[source]
        source: RootError,
    },
}

fn field(place: impl Into<String>, why: impl ToString) -> FileError {
    FileError::Field { place: place.into(), why: why.to_string() }
}

/// A chain of root metadata that verifies in itself, and a version proposed to follow it.
pub struct RootFile {
    /// From version 1 on; `None` when the first version is what is proposed.
    pub chain: Option<TrustedRoot>,
    /// Can follow the chain; what is missing is signatures, if anything.
    pub proposed: Proposal,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootDocument {
    format: String,
    format_version: u32,
    chain: Vec<String>,
    proposed: String,
}

fn parsed<T: for<'de> Deserialize<'de>>(text: &[u8], expected: &'static str) -> Result<T, FileError> {
    /// Read first, so that a document of another kind is called one.
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        format: String,
        #[serde(default)]
        format_version: u32,
    }
    if text.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { length: text.len() });
    }
    let Head { format, format_version } = serde_json::from_slice(text)?;
    if format != expected {
        return Err(FileError::Format { expected, found: format });
    }
    if format_version != FORMAT_VERSION {
        return Err(FileError::FormatVersion { found: format_version });
    }
    Ok(serde_json::from_slice(text)?)
}

fn decoded(place: impl Fn() -> String, text: &str) -> Result<Vec<u8>, FileError> {
    BASE64.decode(text.as_bytes()).map_err(|error| field(place(), format!("it is not base64 ({error})")))
}

impl RootFile {
    /// Reads a document and verifies the chain in it, which proves nothing yet about whose fleet it is.
    ///
    /// # Errors
    /// The place and what is wrong there.
    pub fn read(text: &[u8]) -> Result<Self, FileError> {
        let document: RootDocument = parsed(text, ROOT_FORMAT)?;
        let (length, max) = (document.chain.len(), limits::ROOT_CHAIN_COUNT_MAX);
        if length > max {
            return Err(field("chain", format!("it has {length} versions; at most {max} are possible")));
        }
        let mut chain: Option<TrustedRoot> = None;
        for (at, text) in document.chain.iter().enumerate() {
            let place = || format!("chain[{at}]");
            let envelope = decoded(place, text)?;
            let failed = |source| FileError::Root { place: place(), source };
            match &mut chain {
                Some(root) => {
                    root.advance(&envelope).map_err(failed)?;
                }
                None => chain = Some(TrustedRoot::first(&envelope).map_err(failed)?),
            }
        }
        let envelope = decoded(|| "proposed".to_owned(), &document.proposed)?;
        let failed = |source| FileError::Root { place: "proposed".to_owned(), source };
        let proposed = Proposal::parse(&envelope).map_err(failed)?;
        proposed.check_follows(chain.as_ref()).map_err(failed)?;
        Ok(Self { chain, proposed })
    }

    /// The document.
    ///
    /// # Errors
    /// Never in practice: it is text and numbers.
    pub fn write(&self) -> Result<String, FileError> {
        let chain = self.chain.as_ref().map_or(&[][..], TrustedRoot::chain);
        let document = RootDocument {
            format: ROOT_FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            chain: chain.iter().map(|envelope| BASE64.encode(envelope)).collect(),
            proposed: BASE64.encode(&self.proposed.envelope()),
        };
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    /// The chain with the proposed version at its end, once enough have signed.
    ///
    /// # Errors
    /// When a signature is missing.
    pub fn completed(&self) -> Result<TrustedRoot, RootError> {
        let envelope = self.proposed.envelope();
        match &self.chain {
            Some(chain) => {
                let mut root = chain.clone();
                root.advance(&envelope)?;
                Ok(root)
            }
            None => TrustedRoot::first(&envelope),
        }
    }

    /// What a complete chain was made of: its last version as the proposed one.
    ///
    /// # Errors
    /// Never for a chain that verified.
    pub fn of_chain(root: &TrustedRoot) -> Result<Self, RootError> {
        let (last, before) =
            root.chain().split_last().ok_or(RootError::ChainLength { length: 0, max: limits::ROOT_CHAIN_COUNT_MAX })?;
        let chain = if before.is_empty() { None } else { Some(TrustedRoot::from_stored(before)?) };
        Ok(Self { chain, proposed: Proposal::parse(last)? })
    }

    /// The version that the proposed one follows.
    #[must_use]
    pub fn before(&self) -> Option<&RootMetadata> {
        self.chain.as_ref().map(TrustedRoot::current)
    }
}

/// The public halves of root keys, and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootKeys {
    pub threshold: u32,
    pub keys: Vec<PublicKeyBytes>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysDocument {
    format: String,
    format_version: u32,
    threshold: u32,
    keys: Vec<String>,
}

impl RootKeys {
    /// Reads a document.
    ///
    /// # Errors
    /// The place and what is wrong there.
    pub fn read(text: &[u8]) -> Result<Self, FileError> {
        let document: KeysDocument = parsed(text, KEYS_FORMAT)?;
        let mut keys = Vec::new();
        for (at, text) in document.keys.iter().enumerate() {
            let place = || format!("keys[{at}]");
            let key: PublicKeyBytes = text.parse().map_err(|why| field(place(), why))?;
            crate::keys::check_public_key(&key).map_err(|why| field(place(), why))?;
            if keys.contains(&key) {
                return Err(field(place(), "this key stands there twice"));
            }
            keys.push(key);
        }
        let most = limits::ROOT_KEYS_COUNT_MAX;
        if keys.is_empty() || keys.len() > most {
            return Err(field("keys", format!("there are {}; 1 to {most} are possible", keys.len())));
        }
        let threshold = document.threshold;
        if threshold == 0 || usize::try_from(threshold).map_or(true, |threshold| threshold > keys.len()) {
            let why = format!("it is {threshold}; 1 to {}, the number of keys, is possible", keys.len());
            return Err(field("threshold", why));
        }
        Ok(Self { threshold, keys })
    }

    /// The document.
    ///
    /// # Errors
    /// Never in practice: it is text and numbers.
    pub fn write(&self) -> Result<String, FileError> {
        let document = KeysDocument {
            format: KEYS_FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            threshold: self.threshold,
            keys: self.keys.iter().map(ToString::to_string).collect(),
        };
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }
}
