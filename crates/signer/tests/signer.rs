//! The signer through its port, with a clock the test sets.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use envelope::{
    SigningKey,
    keys::role,
    limits::SEQUENCE_JUMP_MAX,
    messages::{Command, Order, ReportPosition, SessionOpen},
    signer_port::{SignError, Signer as _},
    verify,
};
use ids::*;
use signer::{LocalSigner, SignerConfig, StateError, limits};

const FLEET: FleetId = FleetId::from_bytes([7; 16]);
const START: u64 = 1_800_000_000_000;

struct Room {
    directory: tempfile::TempDir,
    now: Arc<AtomicU64>,
}

impl Room {
    fn new() -> Self {
        let room = Self { directory: tempfile::tempdir().unwrap(), now: Arc::new(AtomicU64::new(START)) };
        LocalSigner::create_state(&room.path(), FLEET).unwrap();
        room
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("sequences")
    }

    fn set(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    fn open(&self) -> Result<LocalSigner, StateError> {
        let now = Arc::clone(&self.now);
        LocalSigner::open(SignerConfig {
            command_key: key(),
            fleet: FLEET,
            state_path: self.path(),
            clock: Arc::new(move || UnixMs(now.load(Ordering::SeqCst))),
        })
    }
}

fn key() -> SigningKey<role::Command> {
    SigningKey::from_seed(&[3; 32])
}

fn host(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

fn command(host: HostId, sequence: u64) -> Command {
    let order = Order {
        fleet: FLEET,
        host,
        command: CommandId::from_bytes([9; 16]),
        operation: OperationId::from_bytes([8; 16]),
        proposed_at: UnixMs(START - 1_000),
        deliver_by: UnixMs(START + 600_000),
        start_within_ms: 60_000,
        action: "host.facts".parse().unwrap(),
        action_version: 1,
        schema_sha256: sha256(b"schema"),
        parameters: b"{}".to_vec(),
        sealed: vec![],
        requester: None,
        dry_run: false,
    };
    Command {
        order,
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        nonce: Nonce([1; 16]),
        issued: UnixMs(START),
        not_before: UnixMs(START),
        expires: UnixMs(START + 300_000),
    }
}

fn open_for(host: HostId) -> SessionOpen {
    SessionOpen {
        fleet: FLEET,
        host,
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        exporter: TlsExporter([2; 32]),
        proof_sha256: sha256(b"proof"),
        time: UnixMs(12),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
    }
}

async fn refusal(signer: &LocalSigner, command: Command) -> String {
    match signer.sign_command(command).await {
        Err(SignError::Refused(why) | SignError::Unavailable(why)) => why,
        Err(error @ SignError::SequenceTaken { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn signs_what_verifies_under_the_command_key() {
    let room = Room::new();
    let signer = room.open().unwrap();
    let signed = signer.sign_command(command(host(1), 1)).await.unwrap();
    let verified = verify::<Command>(&signed.envelope, &[key().verifying()]).unwrap();
    assert_eq!(*verified, command(host(1), 1));
    assert_eq!(verified.payload_sha256(), signed.payload_sha256);
}

#[tokio::test]
async fn puts_its_own_time_into_a_session_open() {
    let room = Room::new();
    let signer = room.open().unwrap();
    room.set(START + 77);
    let envelope = signer.sign_open(open_for(host(1))).await.unwrap();
    let open = verify::<SessionOpen>(&envelope, &[key().verifying()]).unwrap();
    assert_eq!(open.time, UnixMs(START + 77));
    let foreign = SessionOpen { fleet: FleetId::from_bytes([6; 16]), ..open_for(host(1)) };
    assert!(matches!(signer.sign_open(foreign).await, Err(SignError::Refused(_))));
}

#[tokio::test]
async fn sequences_rise_strictly_per_host_and_jump_within_bounds() {
    let room = Room::new();
    let signer = room.open().unwrap();
    signer.sign_command(command(host(1), 5)).await.unwrap();
    for replayed in [5, 4, 1] {
        let answer = signer.sign_command(command(host(1), replayed)).await;
        assert_eq!(answer, Err(SignError::SequenceTaken { high: Sequence(5) }));
    }
    assert!(refusal(&signer, command(host(1), 0)).await.contains("not well-formed"));
    signer.sign_command(command(host(2), 1)).await.unwrap();
    for far in [5 + SEQUENCE_JUMP_MAX + 1, u64::MAX] {
        let why = refusal(&signer, command(host(1), far)).await;
        assert!(why.contains("too far above 5"), "{why}");
    }
    signer.sign_command(command(host(1), 5 + SEQUENCE_JUMP_MAX)).await.unwrap();
}

#[tokio::test]
async fn refuses_other_fleets_other_times_and_long_lives() {
    let room = Room::new();
    let signer = room.open().unwrap();
    let good = || command(host(1), 1);
    let at = |ms: u64| Command { issued: UnixMs(ms), ..good() };
    let skew = limits::ISSUED_SKEW_MAX.0;
    let mut other_fleet = good();
    other_fleet.order.fleet = FleetId::from_bytes([6; 16]);
    let mut late = good();
    late.order.deliver_by = UnixMs(START - 1);
    let mut not_text = good();
    not_text.order.parameters = vec![0xff];
    let cases = [
        (other_fleet, "is not this signer's"),
        (at(START + skew + 1), "from the signer's clock"),
        (at(START - skew - 1), "from the signer's clock"),
        (Command { expires: UnixMs(START + 300_001), ..good() }, "valid for longer"),
        (Command { expires: UnixMs(START - 1), ..good() }, "not well-formed"),
        (Command { not_before: UnixMs(START + 60_000), ..good() }, "valid only"),
        (late, "order it again"),
        (not_text, "not well-formed"),
    ];
    for (bad, expected) in cases {
        let why = refusal(&signer, bad).await;
        assert!(why.contains(expected), "{why}");
    }
    // Nothing of this used up the sequence.
    signer.sign_command(at(START + skew)).await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_the_high_water_mark() {
    let room = Room::new();
    let signer = room.open().unwrap();
    signer.sign_command(command(host(1), 40)).await.unwrap();
    assert!(matches!(room.open(), Err(StateError::InUse { .. })));
    drop(signer);
    let signer = room.open().unwrap();
    assert!(refusal(&signer, command(host(1), 40)).await.contains("every sequence up to 40"));
    signer.sign_command(command(host(1), 41)).await.unwrap();
}

#[tokio::test]
async fn a_torn_record_is_cut_and_a_damaged_one_refused() {
    let room = Room::new();
    let signer = room.open().unwrap();
    signer.sign_command(command(host(1), 1)).await.unwrap();
    signer.sign_command(command(host(1), 2)).await.unwrap();
    drop(signer);
    let whole = std::fs::read(room.path()).unwrap();

    std::fs::write(room.path(), &whole[..whole.len() - 3]).unwrap();
    let signer = room.open().unwrap();
    assert!(refusal(&signer, command(host(1), 1)).await.contains("every sequence up to 1"));
    drop(signer);

    let mut damaged = whole;
    damaged[50] ^= 1;
    std::fs::write(room.path(), &damaged).unwrap();
    let Err(error) = room.open() else { panic!("opened a damaged record") };
    assert!(error.to_string().contains("newest backup"), "{error}");
}

#[tokio::test]
async fn a_lost_record_is_refused_rather_than_begun_anew() {
    let room = Room::new();
    std::fs::remove_file(room.path()).unwrap();
    assert!(matches!(room.open(), Err(StateError::Missing { .. })));
}

#[tokio::test]
async fn one_host_cannot_be_flooded() {
    let room = Room::new();
    let signer = room.open().unwrap();
    let burst = u64::from(limits::COMMANDS_PER_HOST_BURST);
    for sequence in 1..=burst {
        signer.sign_command(command(host(1), sequence)).await.unwrap();
    }
    let error = signer.sign_command(command(host(1), burst + 1)).await.unwrap_err();
    assert!(matches!(&error, SignError::Unavailable(why) if why.contains("too many commands")), "{error}");
    signer.sign_command(command(host(2), 1)).await.unwrap();
    room.set(START + 1_000);
    signer.sign_command(command(host(1), burst + 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_each_its_own_answer() {
    let room = Room::new();
    let signer = Arc::new(room.open().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200u8 {
        let signer = Arc::clone(&signer);
        tasks.spawn(async move { (n, signer.sign_command(command(host(n), u64::from(n) + 1)).await) });
    }
    while let Some(done) = tasks.join_next().await {
        let (n, signed) = done.unwrap();
        let verified = verify::<Command>(&signed.unwrap().envelope, &[key().verifying()]).unwrap();
        assert_eq!((verified.order.host, verified.sequence), (host(n), Sequence(u64::from(n) + 1)));
    }
    drop(signer);
    let signer = room.open().unwrap();
    assert!(refusal(&signer, command(host(7), 8)).await.contains("every sequence up to 8"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_race_for_one_sequence_exactly_one_wins() {
    let room = Room::new();
    let signer = Arc::new(room.open().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let signer = Arc::clone(&signer);
        tasks.spawn(async move { signer.sign_command(command(host(1), 1)).await.is_ok() });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}
