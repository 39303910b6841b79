//! Changes of keys in a control plane's own directory, cut anywhere.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::*;
use crate::{init, keys};

const ROLES: [OnlineRole; 3] = [OnlineRole::Session, OnlineRole::Audit, OnlineRole::Tls];

/// What a start finds.
fn started(files: &Files) -> OnlineKeys {
    OnlineKeys::new(files.clone(), keys::load(files).expect("keys")).expect("a certificate")
}

async fn made(directory: &Path) -> Files {
    Files::new(&init::tests::made(directory).await)
}

fn staged(keys: &OnlineKeys, role: OnlineRole) -> StagedKeys {
    let old = keys.in_use(role).expect("one in use");
    let next = (role == OnlineRole::Tls).then(|| keys.tls_next().expect("one that comes next"));
    let fresh = keys.prepare(role).expect("made");
    StagedKeys { role, old, new: next.unwrap_or(fresh), fresh, is_emergency: false }
}

fn names(files: &Files) -> Vec<String> {
    let entries = fs::read_dir(files.directory().join("keys")).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_key_is_changed_step_by_step_whatever_is_done_twice_or_cut() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = made(directory.path()).await;
    let before = names(&files);
    for role in ROLES {
        let keys = started(&files);
        let change = staged(&keys, role);
        assert_ne!(change.old, change.new);
        assert_eq!(started(&files).in_use(role), Some(change.old), "{role}: prepared is not used");
        let fresh = keys.fresh_file(role);
        assert_eq!(fs::metadata(&fresh).expect("there").mode() & 0o777, 0o600, "{role}");

        keys.activate(&change).expect("activated");
        assert_eq!(keys.in_use(role), Some(change.new), "{role}: without a restart");
        for keys in [keys, started(&files)] {
            keys.activate(&change).expect("again");
            assert_eq!(keys.in_use(role), Some(change.new), "{role}");
        }
        let keys = started(&files);
        keys.retire(&change).expect("retired");
        for keys in [keys, started(&files)] {
            keys.retire(&change).expect("again");
            assert_eq!(keys.in_use(role), Some(change.new), "{role}");
        }
        assert_eq!(names(&files), before, "{role}: nothing of the old key is left");
        if role == OnlineRole::Tls {
            assert_eq!(started(&files).tls_next().expect("one that comes next"), change.fresh);
        }
    }
}

#[tokio::test]
async fn an_audit_key_is_held_beside_the_one_in_use_until_one_of_them_goes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = made(directory.path()).await;
    let keys = started(&files);
    let change = staged(&keys, OnlineRole::Audit);
    let public = |key: OnlineKey| PublicKeyBytes(key.0);
    // Which of them signs is what root metadata says, also after a restart between the two.
    for keys in [&keys, &started(&files)] {
        assert!(keys.audit(public(change.old)).is_some() && keys.audit(public(change.new)).is_some());
    }
    keys.activate(&change).expect("activated");
    keys.retire(&change).expect("retired");
    assert!(keys.audit(public(change.old)).is_none() && keys.audit(public(change.new)).is_some());
    let change = staged(&keys, OnlineRole::Audit);
    keys.abort(&change).expect("given up");
    assert!(keys.audit(public(change.old)).is_some() && keys.audit(public(change.new)).is_none());
}

#[tokio::test]
async fn what_is_given_up_or_forgotten_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = made(directory.path()).await;
    let before = names(&files);
    for role in ROLES {
        let keys = started(&files);
        let change = staged(&keys, role);
        keys.abort(&change).expect("given up");
        keys.abort(&change).expect("again");
        assert_eq!((names(&files), keys.in_use(role)), (before.clone(), Some(change.old)), "{role}");
        // Made, and cut before anybody was told of it.
        let forgotten = keys.prepare(role).expect("made");
        let change = staged(&started(&files), role);
        assert_ne!(change.fresh, forgotten, "{role}");
        keys.abort(&change).expect("given up");
    }
}

#[tokio::test]
async fn a_key_is_not_put_to_use_in_place_of_another_than_was_meant() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = made(directory.path()).await;
    for role in ROLES {
        let keys = started(&files);
        let change = staged(&keys, role);
        let wrong = StagedKeys { new: OnlineKey([7; 32]), ..change };
        let refused = keys.activate(&wrong).expect_err("another key").to_string();
        assert!(refused.contains("does not hold"), "{refused}");
        let refused = keys.retire(&change).expect_err("it is in use").to_string();
        assert!(refused.contains("does not hold"), "{refused}");
        assert_eq!(keys.in_use(role), Some(change.old));
        keys.activate(&change).expect("the one that was meant");
    }
}
