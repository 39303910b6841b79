//! The session's machine against the real agent loop.

mod agent;
mod faults;
pub(crate) mod fixture;
mod flow;
mod interleavings;
mod reporting;
mod store;
mod streams;
mod world;
