//! The session's machine against the real agent loop.

mod agent;
mod faults;
mod flow;
mod interleavings;
mod reporting;
pub(crate) mod store;
pub(crate) mod world;
