//! The signer asked through its socket, by those who may and those who may not.

use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use envelope::{
    messages::{ReportPosition, SessionOpen},
    signer_port::{SignError, Signer},
};
use ids::*;
use signer::{LocalSigner, Peers, Place, RemoteSigner, SignerConfig, Standing, limits};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Room {
    directory: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    /// A signer without a fleet, answering.
    fn serve(&self) -> JoinHandle<()> {
        let local = LocalSigner::open(SignerConfig {
            place: Place::new(&self.directory.path().join("signer")),
            earlier: None,
            class_of: |_| None,
            clock: Arc::new(|| UnixMs(1_800_000_000_000)),
        });
        let listener = signer::listen(&self.socket(), false).unwrap();
        tokio::spawn(signer::serve(listener, Arc::new(local.unwrap()), Peers::new(&[])))
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("gave up waiting: {what}"))
}

fn is_here(signer: &RemoteSigner) -> Option<()> {
    matches!(signer.standing(), Standing::Here(_)).then_some(())
}

fn open_for(n: u8) -> SessionOpen {
    SessionOpen {
        fleet: FleetId::from_bytes([7; 16]),
        host: HostId::from_bytes([n; 16]),
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        exporter: TlsExporter([2; 32]),
        proof_sha256: sha256(b"proof"),
        time: UnixMs(12),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_at_the_socket_is_answered_as_in_the_same_process() {
    let room = Room::new();
    let serving = room.serve();
    let signer = RemoteSigner::dial(&room.socket());
    let public = signer.prepare_key().await.unwrap();
    let keys = signer.keys().await.unwrap();
    assert_eq!(keys.keys.iter().map(|key| key.public).collect::<Vec<_>>(), [public]);
    assert!(keys.root.is_none() && !keys.can_sign());
    let error = signer.sign_open(open_for(1)).await.unwrap_err();
    assert!(matches!(&error, SignError::Unavailable(why) if why.contains("no fleet yet")), "{error}");
    let error = signer.activate_key(KeyId::from_bytes([1; 16])).await.unwrap_err();
    assert!(matches!(&error, SignError::Refused(why) if why.contains("holds no command key")), "{error}");
    let error = signer.advance_root(vec![vec![1, 2, 3]]).await.unwrap_err();
    assert!(matches!(error, SignError::Refused(_)), "{error}");
    signer.drop_key(envelope::key_id(&public)).await.unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_ends_is_away_and_found_again() {
    let room = Room::new();
    let signer = Arc::new(RemoteSigner::dial(&room.socket()));
    let asked = tokio::spawn({
        let signer = signer.clone();
        async move { signer.prepare_key().await }
    });
    let serving = room.serve();
    let public = asked.await.unwrap().expect("it waited for the signer");
    until("it is here", || is_here(&signer)).await;
    serving.abort();
    let _ = serving.await;
    until("it is away", || matches!(signer.standing(), Standing::Away { .. }).then_some(())).await;
    let error = signer.keys().await.unwrap_err();
    assert!(matches!(&error, SignError::Unavailable(why) if why.contains("see whether it runs")), "{error}");
    let serving = room.serve();
    until("it is here again", || is_here(&signer)).await;
    assert_eq!(signer.prepare_key().await.unwrap(), public, "what it answered was durable");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_and_no_other() {
    let room = Room::new();
    let serving = room.serve();
    let signer = RemoteSigner::dial(&room.socket());
    signer.keys().await.unwrap();
    let too_long = u32::MAX.to_be_bytes().to_vec();
    let unknown = [9u32.to_be_bytes().as_slice(), &[0; 8], &[77]].concat();
    let cut = [9u32.to_be_bytes().as_slice(), &[0; 3]].concat();
    for garbage in [too_long, unknown, b"GET / HTTP/1.1\r\n\r\n".to_vec(), cut] {
        let mut stream = UnixStream::connect(room.socket()).await.unwrap();
        stream.write_all(&garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
        assert_eq!(answer, b"", "{garbage:?}");
        signer.keys().await.unwrap();
    }
    serving.abort();
}

/// It asks and asks and takes no answer: its own connection comes to a standstill, and nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_no_answers_stands_still_alone() {
    let room = Room::new();
    let serving = room.serve();
    let mut greedy = UnixStream::connect(room.socket()).await.unwrap();
    let question = [9u32.to_be_bytes().as_slice(), &1u64.to_be_bytes(), &[4]].concat().repeat(1_000);
    let mut asked = 0;
    while timeout(Duration::from_secs(1), greedy.write_all(&question)).await.is_ok_and(|written| written.is_ok()) {
        asked += 1_000;
        assert!(asked < 10_000_000, "it is read without end");
    }
    let signer = RemoteSigner::dial(&room.socket());
    signer.keys().await.unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_a_place_comes_free() {
    let room = Room::new();
    let serving = room.serve();
    let mut held = Vec::new();
    for _ in 0..limits::CONNECTIONS_MAX {
        held.push(UnixStream::connect(room.socket()).await.unwrap());
    }
    let mut one_more = UnixStream::connect(room.socket()).await.unwrap();
    assert_eq!(timeout(PATIENCE, one_more.read(&mut [0; 1])).await.expect("closed").unwrap_or(0), 0);
    held.clear();
    let signer = RemoteSigner::dial(&room.socket());
    until("a place is free", || is_here(&signer)).await;
    serving.abort();
}

const AS_ANOTHER: &str = "SERVERFLOW_TEST_SOCKET";
/// `nobody`, or anyone: not this user.
const ANOTHER: u32 = 65_534;

/// Run by the test below, as another user: connects, asks, and says what came.
#[tokio::test]
async fn as_another_user() {
    let Some(path) = std::env::var_os(AS_ANOTHER) else { return };
    let mut stream = UnixStream::connect(Path::new(&path)).await.expect("the file system lets it");
    let question = [9u32.to_be_bytes().as_slice(), &1u64.to_be_bytes(), &[4]].concat();
    let _ = stream.write_all(&question).await;
    let mut answer = [0; 4];
    println!("answered: {}", stream.read_exact(&mut answer).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_refused_unless_named() {
    if std::fs::metadata("/proc/self").map(|it| std::os::unix::fs::MetadataExt::uid(&it)).unwrap_or(1) != 0 {
        eprintln!("SKIPPED: only root can run a process as another user");
        return;
    }
    let room = Room::new();
    let open_to_all =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    open_to_all(room.directory.path(), 0o755);
    // The test's own program, where that user can read it.
    let program = room.directory.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open_to_all(&program, 0o755);
    for (allowed, answered) in [(vec![], "answered: false"), (vec![ANOTHER], "answered: true")] {
        let local = LocalSigner::open(SignerConfig {
            place: Place::new(&room.directory.path().join("signer")),
            earlier: None,
            class_of: |_| None,
            clock: Arc::new(|| UnixMs(0)),
        });
        let listener = signer::listen(&room.socket(), true).unwrap();
        // The peer's user alone is to decide here.
        open_to_all(&room.socket(), 0o666);
        let serving = tokio::spawn(signer::serve(listener, Arc::new(local.unwrap()), Peers::new(&allowed)));
        let mut command = std::process::Command::new(&program);
        command.args(["--exact", "as_another_user", "--nocapture"]).env(AS_ANOTHER, room.socket());
        command.uid(ANOTHER).gid(ANOTHER).current_dir("/");
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(said.contains(answered), "{allowed:?}: {said} {}", String::from_utf8_lossy(&ran.stderr));
        serving.abort();
        let _ = serving.await;
    }
}
