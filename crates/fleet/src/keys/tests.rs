//! The steps of a change against root metadata as it goes on.

use envelope::{
    keys::{SigningKey, role},
    messages::{ApprovalThresholds, ReportPosition},
    root::{Edit, next_version},
};
use ids::{AuditLogId, Epoch, FleetId, HostEpoch, Sequence, Sha256};

use super::*;

const NOW: UnixMs = UnixMs(1_790_000_000_000);

fn key(n: u8) -> OnlineKey {
    SigningKey::<role::Command>::from_seed(&[n; 32]).public().into()
}

fn root() -> RootMetadata {
    let public = |n: u8| envelope::messages::PublicKeyBytes(key(n).0);
    RootMetadata {
        version: RootVersion(1),
        issued: NOW,
        expires: NOW.plus(DurationMs::from_days(400)),
        fleet: FleetId::from_bytes([5; 16]),
        root_keys: vec![public(1)],
        root_threshold: 1,
        addresses: vec!["control.example.org:7443".to_owned()],
        recovery_keys: Vec::new(),
        session_keys: vec![public(2)],
        command_keys: vec![public(3)],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: public(4),
        audit_log: AuditLogId::from_bytes([6; 16]),
        restored_log: None,
        tls_pins: vec![Sha256([9; 32]), Sha256([10; 32])],
        protocol_min: 1,
        epoch: Epoch(3),
    }
}

fn staged(role: OnlineRole, is_emergency: bool) -> StagedKeys {
    let (old, new, fresh) = match role {
        OnlineRole::Session => (key(2), key(20), key(20)),
        OnlineRole::Command => (key(3), key(20), key(20)),
        OnlineRole::Audit => (key(4), key(20), key(20)),
        OnlineRole::Tls => (OnlineKey([9; 32]), OnlineKey([10; 32]), OnlineKey([11; 32])),
    };
    StagedKeys { role, old, new, fresh, is_emergency }
}

fn after(root: &RootMetadata, edits: &[Edit]) -> RootMetadata {
    next_version(root, edits, NOW).expect("a next version")
}

fn host(n: u8, root_version: u64, standing: HostStanding) -> Host {
    Host {
        id: HostId::from_bytes([n; 16]),
        name: format!("host-{n}").parse().expect("a name"),
        roles: Vec::new(),
        labels: Default::default(),
        identity_key: envelope::messages::PublicKeyBytes(key(n).0),
        sealing_key: envelope::seal::SealingSecretKey::from_bytes(&[n; 32]).public(),
        host_epoch: HostEpoch(1),
        standing,
        quarantine: Default::default(),
        clock_skew_ms: None,
        allocated: Sequence(0),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
        audit_head: None,
        boots: Vec::new(),
        actions: Vec::new(),
        agent_version: String::new(),
        root_version: RootVersion(root_version),
        enrolled_at: NOW,
        last_seen: Some(NOW),
        receipt: Vec::new(),
    }
}

fn reached(waiting: usize) -> Reached {
    Reached { waiting: vec!["late".parse().expect("a name"); waiting], ..Reached::default() }
}

/// Makes every step that can be made, and answers where that ends.
fn driven(change: &mut KeyChange, root: &RootMetadata, reached: &Reached) -> ChangeState {
    while let Some(step) = next_step(change, root, reached) {
        change.state = step.leads_to();
    }
    change.state
}

#[test]
fn a_staged_change_waits_for_root_metadata_for_hosts_and_for_root_metadata_again() {
    for role in [OnlineRole::Command, OnlineRole::Session, OnlineRole::Tls] {
        let first = root();
        let mut change = KeyChange::new(staged(role, false), "ada".to_owned(), NOW);
        assert_eq!(driven(&mut change, &first, &reached(0)), ChangeState::Prepared, "{role}");
        let both = after(&first, &change.keys.publish(&first));
        assert!(change.keys.publish(&both).is_empty() && !change.keys.is_dropped(&both), "{role}");
        assert_eq!(both.epoch, first.epoch);
        assert_eq!(driven(&mut change, &both, &reached(1)), ChangeState::Published, "{role}");
        // As if it went wrong: a version in between that lost the key again.
        assert_eq!(next_step(&change, &first, &reached(0)), None, "{role}");
        assert_eq!(driven(&mut change, &both, &reached(0)), ChangeState::Activated, "{role}");
        let last = after(&both, &change.keys.drop_old(&both));
        assert!(change.keys.drop_old(&last).is_empty());
        assert_eq!(driven(&mut change, &last, &reached(0)), ChangeState::Retired, "{role}");
    }
}

#[test]
fn nobody_is_waited_for_if_somebody_says_so() {
    let first = root();
    let mut change = KeyChange::new(staged(OnlineRole::Command, false), "ada".to_owned(), NOW);
    let both = after(&first, &change.keys.publish(&first));
    assert_eq!(driven(&mut change, &both, &reached(3)), ChangeState::Published);
    change.is_anyway = true;
    assert_eq!(driven(&mut change, &both, &reached(3)), ChangeState::Activated);
}

#[test]
fn an_audit_key_is_in_use_with_the_version_that_lists_it() {
    let first = root();
    let mut change = KeyChange::new(staged(OnlineRole::Audit, false), "ada".to_owned(), NOW);
    let next = after(&first, &change.keys.publish(&first));
    assert_eq!(driven(&mut change, &next, &reached(5)), ChangeState::Retired);
}

#[test]
fn a_stolen_key_goes_in_one_version_that_voids_what_it_signed() {
    let first = root();
    let mut change = KeyChange::new(staged(OnlineRole::Command, true), "ada".to_owned(), NOW);
    let next = after(&first, &change.keys.publish(&first));
    assert_eq!((next.epoch, next.command_keys.len()), (Epoch(4), 1));
    assert!(change.keys.publish(&next).is_empty(), "the epoch is raised once");
    assert_eq!(driven(&mut change, &next, &reached(5)), ChangeState::Retired);
    // Listed beside the old one is not what was asked for.
    let mut change = KeyChange::new(staged(OnlineRole::Command, true), "ada".to_owned(), NOW);
    let both = after(&first, &staged(OnlineRole::Command, false).publish(&first));
    assert_eq!(driven(&mut change, &both, &reached(0)), ChangeState::Prepared);
}

#[test]
fn what_is_given_up_leaves_root_metadata_before_its_key_is_destroyed() {
    for role in [OnlineRole::Command, OnlineRole::Session, OnlineRole::Tls] {
        let first = root();
        let mut change = KeyChange::new(staged(role, false), "ada".to_owned(), NOW);
        change.state = ChangeState::Withdrawn;
        assert_eq!(driven(&mut change.clone(), &first, &reached(1)), ChangeState::Aborted, "{role}: nobody knew it");
        let both = after(&first, &change.keys.publish(&first));
        assert_eq!(driven(&mut change, &both, &reached(0)), ChangeState::Withdrawn, "{role}");
        let without = after(&both, &change.keys.withdraw(&both));
        assert_eq!(without.tls_pins, first.tls_pins);
        assert_eq!(driven(&mut change, &without, &reached(0)), ChangeState::Aborted, "{role}");
    }
    assert!(!ChangeState::Activated.is_abortable() && !ChangeState::Withdrawn.is_abortable());
}

#[test]
fn those_who_are_waited_for_are_those_who_could_be_ordered_about() {
    let quarantined = || HostStanding::Quarantined { why: "cloned".to_owned() };
    let hosts = [
        host(1, 2, HostStanding::Active),
        host(2, 1, HostStanding::Active),
        host(3, 1, HostStanding::Revoked { at: NOW, is_retired: false }),
        host(4, 1, quarantined()),
        host(5, 3, quarantined()),
        Host { last_seen: None, ..host(6, 1, HostStanding::Active) },
        Host { last_seen: None, ..host(7, 1, HostStanding::Active) },
    ];
    let of = Reached::of(&hosts, RootVersion(2), |id| id == hosts[6].id);
    let names = |hosts: &[HostName]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((of.all, of.acknowledged, of.is_complete()), (4, 2, false));
    assert_eq!(names(&of.waiting), ["host-2", "host-7"]);
    assert_eq!((names(&of.quarantined), names(&of.never_seen)), (vec!["host-4".into()], vec!["host-6".into()]));
}

#[test]
fn words_and_times_of_a_change() {
    for state in ChangeState::ALL {
        assert_eq!(ChangeState::named(state.as_str()), Some(state));
    }
    let mut change = KeyChange::new(staged(OnlineRole::Command, false), "ada".to_owned(), NOW);
    assert_eq!(change.orders_before(NOW), None);
    assert!(!change.is_stuck(NOW.plus(limits::KEY_CHANGE_STUCK)));
    assert!(change.is_stuck(NOW.plus(limits::KEY_CHANGE_STUCK).plus(DurationMs(1))));
    change.activated_at = Some(NOW);
    let (from, until) = change.orders_before(NOW).expect("some may wait");
    assert_eq!((NOW.since(from), until), (limits::START_WITHIN, NOW.plus(limits::KEY_ACTIVATION_SLACK)));
    let late = NOW.plus(limits::START_WITHIN).plus(limits::KEY_ACTIVATION_SLACK);
    assert_eq!(change.orders_before(late), None, "none can start any more");
}
