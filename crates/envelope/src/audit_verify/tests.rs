//! A small log, honest; then each lie in turn, and the words that find it.

mod restored;

use ids::*;

use super::*;
use crate::{audit::AuditKind, keys::SigningKey, merkle, messages::*, root::sign_root};

const START: UnixMs = UnixMs(1_700_000_000_000);
const FLEET: FleetId = FleetId::from_bytes([0xf1; 16]);
const HOST: HostId = HostId::from_bytes([0xa1; 16]);
const OTHER_HOST: HostId = HostId::from_bytes([0xa2; 16]);
const LOG: AuditLogId = AuditLogId::from_bytes([0x10; 16]);

struct Keys {
    root: SigningKey<role::Root>,
    session: SigningKey<role::Session>,
    command: SigningKey<role::Command>,
    audit: SigningKey<role::Audit>,
    agent: SigningKey<role::Agent>,
    other_agent: SigningKey<role::Agent>,
}

/// A log under construction.
struct Book {
    keys: Keys,
    export: AuditExport,
    last_report: ReportPosition,
    /// The log that heads are signed for.
    log: AuditLogId,
}

fn metadata(keys: &Keys) -> RootMetadata {
    RootMetadata {
        version: RootVersion(1),
        issued: START,
        expires: START.plus(DurationMs::from_days(300)),
        fleet: FLEET,
        root_keys: vec![keys.root.public()],
        root_threshold: 1,
        addresses: vec!["control.example:7443".to_owned()],
        recovery_keys: Vec::new(),
        session_keys: vec![keys.session.public()],
        command_keys: vec![keys.command.public()],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: keys.audit.public(),
        audit_log: LOG,
        restored_log: None,
        tls_pins: vec![Sha256([1; 32]), Sha256([2; 32])],
        protocol_min: 1,
        epoch: Epoch(1),
    }
}

fn order(n: u8) -> Order {
    Order {
        fleet: FLEET,
        host: HOST,
        command: CommandId::from_bytes([n; 16]),
        operation: OperationId::from_bytes([1; 16]),
        proposed_at: START,
        deliver_by: START.plus(DurationMs::from_mins(10)),
        start_within_ms: 1_000,
        action: "host.facts".parse().expect("an action name"),
        action_version: 1,
        schema_sha256: Sha256([5; 32]),
        parameters: b"{}".to_vec(),
        sealed: Vec::new(),
        requester: None,
        dry_run: false,
    }
}

impl Book {
    fn new() -> Self {
        let keys = Keys {
            root: SigningKey::from_seed(&[1; 32]),
            session: SigningKey::from_seed(&[2; 32]),
            command: SigningKey::from_seed(&[3; 32]),
            audit: SigningKey::from_seed(&[4; 32]),
            agent: SigningKey::from_seed(&[5; 32]),
            other_agent: SigningKey::from_seed(&[6; 32]),
        };
        let receipt = |host, agent: &SigningKey<role::Agent>| EnrolReceipt {
            fleet: FLEET,
            host,
            host_epoch: HostEpoch(1),
            name: "web-1".parse().expect("a host name"),
            roles: Vec::new(),
            token: TokenId::from_bytes([8; 16]),
            identity_key: agent.public(),
            sealing_key: SealingKeyBytes([9; 32]),
            time: START,
        };
        let receipts = [receipt(HOST, &keys.agent), receipt(OTHER_HOST, &keys.other_agent)];
        let receipts = receipts.iter().map(|receipt| keys.session.sign(receipt).into_envelope()).collect();
        let root_chain = vec![sign_root(&[&keys.root], &metadata(&keys))];
        let export = AuditExport { root_chain, heads: Vec::new(), receipts, entries: Vec::new() };
        let mut book = Self { keys, export, last_report: ReportPosition::START, log: LOG };
        book.append(AuditKind::FleetCreated, b"{}".to_vec());
        book
    }

    fn append(&mut self, kind: AuditKind, record: Vec<u8>) {
        let index = self.export.entries.len() as u64;
        self.export.entries.push(ExportedEntry {
            index,
            time: START.plus(DurationMs(index)),
            kind,
            actor: "control-plane".to_owned(),
            subject: String::new(),
            record_sha256: sha256(&record),
            record: Some(record),
        });
    }

    fn position(&self) -> LogPosition {
        let leaf = |entry: &ExportedEntry| {
            AuditLeaf::new(entry.time, entry.kind, &entry.actor, &entry.subject, entry.record_sha256).leaf_hash()
        };
        let leaves: Vec<Sha256> = self.export.entries.iter().map(leaf).collect();
        LogPosition { log: self.log, size: leaves.len() as u64, root: merkle::root(&leaves) }
    }

    fn head(&mut self) -> LogPosition {
        let position = self.position();
        let head = AuditHead { fleet: FLEET, position, time: START.plus(DurationMs::from_mins(20)) };
        self.export.heads.push(self.keys.audit.sign(&head).into_envelope());
        position
    }

    /// Seals and logs an order; answers what a report must name.
    fn command(&mut self, order: Order, sequence: u64) -> Sha256 {
        let command = Command {
            order,
            host_epoch: HostEpoch(1),
            epoch: Epoch(1),
            sequence: Sequence(sequence),
            nonce: Nonce([sequence as u8; 16]),
            issued: START,
            not_before: START,
            expires: START.plus(DurationMs::from_mins(5)),
        };
        let signed = self.keys.command.sign(&command);
        let payload = signed.payload_sha256();
        self.append(AuditKind::Command, signed.into_envelope());
        payload
    }

    fn report(&mut self, n: u8, sequence: u64, payload: Sha256, change: impl FnOnce(&mut Report)) {
        let mut report = Report {
            fleet: FLEET,
            host: HOST,
            host_epoch: HostEpoch(1),
            command: CommandId::from_bytes([n; 16]),
            command_sha256: payload,
            command_sequence: Sequence(sequence),
            sequence: ReportSequence(self.last_report.sequence.0 + 1),
            previous: self.last_report.sha256,
            audit_head: None,
            status: ReportStatus::Succeeded,
            finished_at: START,
            result: b"{}".to_vec(),
            output_sha256: Sha256::ZERO,
            output_truncated: false,
        };
        change(&mut report);
        let signed = self.keys.agent.sign(&report);
        self.last_report = ReportPosition { sequence: report.sequence, sha256: signed.payload_sha256() };
        self.append(AuditKind::Report, signed.into_envelope());
    }

    fn verify(&self) -> Result<AuditVerdict, AuditFault> {
        verify_export(&self.export, self.keys.root.public())
    }

    #[track_caller]
    fn fails(&self, words: &str) {
        let fault = self.verify().expect_err("it must not verify").to_string();
        assert!(fault.contains(words), "{fault}");
    }
}

/// Two orders, both reported, the second with the head its host was shown.
fn honest() -> Book {
    let mut book = Book::new();
    let first = book.command(order(1), 1);
    book.report(1, 1, first, |_| {});
    let shown = book.head();
    let second = book.command(order(2), 2);
    book.report(2, 2, second, |report| report.audit_head = Some(shown));
    book.head();
    book
}

#[test]
fn an_honest_log_verifies_and_is_counted() {
    let verdict = honest().verify().expect("it verifies");
    assert_eq!((verdict.fleet, verdict.log, verdict.root_version), (FLEET, LOG, RootVersion(1)));
    assert_eq!((verdict.entries, verdict.signed, verdict.without_record), (5, 5, 0));
    assert_eq!((verdict.hosts, verdict.orders, verdict.reports, verdict.gaps), (2, 2, 2, 0));
    assert!(verdict.outstanding.is_empty());
}

#[test]
fn the_export_is_json_and_comes_back() {
    let export = honest().export;
    let text = serde_json::to_string(&export).expect("it is written");
    assert!(text.contains(r#""kind":"fleet-created""#), "{text}");
    assert_eq!(serde_json::from_str::<AuditExport>(&text).expect("it is read"), export);
    let unknown = text.replacen("fleet-created", "fleet-sold", 1);
    assert!(serde_json::from_str::<AuditExport>(&unknown).is_err());
}

#[test]
fn another_root_key_verifies_nothing() {
    let book = honest();
    let other = SigningKey::<role::Root>::from_seed(&[7; 32]).public();
    assert!(matches!(verify_export(&book.export, other), Err(AuditFault::Root(_))));
    let mut book = honest();
    book.export.root_chain.clear();
    book.fails("no root metadata");
}

#[test]
fn every_byte_of_every_record_counts() {
    let honest = honest();
    for at in 0..honest.export.entries.len() {
        let length = honest.export.entries[at].record.as_ref().map_or(0, Vec::len);
        for byte in (0..length).step_by(7) {
            let mut export = honest.export.clone();
            if let Some(record) = &mut export.entries[at].record {
                record[byte] ^= 1;
            }
            assert!(verify_export(&export, honest.keys.root.public()).is_err(), "entry {at}, byte {byte}");
        }
    }
}

#[test]
fn entries_cannot_be_changed_removed_added_or_reordered() {
    let mut book = honest();
    book.export.entries[1].time = book.export.entries[1].time.plus(DurationMs(1));
    book.fails("was rewritten or forked");
    let mut book = honest();
    book.export.entries[0].kind = AuditKind::SignIn;
    book.fails("was rewritten or forked");
    let mut book = honest();
    book.export.entries[0].actor = "somebody else".to_owned();
    book.fails("was rewritten or forked");
    let mut book = honest();
    book.export.entries[0].subject = "something else".to_owned();
    book.fails("was rewritten or forked");
    let mut book = honest();
    book.export.entries.remove(0);
    book.fails("entry 0 is missing");
    let mut book = honest();
    book.export.entries.pop();
    book.fails("entries are missing");
    let mut book = honest();
    book.export.entries.swap(0, 1);
    (book.export.entries[0].index, book.export.entries[1].index) = (0, 1);
    book.fails("was rewritten or forked");
}

#[test]
fn a_tail_that_no_head_covers_is_told_apart() {
    let mut book = honest();
    book.append(AuditKind::SignIn, b"{}".to_vec());
    let verdict = book.verify().expect("it verifies");
    assert_eq!((verdict.entries, verdict.signed), (6, 5));
    book.export.heads.clear();
    book.fails("no signed head");
}

#[test]
fn whoever_holds_the_audit_key_cannot_rewrite_what_a_host_was_shown() {
    let mut book = honest();
    // The first entry becomes another, and everything is signed anew.
    let record = b"{\"forged\":true}".to_vec();
    book.export.entries[0].record_sha256 = sha256(&record);
    book.export.entries[0].record = Some(record);
    book.export.heads.clear();
    book.head();
    book.fails("the head named by the report in entry 4 does not lie on this log");
}

#[test]
fn a_head_must_be_the_audit_keys_and_of_this_log() {
    let mut book = honest();
    let position = book.position();
    let head = AuditHead { fleet: FLEET, position, time: START };
    book.export.heads.push(SigningKey::<role::Audit>::from_seed(&[7; 32]).sign(&head).into_envelope());
    book.fails("signed head number 2 does not verify");
    book.export.heads.pop();
    let elsewhere = LogPosition { log: AuditLogId::from_bytes([0x11; 16]), ..position };
    let head = AuditHead { fleet: FLEET, position: elsewhere, time: START };
    book.export.heads.push(book.keys.audit.sign(&head).into_envelope());
    book.fails("is of another fleet or log");
}

#[test]
fn orders_must_be_signed_in_sequence_and_unchanged() {
    let mut book = honest();
    book.keys.command = SigningKey::from_seed(&[7; 32]);
    book.command(order(3), 3);
    book.head();
    book.fails("the order in entry 5 does not verify");
    let mut book = honest();
    book.command(order(3), 2);
    book.fails("has sequence 2");
    let mut book = honest();
    let changed = Order { parameters: b"{\"all\":true}".to_vec(), ..order(2) };
    book.command(changed, 3);
    book.fails("says something else than when it was sealed before");
    let mut book = honest();
    book.command(Order { fleet: FleetId::from_bytes([2; 16]), ..order(3) }, 3);
    book.fails("is for another fleet");
}

#[test]
fn an_order_sealed_again_is_answered_by_either() {
    let mut book = honest();
    book.command(order(3), 3);
    let again = book.command(order(3), 4);
    book.report(3, 4, again, |_| {});
    book.head();
    let verdict = book.verify().expect("it verifies");
    assert_eq!((verdict.orders, verdict.reports), (4, 3));
    assert!(verdict.outstanding.is_empty());
}

#[test]
fn an_order_without_a_report_is_outstanding_once_its_time_has_passed() {
    let mut book = honest();
    book.command(order(3), 3);
    let late = Order { deliver_by: START.plus(DurationMs::from_days(1)), ..order(4) };
    book.command(late, 4);
    book.head();
    let outstanding = book.verify().expect("it verifies").outstanding;
    let deliver_by = START.plus(DurationMs::from_mins(10));
    let command = CommandId::from_bytes([3; 16]);
    assert_eq!(outstanding, [Outstanding { command, host: HOST, deliver_by, index: 5 }]);
}

#[test]
fn reports_must_be_their_hosts_and_answer_an_order() {
    let mut book = honest();
    let payload = book.command(order(3), 3);
    book.report(3, 3, payload, |report| report.host = OTHER_HOST);
    book.fails("but another host signed it");
    let mut book = honest();
    book.keys.agent = SigningKey::from_seed(&[7; 32]);
    book.report(2, 2, Sha256([1; 32]), |_| {});
    book.fails("does not verify under the key of any enrolled host");
    let mut book = honest();
    book.report(3, 3, Sha256([1; 32]), |_| {});
    book.fails("that the log does not hold");
    let mut book = honest();
    let payload = book.command(order(3), 3);
    book.report(3, 4, payload, |_| {});
    book.fails("that the log does not hold");
}

#[test]
fn an_alarm_beside_a_report_without_an_order_is_counted_and_the_rest_still_verified() {
    let mut book = honest();
    book.report(9, 9, Sha256([1; 32]), |report| report.sequence = ReportSequence(7));
    book.append(AuditKind::ReportGap, b"{}".to_vec());
    book.append(AuditKind::Alarm, b"{}".to_vec());
    book.head();
    let verdict = book.verify().expect("the log says so itself");
    assert_eq!((verdict.gaps, verdict.alarms), (1, 1));
    let mut book = honest();
    book.report(9, 9, Sha256([1; 32]), |_| {});
    book.append(AuditKind::SignIn, b"{}".to_vec());
    book.append(AuditKind::Alarm, b"{}".to_vec());
    book.head();
    book.fails("that the log does not hold");
}

#[test]
fn chains_of_reports_neither_fork_nor_gap_in_silence() {
    let mut book = honest();
    let payload = book.command(order(3), 3);
    book.report(3, 3, payload, |report| report.previous = Sha256([1; 32]));
    book.fails("the chain forks");
    let mut book = honest();
    let payload = book.command(order(3), 3);
    book.report(3, 3, payload, |report| report.sequence = ReportSequence(2));
    book.fails("the chain forks");
    let mut book = honest();
    let payload = book.command(order(3), 3);
    book.report(3, 3, payload, |report| report.sequence = ReportSequence(5));
    book.fails("the log does not say so");
    book.append(AuditKind::ReportGap, b"{}".to_vec());
    book.head();
    assert_eq!(book.verify().expect("a recorded gap is no fault").gaps, 1);
}

#[test]
fn what_was_pruned_still_has_its_place() {
    let mut book = honest();
    for entry in &mut book.export.entries[1..3] {
        entry.record = None;
    }
    let verdict = book.verify().expect("it verifies");
    assert_eq!((verdict.without_record, verdict.orders, verdict.reports), (2, 1, 1));
}

#[test]
fn receipts_must_be_signed_and_agree() {
    let mut book = honest();
    book.keys.session = SigningKey::from_seed(&[7; 32]);
    let receipt = EnrolReceipt {
        fleet: FLEET,
        host: HOST,
        host_epoch: HostEpoch(1),
        name: "web-1".parse().expect("a host name"),
        roles: Vec::new(),
        token: TokenId::from_bytes([8; 16]),
        identity_key: book.keys.other_agent.public(),
        sealing_key: SealingKeyBytes([9; 32]),
        time: START,
    };
    book.export.receipts.push(book.keys.session.sign(&receipt).into_envelope());
    book.fails("enrolment receipt number 2 does not verify");
    let mut book = honest();
    book.export.receipts.push(book.keys.session.sign(&receipt).into_envelope());
    book.fails("has receipts for two different keys");
}

#[test]
fn a_head_of_an_unknown_log_in_a_report_is_found() {
    let mut book = honest();
    let payload = book.command(order(3), 3);
    let log = AuditLogId::from_bytes([0x11; 16]);
    let head = LogPosition { log, size: 1, root: Sha256([1; 32]) };
    book.report(3, 3, payload, |report| report.audit_head = Some(head));
    book.fails("names a head of the unknown audit log");
    let mut book = honest();
    let payload = book.command(order(3), 3);
    let head = LogPosition { log: LOG, size: 100, root: Sha256([1; 32]) };
    book.report(3, 3, payload, |report| report.audit_head = Some(head));
    book.fails("entries are missing");
}
