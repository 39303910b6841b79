//! Tests that drive whole actions over the simulated engine.

mod config_hash;
mod crash;
mod decode;
mod demands;
mod deploy;
mod follow;
mod lifecycle;
mod plans;
mod reads;
mod removal;
mod rewrap;
mod scene;
mod schema;
mod version2;
mod way_back;
