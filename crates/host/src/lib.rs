//! What the agent does to its host, and the only room that can: it performs
//! [`actions::effect::Effect`]s against the host's Docker Engine, reads the host's clocks, and tells
//! what the host is.
//!
//! Three things hold everywhere in here. Whatever is made carries the labels of fleet and host, and
//! whatever exists is first read and left alone unless it carries both: two agents may share one
//! engine. Every effect may be performed again after a crash and then ends the same. And every
//! error says what happened, to what, and what to do next, because it is shown to a person as it is.
//!
//! One trap for whoever builds a program on this: the Docker client writes whole requests, environment
//! included, to the `log` crate at debug level. The program must not carry `log` records into its own
//! log (`tracing-subscriber` without its `tracing-log` feature does not).

mod bind;
pub mod clock;
mod docker;
pub mod facts;
mod files;
pub mod limits;
pub mod service;

pub use docker::{Belongings, Engine, EngineConfig, EngineError, EngineVersion, LogFollow, LogLine};
