//! The control plane's side: its halves of handshake and enrolment, and what it concludes from a
//! host's hello and reports. All of it without IO: the caller looks up hosts and tokens, brings time,
//! nonces and keys, and sends what comes back.

mod credentials;
mod enrolment;
mod handshake;
mod report_chain;
mod rotation;
mod standing;

pub use self::{
    credentials::{CredentialsError, KeysOnRecord, Presented},
    enrolment::{Enrolment, EnrolmentError, EnrolmentStep, ReceiptWanted, Redemption, token_refused},
    handshake::{Answer, Authenticated, Handshake, HandshakeError, HandshakeStep, Identity},
    report_chain::{ReportVerdict, judge_report},
    rotation::{OfferedKeys, RotationError},
    standing::{HostRecord, Standing, acknowledged_after, boots_after, judge},
};
