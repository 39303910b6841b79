//! The program as a user or a script runs it, against a control plane that says what each test wants.

mod audit;
mod deploy;
mod failures;
mod fleet_root;
mod follow;
mod https;
mod json;
mod log_follow;
mod people;
mod program;
mod root;
mod server;
mod sign_in;
