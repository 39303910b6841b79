//! `restore FILE`: a backup becomes a data directory, whole or not at all. What the backup's control plane forgot since,
//! hosts know; so nothing is ordered until that was made good (`fleet::recovery`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use backup::{Opener, Reader};
use envelope::{
    messages::{LogPosition, PublicKeyBytes},
    root::TrustedRoot,
    seal::SealingSecretKey,
};
use fleet::{
    ports::{Store as _, Write},
    recovery::{self, Recovery},
};
use keyfile::{KeyFileError, KeyKind};
use serde::Serialize;
use store::{SqliteStore, StoreConfig};

use super::{DATABASE, Error, MANIFEST, Manifest, SETTINGS, io_error, passphrase_of};
use crate::{clock, config::Config, files::Files, keys, limits, next::Next, serve};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// A file that `backup` wrote
    pub(super) file: PathBuf,
    /// File with the fleet's root public key (root.pub): anyone can make a backup of a fleet of their own
    #[arg(long, value_name = "FILE", env = "SERVERFLOW_ROOT")]
    pub(super) root: PathBuf,
    /// File whose first line is the backup's passphrase, or with --recovery-key that key's; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Owner recovery key that the backup is sealed to
    #[arg(long, value_name = "KEYFILE")]
    pub(super) recovery_key: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(super) json: bool,
}

/// What was put in place.
#[derive(Serialize)]
struct Restored {
    data_dir: PathBuf,
    #[serde(flatten)]
    manifest: Manifest,
    settings_file: PathBuf,
}

/// Puts a backup in place, and says what to do next.
///
/// # Errors
/// See [`Error`]; the data directory is untouched then.
pub(crate) async fn run(config: Config, args: RestoreArgs, next: &Next) -> Result<(), Error> {
    let data_dir = config.data_dir.as_path();
    let manifest = restore(data_dir, &args).await?;
    let settings_file = data_dir.join(SETTINGS);
    let restored = Restored { data_dir: data_dir.to_owned(), manifest, settings_file };
    let text =
        if args.json { format!("{}\n", serde_json::json!(restored)) } else { restored.for_people(&config, next) };
    io::stdout().write_all(text.as_bytes()).map_err(io_error("tell what was restored to", data_dir))
}

async fn restore(data_dir: &Path, args: &RestoreArgs) -> Result<Manifest, Error> {
    if fs::exists(data_dir).map_err(io_error("look at", data_dir))?
        && fs::read_dir(data_dir).map_err(io_error("read", data_dir))?.next().is_some()
    {
        return Err(Error::NotEmpty { path: data_dir.to_owned() });
    }
    let root_key = root_key(&args.root)?;
    let opener = opener(args)?;
    let building = Building::new(data_dir)?;
    let (from, to) = (args.file.clone(), building.0.clone());
    let unpacked = tokio::task::spawn_blocking(move || unpack(&from, &opener, &to)).await;
    let manifest = unpacked.map_err(|error| io_error("read", &args.file)(io::Error::other(error)))??;
    accept(&Files::new(&building.0), &manifest, root_key, args).await?;
    building.move_to(data_dir)?;
    Ok(manifest)
}

/// A directory beside the final one; what is not moved goes with this.
struct Building(PathBuf);

impl Building {
    fn new(data_dir: &Path) -> Result<Self, Error> {
        let unusable = || Error::NotEmpty { path: data_dir.to_owned() };
        let mut name = data_dir.file_name().ok_or_else(unusable)?.to_owned();
        name.push(".restoring");
        let building = Self(data_dir.with_file_name(name));
        if fs::exists(&building.0).map_err(io_error("look at", &building.0))? {
            // Of an attempt that was cut.
            fs::remove_dir_all(&building.0).map_err(io_error("remove", &building.0))?;
        }
        for directory in [building.0.clone(), building.0.join("keys"), building.0.join("signer/keys")] {
            keyfile::private_directory(&directory)?;
        }
        // The parent was made with the child, and has its mode by the same mask.
        fs::set_permissions(building.0.join("signer"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(io_error("protect", &building.0))?;
        Ok(building)
    }

    fn move_to(self, data_dir: &Path) -> Result<(), Error> {
        for directory in ["keys", "signer/keys", "signer", "."] {
            let path = self.0.join(directory);
            File::open(&path).and_then(|directory| directory.sync_all()).map_err(io_error("write", &path))?;
        }
        fs::rename(&self.0, data_dir).map_err(io_error("move what was restored to", data_dir))?;
        let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(io_error("write", parent))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // Gone when it was moved; else the next attempt removes it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn root_key(path: &Path) -> Result<PublicKeyBytes, Error> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = File::open(path).map_err(io_error("read", path))?;
    let read = file.take(limits::PASSPHRASE_FILE_BYTES_MAX).read_to_string(&mut text);
    let wrong = || Error::RootFile { path: path.to_owned() };
    read.map_err(|_| wrong())?;
    text.trim().parse().map_err(|_| wrong())
}

fn opener(args: &RestoreArgs) -> Result<Opener, Error> {
    let passphrase = args.passphrase_file.as_deref().map(passphrase_of).transpose()?;
    match (&args.recovery_key, passphrase) {
        (Some(path), Some(passphrase)) => {
            let seed = keyfile::read_seed_encrypted(path, KeyKind::X25519, &passphrase)?;
            Ok(Opener::RecoveryKey(SealingSecretKey::from_bytes(&seed)))
        }
        (Some(path), None) => match keyfile::read_seed(path, KeyKind::X25519) {
            Ok(seed) => Ok(Opener::RecoveryKey(SealingSecretKey::from_bytes(&seed))),
            Err(error @ KeyFileError::Malformed { .. }) => {
                tracing::debug!(%error, "not a plain key");
                let ways = vec![format!("the key in {}, which needs its passphrase", path.display())];
                Err(Error::NoOpener { ways })
            }
            Err(error) => Err(error.into()),
        },
        (None, Some(passphrase)) => Ok(Opener::Passphrase(passphrase)),
        (None, None) => {
            let mut file = File::open(&args.file).map_err(io_error("read", &args.file))?;
            let ways = Reader::ways(&mut file)?;
            Err(Error::NoOpener { ways: ways.iter().map(ToString::to_string).collect() })
        }
    }
}

/// Writes every piece below `to`; answers when all of the backup was read and found whole.
fn unpack(from: &Path, opener: &Opener, to: &Path) -> Result<Manifest, Error> {
    let file = File::open(from).map_err(io_error("read", from))?;
    let mut reader = Reader::open(BufReader::new(file), opener)?;
    let unfit = |why: String| Error::Unfit { path: from.to_owned(), why };
    let first = reader.piece()?.filter(|piece| piece.name == MANIFEST && piece.length <= limits::BACKUP_KEY_BYTES_MAX);
    first.ok_or_else(|| unfit("it does not say what it is".to_owned()))?;
    let mut text = Vec::new();
    reader.copy(&mut text)?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| unfit(error.to_string()))?;
    while let Some(piece) = reader.piece()? {
        if !has_place(&piece.name) {
            return Err(unfit(format!("it holds {}, which this program does not know", piece.name)));
        }
        let path = to.join(&piece.name);
        let out = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        let mut out = BufWriter::new(out.map_err(io_error("write", &path))?);
        reader.copy(&mut out)?;
        let out = out.into_inner().map_err(|error| io_error("write", &path)(error.into_error()))?;
        out.sync_all().map_err(io_error("write", &path))?;
    }
    Ok(manifest)
}

/// Whether a piece belongs into a data directory.
fn has_place(name: &str) -> bool {
    use super::{KEYS, ROOT_PUBLIC, SIGNER_KEYS, SIGNER_SEQUENCES, SIGNER_TRUST};
    let known = [DATABASE, ROOT_PUBLIC, SETTINGS, SIGNER_TRUST, SIGNER_SEQUENCES];
    let is_key = |name: &str| match name.rsplit_once('/') {
        Some((directory, _)) => directory == KEYS || directory == SIGNER_KEYS,
        None => name == crate::certificate::CERT || name == crate::certificate::KEY,
    };
    known.contains(&name) || is_key(name)
}

/// Whether what was unpacked is this fleet's control plane and whole; then marks it as restored.
async fn accept(files: &Files, manifest: &Manifest, root_key: PublicKeyBytes, args: &RestoreArgs) -> Result<(), Error> {
    let unfit = |why: String| Error::Unfit { path: args.file.clone(), why };
    let keys = keys::load(files).map_err(|error| unfit(error.to_string()))?;
    let config = || StoreConfig { path: files.database(), data_key: keys.data.clone() };
    let examined = store::examine(config()).await?;
    let root = rooted(&examined.root_chain, root_key).map_err(|why| Error::OtherFleet {
        path: args.file.clone(),
        root: args.root.clone(),
        why,
    })?;
    // Whoever made it had the keys that root metadata lists, and so was this fleet's control plane.
    serve::check_keys(files, &root, &keys).map_err(|error| unfit(error.to_string()))?;
    let fleet = root.current().fleet;
    if (fleet, root.version(), examined.audit.leaves) != (manifest.fleet_id, manifest.root_version, manifest.log_size) {
        return Err(unfit("what it says of itself is not what it holds".to_owned()));
    }
    signer::examine(&files.signer())?;
    signer::examine_sequences(&files.signer(), fleet)?;

    let store = SqliteStore::open(config()).await?;
    let position = store.audit_position();
    let recovery = Recovery {
        restored_at: clock::now(),
        backup_made_at: manifest.made_ms,
        log: LogPosition { log: root.current().audit_log, size: position.size, root: position.root },
        confirmed_at: None,
    };
    let by = rustix::process::getuid().as_raw();
    let marked = store.write(Write::Recovery(Box::new(recovery::restored(recovery, by)))).await;
    store.close().await;
    marked?;
    Ok(())
}

/// The chain, from the root key that somebody holds in their hand.
fn rooted(chain: &[Vec<u8>], key: PublicKeyBytes) -> Result<TrustedRoot, String> {
    let (first, later) = chain.split_first().ok_or("it has no root metadata")?;
    let mut root = TrustedRoot::pin_key(first, key).map_err(|error| error.to_string())?;
    for envelope in later {
        root.advance(envelope).map_err(|error| error.to_string())?;
    }
    Ok(root)
}

impl Restored {
    fn for_people(&self, config: &Config, next: &Next) -> String {
        let Self { manifest, settings_file, data_dir } = self;
        let mut text = format!(
            "The control plane of fleet {} is in {}, as it was {}.\n\n\
             Hosts          {}\n\
             Root metadata  version {}\n\
             Audit log      {} entries, all of them verified\n\
             Settings       {}   (what was configured; copy what you need)\n\n\
             It orders nothing yet: it does not know what was done, revoked or changed since. All sign-ins, API tokens and join \
             tokens are void; passwords are as they were. Next:\n",
            manifest.fleet_id,
            crate::next::shown(data_dir),
            api::Timestamp(manifest.made_ms),
            manifest.hosts,
            manifest.root_version,
            manifest.log_size,
            crate::next::shown(settings_file),
        );
        if config.signer_socket.is_some() {
            text.push_str(&format!(
                "  move {}/signer to the signer's own directory, make it the signer's user's, and start the signer\n",
                crate::next::shown(data_dir)
            ));
        }
        text.push_str(&format!(
            "  serverflow-control-plane serve{}\n  serverflow login …\n  serverflow recovery status       says what comes then, \
             step by step\n",
            next.flags()
        ));
        text
    }
}
