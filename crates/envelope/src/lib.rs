//! Signed messages: what is signed, by which role of key, and how it is verified.
//!
//! One envelope for everything (DSSE pre-authentication encoding, Ed25519 `verify_strict`), one
//! payload type per message and direction, and a [`Verified`] value as the only thing later rooms
//! accept. The protobuf types behind the payloads are private to this room.
//!
//! Around that: the chain of root metadata ([`root`]), sealed values ([`seal`], [`recovery`]), the join token
//! ([`token`]), the replay guard's judgement ([`guard`]), that of standing orders ([`standing`]), and the audit log's tree
//! and leaves ([`merkle`], [`audit`]). No clock, no randomness, no IO: time and random bytes are arguments.

pub mod address;
pub mod approval;
pub mod audit;
pub mod audit_verify;
mod convert;
mod decode;
mod envelope;
pub mod guard;
pub mod key_chain;
pub mod keys;
pub mod limits;
pub mod merkle;
pub mod messages;
mod proto;
pub mod recovery;
pub mod root;
pub mod seal;
pub mod signer_port;
pub mod standing;
pub mod token;

pub use self::{
    decode::DecodeError,
    envelope::{
        Payload, Signed, Verified, VerifyError, open_enrol_proof, open_key_offer, open_receipt_request, own_report,
        verify,
    },
    keys::{SigningKey, VerifyingKey, key_id},
};
