//! The root metadata this host goes by, for a person and for scripts.

use envelope::{keys::key_id, messages::PublicKeyBytes, root::TrustedRoot};
use ids::UnixMs;
use serde_json::{Value, json};

use crate::failure::printable;

pub(super) fn print(root: &TrustedRoot, running: bool, now: UnixMs, as_json: bool) {
    if as_json {
        println!("{}", document(root, running, now));
    } else {
        print!("{}", printable(&text(root, running, now)));
    }
}

fn ids(keys: &[PublicKeyBytes]) -> Vec<String> {
    keys.iter().map(|key| key_id(key).to_string()).collect()
}

fn document(root: &TrustedRoot, running: bool, now: UnixMs) -> Value {
    let current = root.current();
    json!({
        "version": current.version,
        "first_version": root.chain_begins(),
        "sha256": root.payload_sha256(),
        "fleet": current.fleet,
        "epoch": current.epoch,
        "issued_ms": current.issued,
        "expires_ms": current.expires,
        "expired": root.is_expired(now.max(root.issued_floor())),
        "root_threshold": current.root_threshold,
        "keys": {
            "root": ids(&current.root_keys),
            "session": ids(&current.session_keys),
            "command": ids(&current.command_keys),
            "audit": ids(&[current.audit_key]),
            "approver": ids(&current.approver_keys),
        },
        "tls_pins": current.tls_pins,
        "addresses": current.addresses,
        "running": running,
    })
}

fn text(root: &TrustedRoot, running: bool, now: UnixMs) -> String {
    let current = root.current();
    let mut lines = String::new();
    let mut line = |name: &str, values: Vec<String>| {
        let values = if values.is_empty() { vec!["none".to_owned()] } else { values };
        lines.push_str(&format!("  {name:<14} {}\n", values.join("\n                 ")));
    };
    let expired = root.is_expired(now.max(root.issued_floor()));
    let valid = if expired {
        "EXPIRED: read actions only".to_owned()
    } else {
        format!("valid for {}", current.expires.since(now))
    };
    line("Version", vec![format!("{}, held from version {} on, {valid}", current.version, root.chain_begins())]);
    line("SHA-256", vec![root.payload_sha256().to_string()]);
    line("Fleet", vec![current.fleet.to_string()]);
    line("Epoch", vec![current.epoch.to_string()]);
    line("Root keys", ids(&current.root_keys));
    line("Must sign", vec![format!("{} of {}", current.root_threshold, current.root_keys.len())]);
    line("Session keys", ids(&current.session_keys));
    line("Command keys", ids(&current.command_keys));
    line("Audit key", ids(&[current.audit_key]));
    line("Approver keys", ids(&current.approver_keys));
    line("TLS pins", current.tls_pins.iter().map(ToString::to_string).collect());
    line("Addresses", current.addresses.clone());
    let agent = if running { "runs, and goes by this" } else { "does not run; goes by this from its next start on" };
    line("Agent", vec![agent.to_owned()]);
    lines
}
