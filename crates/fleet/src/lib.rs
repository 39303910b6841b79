//! The control plane's decisions: what may be asked, what is sent when, what a report means.
//!
//! No clock, no randomness, no network, no database: shells bring those and call the ports.

pub mod approval;
pub mod command;
pub mod dispatch;
pub mod keys;
pub mod limits;
pub mod list;
pub mod model;
pub mod operation;
pub mod people;
pub mod ports;
mod record;
pub mod recovery;
pub mod releases;
pub mod selector;
pub mod standing;
