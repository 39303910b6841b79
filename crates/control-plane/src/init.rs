//! `init`: a new fleet's keys, root metadata, database and first owner.
//!
//! Everything is made in a directory beside the final one and moved there at the end, so an
//! interrupted `init` leaves no half of a fleet behind.

mod elsewhere;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::{ApprovalThresholds, PublicKeyBytes, RootMetadata},
    root::{RootKeys, sign_root},
    signer_port::SignError,
};
use fleet::{
    model::{User, UserRole, UserSession},
    ports::{AuditEntry, AuditRecord, Store as _, StoreError, Write},
};
use ids::{AuditLogId, DurationMs, Epoch, FleetId, Id, IdKind, RootVersion, Sha256, UnixMs, UserId, UserName, sha256};
use keyfile::{KeyFileError, KeyKind};
use serde::Serialize;
use store::{SqliteStore, StoreConfig};
use zeroize::Zeroizing;

use crate::{certificate, clock, config::Config, files::Files, next::Next, signer_process, tls};

/// How long the first owner's session token is valid.
const ADMIN_TOKEN_LIFETIME: DurationMs = DurationMs::from_days(30);
/// Protocol version agents must speak at least.
const PROTOCOL_MIN: u32 = 1;

/// What the new fleet should be like.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Address agents dial, as they see it; may be given more than once
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7443")]
    agent_address: Vec<String>,
    /// Name of the first owner
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: UserName,
    /// Make a self-signed certificate for the people's listener too, for this name or IP address; may be given more than once
    #[arg(long, value_name = "NAME")]
    http_name: Vec<String>,
    /// Root keys made elsewhere with `serverflow root init`: their public halves. Writes root metadata for them to sign
    #[arg(long, value_name = "FILE", conflicts_with_all = ["http_name", "finish"])]
    root_keys: Option<PathBuf>,
    /// Root metadata that `--root-keys` wrote, with enough signatures: the fleet is ready then
    #[arg(long, value_name = "FILE")]
    finish: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    json: bool,
}

/// What `init` made. Shown once: it holds a password and a passphrase.
#[derive(Serialize)]
struct Initialised {
    fleet_id: FleetId,
    admin: Admin,
    /// The root key, if it was made here.
    #[serde(flatten)]
    root_key: Option<RootKey>,
    root_public: PathBuf,
    /// The root's public key, hexadecimal.
    root_public_key: String,
    token_file: PathBuf,
    agent_addresses: Vec<String>,
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo, now and next, hexadecimal.
    tls_pins: Vec<Sha256>,
    /// The self-signed certificate of the people's listener, if one was asked for, and its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    http_cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_key: Option<PathBuf>,
    #[serde(skip)]
    http_names: Vec<String>,
}

#[derive(Serialize)]
struct RootKey {
    /// Where it lies until it is taken away.
    #[serde(rename = "root_key")]
    path: PathBuf,
    #[serde(rename = "root_passphrase", serialize_with = "reveal")]
    passphrase: Zeroizing<String>,
}

#[derive(Serialize)]
struct Admin {
    name: UserName,
    #[serde(serialize_with = "reveal")]
    password: Zeroizing<String>,
}

fn reveal<S: serde::Serializer>(secret: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret)
}

/// Why there is no new fleet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error(
        "{path} exists already: this control plane was initialised before. To start a new fleet choose another --data-dir"
    )]
    Exists { path: PathBuf },
    #[error("cannot {what} {path}: check the owner and the free space of its disk")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the new fleet cannot be moved from {from} to {path}: give a --data-dir that does not exist yet, in a directory this user may write to (not a mount point itself, but a directory in it)"
    )]
    Move {
        from: PathBuf,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("what was made cannot be printed, and it is shown only once; {path} was removed again. Run `init` anew")]
    Print {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{address:?} is not an address agents can dial: use HOST:PORT, such as control.example.org:7443")]
    Address { address: String },
    #[error("{0}")]
    Key(#[from] KeyFileError),
    #[error("{0}")]
    Certificate(#[from] certificate::MakeError),
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Place(#[from] signer::PlaceError),
    #[error(
        "the signer made no key: {0}. If it is a service of its own (signer_socket), start it first: `systemctl start serverflow-signer`"
    )]
    Signer(#[source] SignError),
    #[error(
        "the fleet was made in {path}, and its signer did not take root metadata: {source}. Start the control plane, which hands it over again"
    )]
    NotHandedOver {
        path: PathBuf,
        #[source]
        source: SignError,
    },
    #[error("{0}")]
    Elsewhere(#[source] Box<elsewhere::ElsewhereError>),
    #[error("the owner's credentials could not be made")]
    Credentials(#[from] web::credentials::CredentialError),
}

impl From<elsewhere::ElsewhereError> for InitError {
    fn from(error: elsewhere::ElsewhereError) -> Self {
        Self::Elsewhere(Box::new(error))
    }
}

/// Fresh keys of a new fleet.
struct Keys {
    session: SigningKey<role::Session>,
    /// Its private half never leaves the signer.
    command: PublicKeyBytes,
    audit: SigningKey<role::Audit>,
    tls: tls::TlsKey,
    tls_next: tls::TlsKey,
    data: Zeroizing<[u8; 32]>,
}

/// Makes the fleet and prints what was made.
///
/// # Errors
/// See [`init`].
pub(crate) async fn run(config: Config, args: InitArgs, next: &Next) -> Result<(), InitError> {
    if let Some(root_keys) = &args.root_keys {
        return elsewhere::begin(&config, root_keys, &args, next).await;
    }
    if let Some(file) = &args.finish {
        return elsewhere::finish(&config, file, &args, next).await;
    }
    init_and_show(&config, &args, next, &mut io::stdout()).await
}

/// Begins the signer's fleet. At the end: a fleet that is not kept must not be the one that a signer has for good.
async fn hand_over(config: &Config, root: Vec<u8>) -> Result<(), InitError> {
    let signer = signer_process::of(config, &Files::new(&config.data_dir))?;
    let handed = signer_process::in_time(signer.advance_root(vec![root])).await;
    handed.map(drop).map_err(|source| InitError::NotHandedOver { path: config.data_dir.clone(), source })
}

/// A fleet whose passphrase nobody saw is worth nothing, so it stays only when it was printed.
async fn init_and_show(
    config: &Config,
    args: &InitArgs,
    next: &Next,
    out: &mut impl io::Write,
) -> Result<(), InitError> {
    let data_dir = config.data_dir.as_path();
    let (made, root) = init(config, args).await?;
    let text = if args.json { format!("{}\n", serde_json::json!(made)) } else { made.for_people(next) };
    let text = Zeroizing::new(text);
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|source| {
        // Best effort: a second `init` would say that the directory exists.
        let _ = fs::remove_dir_all(data_dir);
        InitError::Print { path: data_dir.to_owned(), source }
    })?;
    hand_over(config, root).await
}

/// Makes the fleet.
///
/// # Errors
/// See [`InitError`]; the data directory is untouched then.
async fn init(config: &Config, args: &InitArgs) -> Result<(Initialised, Vec<u8>), InitError> {
    let data_dir = config.data_dir.as_path();
    let building = prepare(data_dir, args)?;
    let made = build(&Files::new(&building), &Files::new(data_dir), config, args).await;
    move_into_place(&building, data_dir, made)
}

/// Judges the arguments, and gives the directory in which everything is made.
fn prepare(data_dir: &Path, args: &InitArgs) -> Result<PathBuf, InitError> {
    for address in &args.agent_address {
        if !envelope::address::is_valid(address) {
            return Err(InitError::Address { address: address.clone() });
        }
    }
    if fs::exists(data_dir).map_err(|source| io_error("look at", data_dir, source))? {
        let empty = fs::read_dir(data_dir).map_err(|source| io_error("read", data_dir, source))?.next().is_none();
        if !empty {
            return Err(InitError::Exists { path: data_dir.to_owned() });
        }
    }
    building_directory(data_dir)
}

fn move_into_place<T>(building: &Path, data_dir: &Path, made: Result<T, InitError>) -> Result<T, InitError> {
    match made {
        Ok(made) => {
            let moved = fs::rename(building, data_dir).map_err(|source| {
                // Best effort, as below.
                let _ = fs::remove_dir_all(building);
                InitError::Move { from: building.to_owned(), path: data_dir.to_owned(), source }
            });
            moved?;
            sync_parent(data_dir)?;
            Ok(made)
        }
        Err(error) => {
            // Best effort: what is left holds only unused keys, and the next `init` removes it.
            let _ = fs::remove_dir_all(building);
            Err(error)
        }
    }
}

/// The move is durable before the passphrase is shown.
fn sync_parent(path: &Path) -> Result<(), InitError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|source| io_error("sync the directory of", path, source))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> InitError {
    InitError::Io { what, path: path.to_owned(), source }
}

/// A private directory beside the final one, free of an earlier interrupted attempt.
fn building_directory(data_dir: &Path) -> Result<PathBuf, InitError> {
    let name = data_dir.file_name().ok_or_else(|| InitError::Exists { path: data_dir.to_owned() })?;
    let mut building = name.to_owned();
    building.push(".initialising");
    let building = data_dir.with_file_name(building);
    if fs::exists(&building).map_err(|source| io_error("look at", &building, source))? {
        fs::remove_dir_all(&building).map_err(|source| io_error("remove", &building, source))?;
    }
    keyfile::private_directory(&building)?;
    keyfile::private_directory(&building.join("keys"))?;
    Ok(building)
}

/// What was made, and its root metadata.
async fn build(
    files: &Files,
    destination: &Files,
    config: &Config,
    args: &InitArgs,
) -> Result<(Initialised, Vec<u8>), InitError> {
    let now = clock::now();
    let passphrase = keyfile::passphrase()?;
    let seed = keyfile::random()?;
    keyfile::write_seed_encrypted(&files.root_key(), KeyKind::Ed25519, &seed, &passphrase)?;
    let root_key = SigningKey::<role::Root>::from_seed(&seed);
    let keys = write_keys(config, files).await?;
    let root = root_metadata(&keys, &RootKeys { threshold: 1, keys: vec![root_key.public()] }, args, now)?;
    let envelope = sign_root(&[&root_key], &root);
    let made_here = RootKey { path: destination.root_key(), passphrase };
    let made = Furnishing { files, destination, data_key: keys.data, root_public: root_key.public() };
    let made = made.furnish(&root, envelope.clone(), args, now).await?;
    Ok((Initialised { root_key: Some(made_here), ..made }, envelope))
}

/// What turns keys and root metadata into a fleet.
struct Furnishing<'a> {
    /// Where it is made, and where it will lie.
    files: &'a Files,
    destination: &'a Files,
    data_key: Zeroizing<[u8; 32]>,
    /// The root key that `audit verify` begins with.
    root_public: PublicKeyBytes,
}

impl Furnishing<'_> {
    /// The database with its first owner, and the certificate if one is asked for.
    async fn furnish(
        self,
        root: &RootMetadata,
        envelope: Vec<u8>,
        args: &InitArgs,
        now: UnixMs,
    ) -> Result<Initialised, InitError> {
        let Self { files, destination, data_key, root_public } = self;
        keyfile::write_text(&files.root_public(), &format!("{}\n", ids::hex(&root_public.0)))?;
        let password = keyfile::passphrase()?;
        let user = User {
            id: new_id::<_>(now)?,
            name: args.admin.clone(),
            role: UserRole::Owner,
            password_hash: web::credentials::password_hash(&password)?,
            created_at: now,
            disabled_at: None,
            approver: None,
        };
        let (token, token_sha256) = web::credentials::bearer_token()?;
        let session = UserSession {
            id: new_id(now)?,
            token_sha256,
            user: user.id,
            user_name: user.name.clone(),
            role: user.role,
            created_at: now,
            expires: now.plus(ADMIN_TOKEN_LIFETIME),
            peer: String::new(),
        };
        write_database(files, data_key, envelope, user, session, root, now).await?;
        keyfile::write_text(&files.admin_token(), &format!("{}\n", token.as_str()))?;

        let made = (!args.http_name.is_empty()).then(|| certificate::make(files.directory(), &args.http_name, now));
        let is_made = made.transpose()?.is_some();

        Ok(Initialised {
            fleet_id: root.fleet,
            admin: Admin { name: args.admin.clone(), password },
            root_key: None,
            root_public: destination.root_public(),
            root_public_key: ids::hex(&root_public.0),
            token_file: destination.admin_token(),
            agent_addresses: root.addresses.clone(),
            tls_pins: root.tls_pins.clone(),
            http_cert: is_made.then(|| destination.directory().join(certificate::CERT)),
            http_key: is_made.then(|| destination.directory().join(certificate::KEY)),
            http_names: args.http_name.clone(),
        })
    }
}

fn new_id<K: IdKind>(now: UnixMs) -> Result<Id<K>, InitError> {
    Ok(Id::new_v7(now, *keyfile::random()?))
}

/// All keys that stay here.
async fn write_keys(config: &Config, files: &Files) -> Result<Keys, InitError> {
    let command =
        signer_process::in_time(signer_process::of(config, files)?.prepare_key()).await.map_err(InitError::Signer)?;
    let seed = |path: PathBuf| {
        let seed = keyfile::random()?;
        keyfile::write_seed(&path, KeyKind::Ed25519, &seed)?;
        Ok::<_, InitError>(seed)
    };
    let keys = Keys {
        session: SigningKey::from_seed(&*seed(files.session_key())?),
        command,
        audit: SigningKey::from_seed(&*seed(files.audit_key())?),
        tls: tls::TlsKey::generate()?,
        tls_next: tls::TlsKey::generate()?,
        data: keyfile::write_symmetric(&files.data_key())?,
    };
    keyfile::write_text(&files.tls_key(), &keys.tls.to_pem())?;
    keyfile::write_text(&files.tls_key_next(), &keys.tls_next.to_pem())?;
    Ok(keys)
}

fn root_metadata(keys: &Keys, root: &RootKeys, args: &InitArgs, now: UnixMs) -> Result<RootMetadata, InitError> {
    Ok(RootMetadata {
        version: RootVersion(1),
        issued: now,
        expires: now.plus(envelope::limits::ROOT_LIFETIME),
        fleet: new_id(now)?,
        root_keys: root.keys.clone(),
        root_threshold: root.threshold,
        addresses: args.agent_address.clone(),
        recovery_keys: Vec::new(),
        session_keys: vec![keys.session.public()],
        command_keys: vec![keys.command],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: keys.audit.public(),
        audit_log: new_id::<_>(now).map(|id: AuditLogId| id)?,
        restored_log: None,
        tls_pins: vec![keys.tls.pin(), keys.tls_next.pin()],
        protocol_min: PROTOCOL_MIN,
        epoch: Epoch(1),
    })
}

async fn write_database(
    files: &Files,
    data_key: Zeroizing<[u8; 32]>,
    root: Vec<u8>,
    admin: User,
    session: UserSession,
    metadata: &RootMetadata,
    now: UnixMs,
) -> Result<(), InitError> {
    let store = SqliteStore::open(StoreConfig { path: files.database(), data_key }).await?;
    let entry = |kind, subject: String, record: serde_json::Value| AuditEntry {
        time: now,
        kind,
        actor: "init".to_owned(),
        subject,
        record: AuditRecord::Inline(record.to_string().into_bytes()),
    };
    let created = entry(
        AuditKind::FleetCreated,
        format!("fleet {}", metadata.fleet),
        serde_json::json!({ "root_sha256": sha256(&root), "root_version": 1 }),
    );
    let administrator: UserId = admin.id;
    let signed_in = entry(
        AuditKind::SignIn,
        format!("user {}", admin.name),
        serde_json::json!({ "user_id": administrator, "expires_ms": session.expires, "how": "token file written by init" }),
    );
    let password_hash = admin.password_hash.clone();
    store.write(Write::Initialise { root, admin, audit: vec![created] }).await?;
    store.write(Write::UserSessionCreate { session, password_hash, audit: signed_in }).await?;
    store.close().await;
    Ok(())
}

impl Initialised {
    fn for_people(&self, next: &Next) -> String {
        let Self { fleet_id, admin, root_key, root_public, token_file, .. } = self;
        let mut rows = vec![
            ("Owner", admin.name.to_string()),
            ("Password", format!("{}   (shown once)", admin.password.as_str())),
            ("Session token", format!("{}   (valid for 30 days)\n", token_file.display())),
        ];
        let mut public = root_public.display().to_string();
        if let Some(RootKey { path, passphrase }) = root_key {
            rows.push(("Root key", path.display().to_string()));
            rows.push(("Its passphrase", format!("{}   (shown once)", passphrase.as_str())));
            public.push_str(
                "\n\nMove the root key to a place that is not on this machine, and keep the passphrase elsewhere.\n\
                 Whoever has both governs the fleet; without them no key of it can ever be changed.\n",
            );
        }
        rows.extend([("Root public key", public), ("Agents dial", self.agent_addresses.join(", "))]);
        let rows: String = rows.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect();
        let then = match (&self.http_cert, &self.http_key) {
            (Some(cert), Some(key)) => {
                let made = certificate::Made { cert: cert.clone(), key: key.clone() };
                let serve = next.serve(&self.agent_addresses, Some(&made));
                certificate::words(&made, &self.http_names, &serve, next.https_listen().port())
            }
            _ => format!(
                "Next, run it, as a service or with\n  {}\nand sign in with the password above:\n  {}\n",
                next.serve(&self.agent_addresses, None),
                next.login(&admin.name, root_public)
            ),
        };
        format!("Fleet {fleet_id} is ready.\n\n{rows}\n{then}")
    }
}

#[cfg(test)]
pub(crate) mod tests;
