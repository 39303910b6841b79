//! The one envelope around everything signed, and the only way through it.
//!
//! An envelope is protobuf `{payload, payload type, signatures}`; what is signed is the DSSE v1
//! pre-authentication encoding of type and payload (github.com/secure-systems-lab/dsse). Checks go
//! in this order: size, envelope form, key, signature, type, canonical form of the payload. Nothing
//! of the payload is decoded before its signature is verified.

use core::{fmt, ops::Deref};

use ids::{KeyId, Sha256};
use prost::Message as _;

use crate::{
    decode::{Convert, DecodeError},
    keys::{KeyError, KeyRole, SigningKey, VerifyingKey, role},
    limits,
    messages::{EnrolProof, KeyOffer, PublicKeyBytes, ReceiptRequest, Report},
    proto,
};

/// The sealed side of [`Payload`]: nobody outside can add a payload type.
pub(crate) mod sealed {
    pub trait Encoding: Sized {
        fn encode_payload(&self) -> Vec<u8>;
        fn decode_payload(bytes: &[u8]) -> Result<Self, super::DecodeError>;
    }
}

/// A message that is signed by one key. Root metadata is not among them: it needs a threshold, see
/// [`crate::root`].
pub trait Payload: sealed::Encoding + Clone + fmt::Debug {
    /// The payload type that is signed with it.
    const TYPE: &'static str;
    /// The role of the key that signs it.
    type Role: KeyRole;

    /// Whether the other side would accept the content once the signature is verified.
    ///
    /// # Errors
    /// What it would refuse.
    fn check(&self) -> Result<(), DecodeError> {
        Self::decode_payload(&self.encode_payload()).map(drop)
    }
}

/// Why an envelope is refused. The order of the variants is the order of the checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Refused unread.
    #[error("size: the envelope has {length} bytes; at most {max} are allowed")]
    TooLarge { length: usize, max: usize },
    /// Not an envelope in canonical form.
    #[error("envelope: not well-formed")]
    Malformed,
    /// None, or several where one key signs.
    #[error("signature: expected exactly one, found {count}")]
    SignatureCount { count: usize },
    /// The key id matches no key that may sign this.
    #[error("signature: made by {key}, which is not a valid {role}")]
    NoKey { key: KeyId, role: &'static str },
    /// The key a message brings is not acceptable.
    #[error("signature: the key the message brings is not acceptable")]
    Key { source: KeyError },
    /// The signature does not verify.
    #[error("signature: does not verify under {key}")]
    BadSignature { key: KeyId },
    /// Authentic, but something else than was expected here.
    #[error("type: expected {expected}, found {found}")]
    WrongType { expected: &'static str, found: String },
    /// Authentic, but the content is not well-formed, not canonical, or breaks a limit.
    #[error("content: refused")]
    Content { source: DecodeError },
}

/// The DSSE v1 pre-authentication encoding.
pub(crate) fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + payload_type.len() + 32);
    bytes.extend_from_slice(format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).as_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// An envelope taken apart; nothing in it is trusted.
pub(crate) struct Opened {
    pub(crate) payload: Vec<u8>,
    pub(crate) payload_type: String,
    /// Strictly ascending by key id.
    pub(crate) signatures: Vec<(KeyId, [u8; 64])>,
}

impl Opened {
    /// Takes an envelope apart. Its bytes must be the one encoding of their content, so that nobody
    /// can make a second envelope out of a first.
    pub(crate) fn parse(bytes: &[u8], max: usize) -> Result<Self, VerifyError> {
        if bytes.len() > max {
            return Err(VerifyError::TooLarge { length: bytes.len(), max });
        }
        let proto = proto::Envelope::decode(bytes).map_err(|_| VerifyError::Malformed)?;
        if proto.payload_type.len() > limits::PAYLOAD_TYPE_BYTES_MAX
            || proto.signatures.len() > limits::SIGNATURES_COUNT_MAX
            || proto.encode_to_vec() != bytes
        {
            return Err(VerifyError::Malformed);
        }
        let mut signatures = Vec::with_capacity(proto.signatures.len());
        for signature in &proto.signatures {
            let key = KeyId::try_from_slice(&signature.key_id).map_err(|_| VerifyError::Malformed)?;
            let bytes = signature.signature.as_slice().try_into().map_err(|_| VerifyError::Malformed)?;
            signatures.push((key, bytes));
        }
        if !signatures.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(VerifyError::Malformed);
        }
        Ok(Self { payload: proto.payload, payload_type: proto.payload_type, signatures })
    }

    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        pre_authentication_encoding(&self.payload_type, &self.payload)
    }

    fn only_signature(&self) -> Result<(KeyId, [u8; 64]), VerifyError> {
        match self.signatures.as_slice() {
            [only] => Ok(*only),
            more => Err(VerifyError::SignatureCount { count: more.len() }),
        }
    }
}

/// Puts an envelope together. `signatures` must be strictly ascending by key id.
pub(crate) fn assemble(payload_type: &str, payload: Vec<u8>, signatures: &[(KeyId, [u8; 64])]) -> Vec<u8> {
    let signatures = signatures
        .iter()
        .map(|(key, bytes)| proto::Signature { key_id: key.as_bytes().to_vec(), signature: bytes.to_vec() })
        .collect();
    proto::Envelope { payload, payload_type: payload_type.to_owned(), signatures }.encode_to_vec()
}

/// A message just signed, with its envelope.
#[derive(Clone)]
pub struct Signed<T> {
    value: T,
    envelope: Vec<u8>,
    payload_sha256: Sha256,
    key: KeyId,
}

impl<T> Signed<T> {
    /// The envelope's bytes.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
    /// The envelope's bytes.
    #[must_use]
    pub fn into_envelope(self) -> Vec<u8> {
        self.envelope
    }
    /// SHA-256 of the payload bytes: what other messages refer to.
    #[must_use]
    pub const fn payload_sha256(&self) -> Sha256 {
        self.payload_sha256
    }
    /// What was signed.
    #[must_use]
    pub const fn value(&self) -> &T {
        &self.value
    }
    /// Who signed.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key
    }
}

impl<R: KeyRole> SigningKey<R> {
    /// Signs a message. It does not judge the content: see [`Payload::check`].
    #[must_use]
    pub fn sign<T: Payload<Role = R>>(&self, value: &T) -> Signed<T> {
        let payload = value.encode_payload();
        let payload_sha256 = ids::sha256(&payload);
        let signature = self.sign_bytes(&pre_authentication_encoding(T::TYPE, &payload));
        let key = self.key_id();
        let envelope = assemble(T::TYPE, payload, &[(key, signature)]);
        Signed { value: value.clone(), envelope, payload_sha256, key }
    }
}

/// A message whose envelope was verified: the only thing later rooms act upon.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    envelope: Vec<u8>,
    payload_sha256: Sha256,
    key: KeyId,
}

impl<T> Verified<T> {
    /// SHA-256 of the payload bytes: what other messages refer to.
    #[must_use]
    pub const fn payload_sha256(&self) -> Sha256 {
        self.payload_sha256
    }
    /// The key that signed it.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key
    }
    /// The envelope as received.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
    /// The message alone.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }
}

// The envelope repeats the value, so it is left out.
impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("value", &self.value).field("key", &self.key).finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("value", &self.value).field("key", &self.key).finish_non_exhaustive()
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Verifies an envelope under one of `keys` and decodes its payload. No keys: nothing verifies.
///
/// # Errors
/// The first check that failed; see [`VerifyError`].
pub fn verify<T: Payload>(envelope: &[u8], keys: &[VerifyingKey<T::Role>]) -> Result<Verified<T>, VerifyError> {
    let opened = Opened::parse(envelope, limits::ENVELOPE_BYTES_MAX)?;
    verify_opened(envelope, &opened, keys)
}

fn verify_opened<T: Payload>(
    envelope: &[u8],
    opened: &Opened,
    keys: &[VerifyingKey<T::Role>],
) -> Result<Verified<T>, VerifyError> {
    let (id, signature) = opened.only_signature()?;
    let key = keys
        .iter()
        .find(|key| key.key_id() == id)
        .ok_or(VerifyError::NoKey { key: id, role: <T::Role as KeyRole>::NAME })?;
    if !key.is_signed(&opened.signed_bytes(), &signature) {
        return Err(VerifyError::BadSignature { key: id });
    }
    if opened.payload_type != T::TYPE {
        return Err(VerifyError::WrongType { expected: T::TYPE, found: opened.payload_type.clone() });
    }
    let value = T::decode_payload(&opened.payload).map_err(|source| VerifyError::Content { source })?;
    Ok(Verified { value, envelope: envelope.to_vec(), payload_sha256: ids::sha256(&opened.payload), key: id })
}

/// Opens the proof of an enrolment, which brings the key that signs it. It shows that the sender
/// holds that key, and nothing about who the sender is: that is the token's part.
///
/// # Errors
/// As [`verify`], and [`VerifyError::Key`] when the key is not acceptable.
pub fn open_enrol_proof(envelope: &[u8]) -> Result<Verified<EnrolProof>, VerifyError> {
    verify_self_signed(envelope)
}

/// Opens a request for a lost receipt, which brings the key that signs it. The caller must know that
/// key as a host's.
///
/// # Errors
/// As [`open_enrol_proof`].
pub fn open_receipt_request(envelope: &[u8]) -> Result<Verified<ReceiptRequest>, VerifyError> {
    verify_self_signed(envelope)
}

/// Opens an offer of new keys, which brings the key that signs it: the envelope inside a rotation that
/// was verified under the host's present key.
///
/// # Errors
/// As [`open_enrol_proof`].
pub fn open_key_offer(envelope: &[u8]) -> Result<Verified<KeyOffer>, VerifyError> {
    verify_self_signed(envelope)
}

/// Reads a report that this very program signed and kept on its own disk, by whichever of its keys: to sign it anew.
/// What came from anywhere else is read by [`verify`] alone.
///
/// # Errors
/// When it is no envelope of a report.
pub fn own_report(envelope: &[u8]) -> Result<Report, VerifyError> {
    read_unproved(envelope).map(|(_, report)| report)
}

/// The content of an envelope, and whose signature it claims. Proves nothing.
pub(crate) fn read_unproved<T: Payload>(envelope: &[u8]) -> Result<(KeyId, T), VerifyError> {
    let opened = Opened::parse(envelope, limits::ENVELOPE_BYTES_MAX)?;
    let (key, _) = opened.only_signature()?;
    if opened.payload_type != T::TYPE {
        return Err(VerifyError::WrongType { expected: T::TYPE, found: opened.payload_type.clone() });
    }
    let value = T::decode_payload(&opened.payload).map_err(|source| VerifyError::Content { source })?;
    Ok((key, value))
}

fn verify_self_signed<T: Payload<Role = role::Agent>>(envelope: &[u8]) -> Result<Verified<T>, VerifyError> {
    let opened = Opened::parse(envelope, limits::SELF_SIGNED_BYTES_MAX)?;
    // Of the unverified payload only the key is read; every other field is skipped over.
    let brought = proto::SelfSigned::decode(opened.payload.as_slice()).map_err(|_| VerifyError::Malformed)?;
    let bytes = brought.identity_key.as_slice().try_into().map_err(|_| VerifyError::Malformed)?;
    let key = VerifyingKey::try_from(PublicKeyBytes(bytes)).map_err(|source| VerifyError::Key { source })?;
    verify_opened(envelope, &opened, &[key])
}

macro_rules! payloads {
    ($($message:ty, $role:ident, $name:literal;)*) => {$(
        impl sealed::Encoding for $message {
            fn encode_payload(&self) -> Vec<u8> {
                Convert::to_bytes(self)
            }
            fn decode_payload(bytes: &[u8]) -> Result<Self, DecodeError> {
                Convert::from_bytes(bytes)
            }
        }
        impl Payload for $message {
            const TYPE: &'static str = concat!("application/vnd.serverflow.", $name, ".v1");
            type Role = role::$role;
        }
    )*};
}

payloads! {
    crate::messages::EnrolHello, Session, "enrol-hello";
    crate::messages::EnrolProof, Agent, "enrol-proof";
    crate::messages::ReceiptRequest, Agent, "receipt-request";
    crate::messages::EnrolReceipt, Session, "enrol-receipt";
    crate::messages::ControlHello, Session, "hello-control-plane";
    crate::messages::SessionProof, Agent, "session-proof";
    crate::messages::SessionOpen, Command, "session-open";
    crate::messages::Command, Command, "command";
    crate::messages::Report, Agent, "report";
    crate::messages::AuditHead, Audit, "audit-head";
    crate::messages::Approval, Approver, "approval";
    crate::messages::StandingOrder, Command, "standing-order";
    crate::messages::GuardReset, Command, "guard-reset";
    crate::messages::KeyOffer, Agent, "key-offer";
    crate::messages::KeyRotation, Agent, "key-rotation";
    crate::messages::KeyReceipt, Session, "key-receipt";
}
