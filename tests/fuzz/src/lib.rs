//! What the fuzzers share: an envelope of their own, so that bytes come from elsewhere than the code under test,
//! and the door of every signed message.

use ed25519_dalek::Signer as _;
use envelope::{
    Payload, SigningKey, VerifyError, VerifyingKey, messages::*, open_enrol_proof, open_key_offer,
    open_receipt_request, verify,
};
use prost::Message;

/// The seed of every key here. Only types keep roles apart, as they must.
pub const SEED: [u8; 32] = [0x42; 32];

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    payload: Vec<u8>,
    #[prost(string, tag = "2")]
    payload_type: String,
    #[prost(message, repeated, tag = "3")]
    signatures: Vec<Signature>,
}

#[derive(Clone, PartialEq, Message)]
struct Signature {
    #[prost(bytes = "vec", tag = "1")]
    key_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    signature: Vec<u8>,
}

/// Signs any payload under any type, as whoever holds the seed can.
#[must_use]
pub fn signed(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let key = ed25519_dalek::SigningKey::from_bytes(&SEED);
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    let key_id = ids::sha256(key.verifying_key().as_bytes()).as_bytes()[..16].to_vec();
    let signatures = vec![Signature { key_id, signature: key.sign(&bytes).to_bytes().to_vec() }];
    Envelope { payload: payload.to_vec(), payload_type: payload_type.to_owned(), signatures }.encode_to_vec()
}

/// One kind of message: its type, and its door, which says what the message it let through looks like signed again.
pub struct Door {
    /// The payload type.
    pub payload_type: &'static str,
    /// Opens an envelope.
    pub open: fn(&[u8]) -> Result<Vec<u8>, VerifyError>,
}

fn again<T: Payload>(value: &T) -> Vec<u8> {
    SigningKey::<T::Role>::from_seed(&SEED).sign(value).into_envelope()
}

fn known<T: Payload>(bytes: &[u8]) -> Result<Vec<u8>, VerifyError> {
    let keys: [VerifyingKey<T::Role>; 1] = [SigningKey::from_seed(&SEED).verifying()];
    verify::<T>(bytes, &keys).map(|verified| again(&*verified))
}

const fn door<T: Payload>() -> Door {
    Door { payload_type: T::TYPE, open: known::<T> }
}

/// Every signed message but root metadata, which has a fuzzer of its own.
pub const DOORS: [Door; 16] = [
    door::<EnrolHello>(),
    Door { payload_type: EnrolProof::TYPE, open: |bytes| open_enrol_proof(bytes).map(|it| again(&*it)) },
    Door { payload_type: ReceiptRequest::TYPE, open: |bytes| open_receipt_request(bytes).map(|it| again(&*it)) },
    door::<EnrolReceipt>(),
    door::<ControlHello>(),
    door::<SessionProof>(),
    door::<SessionOpen>(),
    door::<Command>(),
    door::<Report>(),
    door::<AuditHead>(),
    door::<Approval>(),
    door::<StandingOrder>(),
    door::<GuardReset>(),
    Door { payload_type: KeyOffer::TYPE, open: |bytes| open_key_offer(bytes).map(|it| again(&*it)) },
    door::<KeyRotation>(),
    door::<KeyReceipt>(),
];
