//! How root metadata changes: drafts, signatures gathered one by one, what is said of it, and the files.

use envelope::{
    SigningKey,
    keys::role::Root,
    limits,
    messages::{LogPosition, RootMetadata},
    root::{
        Added, DraftError, Edit, FileError, Progress, Proposal, RootError, RootFile, RootKeys, TrustedRoot, changes,
        check_structure, next_version, sign_root,
    },
};
use ids::{DurationMs, Epoch, RootVersion, Sha256};
use serde_json::{Value, json};

use crate::samples::{NOW, id, key, root_metadata, sealing_key, seeded};

fn root(n: u8) -> SigningKey<Root> {
    seeded(n)
}

fn keys(seeds: &[u8], threshold: u32) -> RootKeys {
    RootKeys { threshold, keys: seeds.iter().map(|&n| root(n).public()).collect() }
}

/// One of one: the sample's own root key.
fn quick_start() -> TrustedRoot {
    TrustedRoot::first(&sign_root(&[&key()], &root_metadata())).expect("a good first version")
}

/// Two of three: keys 1, 2, 3.
fn two_of_three() -> TrustedRoot {
    let RootKeys { threshold, keys } = keys(&[1, 2, 3], 2);
    let first = RootMetadata { root_keys: keys, root_threshold: threshold, ..root_metadata() };
    TrustedRoot::first(&sign_root(&[&root(1), &root(2)], &first)).expect("a good first version")
}

fn proposal(current: &TrustedRoot, edits: &[Edit]) -> Proposal {
    Proposal::new(&next_version(current.current(), edits, NOW).expect("a next version")).expect("a proposal")
}

fn missing(progress: &Progress) -> (Option<u32>, u32) {
    (progress.before.as_ref().map(|it| it.missing()), progress.own.missing())
}

#[test]
fn signatures_are_gathered_one_by_one_until_both_versions_have_enough() {
    let mut current = two_of_three();
    let RootKeys { keys, threshold } = keys(&[3, 4, 5], 2);
    let mut next = proposal(&current, &[Edit::RootKeys { keys, threshold }]);
    let hash = next.payload_sha256();
    assert_eq!(missing(&next.progress(Some(&current))), (Some(2), 2));
    assert!(matches!(current.preview(&next.envelope()), Err(RootError::Threshold { valid: 0, .. })));
    for (seed, left) in [(4, (Some(2), 1)), (1, (Some(1), 1)), (3, (Some(0), 0))] {
        // As if it travelled.
        next = Proposal::parse(&next.envelope()).expect("it is whole");
        assert!(!next.progress(Some(&current)).is_complete());
        assert_eq!(next.add_signature(Some(&current), &root(seed)), Ok(Added::Signed));
        assert_eq!(missing(&next.progress(Some(&current))), left, "after {seed}");
        assert_eq!(next.add_signature(Some(&current), &root(seed)), Ok(Added::WasThere), "once is once");
        assert_eq!(missing(&next.progress(Some(&current))), left);
    }
    assert_eq!(next.payload_sha256(), hash, "whoever signs, it says the same");
    assert_eq!(current.advance(&next.envelope()), Ok(RootVersion(2)));
    let progress = next.progress(Some(&two_of_three()));
    assert_eq!(progress.own.unsigned, [root(5).public()]);
    assert!(next.is_signed_by(&root(3).verifying()) && !next.is_signed_by(&root(5).verifying()));
}

#[test]
fn keys_without_a_say_are_refused_and_their_signatures_dropped() {
    let current = two_of_three();
    let mut next = proposal(&current, &[]);
    let refused = next.add_signature(Some(&current), &root(9));
    assert_eq!(refused, Err(RootError::NotARootKey { version: RootVersion(2), key: root(9).public() }));
    // A stranger's signature, and one of key 1 over something else, do not stand in the way.
    let other = proposal(&current, &[Edit::RaiseEpoch]);
    let mut crowded = sign_root(&[&root(9)], next.metadata());
    crowded = Proposal::parse(&crowded).expect("whole").envelope();
    let mut next = Proposal::parse(&crowded).expect("whole");
    assert_ne!(next.payload_sha256(), other.payload_sha256());
    assert_eq!(next.add_signature(Some(&current), &root(1)), Ok(Added::Signed));
    assert_eq!(next.add_signature(Some(&current), &root(3)), Ok(Added::Signed));
    assert_eq!(next.envelope(), sign_root(&[&root(1), &root(3)], next.metadata()), "the stranger is gone");
}

#[test]
fn what_cannot_follow_is_not_signed() {
    let current = two_of_three();
    let sign =
        |metadata: &RootMetadata| Proposal::new(metadata).expect("whole").add_signature(Some(&current), &root(1));
    let next = next_version(current.current(), &[], NOW).expect("a next version");
    assert_eq!(sign(&next), Ok(Added::Signed));
    let late = RootMetadata { version: RootVersion(3), ..next.clone() };
    assert!(matches!(sign(&late), Err(RootError::NotNext { .. })));
    let foreign = RootMetadata { fleet: id(99), ..next.clone() };
    assert!(matches!(sign(&foreign), Err(RootError::OtherFleet { .. })));
    let lowered = RootMetadata { epoch: Epoch(2), ..next.clone() };
    assert!(matches!(sign(&lowered), Err(RootError::EpochLowered { .. })));
    assert_eq!(
        Proposal::new(&next).expect("whole").check_follows(None),
        Err(RootError::NotFirst { found: RootVersion(2) })
    );
    let unsigned = RootMetadata { root_keys: Vec::new(), ..next };
    assert!(matches!(Proposal::new(&unsigned), Err(RootError::Structure { .. })));
}

#[test]
fn a_first_version_needs_its_own_keys_alone() {
    let RootKeys { keys, threshold } = keys(&[1, 2, 3], 2);
    let first = RootMetadata { root_keys: keys, root_threshold: threshold, ..root_metadata() };
    let mut first = Proposal::new(&first).expect("whole");
    assert_eq!(missing(&first.progress(None)), (None, 2));
    for seed in [2, 3] {
        assert_eq!(first.add_signature(None, &root(seed)), Ok(Added::Signed));
    }
    assert!(first.progress(None).is_complete());
    assert!(TrustedRoot::first(&first.envelope()).is_ok());
    assert!(TrustedRoot::pin_key(&first.envelope(), root(2).public()).is_ok());
    assert!(matches!(TrustedRoot::first(&proposal(&quick_start(), &[]).envelope()), Err(RootError::NotFirst { .. })));
}

/// Every edit, the field it changes, and how that is said.
#[test]
fn every_change_is_made_and_said() {
    let key = |n| root(n).public();
    let current = root_metadata();
    let log = LogPosition { log: id(2), size: 9, root: Sha256([8; 32]) };
    let edits: Vec<(Edit, &str, &str)> = vec![
        (Edit::RootKeys { keys: vec![current.root_keys[0], key(60)], threshold: 2 }, "root_keys", "is added"),
        (
            Edit::Addresses(vec!["a.example:1".into()]),
            "addresses",
            "agents dial a.example:1 (until then control.example:7443",
        ),
        (Edit::AddRecoveryKey(sealing_key(61)), "recovery_keys", "is added"),
        (Edit::DropRecoveryKey(sealing_key(20)), "recovery_keys", "is dropped"),
        (Edit::AddSessionKey(key(62)), "session_keys", "session key"),
        (Edit::AddCommandKey(key(63)), "command_keys", "is added"),
        (Edit::DropCommandKey(key(22)), "command_keys", "is dropped"),
        (Edit::AddApprover(key(64)), "approver_keys", "is added"),
        (Edit::ApprovalsChange(2), "approvals.change", "class change need 2 approvals (1 until then)"),
        (Edit::ApprovalsDestructive(1), "approvals.destructive", "need 1 approvals (2 until then)"),
        (Edit::AuditKey(key(65)), "audit_key", "is added"),
        (Edit::RestoredLog { before: log, log: id(5) }, "audit_log", "is kept from then on"),
        (Edit::AddTlsPin(Sha256([66; 32])), "tls_pins", "TLS pin"),
        (Edit::ProtocolMin(2), "protocol_min", "protocol 2 or later (1 until then)"),
        (Edit::RaiseEpoch, "epoch", "the epoch goes from 3 to 4: everything signed before is void"),
    ];
    for (edit, field, words) in edits {
        let next = next_version(&current, core::slice::from_ref(&edit), NOW).expect("a next version");
        let said = changes(&current, &next);
        let found = said.iter().any(|change| change.field == field && change.words.contains(words));
        assert!(found, "{edit:?}: {said:?}");
        // Nothing else differs but what belongs to it.
        let others = said.iter().filter(|change| change.field != field).map(|change| change.field).collect::<Vec<_>>();
        let belongs: &[&str] = match field {
            "root_keys" => &["root_threshold"],
            "audit_log" => &["restored_log"],
            _ => &[],
        };
        assert_eq!(others, belongs, "{edit:?}");
    }
    let later = NOW.plus(DurationMs::from_days(1));
    let renewed = next_version(&current, &[], later).expect("a next version");
    assert_eq!((renewed.issued, renewed.expires), (later, later.plus(limits::ROOT_LIFETIME)));
    let said: Vec<_> = changes(&current, &renewed).into_iter().map(|change| change.words).collect();
    assert_eq!(said, ["it is valid until 2028-02-20 (until then 2028-02-19)"]);
}

#[test]
fn drafts_that_make_no_sense_are_refused() {
    let current = root_metadata();
    let refused = |edits: &[Edit]| next_version(&current, edits, NOW).expect_err("refused");
    let twice = Edit::AddCommandKey(current.command_keys[0]);
    assert!(matches!(refused(&[twice]), DraftError::Listed { what: "command key", .. }));
    let unknown = Edit::DropTlsPin(Sha256([99; 32]));
    assert!(matches!(refused(&[unknown]), DraftError::NotListed { what: "TLS pin", .. }));
    let last = Edit::DropSessionKey(current.session_keys[0]);
    assert!(matches!(refused(&[last]), DraftError::Rule(RootError::Structure { .. })));
    assert!(matches!(refused(&[Edit::ApprovalsChange(3)]), DraftError::Rule(_)), "more than there are approvers");
    let early = next_version(&current, &[], NOW.minus(DurationMs(1)));
    assert_eq!(early, Err(DraftError::ClockBehind));
    let end = RootMetadata { version: RootVersion(u64::MAX), ..current.clone() };
    assert_eq!(next_version(&end, &[], NOW), Err(DraftError::NoNext { what: "version" }));
    let swapped = [Edit::AddTlsPin(Sha256([99; 32])), Edit::DropTlsPin(current.tls_pins[0])];
    assert_eq!(check_structure(&next_version(&current, &swapped, NOW).expect("in their order")), Ok(()));
}

#[test]
fn a_version_is_known_whoever_of_its_keys_signed() {
    let mut current = two_of_three();
    let next = next_version(current.current(), &[], NOW).expect("a next version");
    let (by_12, by_23) = (sign_root(&[&root(1), &root(2)], &next), sign_root(&[&root(2), &root(3)], &next));
    assert!(!current.holds(&by_12));
    current.advance(&by_12).expect("good");
    assert!(current.holds(&by_23) && current.is_present(&by_23) && current.holds(&current.chain()[0]));
    assert!(!current.is_present(&current.chain()[0]) && !current.holds(b"x"));
}

fn document(file: &RootFile) -> Value {
    serde_json::from_str(&file.write().expect("text")).expect("JSON")
}

fn read(document: &Value) -> Result<RootFile, FileError> {
    RootFile::read(document.to_string().as_bytes())
}

#[test]
fn a_file_travels_and_comes_back_with_signatures() {
    let chain = two_of_three();
    let mut file = RootFile { proposed: proposal(&chain, &[Edit::RaiseEpoch]), chain: Some(chain) };
    assert!(matches!(file.completed(), Err(RootError::Threshold { .. })));
    for seed in [1, 3] {
        file = read(&document(&file)).expect("whole");
        let RootFile { chain, proposed } = &mut file;
        proposed.add_signature(chain.as_ref(), &root(seed)).expect("signed");
    }
    let completed = file.completed().expect("complete");
    assert_eq!((completed.version(), completed.current().epoch), (RootVersion(2), Epoch(4)));
    let exported = RootFile::of_chain(&completed).expect("a file");
    assert_eq!(read(&document(&exported)).expect("whole").completed(), Ok(completed));
    let alone = RootFile::of_chain(&quick_start()).expect("a file");
    assert!(alone.chain.is_none());
    assert_eq!(read(&document(&alone)).expect("whole").completed(), Ok(quick_start()));
}

#[test]
fn a_file_that_cannot_be_used_says_where_and_why() {
    let chain = two_of_three();
    let good = document(&RootFile { proposed: proposal(&chain, &[]), chain: Some(chain) });
    assert!(read(&good).is_ok());
    let edited = |edit: fn(&mut Value)| {
        let mut document = good.clone();
        edit(&mut document);
        read(&document).err().expect("refused").to_string()
    };
    let check = |words: String, expected: &str| assert!(words.contains(expected), "{expected}: {words}");
    check(edited(|it| it["format"] = json!("x")), "format: it is \"x\"");
    check(edited(|it| it["format_version"] = json!(2)), "format_version: this release reads version 1, and it is 2");
    check(edited(|it| it["extra"] = json!(2)), "unknown field `extra`");
    check(edited(|it| it["chain"][0] = json!("!")), "chain[0]: it is not base64");
    check(edited(|it| it["chain"][0] = json!("AAAA")), "chain[0]: root metadata: the envelope is refused");
    check(edited(|it| it["chain"] = json!([])), "proposed: root metadata: the chain begins with version 2");
    let doubled = edited(|it| it["chain"] = json!([it["chain"][0], it["chain"][0]]));
    check(doubled, "chain[1]: root metadata: version 1 cannot follow");
    check(
        edited(|it| it["proposed"] = it["chain"][0].clone()),
        "proposed: root metadata: version 1 cannot follow version 1",
    );
    let torn = good.to_string();
    let torn = RootFile::read(&torn.as_bytes()[..torn.len() / 2]).err().expect("refused").to_string();
    check(torn, "at line 1 column");
    check(RootFile::read(b"{}").err().expect("refused").to_string(), "format: it is \"\"");
    check(RootFile::read(&vec![b' '; 17 << 20]).err().expect("refused").to_string(), "at most");
}

#[test]
fn public_halves_of_root_keys_are_read_with_care() {
    let good = keys(&[1, 2, 3], 2);
    let text = good.write().expect("text");
    assert_eq!(RootKeys::read(text.as_bytes()).expect("whole"), good);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let edited = |edit: fn(&mut Value)| {
        let mut document = document.clone();
        edit(&mut document);
        RootKeys::read(document.to_string().as_bytes()).expect_err("refused").to_string()
    };
    let check = |words: String, expected: &str| assert!(words.contains(expected), "{expected}: {words}");
    check(edited(|it| it["threshold"] = json!(0)), "threshold: it is 0; 1 to 3");
    check(edited(|it| it["threshold"] = json!(4)), "threshold: it is 4; 1 to 3");
    check(edited(|it| it["keys"] = json!([])), "keys: there are 0");
    check(edited(|it| it["keys"][1] = it["keys"][0].clone()), "keys[1]: this key stands there twice");
    check(edited(|it| it["keys"][2] = json!("12")), "keys[2]: expected a public key");
    check(edited(|it| it["keys"][0] = json!("00".repeat(32))), "keys[0]: a weak key");
    check(
        edited(|it| it["format"] = json!("serverflow-root")),
        "format: it is \"serverflow-root\"; expected \"serverflow-root-keys\"",
    );
}
