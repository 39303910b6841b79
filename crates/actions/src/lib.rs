//! What an agent can do: one folder per action, and the host owner's policy above them all.
//!
//! An action is a typed parameter set, the demands it makes on the host, and a plan or procedure
//! that asks for [`effect::Effect`]s through an [`port::ActionPort`]. Nothing here has a clock, a
//! disk or a Docker engine: the agent's `host` room performs effects, the simulation pretends to.

pub mod effect;
pub mod outcome;
pub mod port;
pub mod spec;
