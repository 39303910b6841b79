//! `serverflow-agent run`: gives the agent's loop its network, disk, clocks and Docker.
//!
//! One task drives [`session::agent::AgentLoop`]: it takes one input after another and does, in order, what the loop
//! answers. Dialling, disk and commands run beside it and report to it. Memory stays small because
//! there is one thread for all of that (SQLite has its own).
//!
//! What must hold: writes are queued in the order in which the loop asked for them and acknowledged to
//! it in that order; when the journal fails, the process ends (fail closed) and starts again from what
//! is durable; killing the process at any point is safe.

mod clock;
mod executor;
mod link;
mod output;
mod port;
mod result;
mod roots;
mod shell;
mod start;
mod status;
mod stream;

pub(crate) use shell::Ran;
pub(crate) use start::{RunError, run};
