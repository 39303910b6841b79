//! The Docker Engine as effects see it.
//!
//! [`Engine`] is the door; below it one module per kind of thing. `body` and `failure` are pure:
//! the first turns a container specification into what the engine takes, the second turns what the
//! engine refuses into words.

mod belongings;
mod body;
mod container;
mod credentials;
mod engine;
mod failure;
mod follow;
mod foreign;
mod image;
mod logs;
mod network;
mod observe;
mod ownership;
mod pull;
mod volume;

pub use belongings::Belongings;
pub use engine::{Engine, EngineConfig, EngineError, EngineVersion};
pub use follow::{LogFollow, LogLine};
