//! What the audit log costs, measured on a real store: `cargo xtask figures audit [LEAVES]`.
//!
//! A log of so many leaves is written the way a fleet writes it: for each command a proposal, the signed command, and
//! the signed report, through the store's own transactions, from a crowd of hosts. Then it is opened (as it is now;
//! as a program would that rebuilds the tree from every leaf; without its stored nodes, as after an upgrade),
//! looked at whole, asked for proofs, exported and verified from the root's public key.

use std::{path::Path, time::Instant};

use envelope::{
    audit::AuditKind,
    audit_verify::{AuditExport, ExportedEntry, verify_export},
    keys::{SigningKey, role},
    merkle::Frontier,
    messages::{self, *},
    root::sign_root,
};
use fleet::{
    model::*,
    ports::{AuditEntry, AuditRecord, Settlement, Store as _, Write},
};
use ids::*;
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use store::{SqliteStore, StoreConfig};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

const LEAVES_DEFAULT: u64 = 1_000_000;
const HOSTS: u64 = 1_000;
const NOW: UnixMs = UnixMs(1_800_000_000_000);
const FLEET: FleetId = FleetId::from_bytes([7; 16]);
const LOG: AuditLogId = AuditLogId::from_bytes([3; 16]);

struct Keys {
    root: SigningKey<role::Root>,
    session: SigningKey<role::Session>,
    command: SigningKey<role::Command>,
    audit: SigningKey<role::Audit>,
    agent: SigningKey<role::Agent>,
}

fn id(kind: u8, number: u64) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn entry(kind: AuditKind, record: AuditRecord) -> AuditEntry {
    let subject = "command 0198a7b2-4bd1-7a3c-9d2e-1f6c0a9b8c7d (host.facts) to host web-0042".to_owned();
    AuditEntry { time: NOW, kind, actor: "control-plane".to_owned(), subject, record }
}

fn root_metadata(keys: &Keys) -> Vec<u8> {
    let metadata = RootMetadata {
        version: RootVersion(1),
        issued: NOW,
        expires: NOW.plus(DurationMs::from_days(400)),
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
    };
    sign_root(&[&keys.root], &metadata)
}

/// A host as it is on the fleet's side.
#[derive(Clone)]
struct Member {
    id: HostId,
    last: ReportPosition,
}

async fn enrol(store: &SqliteStore, keys: &Keys, number: u64) -> Member {
    let name: HostName = format!("web-{number}").parse().expect("a name");
    let token = JoinTokenRecord {
        id: TokenId::from_bytes(id(1, number)),
        secret_sha256: sha256(b"secret"),
        host_name: name.clone(),
        roles: Vec::new(),
        created_by: "ada".parse().expect("a name"),
        created_at: NOW,
        expires: NOW.plus(DurationMs::from_mins(15)),
        spent_by: None,
    };
    let receipt = EnrolReceipt {
        fleet: FLEET,
        host: HostId::from_bytes(id(2, number)),
        host_epoch: HostEpoch(1),
        name: name.clone(),
        roles: Vec::new(),
        token: token.id,
        identity_key: keys.agent.public(),
        sealing_key: SealingKeyBytes([9; 32]),
        time: NOW,
    };
    let host = Host {
        id: receipt.host,
        name,
        roles: Vec::new(),
        labels: Default::default(),
        identity_key: keys.agent.public(),
        sealing_key: SealingKeyBytes([9; 32]),
        host_epoch: HostEpoch(1),
        standing: HostStanding::Active,
        allocated: Sequence(0),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
        audit_head: None,
        boots: Vec::new(),
        actions: Vec::new(),
        agent_version: "0.2.0".to_owned(),
        root_version: RootVersion(1),
        enrolled_at: NOW,
        last_seen: None,
        receipt: keys.session.sign(&receipt).into_envelope(),
    };
    let member = Member { id: host.id, last: ReportPosition::START };
    let (token_id, secret_sha256) = (token.id, token.secret_sha256);
    let issued = entry(AuditKind::TokenIssued, AuditRecord::Inline(b"{}".to_vec()));
    store.write(Write::TokenCreate { token, audit: issued }).await.expect("a token");
    let audit = entry(AuditKind::Enrolment, AuditRecord::Inline(b"{}".to_vec()));
    let enrol = Write::Enrol { token: token_id, secret_sha256, now: NOW, host: Box::new(host), audit };
    store.write(enrol).await.expect("a host");
    member
}

fn operation(number: u64) -> Operation {
    Operation {
        id: OperationId::from_bytes(id(3, number)),
        kind: OperationKind::Single,
        requested_by: "ada".parse().expect("a name"),
        created_at: NOW,
        request_sha256: sha256(&number.to_be_bytes()),
        detail: b"{}".to_vec(),
        queue_for_ms: 600_000,
        dry_run: false,
        selector: None,
        approvals: 0,
        requester: None,
    }
}

fn order(member: &Member, operation: &Operation, number: u64) -> Order {
    Order {
        fleet: FLEET,
        host: member.id,
        command: CommandId::from_bytes(id(4, number)),
        operation: operation.id,
        proposed_at: NOW,
        deliver_by: NOW.plus(DurationMs::from_mins(10)),
        start_within_ms: 3_600_000,
        action: "host.facts".parse().expect("an action"),
        action_version: 1,
        schema_sha256: sha256(b"schema"),
        parameters: b"{}".to_vec(),
        sealed: Vec::new(),
        requester: None,
        dry_run: false,
    }
}

fn report(member: &Member, of: &messages::Command, command_sha256: Sha256) -> Report {
    Report {
        fleet: FLEET,
        host: member.id,
        host_epoch: HostEpoch(1),
        command: of.order.command,
        command_sha256,
        command_sequence: of.sequence,
        sequence: ReportSequence(of.sequence.0),
        previous: member.last.sha256,
        audit_head: None,
        status: ReportStatus::Succeeded,
        finished_at: NOW,
        result: br#"{"message":"facts read","result":{"os":"Debian GNU/Linux 12","cpus":2}}"#.to_vec(),
        output_sha256: sha256(b""),
        output_truncated: false,
    }
}

/// The three transactions of one command: what a fan-out to many hosts does for each of them.
fn command(keys: &Keys, member: &mut Member, number: u64, sequence: u64) -> [Write; 3] {
    let operation = operation(number);
    let order = order(member, &operation, number);
    let sealed = messages::Command {
        order: order.clone(),
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        nonce: Nonce(id(5, number)),
        issued: NOW,
        not_before: NOW,
        expires: NOW.plus(DurationMs::from_mins(5)),
    };
    let signed = keys.command.sign(&sealed);
    let command_sha256 = signed.payload_sha256();
    let envelope = signed.into_envelope();
    let report = report(member, &sealed, command_sha256);
    let signed = keys.agent.sign(&report);
    let position = ReportPosition { sequence: ReportSequence(sequence), sha256: signed.payload_sha256() };
    let reported = signed.into_envelope();
    let expected_last = core::mem::replace(&mut member.last, position);
    let proposal = entry(AuditKind::Proposal, AuditRecord::Inline(vec![b'p'; 300]));
    let new = NewCommand { order: order.clone(), app: None, sealed: Vec::new(), held: None };
    let settlement = Settlement {
        host: member.id,
        expected_last,
        position,
        envelope: reported.clone(),
        command: order.command,
        sequence: Sequence(sequence),
        status: CommandStatus::Succeeded,
        message: "facts read".to_owned(),
        audit_head: None,
        at: NOW,
        follow_up: Vec::new(),
        app: None,
        audit: vec![entry(AuditKind::Report, AuditRecord::Envelope(reported))],
    };
    [
        Write::OperationPropose { operation, commands: vec![new], recovery: None, audit: proposal },
        Write::CommandSeal {
            command: order.command,
            host: member.id,
            allocated_before: Sequence(sequence - 1),
            seal: Seal {
                sequence: Sequence(sequence),
                expires: sealed.expires,
                payload_sha256: command_sha256,
                envelope: envelope.clone(),
            },
            at: NOW,
            audit: entry(AuditKind::Command, AuditRecord::Envelope(envelope)),
        },
        Write::CommandSettle(Box::new(settlement)),
    ]
}

async fn sign_head(store: &SqliteStore, keys: &Keys) {
    let at = store.audit_position();
    let position = LogPosition { log: LOG, size: at.size, root: at.root };
    let envelope = keys.audit.sign(&AuditHead { fleet: FLEET, position, time: NOW }).into_envelope();
    store.write(Write::AuditHead { position, envelope }).await.expect("a head");
}

async fn fill(store: std::sync::Arc<SqliteStore>, keys: &Keys, leaves: u64) {
    let mut members = Vec::new();
    for number in 0..HOSTS {
        members.push(enrol(&store, keys, number).await);
    }
    let (mut number, mut sequence) = (0, 0);
    while store.audit_position().size < leaves {
        sequence += 1;
        let mut stages: [Vec<Write>; 3] = Default::default();
        for member in &mut members {
            number += 1;
            for (stage, write) in stages.iter_mut().zip(command(keys, member, number, sequence)) {
                stage.push(write);
            }
        }
        for stage in stages {
            let mut crowd = JoinSet::new();
            for write in stage {
                let store = store.clone();
                crowd.spawn(async move { store.write(write).await.expect("it is stored") });
            }
            crowd.join_all().await;
        }
        sign_head(&store, keys).await;
    }
}

fn tell(what: &str, begin: Instant, per: Option<(u64, &str)>) {
    let span = begin.elapsed();
    let rate = per
        .map_or(String::new(), |(count, unit)| format!("  {:.0} {unit} per second", count as f64 / span.as_secs_f64()));
    println!("{what:<58} {:>10.2} ms{rate}", span.as_secs_f64() * 1000.0);
}

async fn open(path: &Path) -> SqliteStore {
    let config = StoreConfig { path: path.to_owned(), data_key: Zeroizing::new([1; 32]) };
    SqliteStore::open(config).await.expect("it opens")
}

async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.expect("it opens")
}

/// What opening did before there were stored nodes: every leaf's hash, in order.
async fn rebuild(path: &Path) -> Frontier {
    let mut connection = connect(path).await;
    let mut tree = Frontier::new();
    loop {
        let rows = sqlx::query("SELECT leaf, leaf_sha256 FROM audit_leaves WHERE leaf >= $1 ORDER BY leaf LIMIT 4096")
            .bind(i64::try_from(tree.size()).expect("small"))
            .fetch_all(&mut connection)
            .await
            .expect("it is read");
        if rows.is_empty() {
            return tree;
        }
        for row in rows {
            let hash: &[u8] = row.get(1);
            tree.append(Sha256::try_from_slice(hash).expect("a hash")).expect("room");
        }
    }
}

async fn proofs(store: &SqliteStore) {
    let size = store.audit_position().size;
    let mut old = size / 3;
    let begin = Instant::now();
    const PROOFS: u64 = 1_000;
    for _ in 0..PROOFS {
        old = (old * 6_364_136_223 + 1_442_695) % size;
        store.audit_consistency(old, size).await.expect("a proof");
    }
    tell("1,000 proofs between sizes never asked for before", begin, Some((PROOFS, "proofs")));
    let begin = Instant::now();
    for _ in 0..PROOFS {
        store.audit_consistency(old, size).await.expect("a proof");
    }
    tell("1,000 proofs between the same two sizes", begin, Some((PROOFS, "proofs")));
}

async fn export(store: &SqliteStore) -> AuditExport {
    let mut entries: Vec<ExportedEntry> = Vec::new();
    while (entries.len() as u64) < store.audit_position().size {
        let rows = store.audit(entries.len() as u64, 1_000).await.expect("it is read");
        entries.extend(rows.into_iter().map(|row| ExportedEntry {
            index: row.index,
            time: row.time,
            kind: row.kind,
            actor: row.actor,
            subject: row.subject,
            record_sha256: row.record_sha256,
            record: row.record,
        }));
    }
    AuditExport {
        root_chain: Vec::new(),
        heads: store.audit_heads(false).await.expect("heads"),
        receipts: store.hosts().await.expect("hosts").into_iter().map(|host| host.receipt).collect(),
        entries,
    }
}

async fn opening(path: &Path, size: u64) {
    let begin = Instant::now();
    let store = open(path).await;
    tell("open (above 512 MiB without reading every page)", begin, None);
    assert_eq!(store.audit_position().size, size);
    proofs(&store).await;
    store.close().await;
    let begin = Instant::now();
    let tree = rebuild(path).await;
    tell("for comparison: the tree from every leaf's hash", begin, Some((tree.size(), "leaves")));
    let mut connection = connect(path).await;
    let nodes: i64 =
        sqlx::query("SELECT count(*) FROM audit_nodes").fetch_one(&mut connection).await.expect("a count").get(0);
    sqlx::raw_sql("DELETE FROM audit_nodes").execute(&mut connection).await.expect("they go");
    connection.close().await.expect("it closes");
    let begin = Instant::now();
    let store = open(path).await;
    tell(&format!("first open after an upgrade: {nodes} nodes filled in"), begin, Some((size, "leaves")));
    store.close().await;
    let begin = Instant::now();
    let config = StoreConfig { path: path.to_owned(), data_key: Zeroizing::new([1; 32]) };
    let found = store::examine(config).await.expect("it is whole");
    tell("a look at every page, leaf, node and head", begin, Some((found.audit.leaves, "leaves")));
}

#[tokio::main]
async fn main() {
    let leaves = std::env::args().nth(1).map_or(LEAVES_DEFAULT, |text| text.parse().expect("a number of leaves"));
    let keys = Keys {
        root: SigningKey::from_seed(&[1; 32]),
        session: SigningKey::from_seed(&[2; 32]),
        command: SigningKey::from_seed(&[3; 32]),
        audit: SigningKey::from_seed(&[4; 32]),
        agent: SigningKey::from_seed(&[5; 32]),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("serverflow.db");
    let store = std::sync::Arc::new(open(&path).await);
    let begin = Instant::now();
    fill(store.clone(), &keys, leaves).await;
    let size = store.audit_position().size;
    tell("written: proposals, commands, reports, with signing", begin, Some((size, "leaves")));
    let begin = Instant::now();
    let mut crowd = JoinSet::new();
    for _ in 0..10_000 {
        let store = store.clone();
        let leaf = entry(AuditKind::Proposal, AuditRecord::Inline(vec![b'p'; 300]));
        crowd.spawn(async move { store.write(Write::Audit(leaf)).await.expect("it is stored") });
    }
    crowd.join_all().await;
    tell("10,000 leaves alone, written by a crowd", begin, Some((10_000, "leaves")));
    sign_head(&store, &keys).await;
    let size = store.audit_position().size;
    store.close().await;
    drop(store);
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    println!("{size} leaves, {HOSTS} hosts; the database has {} MiB", bytes >> 20);
    opening(&path, size).await;
    let store = open(&path).await;
    let begin = Instant::now();
    let export = AuditExport { root_chain: vec![root_metadata(&keys)], ..export(&store).await };
    tell("read for an export, decrypted", begin, Some((size, "leaves")));
    let begin = Instant::now();
    let verdict = verify_export(&export, keys.root.public()).expect("it verifies");
    assert_eq!((verdict.entries, verdict.signed), (size, size));
    let signed = verdict.orders + verdict.reports;
    tell(&format!("verified from the root key, {signed} of them signed"), begin, Some((size, "leaves")));
    store.close().await;
}
