//! Tests that drive whole actions over the simulated engine.

mod crash;
mod decode;
mod deploy;
mod reads;
mod scene;
mod schema;
