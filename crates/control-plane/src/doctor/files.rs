//! The data directory, the files in it, and the keys among them.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Finding, keys};
use crate::{files::Files, keys::Keys};

/// Is the data directory there, and its owner's alone? Also whether there is any use in looking into it.
pub(super) fn directory(files: &Files) -> (Finding, bool) {
    let (check, path) = ("data", files.directory());
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let advice =
                "Say where it is with --data-dir or --config, or make a fleet with `serverflow-control-plane init`.";
            return (Finding::fail(check, format!("{shown} cannot be looked at: {error}"), advice), false);
        }
    };
    if !files.database().exists() {
        let advice = "Say where the control plane's data is with --data-dir or --config, or make a fleet with `serverflow-control-plane init`.";
        return (Finding::fail(check, format!("{shown} holds no control plane"), advice), false);
    }
    let (mode, owner, own) = (metadata.mode() & 0o777, metadata.uid(), rustix::process::geteuid().as_raw());
    let finding = if mode & 0o077 != 0 {
        let found = format!("{shown} has mode {mode:03o}: others on this machine can look into it");
        Finding::fail(check, found, format!("Run `chmod 700 {shown}`."))
    } else if owner != own && own != 0 {
        let found = format!("{shown} belongs to user {owner}, and this is user {own}");
        Finding::fail(check, found, "Run `doctor` and the control plane as the user that the directory belongs to.")
    } else {
        Finding::ok(check, format!("{shown} belongs to user {owner} alone"))
    };
    (finding, true)
}

/// Is each file its owner's alone?
pub(super) fn owned(files: &Files) -> Option<Finding> {
    let (check, path) = ("files", files.directory());
    let owner = fs::metadata(path).ok()?.uid();
    let mut wrong = Vec::new();
    for directory in [path.to_owned(), path.join("keys"), files.signer().directory().to_owned(), files.signer().keys()]
    {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.path().strip_prefix(path).map_or_else(|_| entry.path(), Path::to_owned);
            let (name, mode) = (name.display().to_string(), metadata.mode() & 0o777);
            if metadata.uid() != owner {
                wrong.push(format!("{name} belongs to user {}", metadata.uid()));
            } else if !metadata.is_symlink() && mode & 0o022 != 0 {
                wrong.push(format!("{name} has mode {mode:03o}"));
            }
        }
    }
    wrong.sort();
    let shown = path.display();
    if wrong.is_empty() {
        return Some(Finding::ok(check, format!("each file in {shown} is its owner's alone to change")));
    }
    let found = format!("in {shown} others may change or own what the control plane relies on: {}", wrong.join(", "));
    let advice = format!("Run `chown -R {owner} {shown}` and `chmod -R go-rwx {shown}`; ask who did that.");
    Some(Finding::fail(check, found, advice))
}

/// Are the keys there, well formed and private?
pub(super) fn keys(files: &Files) -> (Option<Keys>, Vec<Finding>) {
    let check = "keys";
    let mut findings = Vec::new();
    let needed = [files.session_key(), files.audit_key(), files.tls_key(), files.tls_key_next(), files.data_key()];
    let missing: Vec<_> =
        needed.iter().filter(|path| is_missing(path)).map(|path| path.display().to_string()).collect();
    let loaded = if missing.is_empty() {
        match keys::load(files) {
            Ok(keys) => {
                findings.push(Finding::ok(check, format!("{} key files are private and well formed", needed.len())));
                Some(keys)
            }
            Err(error) => {
                findings.push(Finding::error(check, &error));
                None
            }
        }
    } else {
        let advice = "Restore them from the same backup as the database; no other keys fit it.";
        findings.push(Finding::fail(check, format!("missing: {}", missing.join(", ")), advice));
        None
    };
    if files.root_key().exists() {
        let found = format!("the root key still lies on this machine ({})", files.root_key().display());
        let advice =
            "Copy it to where it is kept offline, look whether the copy opens with its passphrase, and delete it here.";
        findings.push(Finding::warn("root-key", found, advice));
    }
    (loaded, findings)
}

/// One that cannot be looked at is not missing: reading it says why.
fn is_missing(path: &PathBuf) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
