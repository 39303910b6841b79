//! `init` with root keys that were made elsewhere: first everything but signatures, then, with them, the fleet.
//!
//! `--root-keys` makes this control plane's own keys and writes version 1 of root metadata, unsigned. Where that
//! file lies there is no database, so nothing runs. `--finish` takes the same file with its signatures.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use envelope::{
    messages::PublicKeyBytes,
    root::{FILE_BYTES_MAX, FileError, Proposal, RootError, RootFile, RootKeys, Threshold},
};
use ids::{FleetId, Sha256};
use serde::Serialize;

use super::{
    Furnishing, InitArgs, InitError, Initialised, hand_over, io_error, move_into_place, prepare, root_metadata,
    write_keys,
};
use crate::{
    clock,
    config::Config,
    files::Files,
    next::{Next, shown},
};

/// Why root keys from elsewhere make no fleet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElsewhereError {
    #[error("{path} cannot be used: {source}")]
    File {
        path: PathBuf,
        #[source]
        source: FileError,
    },
    #[error("the root metadata breaks a rule: {0}")]
    Rule(#[from] RootError),
    #[error(
        "{path} is not the root metadata that this control plane wrote (its hash is {found}, expected {expected}): \
         sign the file {own}, and give that"
    )]
    Other { path: PathBuf, own: PathBuf, expected: Sha256, found: Sha256 },
    #[error(
        "{path} needs {} more of its root keys' signatures; these have not signed: {}. Sign it with `serverflow root \
         sign {path} --key KEYFILE`", own.missing(), keys(&own.unsigned)
    )]
    Unsigned { path: PathBuf, own: Threshold },
    #[error("{path} waits for no root metadata: begin with `serverflow-control-plane init --root-keys FILE`")]
    NotBegun { path: PathBuf },
    #[error(
        "the fleet is ready, but its owner's password could not be printed; set another with \
         `serverflow-control-plane admin reset-password {name}`"
    )]
    Print {
        name: ids::UserName,
        #[source]
        source: io::Error,
    },
}

fn keys(keys: &[PublicKeyBytes]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What `init --root-keys` made.
#[derive(Serialize)]
struct Begun {
    fleet_id: FleetId,
    root_file: PathBuf,
    /// SHA-256 of the root metadata: what whoever signs can compare.
    root_sha256: Sha256,
    root_threshold: u32,
}

/// Makes this control plane's keys and the root metadata to be signed.
pub(super) async fn begin(config: &Config, root_keys: &Path, args: &InitArgs, next: &Next) -> Result<(), InitError> {
    let data_dir = config.data_dir.as_path();
    let used = |source| ElsewhereError::File { path: root_keys.to_owned(), source };
    let root = RootKeys::read(&read(root_keys)?).map_err(used)?;
    let building = prepare(data_dir, args)?;
    let made = build(config, &Files::new(&building), &root, args).await;
    let proposed = move_into_place(&building, data_dir, made)?;
    let begun = Begun {
        fleet_id: proposed.metadata().fleet,
        root_file: Files::new(data_dir).root_proposal(),
        root_sha256: proposed.payload_sha256(),
        root_threshold: root.threshold,
    };
    let text = if args.json { format!("{}\n", serde_json::json!(begun)) } else { begun.for_people(&root, next) };
    let path = data_dir;
    io::stdout().write_all(text.as_bytes()).map_err(|source| io_error("tell what was made in", path, source))
}

async fn build(config: &Config, files: &Files, root: &RootKeys, args: &InitArgs) -> Result<Proposal, InitError> {
    let metadata = root_metadata(&write_keys(config, files).await?, root, args, clock::now())?;
    let proposed = Proposal::new(&metadata).map_err(ElsewhereError::Rule)?;
    let file = RootFile { chain: None, proposed };
    let text = file.write().map_err(|source| ElsewhereError::File { path: files.root_proposal(), source })?;
    keyfile::write_text(&files.root_proposal(), &text)?;
    Ok(file.proposed)
}

impl Begun {
    fn for_people(&self, root: &RootKeys, next: &Next) -> String {
        let Self { fleet_id, root_file, root_sha256, root_threshold } = self;
        let file = shown(root_file);
        format!(
            "Fleet {fleet_id} waits for its root.\n\n\
             Root metadata     {}\n\
             Its SHA-256       {root_sha256}\n\
             Signatures needed {root_threshold} of {}\n\n\
             Take that file to each machine with a root key and sign it there:\n  \
             serverflow root sign root-proposal.json --key KEYFILE\n\
             Bring it back, and\n  \
             serverflow-control-plane init --finish root-proposal.json{}\n",
            file,
            root.keys.len(),
            next.flags(),
        )
    }
}

/// Makes the fleet of what `--root-keys` began.
pub(super) async fn finish(config: &Config, path: &Path, args: &InitArgs, next: &Next) -> Result<(), InitError> {
    let data_dir = config.data_dir.as_path();
    let files = Files::new(data_dir);
    if files.database().exists() {
        return Err(InitError::Exists { path: data_dir.to_owned() });
    }
    if !files.root_proposal().exists() {
        return Err(ElsewhereError::NotBegun { path: data_dir.to_owned() }.into());
    }
    let signed = signed(&files, path)?;
    let made = furnish(&files, &signed, args).await?;
    let text = if args.json { format!("{}\n", serde_json::json!(made)) } else { made.for_people(next) };
    let text = zeroize::Zeroizing::new(text);
    let mut out = io::stdout();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(|source| ElsewhereError::Print { name: args.admin.clone(), source })?;
    hand_over(config, signed.proposed.envelope()).await
}

/// The file, if it is this control plane's own root metadata and enough have signed it.
fn signed(files: &Files, path: &Path) -> Result<RootFile, InitError> {
    let opened = |path: &Path| {
        let failed = |source| ElsewhereError::File { path: path.to_owned(), source };
        Ok::<_, InitError>(RootFile::read(&read(path)?).map_err(failed)?)
    };
    let own = opened(&files.root_proposal())?;
    let given = opened(path)?;
    let (expected, found) = (own.proposed.payload_sha256(), given.proposed.payload_sha256());
    if expected != found {
        let (path, own) = (path.to_owned(), files.root_proposal());
        return Err(ElsewhereError::Other { path, own, expected, found }.into());
    }
    let own = given.proposed.progress(None).own;
    if own.missing() > 0 {
        return Err(ElsewhereError::Unsigned { path: path.to_owned(), own }.into());
    }
    Ok(given)
}

async fn furnish(files: &Files, signed: &RootFile, args: &InitArgs) -> Result<Initialised, InitError> {
    let root = signed.completed().map_err(ElsewhereError::Rule)?;
    let first = signed.proposed.progress(None).own.signed.first().copied();
    let root_public = first.unwrap_or(root.current().root_keys[0]);
    let finishing = files.finishing();
    if fs::exists(&finishing).map_err(|source| io_error("look at", &finishing, source))? {
        fs::remove_dir_all(&finishing).map_err(|source| io_error("remove", &finishing, source))?;
    }
    keyfile::private_directory(&finishing)?;
    let made = Furnishing {
        files: &Files::new(&finishing),
        destination: files,
        data_key: keyfile::read_symmetric(&files.data_key())?,
        root_public,
    };
    let made = made.furnish(root.current(), signed.proposed.envelope(), args, clock::now()).await?;
    take_out(files, &finishing)?;
    Ok(made)
}

/// Moves what was made to where it belongs: the database last, because with it there is a fleet.
fn take_out(files: &Files, finishing: &Path) -> Result<(), InitError> {
    let database = Files::new(finishing).database();
    let listed = fs::read_dir(finishing).map_err(|source| io_error("read", finishing, source))?;
    let mut made: Vec<PathBuf> = Vec::new();
    for entry in listed {
        made.push(entry.map_err(|source| io_error("read", finishing, source))?.path());
    }
    made.sort_by_key(|path| *path == database);
    for path in made {
        let Some(name) = path.file_name() else { continue };
        fs::rename(&path, files.directory().join(name)).map_err(|source| io_error("move", &path, source))?;
    }
    let directory = files.directory();
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| io_error("write", directory, source))?;
    // From here on these two mean nothing any more.
    let _ = (fs::remove_dir(finishing), fs::remove_file(files.root_proposal()));
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, InitError> {
    let mut bytes = Vec::new();
    let most = FILE_BYTES_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(|source| io_error("read", path, source))?;
    Ok(bytes)
}
