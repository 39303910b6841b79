//! The bytes of one instance of every message. A change here is a change of protocol: it needs a new
//! payload type, not a blessing.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use expect_test::expect_file;

use crate::{
    samples::{agent_hello, cases, command},
    wire::{Envelope, fields},
};

fn describe(title: &str, payload: &[u8]) -> String {
    let mut text = format!("{title}\n{} bytes, sha256 {}\n", payload.len(), ids::sha256(payload));
    for (number, field) in fields(payload) {
        writeln!(text, "{number:>3}  {}", HEXLOWER.encode(&field)).expect("a string takes it");
    }
    text
}

#[test]
fn payloads_and_envelopes_keep_their_bytes() {
    let mut text = String::new();
    for case in cases() {
        let opened = Envelope::of(&case.envelope);
        assert_eq!(opened.payload_type, case.payload_type);
        text.push_str(&describe(case.payload_type, &opened.payload));
        text.push_str(&format!("envelope {}\n\n", HEXLOWER.encode(&case.envelope)));
    }
    text.push_str(&describe("agent hello (not signed)", &agent_hello().encode()));
    expect_file!["golden/messages.txt"].assert_eq(&text);
}

#[test]
fn an_orders_hash_keeps_and_depends_on_nothing_sealing_changes() {
    let mut command = command();
    let hash = command.order.sha256();
    assert_eq!(hash.to_string(), "eafe8fdff673505a01fd08e0ead3009e52f75574f19eded1ced9d3aaccb7d678");
    command.sequence.0 += 1;
    command.nonce.0[0] ^= 1;
    command.epoch.0 += 1;
    assert_eq!(command.order.sha256(), hash);
    command.order.parameters.push(b' ');
    assert_ne!(command.order.sha256(), hash);
}
