//! The only holder of the command keys: a process of its own, and the way to ask it.
//!
//! Whoever can make this room sign can order hosts about, so it believes little of what it is told:
//! it has its own clock, its own durable record of the highest sequence it signed for each host, its
//! own copy of root metadata that only a chain which verifies can advance, and its own log; and it refuses
//! what an honest control plane would never ask for. Requests queue; one thread takes what waits, judges it,
//! makes the new sequences and the log durable in one go, and only then signs. A crash between the two burns
//! sequences, which is legal; it never repeats one.
//!
//! [`LocalSigner`] is that thread with its directory; [`serve`] lets others ask it through a Unix socket;
//! [`RemoteSigner`] is who asks. Both stand behind [`envelope::signer_port::Signer`]. The room depends on nothing
//! of the control plane.

mod bring_over;
mod client;
mod codec;
mod judge;
pub mod limits;
mod log;
mod place;
mod rate;
mod server;
mod signer;
mod signing;
mod socket;
mod state_file;
mod trust;

pub use client::{RemoteSigner, Standing};
pub use judge::ClassOf;
pub use place::{Place, PlaceError, examine_sequences};
pub use server::serve;
pub use signer::{Clock, LocalSigner, SignerConfig};
pub use socket::{Peers, listen};
pub use state_file::StateError;
pub use trust::examine;
