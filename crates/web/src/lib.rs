//! The people's side of the control plane: REST under `/api/v1`, server-sent events, `/health`,
//! `/metrics` and a landing page.
//!
//! This room speaks HTTP and nothing else: what may be asked is decided in [`fleet`], what is kept
//! is behind [`fleet::ports::Store`], and orders are signed elsewhere. It never sees a private key.
//! Every path is listed once, with the least role that may use it, in `routes`; what is not listed
//! there does not exist, and what needs a role is refused before anything of it is read.

mod access;
mod agent_programs;
pub mod credentials;
mod download_rate;
mod edge;
mod events;
mod fresh;
mod input;
mod lasting;
pub mod limits;
mod list;
mod metrics;
mod peer_places;
mod problem;
mod rate;
mod records;
mod refusals;
mod routes;
mod serve;
mod stall;
mod state;
mod streams;
mod tls;
mod view;

#[cfg(test)]
mod tests;

pub use agent_programs::AgentPrograms;
pub use serve::serve;
pub use state::{Figures, KeyKeeper, PinInUse, RootKeeper, WebState};
pub use streams::Streams;
pub use tls::{Connection, Tls};
