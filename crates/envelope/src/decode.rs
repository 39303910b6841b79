//! Decoding of signed messages: the error, and the checks every field goes through.
//!
//! A decoder takes bytes that were verified (or, for an agent's hello, will be covered by a
//! signature), decodes them once, checks every field, and then encodes the result again: only bytes
//! that come out the same are accepted. That refuses unknown, duplicate and reordered fields,
//! non-minimal integers and defaults written out.

use core::str::FromStr;

use ids::{Id, IdKind, NameError};
use prost::Message;

use crate::{
    keys::{self, KeyError},
    messages::{PublicKeyBytes, SealingKeyBytes},
};

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than this message may have.
    #[error("{message} has {length} bytes; at most {max} are allowed")]
    TooLarge { message: &'static str, length: usize, max: usize },
    /// Not protobuf of this shape.
    #[error("{message} is not well-formed protobuf")]
    Malformed { message: &'static str },
    /// Decodes, but is not the one encoding of its content.
    #[error("{message} is not in canonical form (unknown, duplicate, reordered or needless fields)")]
    NotCanonical { message: &'static str },
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing { field: &'static str },
    /// A field of fixed size has another.
    #[error("{field} has {length} bytes instead of {expected}")]
    Length { field: &'static str, length: usize, expected: usize },
    /// A field is longer, or a list has more members, than its limit.
    #[error("{field} has {length} bytes or members; at most {max} are allowed")]
    TooLong { field: &'static str, length: usize, max: usize },
    /// A number outside its range, an enumeration value this version does not know, a text that
    /// must not stand there.
    #[error("{field} is out of range")]
    OutOfRange { field: &'static str },
    /// A list that must be ascending or free of duplicates is not.
    #[error("{field} is not in order, or names something twice")]
    Unordered { field: &'static str },
    /// A name that breaks its rule.
    #[error("{field} is not a valid name")]
    Name { field: &'static str, source: NameError },
    /// A public key that is not acceptable.
    #[error("{field} is not an acceptable public key")]
    Key { field: &'static str, source: KeyError },
}

/// A message of this room: its protobuf twin and the conversions between them.
pub(crate) trait Convert: Sized {
    /// Name for errors.
    const MESSAGE: &'static str;
    type Proto: Message + Default;

    fn to_proto(&self) -> Self::Proto;
    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError>;

    fn to_bytes(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Decodes, checks, and compares with its own encoding.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let proto = Self::Proto::decode(bytes).map_err(|_| DecodeError::Malformed { message: Self::MESSAGE })?;
        let value = Self::from_proto(proto)?;
        if value.to_bytes() == bytes { Ok(value) } else { Err(DecodeError::NotCanonical { message: Self::MESSAGE }) }
    }
}

pub(crate) fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Length { field, length: bytes.len(), expected: N })
}

pub(crate) fn id<K: IdKind>(field: &'static str, bytes: &[u8]) -> Result<Id<K>, DecodeError> {
    array(field, bytes).map(Id::from_bytes)
}

pub(crate) fn public_key(field: &'static str, bytes: &[u8]) -> Result<PublicKeyBytes, DecodeError> {
    let key = PublicKeyBytes(array(field, bytes)?);
    keys::check_public_key(&key).map_err(|source| DecodeError::Key { field, source })?;
    Ok(key)
}

pub(crate) fn sealing_key(field: &'static str, bytes: &[u8]) -> Result<SealingKeyBytes, DecodeError> {
    let key = SealingKeyBytes(array(field, bytes)?);
    keys::check_sealing_key(&key).map_err(|source| DecodeError::Key { field, source })?;
    Ok(key)
}

pub(crate) fn public_keys(
    field: &'static str,
    list: &[Vec<u8>],
    max: usize,
) -> Result<Vec<PublicKeyBytes>, DecodeError> {
    at_most(field, list.len(), max)?;
    list.iter().map(|bytes| public_key(field, bytes)).collect()
}

pub(crate) fn name<T: FromStr<Err = NameError>>(field: &'static str, text: &str) -> Result<T, DecodeError> {
    text.parse().map_err(|source| DecodeError::Name { field, source })
}

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

pub(crate) fn at_most(field: &'static str, length: usize, max: usize) -> Result<(), DecodeError> {
    if length <= max { Ok(()) } else { Err(DecodeError::TooLong { field, length, max }) }
}

pub(crate) fn in_range(field: &'static str, holds: bool) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::OutOfRange { field }) }
}

pub(crate) fn strictly_ascending<T: Ord>(field: &'static str, list: &[T]) -> Result<(), DecodeError> {
    if list.windows(2).all(|pair| pair[0] < pair[1]) { Ok(()) } else { Err(DecodeError::Unordered { field }) }
}

/// Text a person may see: not empty, bounded, without control characters.
pub(crate) fn text(field: &'static str, text: &str, max: usize) -> Result<(), DecodeError> {
    at_most(field, text.len(), max)?;
    in_range(field, !text.is_empty() && !text.chars().any(char::is_control))
}
