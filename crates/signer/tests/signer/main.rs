//! The signer through its port.

mod approvals;
mod orders;
mod room;
mod standing;
mod trust;
