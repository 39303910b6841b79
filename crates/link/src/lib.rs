//! The agent's side of the wire: dial, pin, export, carry frames.
//!
//! TLS 1.3 only. The server's key must be one of the pinned keys, whatever any certificate
//! authority says; names and dates in its certificate mean nothing here. What both sides then sign
//! contains the TLS exporter (RFC 9266), so a stolen TLS key alone opens no session.

mod backoff;
mod dial;
pub mod limits;
mod pin;

pub use backoff::Backoff;
pub use dial::{
    Connection, DialError, FrameReceiver, FrameSender, LinkError, Purpose, Target, dial, exchange_roots, probe,
};
