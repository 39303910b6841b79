//! A control plane and several agents in one process, on seeded time, network and disk, running the
//! real machines: `session::agent::AgentLoop`, `session::control::Handshake`,
//! `fleet::dispatch::HostSession`, the real proposals, the real command table, real signatures.
//!
//! Each step makes one thing happen that could happen: a frame arrives, a write becomes durable, an
//! action ends, a person asks for something, a cable is cut, a process is killed. After each step the
//! invariants are checked. The same seed gives the same run, so a failure is a number.
//!
//! Only what the shells do is pretended here. Nothing does IO.

mod agent;
mod control;
mod events;
mod invariants;
mod memory_store;
mod network;
mod random;
mod rotation;
mod standing;
mod surprises;
mod world;

pub use invariants::Violation;
pub use world::{Cut, Summary, World};
