//! `backup FILE`.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use backup::{Lock, Writer};
use envelope::root::TrustedRoot;
use serde::Serialize;
use signer::Place;
use store::StoreConfig;
use zeroize::Zeroizing;

use super::{
    DATABASE, Error, KEYS, MANIFEST, Manifest, ROOT_PUBLIC, SETTINGS, SIGNER_KEYS, SIGNER_SEQUENCES, SIGNER_TRUST,
    io_error, passphrase_of,
};
use crate::{certificate, clock, config::Config, files::Files, limits, next::shown};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// File to write; it must not exist yet
    pub(super) file: PathBuf,
    /// File whose first line is a passphrase that opens the backup; `-` reads standard input. Without it and without
    /// owner recovery keys one is made and shown once
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Directory of a signer that is a service of its own
    #[arg(long, value_name = "DIR")]
    pub(super) signer_dir: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(super) json: bool,
}

/// What was written.
#[derive(Serialize)]
struct Made {
    file: PathBuf,
    bytes: u64,
    #[serde(flatten)]
    manifest: Manifest,
    /// Owner recovery keys that open it.
    recovery_keys: Vec<String>,
    /// Made for this backup and shown once.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reveal")]
    passphrase: Option<Zeroizing<String>>,
}

fn reveal<S: serde::Serializer>(secret: &Option<Zeroizing<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_some(&secret.as_ref().map(|secret| secret.as_str()))
}

/// Small pieces, held in memory.
type Small = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Makes a backup, and says what is in it and what opens it.
///
/// # Errors
/// See [`Error`]; nothing is left at the file's place then.
pub(crate) async fn run(config: Config, args: BackupArgs) -> Result<(), Error> {
    let file = args.file.clone();
    let (made, text) = make(&config, &args).await?;
    let text = if args.json { Zeroizing::new(format!("{}\n", serde_json::json!(made))) } else { text };
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|source| {
        if made.passphrase.is_some() {
            // Nobody could ever open it.
            let _ = fs::remove_file(&file);
        }
        Error::Print { path: file, source }
    })
}

async fn make(config: &Config, args: &BackupArgs) -> Result<(Made, Zeroizing<String>), Error> {
    let files = Files::new(&config.data_dir);
    if !files.database().exists() {
        return Err(Error::NotInitialised { path: config.data_dir.clone() });
    }
    if fs::exists(&args.file).map_err(io_error("look at", &args.file))? {
        return Err(Error::Exists { path: args.file.clone() });
    }
    let place = signer_place(config, args, &files)?;
    let given = args.passphrase_file.as_deref().map(passphrase_of).transpose()?;

    let _one_at_a_time = one_at_a_time(&files)?;
    let copy = Copied(files.directory().join("backup.snapshot.db"));
    copy.remove();
    let mut small = Small::new();
    put(&mut small, SIGNER_TRUST, &place.trust(), limits::BACKUP_PIECE_BYTES_MAX)?;
    put_keys(&mut small, &files, &place)?;
    store::snapshot(&files.database(), &copy.0).await?;
    put_keys(&mut small, &files, &place)?;
    put(&mut small, SIGNER_SEQUENCES, &place.sequences(), limits::BACKUP_PIECE_BYTES_MAX)?;
    put_rest(&mut small, config, &files)?;

    // What would not come back is found now, and not on the day it is needed.
    let data_key = keyfile::read_symmetric(&files.data_key())?;
    let examined = store::examine(StoreConfig { path: copy.0.clone(), data_key }).await?;
    let root = TrustedRoot::from_stored(&examined.root_chain)?;
    let manifest = Manifest {
        fleet_id: root.current().fleet,
        made_ms: clock::now(),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        root_version: root.version(),
        hosts: examined.hosts,
        log: root.current().audit_log,
        log_size: examined.audit.leaves,
    };
    let recovery_keys = root.current().recovery_keys.clone();
    let shown_once = (given.is_none() && recovery_keys.is_empty()).then(keyfile::passphrase).transpose()?;
    let lock = Lock { recovery_keys: recovery_keys.clone(), passphrase: given.or_else(|| shown_once.clone()) };
    let (target, snapshot, said) = (args.file.clone(), copy.0.clone(), manifest.clone());
    let written = tokio::task::spawn_blocking(move || write(&target, &lock, &said, &small, &snapshot));
    let bytes = written.await.map_err(|error| io_error("write", &args.file)(io::Error::other(error)))??;
    let recovery_keys = recovery_keys.iter().map(ToString::to_string).collect();
    let made = Made { file: args.file.clone(), bytes, manifest, recovery_keys, passphrase: shown_once };
    let text = made.for_people(args.passphrase_file.is_some());
    Ok((made, text))
}

/// Where the signer keeps its things.
fn signer_place(config: &Config, args: &BackupArgs, files: &Files) -> Result<Place, Error> {
    let place = match (&args.signer_dir, &config.signer_socket) {
        (Some(directory), _) => Place::new(directory),
        (None, Some(_)) => return Err(Error::SignerElsewhere),
        (None, None) => files.signer(),
    };
    // Its directory may be another user's: what cannot be looked at is said when it is read.
    match place.trust().symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::NoSigner { path: place.directory().to_owned() })
        }
        _ => Ok(place),
    }
}

/// The copy of the database; it goes with this.
struct Copied(PathBuf);

impl Copied {
    fn remove(&self) {
        // One that was never made is gone as well; any other failure is met when it is written.
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Held as long as a backup of this directory is being made.
fn one_at_a_time(files: &Files) -> Result<File, Error> {
    let path = files.directory().join("backup.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: files.directory().to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn put(small: &mut Small, name: &str, path: &Path, most: u64) -> Result<(), Error> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(io_error("read", path))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > most {
        return Err(io_error("back up", path)(io::ErrorKind::FileTooLarge.into()));
    }
    small.insert(name.to_owned(), bytes);
    Ok(())
}

/// Every key there is: what was read before and is gone by now stays.
fn put_keys(small: &mut Small, files: &Files, place: &Place) -> Result<(), Error> {
    for (name, directory) in [(KEYS, files.directory().join("keys")), (SIGNER_KEYS, place.keys())] {
        for entry in fs::read_dir(&directory).map_err(io_error("read", &directory))? {
            let path = entry.map_err(io_error("read", &directory))?.path();
            let piece = path.file_name().and_then(|file| file.to_str()).map(|file| format!("{name}/{file}"));
            // Anything else there is not of this program.
            let Some(piece) = piece.filter(|piece| path.is_file() && backup::is_name(piece)) else { continue };
            match put(small, &piece, &path, limits::BACKUP_KEY_BYTES_MAX) {
                // Dropped at this very moment.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                put => put?,
            }
        }
    }
    Ok(())
}

fn put_rest(small: &mut Small, config: &Config, files: &Files) -> Result<(), Error> {
    let people = [certificate::CERT, certificate::KEY].map(|name| (name, files.directory().join(name)));
    let here = people.into_iter().filter(|(_, path)| path.exists());
    for (name, path) in here.chain([(ROOT_PUBLIC, files.root_public())]) {
        put(small, name, &path, limits::BACKUP_KEY_BYTES_MAX)?;
    }
    small.insert(SETTINGS.to_owned(), Zeroizing::new(config.anywhere().into_bytes()));
    Ok(())
}

/// Writes the file beside its place and moves it there when all of it is durable. Answers its length.
fn write(file: &Path, lock: &Lock, manifest: &Manifest, small: &Small, snapshot: &Path) -> Result<u64, Error> {
    let partial = file.with_added_extension("partial");
    let out = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial);
    let out = out.map_err(io_error("write", &partial))?;
    let written = fill(out, lock, manifest, small, snapshot).and_then(|out| {
        out.sync_all().map_err(io_error("write", &partial))?;
        let bytes = out.metadata().map_err(io_error("write", &partial))?.len();
        // Never over another file, not even one that came meanwhile.
        fs::hard_link(&partial, file).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { path: file.to_owned() },
            _ => io_error("write", file)(source),
        })?;
        Ok(bytes)
    });
    let _ = fs::remove_file(&partial);
    let bytes = written?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(io_error("write", parent))?;
    Ok(bytes)
}

fn fill(out: File, lock: &Lock, manifest: &Manifest, small: &Small, snapshot: &Path) -> Result<File, Error> {
    let mut writer = Writer::new(BufWriter::new(out), lock)?;
    let head = serde_json::to_vec(manifest).expect("invariant: words and numbers");
    writer.piece(MANIFEST, head.len() as u64, &mut head.as_slice())?;
    for (name, bytes) in small {
        writer.piece(name, bytes.len() as u64, &mut bytes.as_slice())?;
    }
    let mut database = File::open(snapshot).map_err(io_error("read", snapshot))?;
    let length = database.metadata().map_err(io_error("read", snapshot))?.len();
    writer.piece(DATABASE, length, &mut database)?;
    let out = writer.finish()?;
    out.into_inner().map_err(|error| io_error("write", snapshot)(error.into_error()))
}

impl Made {
    fn for_people(&self, is_given: bool) -> Zeroizing<String> {
        let Self { file, bytes, manifest, recovery_keys, passphrase } = self;
        let mut text = Zeroizing::new(format!(
            "The control plane of fleet {} is backed up.\n\n\
             File           {} ({bytes} bytes)\n\
             Hosts          {}\n\
             Root metadata  version {}\n\
             Audit log      {} entries, all of them verified\n",
            manifest.fleet_id,
            shown(file),
            manifest.hosts,
            manifest.root_version,
            manifest.log_size,
        ));
        for key in recovery_keys {
            text.push_str(&format!("Opens with     owner recovery key {key}\n"));
        }
        if is_given {
            text.push_str("Opens with     the passphrase given\n");
        }
        if let Some(passphrase) = passphrase {
            text.push_str(&format!("Passphrase     {}   (shown once)\n", passphrase.as_str()));
        }
        text.push_str(
            "\nKeep it on another machine, and what opens it somewhere else again: whoever has both holds every key of this \
             control plane.\n",
        );
        text
    }
}
