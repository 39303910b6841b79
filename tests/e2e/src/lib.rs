//! End-to-end tests: the real programs, real TLS, the real Docker Engine.
//!
//! This library is the harness; the tests stand in `tests/`, by theme. A test makes a [`fleet::Fleet`] (a control
//! plane of its own, in a directory of its own, on free ports), enrols hosts with it, and speaks to it as people
//! do: through the CLI. Whatever it started ends with it, also when it fails, and everything its hosts made on
//! Docker is removed by the fleet's label.
//!
//! Rules: no test sleeps, it waits for something with a deadline ([`wait`]); no test relies on a name that another
//! one may use; when a test fails, the last lines of every program's log are printed ([`program`]).
//!
//! `SERVERFLOW_BIN_DIR` names the directory with the three programs; `tests/run.sh` sets it.

pub mod cli;
pub mod clock;
pub mod crash;
pub mod docker;
pub mod evil;
pub mod far_fleet;
pub mod fleet;
pub mod http;
pub mod machine;
pub mod orders;
pub mod program;
pub mod project;
pub mod proxy;
pub mod sample;
pub mod stranger;
pub mod wait;
