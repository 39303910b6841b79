//! The only holder of the command key.
//!
//! Whoever can make this room sign can order hosts about, so it believes little of what it is told:
//! it has its own clock and its own durable record of the highest sequence it signed for each host,
//! and refuses what an honest control plane would never ask for. Requests queue; one thread takes
//! what waits, judges it, makes the new sequences durable with one write and one `fdatasync`, and
//! only then signs. A crash between the two burns sequences, which is legal; it never repeats one.
//!
//! The room sits behind [`envelope::signer_port::Signer`] and depends on nothing of the control
//! plane, so that it can become a process of its own.

mod judge;
pub mod limits;
mod rate;
mod signer;
mod state_file;

pub use signer::{Clock, LocalSigner, SignerConfig};
pub use state_file::StateError;
