//! The room's promises, tested from outside: what a later room, or an attacker, can do with bytes.

mod canonical;
mod fields;
mod golden;
mod guard;
mod merkle;
mod properties;
mod recovery;
mod root;
mod root_change;
mod samples;
mod seal;
mod standing;
mod tamper;
mod token;
mod wire;
