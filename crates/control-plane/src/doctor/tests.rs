//! Real fleets, whole, running and broken.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use expect_test::{expect, expect_file};
use ids::DurationMs;
use tokio::net::TcpListener;

use super::*;
use crate::{certificate as pair, config::LogFormat, health, init, limits, serve, signer_process};

/// A fleet in a temporary directory, and the configuration it would run with.
struct Fleet {
    config: Config,
    directory: tempfile::TempDir,
}

impl Fleet {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data_dir = init::tests::made(directory.path()).await;
        let agents = directory.path().join("agents");
        fs::create_dir_all(agents.join("x86_64")).expect("made");
        let mut program = b"\x7fELF\x02".to_vec();
        program.resize(18, 0);
        program.extend_from_slice(&62u16.to_le_bytes());
        fs::write(agents.join("x86_64/serverflow-agent"), program).expect("written");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let config = Config {
            data_dir,
            agent_listen: any,
            http_listen: any,
            https: None,
            host_names: Vec::new(),
            agent_dir: Some(agents),
            signer_socket: None,
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
        };
        Self { config, directory }
    }

    fn files(&self) -> Files {
        Files::new(&self.config.data_dir)
    }

    async fn findings(&self) -> Vec<Finding> {
        self.findings_at(clock::now()).await
    }

    /// All but what depends on this machine's disk.
    async fn findings_at(&self, now: UnixMs) -> Vec<Finding> {
        let mut findings = examine(&self.config, now).await;
        findings.retain(|finding| !["disk", "inodes"].contains(&finding.check));
        findings
    }

    /// The same text on every machine.
    fn plain(&self, text: &str) -> String {
        let own = rustix::process::geteuid().as_raw();
        text.replace(&self.config.data_dir.display().to_string(), "DATA")
            .replace(&self.directory.path().display().to_string(), "TEMPORARY")
            .replace(&self.config.agent_listen.to_string(), "AGENTS")
            .replace(&self.config.http_listen.to_string(), "PEOPLE")
            .replace(&format!("user {own}"), "user UID")
            .replace(&format!("chown -R {own}"), "chown -R UID")
    }

    /// What is not well, in words, below what was done.
    async fn unwell(&self, done: &str) -> String {
        let mut findings = self.findings().await;
        // The root key is on every new machine, until somebody takes it away.
        findings.retain(|finding| finding.verdict != Verdict::Ok && finding.check != "root-key");
        format!("# {done}\n{}\n", self.plain(&render(&findings)))
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode set");
}

fn listing(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let metadata = entry.metadata().expect("readable");
        all.push((entry.path(), metadata.len(), metadata.modified().expect("a time")));
        if metadata.is_dir() {
            all.extend(listing(&entry.path()));
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_new_fleet_is_well_and_looking_changes_nothing() {
    let fleet = Fleet::new().await;
    let before = listing(fleet.directory.path());
    let findings = fleet.findings().await;
    assert_eq!(listing(fleet.directory.path()), before);
    expect_file!["golden/new.txt"].assert_eq(&fleet.plain(&render(&findings)));
    assert_eq!(worst(&findings), Verdict::Warn);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_runs_is_well_and_found_to_run() {
    let mut fleet = Fleet::new().await;
    let made = pair::make(&fleet.config.data_dir, &["127.0.0.1".to_owned()], clock::now()).expect("a certificate");
    fleet.config.https = Some((made.cert, made.key));
    fs::remove_file(fleet.files().root_key()).expect("taken away");
    for address in [&mut fleet.config.agent_listen, &mut fleet.config.http_listen] {
        let free = TcpListener::bind(*address).await.expect("a port");
        *address = free.local_addr().expect("an address");
    }
    // The test's own program is no signer that `serve` could start.
    let (place, socket) = (fleet.files().signer(), fleet.directory.path().join("signer.sock"));
    fleet.config.signer_socket = Some(socket.clone());
    let found = signer_finding(&fleet).await;
    assert!(found.verdict == Verdict::Fail && found.found.contains("does not answer"), "{found:?}");
    let own = signer_process::open(place, None).expect("opened");
    let signing =
        tokio::spawn(async move { signer_process::run_until(own, &socket, &[], std::future::pending()).await });
    let serving = tokio::spawn(serve::serve(fleet.config.clone()));
    let ready = async {
        while let Err(error) = health::run(fleet.config.clone()).await {
            assert!(!serving.is_finished(), "it ended: {error}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("ready in time");
    let findings = fleet.findings().await;
    expect_file!["golden/running.txt"].assert_eq(&fleet.plain(&render(&findings)));
    assert_eq!(worst(&findings), Verdict::Ok);

    // The same data, but not where the configuration says.
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    fleet.config.http_listen = elsewhere.local_addr().expect("an address");
    drop(elsewhere);
    let findings = fleet.findings().await;
    let people = findings.iter().find(|finding| finding.check == "people").expect("looked at");
    assert!(people.verdict == Verdict::Fail && people.found.starts_with("nobody listens on"), "{people:?}");
    // Another program where agents should find us.
    let stranger = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    fleet.config.agent_listen = stranger.local_addr().expect("an address");
    let strange = tokio::spawn(async move { drop(stranger.accept().await) });
    let findings = fleet.findings().await;
    let agents = findings.iter().find(|finding| finding.check == "agents").expect("looked at");
    assert!(agents.verdict == Verdict::Fail && agents.found.contains("is not this control plane"), "{agents:?}");
    serving.abort();
    strange.abort();
    signing.abort();
}

async fn signer_finding(fleet: &Fleet) -> Finding {
    fleet.findings().await.into_iter().find(|finding| finding.check == "signer").expect("looked at")
}

/// Key ids are new in each run.
fn id_free(text: &str) -> String {
    let is_id = |word: &str| word.contains("/keys/") && word.ends_with(".key.pem");
    text.split(' ').map(|word| if is_id(word) { "KEY-FILE" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Each broken in one way, by hand.
#[tokio::test]
async fn what_is_broken_is_said_with_what_to_do() {
    let mut said = String::new();
    let fleet = Fleet::new().await;
    let files = fleet.files();
    mode(files.directory(), 0o755);
    mode(&files.database(), 0o666);
    said += &fleet.unwell("a directory and a database for everyone").await;
    mode(files.directory(), 0o700);
    mode(&files.database(), 0o600);
    mode(&files.session_key(), 0o644);
    said += &fleet.unwell("a key that others can read").await;
    fs::remove_file(files.session_key()).expect("removed");
    said += &fleet.unwell("a key that is gone").await;
    fs::copy(files.audit_key(), files.session_key()).expect("copied");
    said += &fleet.unwell("another key in its place").await;
    fs::write(files.session_key(), "no key").expect("written");
    said += &fleet.unwell("something else in its place").await;

    let fleet = Fleet::new().await;
    let place = fleet.files().signer();
    for key in fs::read_dir(place.keys()).expect("a directory").flatten() {
        fs::remove_file(key.path()).expect("removed");
    }
    said += &id_free(&fleet.unwell("a signer without its key").await);
    fs::write(place.trust(), "{}").expect("written");
    said += &fleet.unwell("a signer whose file says nothing").await;
    fs::remove_file(place.trust()).expect("removed");
    said += &fleet.unwell("no signer").await;
    let (mut other, own) = (Fleet::new().await, Fleet::new().await);
    fs::remove_dir_all(other.files().signer().directory()).expect("removed");
    fs::rename(own.files().signer().directory(), other.files().signer().directory()).expect("moved");
    said += &other.unwell("the signer of another fleet").await;
    other.config.signer_socket = Some(other.config.data_dir.join("nobody.sock"));
    said += &other.unwell("a signer of its own that does not run").await;

    let fleet = Fleet::new().await;
    fs::write(fleet.files().data_key(), "00".repeat(32)).expect("written");
    said += &fleet.unwell("the data key of another database").await;

    let fleet = Fleet::new().await;
    let mut pages = fs::read(fleet.files().database()).expect("readable");
    let length = pages.len();
    pages[4096..length].fill(0xa5);
    fs::write(fleet.files().database(), pages).expect("written");
    let text = fleet.unwell("").await;
    assert!(text.contains("FAIL  database") && text.contains("restore it from a backup"), "{text}");

    let mut fleet = Fleet::new().await;
    fs::remove_dir_all(fleet.directory.path().join("agents")).expect("removed");
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    fleet.config.agent_listen = taken.local_addr().expect("an address");
    fleet.config.http_listen = "192.0.2.7:8080".parse().expect("an address");
    said += &fleet.unwell("listeners that cannot be, and no programs").await;

    fleet.config.data_dir = fleet.directory.path().join("none");
    said += &fleet.unwell("no directory").await;
    fs::create_dir(&fleet.config.data_dir).expect("made");
    said += &fleet.unwell("an empty directory").await;
    expect_file!["golden/broken.txt"].assert_eq(&said);
}

#[tokio::test]
async fn a_certificate_is_looked_into() {
    let mut fleet = Fleet::new().await;
    let made_at = clock::now();
    let made = pair::make(&fleet.config.data_dir, &["127.0.0.1".to_owned()], made_at).expect("a certificate");
    fleet.config.https = Some((made.cert.clone(), made.key.clone()));
    let end = made_at.plus(limits::CERTIFICATE_LIFETIME);
    let of = |findings: Vec<Finding>, check| findings.into_iter().find(|finding| finding.check == check);
    let at = async |now| of(fleet.findings_at(now).await, "certificate").expect("looked at");
    // Certificates know no milliseconds: well away from whole days.
    let hour = DurationMs::from_mins(60);
    let mut findings = vec![
        at(made_at.plus(hour)).await,
        at(end.minus(DurationMs::from_days(20)).plus(hour)).await,
        at(end.plus(DurationMs::from_days(3)).plus(hour)).await,
        at(made_at.minus(DurationMs::from_days(5)).plus(hour)).await,
    ];
    mode(&made.key, 0o644);
    findings.push(at(made_at).await);
    fs::copy(fleet.files().tls_key(), &made.key).expect("copied");
    mode(&made.key, 0o600);
    findings.push(at(made_at).await);
    fs::remove_file(&made.key).expect("removed");
    findings.push(at(made_at).await);
    pair::make(&fleet.config.data_dir, &["127.0.0.1".to_owned()], made_at).expect("a certificate");
    fleet.config.host_names = vec!["fleet.example.org".to_owned()];
    findings.push(of(fleet.findings().await, "names").expect("looked at"));
    expect_file!["golden/certificate.txt"].assert_eq(&fleet.plain(&render(&findings)));
}

/// Every branch that depends on numbers alone.
#[test]
fn numbers_become_words() {
    let place = Path::new("/var/lib/serverflow");
    let days = DurationMs::from_days;
    let findings = [
        checks::root_finding(2, days(400)),
        checks::root_finding(2, days(59)),
        checks::root_finding(2, DurationMs(0)),
        checks::clock_finding(UnixMs(1_000_000), UnixMs(1_060_000)),
        checks::clock_finding(UnixMs(1_000_000), UnixMs(1_061_000)),
        checks::disk_finding(place, limits::DISK_WARN_BYTES),
        checks::disk_finding(place, limits::DISK_WARN_BYTES - 1),
        checks::disk_finding(place, limits::DISK_FAIL_BYTES - 1),
        checks::inodes_finding(place, limits::INODES_WARN, 1_000_000).expect("a number"),
        checks::inodes_finding(place, limits::INODES_WARN - 1, 1_000_000).expect("a number"),
        checks::inodes_finding(place, limits::INODES_FAIL - 1, 1_000_000).expect("a number"),
    ];
    assert_eq!(checks::inodes_finding(place, 0, 0), None, "a file system without a number of inodes");
    expect_file!["golden/numbers.txt"].assert_eq(&render(&findings));
    expect![[r#"{"verdict":"fail","findings":[{"check":"root","verdict":"ok","found":"root metadata version 2 lists the keys and is valid for 400 days"}]}"#]]
        .assert_eq(&serde_json::to_string(&Document { verdict: worst(&findings), findings: &findings[..1] }).expect("data"));
}
