//! Signed messages: what is signed, by which role of key, and how it is verified.
//!
//! One envelope for everything (DSSE pre-authentication encoding, Ed25519 `verify_strict`), one
//! payload type per message and direction, and a [`Verified`] value as the only thing later rooms
//! accept. The protobuf types behind the payloads are private to this room.

pub mod messages;
pub mod signer_port;
