//! The signer through its port.

mod orders;
mod room;
mod trust;
