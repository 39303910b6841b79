//! The session's machine against the real agent loop.

mod agent;
mod approving;
mod export;
mod faults;
pub(crate) mod fixture;
mod flow;
mod interleavings;
mod release;
mod reporting;
mod restored;
mod retirement;
mod rotation;
mod store;
mod streams;
mod world;
