//! What an agent can do: one folder per action, and the host owner's policy above them all.
//!
//! An action is a typed parameter set, the demands it makes on the host, and a plan or procedure
//! that asks for [`effect::Effect`]s through an [`port::ActionPort`]. Nothing here has a clock, a
//! disk or a Docker engine: the agent's `host` room performs effects, the simulation pretends to.

pub mod effect;
pub mod limits;
pub mod mask;
pub mod outcome;
pub mod policy;
pub mod port;
mod registry;
pub mod release;
pub mod spec;

mod container;
mod engine;
mod foreign;
mod lifecycle;
mod spec_check;
mod spec_read;
mod stop;

#[cfg(any(test, feature = "simulation"))]
pub mod simulated;

// One line per action, as in the registry's list.
pub mod app_deploy;
pub mod app_logs;
pub mod app_logs_follow;
pub mod app_plan;
pub mod app_remove;
pub mod app_restart;
pub mod app_secrets_rewrap;
pub mod app_start;
pub mod app_stop;
pub mod command_cancel;
pub mod docker_containers;
pub mod host_facts;
pub mod host_keys_rotate;
pub mod host_retire;
pub mod standing_drop;
pub mod standing_install;
pub mod standing_renew;

#[cfg(test)]
mod tests;

pub use registry::{ActionInfo, Class, DecodeError, Lock, OnRestart, Request, actions, class_for_people, find, latest};
