//! An envelope and a protobuf reader of the tests' own, so that an attacker's bytes do not come from
//! the code under test.

use ed25519_dalek::Signer as _;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) payload: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) payload_type: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) signatures: Vec<Signature>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Signature {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) signature: Vec<u8>,
}

impl Envelope {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::decode(bytes).expect("an envelope")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Signs any payload under any type, as whoever holds the seed can.
    pub(crate) fn signed(seed: &[u8; 32], payload_type: &str, payload: Vec<u8>) -> Self {
        let signature = signature(seed, payload_type, &payload);
        Self { payload, payload_type: payload_type.to_owned(), signatures: vec![signature] }
    }
}

pub(crate) fn signature(seed: &[u8; 32], payload_type: &str, payload: &[u8]) -> Signature {
    let key = ed25519_dalek::SigningKey::from_bytes(seed);
    let mut signed = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    signed.extend_from_slice(payload);
    let id = ids::sha256(key.verifying_key().as_bytes());
    Signature { key_id: id.as_bytes()[..16].to_vec(), signature: key.sign(&signed).to_bytes().to_vec() }
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn read_varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The fields of a message at its first level, each with its key: `(number, whole field)`.
pub(crate) fn fields(message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let (mut at, mut fields) = (0, Vec::new());
    while at < message.len() {
        let start = at;
        let key = read_varint(message, &mut at);
        match key & 7 {
            0 => drop(read_varint(message, &mut at)),
            2 => {
                let length = read_varint(message, &mut at);
                at += usize::try_from(length).expect("a length");
            }
            other => panic!("wire type {other} is not used"),
        }
        fields.push((key >> 3, message[start..at].to_vec()));
    }
    fields
}

/// A length-delimited field.
pub(crate) fn field_bytes(number: u64, content: &[u8]) -> Vec<u8> {
    let mut field = varint(number << 3 | 2);
    field.extend(varint(content.len() as u64));
    field.extend_from_slice(content);
    field
}
