//! A backup comes back as the same control plane, or not at all.

use std::{fs, path::PathBuf};

use envelope::{
    audit::AuditKind,
    keys::SigningKey,
    root::{Edit, TrustedRoot, next_version, sign_root},
    seal::SealingSecretKey,
};
use fleet::ports::{AuditEntry, AuditRecord, Store as _, Write};
use keyfile::KeyKind;
use store::{SqliteStore, StoreConfig};

use super::{
    make::{BackupArgs, run as backup},
    restore::{RestoreArgs, run as restore},
    *,
};
use crate::{clock, config::Config, files::Files, init::tests::made_and_shown, next::Next};

const PASSPHRASE: &str = "correct horse battery staple";

/// A fleet, and where its backup goes.
struct Case {
    directory: tempfile::TempDir,
    data_dir: PathBuf,
    root_passphrase: String,
    /// The owner's.
    password: String,
}

impl Case {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data_dir, shown) = made_and_shown(directory.path()).await;
        let root_passphrase = shown["root_passphrase"].as_str().expect("shown once").to_owned();
        let password = shown["admin"]["password"].as_str().expect("shown once").to_owned();
        fs::write(directory.path().join("passphrase"), format!("{PASSPHRASE}\n")).expect("written");
        Self { directory, data_dir, root_passphrase, password }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn backup(&self, name: &str) -> Result<(), Error> {
        let (file, passphrase_file) = (self.path(name), Some(self.path("passphrase")));
        backup(config(&self.data_dir), BackupArgs { file, passphrase_file, signer_dir: None, json: true }).await
    }

    fn args(&self, name: &str) -> RestoreArgs {
        RestoreArgs {
            file: self.path(name),
            root: self.data_dir.join("root.pub"),
            passphrase_file: Some(self.path("passphrase")),
            recovery_key: None,
            json: true,
        }
    }

    /// Restores into a directory of that name.
    async fn restore(&self, to: &str, args: RestoreArgs) -> Result<PathBuf, Error> {
        let to = self.path(to);
        let config = config(&to);
        restore(config.clone(), args, &Next::new(Default::default(), &config)).await.map(|()| to)
    }

    /// That nothing was put in place, and nothing is left beside it.
    #[track_caller]
    fn nothing_at(&self, to: &str) {
        assert!(!self.path(to).exists() && !self.path(&format!("{to}.restoring")).exists(), "{to}");
    }
}

fn config(data_dir: &Path) -> Config {
    let config = crate::config::load(None, std::iter::empty(), Default::default()).expect("the defaults");
    Config { data_dir: data_dir.to_owned(), host_names: vec!["fleet.example.org".to_owned()], ..config }
}

fn entry(kind: AuditKind) -> AuditEntry {
    let (actor, subject) = ("test".to_owned(), "test".to_owned());
    AuditEntry { time: clock::now(), kind, actor, subject, record: AuditRecord::Inline(b"{}".to_vec()) }
}

async fn open(data_dir: &Path) -> SqliteStore {
    let files = Files::new(data_dir);
    let data_key = keyfile::read_symmetric(&files.data_key()).expect("the data key");
    SqliteStore::open(StoreConfig { path: files.database(), data_key }).await.expect("it opens")
}

#[tokio::test]
async fn a_backup_made_while_it_runs_comes_back_without_what_was_signed_in() {
    let case = Case::new().await;
    let running = open(&case.data_dir).await;
    running.write(Write::Audit(entry(AuditKind::RefusalCount))).await.expect("in the database's log, not in its file");
    case.backup("fleet.sfb").await.expect("backed up");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(case.path("fleet.sfb")).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!case.path("fleet.sfb.partial").exists() && !case.data_dir.join("backup.snapshot.db").exists());
    assert!(matches!(case.backup("fleet.sfb").await, Err(Error::Exists { .. })), "never overwritten");
    let (size, chain) = (running.audit_position().size, running.root_chain().await.expect("read"));
    running.close().await;

    let to = case.restore("restored", case.args("fleet.sfb")).await.expect("restored");
    for file in [
        "keys/session.key.pem",
        "keys/audit.key.pem",
        "keys/tls-next.key.pem",
        "keys/data.key",
        "root.pub",
        "signer/sequences",
    ] {
        assert_eq!(fs::read(to.join(file)).expect(file), fs::read(case.data_dir.join(file)).expect(file), "{file}");
    }
    assert!(
        !to.join("root.key.pem").exists() && !to.join("admin.token").exists(),
        "what does not belong into a backup"
    );
    assert!(fs::read_to_string(to.join(SETTINGS)).expect("settings").contains("fleet.example.org"));
    let store = open(&to).await;
    assert_eq!(store.root_chain().await.expect("read"), chain);
    assert_eq!(store.audit_position().size, size + 1, "one entry more: the restore");
    let recovery = store.recovery().await.expect("read").expect("it is marked");
    assert_eq!((recovery.log.size, recovery.confirmed_at), (size, None));
    let user = store.user_by_name("admin".parse().expect("a name")).await.expect("read").expect("there");
    assert!(web::credentials::password_matches(&case.password, &user.password_hash), "passwords stay");
    let token = fs::read_to_string(case.data_dir.join("admin.token")).expect("a token");
    let sha256 = ids::sha256(token.trim().as_bytes());
    assert!(store.user_session(sha256).await.expect("read").is_none(), "sign-ins do not");
    store.close().await;
    let before = open(&case.data_dir).await;
    assert!(before.user_session(sha256).await.expect("read").is_some(), "the one that was backed up is as it was");
    before.close().await;
    assert!(matches!(case.restore("restored", case.args("fleet.sfb")).await, Err(Error::NotEmpty { .. })));
}

#[tokio::test]
async fn a_tampered_or_truncated_backup_puts_nothing_in_place() {
    let case = Case::new().await;
    case.backup("fleet.sfb").await.expect("backed up");
    let whole = fs::read(case.path("fleet.sfb")).expect("read");
    let places = [40, whole.len() / 3, whole.len() / 2, whole.len() - 1];
    for at in places {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        for (name, bytes) in [("changed", changed.as_slice()), ("cut", &whole[..at])] {
            fs::write(case.path(name), bytes).expect("written");
            let error = case.restore("to", case.args(name)).await.expect_err("refused").to_string();
            assert!(error.contains("backup"), "{error}");
            case.nothing_at("to");
        }
    }
    fs::write(case.path("copied"), &whole).expect("written");
    case.restore("to", case.args("copied")).await.expect("the same bytes, unchanged");
}

#[tokio::test]
async fn another_fleets_backup_is_refused_by_the_root_key() {
    let (case, other) = (Case::new().await, Case::new().await);
    other.backup("fleet.sfb").await.expect("backed up");
    fs::copy(other.path("fleet.sfb"), case.path("theirs")).expect("copied");
    let error = case.restore("to", case.args("theirs")).await.expect_err("not of this fleet");
    assert!(matches!(error, Error::OtherFleet { .. }), "{error}");
    case.nothing_at("to");
    let theirs = RestoreArgs { root: other.data_dir.join("root.pub"), ..case.args("theirs") };
    case.restore("to", theirs).await.expect("with the root key of its own fleet");
}

#[tokio::test]
async fn a_backup_without_the_keys_that_root_metadata_lists_is_refused() {
    let case = Case::new().await;
    let files = Files::new(&case.data_dir);
    let own = fs::read(files.session_key()).expect("read");
    fs::remove_file(files.session_key()).expect("removed");
    keyfile::write_seed(&files.session_key(), KeyKind::Ed25519, &[9; 32]).expect("another");
    case.backup("forged.sfb").await.expect("whoever has the database and no key can write such a file");
    let error = case.restore("to", case.args("forged.sfb")).await.expect_err("not the control plane's").to_string();
    assert!(error.contains("session key"), "{error}");
    case.nothing_at("to");
    fs::write(files.session_key(), own).expect("put back");
    case.backup("fleet.sfb").await.expect("backed up");
    case.restore("to", case.args("fleet.sfb")).await.expect("with its own key");
}

#[tokio::test]
async fn an_owner_recovery_key_opens_a_backup() {
    let case = Case::new().await;
    let key = SealingSecretKey::from_bytes(&[7; 32]);
    let chain = open(&case.data_dir).await;
    let root = TrustedRoot::from_stored(&chain.root_chain().await.expect("read")).expect("valid");
    let edits = [Edit::AddRecoveryKey(key.public())];
    let next = next_version(root.current(), &edits, clock::now()).expect("a next version");
    let root_key = Files::new(&case.data_dir).root_key();
    let seed = keyfile::read_seed_encrypted(&root_key, KeyKind::Ed25519, &case.root_passphrase);
    let root_key = SigningKey::from_seed(&seed.expect("the root key"));
    let signed = sign_root(&[&root_key], &next);
    let audit = entry(AuditKind::RootChange);
    chain.write(Write::RootAdvance { version: next.version, envelope: signed, audit }).await.expect("in force");
    chain.close().await;
    let args = BackupArgs { file: case.path("fleet.sfb"), passphrase_file: None, signer_dir: None, json: true };
    backup(config(&case.data_dir), args).await.expect("sealed to the key, no passphrase made");
    keyfile::write_seed(&case.path("recovery.pem"), KeyKind::X25519, &[7; 32]).expect("written");
    let opened =
        RestoreArgs { passphrase_file: None, recovery_key: Some(case.path("recovery.pem")), ..case.args("fleet.sfb") };
    let none = RestoreArgs { recovery_key: None, ..opened.clone() };
    let error = case.restore("to", none).await.expect_err("nothing to open it with").to_string();
    assert!(error.contains("owner recovery key"), "{error}");
    case.restore("to", opened).await.expect("it opens");
}
