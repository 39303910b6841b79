//! `audit verify` on exports of a small log.

use data_encoding::BASE64;
use envelope::{
    SigningKey,
    audit::{AuditKind, AuditLeaf},
    keys::role,
    merkle::Frontier,
    messages::{ApprovalThresholds, AuditHead, LogPosition, RootMetadata},
    root::sign_root,
};
use ids::{AuditLogId, DurationMs, Epoch, FleetId, RootVersion, Sha256, UnixMs, hex, sha256};
use serde_json::{Value, json};

use crate::{
    program::Home,
    server::{Answer, Server},
};

const START: UnixMs = UnixMs(1_700_000_000_000);
const FLEET: FleetId = FleetId::from_bytes([0xf1; 16]);
const LOG: AuditLogId = AuditLogId::from_bytes([0x10; 16]);

fn root() -> SigningKey<role::Root> {
    SigningKey::from_seed(&[1; 32])
}

fn export() -> Value {
    export_of(&[AuditKind::FleetCreated])
}

/// A log with one entry of each of these kinds.
fn export_of(kinds: &[AuditKind]) -> Value {
    let audit = SigningKey::<role::Audit>::from_seed(&[2; 32]);
    let metadata = RootMetadata {
        version: RootVersion(1),
        issued: START,
        expires: START.plus(DurationMs::from_days(300)),
        fleet: FLEET,
        root_keys: vec![root().public()],
        root_threshold: 1,
        addresses: vec!["control.example:7443".to_owned()],
        recovery_keys: Vec::new(),
        session_keys: vec![SigningKey::<role::Session>::from_seed(&[3; 32]).public()],
        command_keys: vec![SigningKey::<role::Command>::from_seed(&[4; 32]).public()],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: audit.public(),
        audit_log: LOG,
        restored_log: None,
        tls_pins: vec![Sha256([1; 32]), Sha256([2; 32])],
        protocol_min: 1,
        epoch: Epoch(1),
    };
    let record = br#"{"what":"the fleet began"}"#;
    let mut tree = Frontier::new();
    for kind in kinds {
        tree.append(AuditLeaf::new(START, *kind, "init", "fleet", sha256(record)).leaf_hash()).expect("room");
    }
    let position = LogPosition { log: LOG, size: kinds.len() as u64, root: tree.root() };
    let head = audit.sign(&AuditHead { fleet: FLEET, position, time: START });
    let entry = |(index, kind): (usize, &AuditKind)| {
        json!({"index": index, "time_ms": START.0, "kind": kind.number(), "actor": "init", "subject": "fleet",
            "record_sha256": hex(sha256(record).as_bytes()), "record": BASE64.encode(record)})
    };
    json!({
        "root_chain": [BASE64.encode(&sign_root(&[&root()], &metadata))],
        "heads": [BASE64.encode(head.envelope())],
        "receipts": [],
        "entries": kinds.iter().enumerate().map(entry).collect::<Vec<_>>(),
    })
}

fn home(url: &str, export: &Value) -> Home {
    let home = Home::signed_in(url);
    home.write("root.pub", &format!("{}\n", root().public()));
    home.write("audit.json", &export.to_string());
    home
}

#[test]
fn an_honest_log_verifies_offline_and_from_the_control_plane() {
    let server = Server::new([("GET /api/v1/audit/export", vec![Answer::Json(200, export())])]);
    let offline = home("http://127.0.0.1:1", &export());
    let ran = offline.run(&["audit", "verify", "audit.json", "--root", "root.pub"]).code(0);
    assert!(ran.stdout.starts_with("VERIFIED: the audit log is whole"), "{}", ran.stdout);
    let online = home(&server.url, &json!(null)).with("SERVERFLOW_ROOT", "root.pub");
    let document = online.run(&["audit", "verify", "--json"]).code(0).document();
    assert_eq!(
        (&document["verified"], &document["leaves"], &document["leaves_signed"]),
        (&json!(true), &json!(1), &json!(1))
    );
    assert_eq!((&document["outstanding"], &document["alarms"]), (&json!([]), &json!(0)));
    assert!(!ran.stdout.contains("alarms"), "{}", ran.stdout);
}

#[test]
fn alarms_in_a_whole_log_are_counted() {
    let export = export_of(&[AuditKind::FleetCreated, AuditKind::Alarm, AuditKind::Alarm]);
    let home = home("http://127.0.0.1:1", &export);
    let line = ["audit", "verify", "audit.json", "--root", "root.pub"];
    let words = home.run(&line).code(0).stdout;
    let row = words.lines().find(|line| line.trim_start().starts_with("alarms")).unwrap_or_default();
    assert!(words.starts_with("VERIFIED") && row.contains(" 2, as the log itself records"), "{words}");
    let document = home.run(&[&line[..], &["--json"]].concat()).code(0).document();
    assert_eq!((&document["verified"], &document["alarms"]), (&json!(true), &json!(2)));
}

#[test]
fn what_was_changed_is_found_and_named() {
    let check = |change: fn(&mut Value), words: &str| {
        let mut export = export();
        change(&mut export);
        let home = home("http://127.0.0.1:1", &export);
        let ran = home.run(&["audit", "verify", "audit.json", "--root", "root.pub"]).code(1);
        assert!(ran.stdout.starts_with("NOT VERIFIED: ") && ran.stdout.contains(words), "{words}: {}", ran.stdout);
    };
    check(|export| export["entries"][0]["record"] = json!(BASE64.encode(b"other")), "the record of entry 0");
    check(|export| export["entries"][0]["time_ms"] = json!(START.0 + 1), "rewritten or forked");
    check(|export| export["entries"] = json!([]), "entries are missing");
    check(|export| export["heads"] = json!([]), "no signed head");
    check(|export| export["heads"][0] = json!("!"), "heads[0] is not base64");
    check(|export| export["entries"][0]["kind"] = json!(9999), "its kind 9999 is unknown");
}

#[test]
fn another_root_key_verifies_nothing() {
    let home = home("http://127.0.0.1:1", &export());
    home.write("root.pub", &SigningKey::<role::Root>::from_seed(&[9; 32]).public().to_string());
    let line = ["audit", "verify", "audit.json", "--root", "root.pub", "--json"];
    let document = home.run(&line).code(1).document();
    assert_eq!(document["verified"], false);
    assert!(document["fault"].as_str().is_some_and(|fault| fault.contains("root")), "{document}");
}

#[test]
fn without_a_root_key_nothing_is_verified() {
    let home = home("http://127.0.0.1:1", &export());
    let ran = home.run(&["audit", "verify", "audit.json"]).code(2);
    assert!(ran.stderr.contains("SERVERFLOW_ROOT"), "{}", ran.stderr);
    home.write("root.pub", "not a key");
    home.run(&["audit", "verify", "audit.json", "--root", "root.pub"]).code(2);
}
