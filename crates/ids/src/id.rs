//! 128-bit identifiers, one Rust type per kind, written as RFC 9562 UUID text.

use core::{cmp::Ordering, fmt, hash, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::UnixMs;

/// Names a kind of id for error messages.
pub trait IdKind: 'static {
    /// What a person calls it, such as `command id`.
    const NAME: &'static str;
}

/// A 128-bit id of kind `K`. Ids of different kinds do not compare or convert.
pub struct Id<K> {
    bytes: [u8; 16],
    kind: PhantomData<fn() -> K>,
}

impl<K> Id<K> {
    /// Takes the sixteen bytes as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self { bytes, kind: PhantomData }
    }

    /// A version 7 UUID (RFC 9562 section 5.7): sorts by `now`, unguessable by `random`.
    #[must_use]
    pub fn new_v7(now: UnixMs, random: [u8; 10]) -> Self {
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self::from_bytes(bytes)
    }

    /// The sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }
}

impl<K: IdKind> Id<K> {
    /// Reads exactly sixteen bytes.
    ///
    /// # Errors
    /// When the slice has another length.
    pub fn try_from_slice(slice: &[u8]) -> Result<Self, IdParseError> {
        let bytes = slice.try_into().map_err(|_| IdParseError { kind: K::NAME })?;
        Ok(Self::from_bytes(bytes))
    }
}

/// A text or byte string that is not an id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {} {kind}: expected 32 hexadecimal digits in UUID form (8-4-4-4-12)", crate::name::article(kind))]
pub struct IdParseError {
    kind: &'static str,
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}
impl<K> hash::Hash for Id<K> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = crate::hex(&self.bytes);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: IdKind> FromStr for Id<K> {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<Self, IdParseError> {
        let wrong = IdParseError { kind: K::NAME };
        let hyphens = [8, 13, 18, 23];
        if text.len() != 36 || !text.is_ascii() || hyphens.iter().any(|&at| text.as_bytes()[at] != b'-') {
            return Err(wrong);
        }
        let digits: String = text.split('-').collect();
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| wrong)?;
        Self::try_from_slice(&bytes)
    }
}

impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, K: IdKind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl<K: IdKind> schemars::JsonSchema for Id<K> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        K::NAME.into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "uuid" })
    }
}

macro_rules! id_kinds {
    ($($(#[$doc:meta])* $id:ident, $kind:ident, $name:literal;)*) => {$(
        #[doc(hidden)]
        pub enum $kind {}
        impl IdKind for $kind {
            const NAME: &'static str = $name;
        }
        $(#[$doc])*
        pub type $id = Id<$kind>;
    )*};
}

id_kinds! {
    /// Everything one root key governs.
    FleetId, FleetKind, "fleet id";
    /// One enrolled machine. Never reused, not even for the same machine enrolled anew.
    HostId, HostKind, "host id";
    /// One order to one host.
    CommandId, CommandKind, "command id";
    /// What a person asked for; the client chooses it, so that a retried request is the same request.
    OperationId, OperationKind, "operation id";
    /// A standing order: a schedule that outlives the command that installed it.
    StandingOrderId, StandingOrderKind, "standing order id";
    /// One join token.
    TokenId, TokenKind, "join token id";
    /// One immutable version of an app: the operation that made it.
    ReleaseId, ReleaseKind, "release id";
    /// One audit log, from its first leaf on.
    AuditLogId, AuditLogKind, "audit log id";
    /// One stay of one agent in quarantine.
    QuarantineId, QuarantineKind, "quarantine id";
    /// One account.
    UserId, UserKind, "user id";
    /// One sign-in of one account.
    SessionId, SessionKind, "session id";
    /// One API token of one account.
    ApiTokenId, ApiTokenKind, "API token id";
    /// The first 16 bytes of SHA-256 of a public key. A hint for look-up, never a reason to trust.
    KeyId, KeyKind, "key id";
    /// The kernel's random id of one boot (`/proc/sys/kernel/random/boot_id`).
    BootId, BootKind, "boot id";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_sorts_by_time() {
        let early = CommandId::new_v7(UnixMs(1_700_000_000_000), [0xff; 10]);
        let late = CommandId::new_v7(UnixMs(1_700_000_000_001), [0; 10]);
        assert!(early < late);
        let text = early.to_string();
        assert_eq!(text, "018bcfe5-6800-7fff-bfff-ffffffffffff");
        assert_eq!(text.parse(), Ok(early));
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "018bcfe5",
            "018bcfe568007fffbfffffffffffffff",
            "018bcfe5-6800-7fff-bfff-fffffffffffg",
            "é18bcfe5-6800-7fff-bfff-fffffffffff",
        ] {
            assert!(text.parse::<HostId>().is_err(), "{text}");
        }
    }
}
