//! Both ends of a connection, as machines without IO: enrolment, handshake, live session, and the
//! agent's loop from a received command to its signed report.
//!
//! A shell (or the simulation) owns sockets, clocks, disk and randomness. It feeds a machine what
//! happened and does, in order, what the machine answers. What must hold:
//!
//! - nothing of a message is used before its signature and its binding to this very connection
//!   (TLS exporter, both nonces) are verified;
//! - no command starts before its acceptance and its start are durable, and none starts twice
//!   unless it is marked as resumed;
//! - every accepted command ends in exactly one signed report, and reports form a chain without gaps;
//! - this room asks an [`agent::io::Admission`] whether an order may run; it knows no action by itself.

pub mod agent;
mod checks;
pub mod control;
pub mod frames;
pub mod limits;
