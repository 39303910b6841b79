//! A Docker engine and an agent's journal in memory, for tests and the simulation: deterministic,
//! without time of its own, and easy to break on purpose.
//!
//! [`SimulatedEngine`] performs effects as Docker would, with behaviours by image. [`SimulatedPort`]
//! is a whole [`crate::port::ActionPort`] over it that can die at any point. Both outlive the
//! "process" that uses them, as a real engine and a real disk do.

mod engine;
mod places;
mod port;

pub use engine::{Behaviour, SimulatedEngine, SimulatedImage};
pub use places::SimulatedPlaces;
pub use port::{Death, Point, SimulatedPort, SimulatedWorld, Surprise, drive};
