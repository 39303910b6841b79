//! Orders in an attacker's hands: captured ones, and new ones that nothing is wrong with but who signs them.

use data_encoding::BASE64;
use envelope::{
    keys::{VerifyingKey, role},
    messages::{Command, Report},
    verify,
};
use ids::{CommandId, DurationMs, Nonce, Sequence};
use wire::v1::agent_frame::Frame as FromAgent;

use crate::{
    evil::{EvilStream, Stolen, opened},
    fleet::{Fleet, Host, text_of},
    stranger::{identity_of, now},
};

/// The bytes of the newest order of this action, as `command show` gives them to anybody who may read.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn captured(fleet: &Fleet, action: &str) -> Vec<u8> {
    let id = text_of(&fleet.commands(action)[0], "command_id");
    let order = fleet.command(&id)["orders"][0].clone();
    BASE64.decode(text_of(&order, "envelope").as_bytes()).expect("base64")
}

/// A genuine order of `host.facts` to copy from.
#[must_use]
pub fn template(fleet: &Fleet, stolen: &Stolen, host: &str) -> Command {
    fleet.cli(&["action", "run", "host.facts", "--host", host]).ok();
    opened(stolen, &captured(fleet, "host.facts")).1
}

/// A new order like `old`, that nothing is wrong with: its own id, the next sequence, the present time.
///
/// # Panics
/// When there is no randomness.
#[must_use]
pub fn fresh(old: &Command, sequence: u64) -> Command {
    // One moment for all: a millisecond between two of them would make it valid for longer than any may be.
    let now = now();
    let mut command = old.clone();
    let random = keyfile::random::<10>().expect("randomness");
    command.order.command = CommandId::new_v7(now, *random);
    command.order.proposed_at = now;
    command.order.deliver_by = now.plus(DurationMs::from_mins(10));
    command.sequence = Sequence(sequence);
    command.nonce = Nonce(*keyfile::random::<16>().expect("randomness"));
    command.issued = now;
    command.not_before = now;
    command.expires = now.plus(DurationMs::from_mins(5));
    command
}

/// The next report on this stream.
///
/// # Panics
/// When the session ends, or the report is not the host's.
#[must_use]
pub fn report(stream: &mut EvilStream, host: &Host) -> Report {
    let key: VerifyingKey<role::Agent> = identity_of(host).verifying();
    loop {
        match stream.receive().expect("the session stays open") {
            FromAgent::Report(bytes) => break verify::<Report>(&bytes, &[key]).expect("a signed report").into_value(),
            _ => continue,
        }
    }
}
