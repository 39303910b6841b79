//! When a standing order is signed anew, and what a key is kept for.

use envelope::messages::ReportPosition;
use ids::{KeyId, Role, Sequence};
use proptest::prelude::*;

use super::*;
use crate::{model::HostQuarantine, selector::Labels};

const NOW: UnixMs = UnixMs(1_790_000_000_000);
const OLD: KeyId = KeyId::from_bytes([1; 16]);
const NEW: KeyId = KeyId::from_bytes([2; 16]);

fn host() -> Host {
    Host {
        id: HostId::from_bytes([7; 16]),
        name: "alpha".parse().unwrap(),
        roles: vec![Role::App],
        labels: Labels::default(),
        identity_key: envelope::messages::PublicKeyBytes([8; 32]),
        sealing_key: envelope::messages::SealingKeyBytes([9; 32]),
        host_epoch: HostEpoch(1),
        standing: HostStanding::Active,
        quarantine: HostQuarantine::default(),
        allocated: Sequence(0),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
        audit_head: None,
        boots: Vec::new(),
        actions: Vec::new(),
        agent_version: String::new(),
        root_version: ids::RootVersion(1),
        enrolled_at: NOW,
        clock_skew_ms: None,
        last_seen: None,
        receipt: Vec::new(),
    }
}

fn seal(revision: u64, key: KeyId) -> StandingSeal {
    StandingSeal { revision: Revision(revision), key, host_epoch: HostEpoch(1), epoch: Epoch(1) }
}

fn wanted(key: KeyId) -> Wanted {
    Wanted { key, host_epoch: HostEpoch(1), epoch: Epoch(1) }
}

fn step(kind: StepKind, seal: Option<StandingSeal>, ended: Option<CommandStatus>) -> StandingStep {
    let operation = OperationId::from_bytes([3; 16]);
    StandingStep { kind, operation, seal, at: NOW, ended, is_under_way: ended.is_none(), message: "said".to_owned() }
}

fn record(steps: Vec<StandingStep>) -> StandingRecord {
    StandingRecord {
        order: StandingOrderId::from_bytes([4; 16]),
        host: host().id,
        host_name: host().name,
        action: "app.restart".parse().unwrap(),
        action_version: 1,
        schedule: "0 3 * * *".to_owned(),
        zone: "UTC".to_owned(),
        valid_until: NOW.plus(DurationMs::from_days(90)),
        alone_for: DurationMs::from_days(30),
        requested_by: "ada".parse().unwrap(),
        created_at: NOW,
        steps,
    }
}

fn installed() -> StandingStep {
    step(StepKind::Install, Some(seal(1, OLD)), Some(CommandStatus::Succeeded))
}

fn renewal(ended: Option<CommandStatus>) -> StandingStep {
    step(StepKind::Renew, Some(seal(2, NEW)), ended)
}

#[test]
fn how_it_stands_follows_from_what_its_host_said() {
    use CommandStatus::{Cancelled, Expired, Rejected, Succeeded};
    let install = |ended| step(StepKind::Install, Some(seal(1, OLD)), ended);
    let end = |ended| step(StepKind::Drop, None, ended);
    for (steps, state) in [
        (vec![install(None)], StandingState::Installing),
        (vec![install(Some(Rejected))], StandingState::Refused),
        (vec![install(Some(Cancelled))], StandingState::Refused),
        (vec![installed()], StandingState::Installed),
        (vec![installed(), renewal(None)], StandingState::Installed),
        (vec![installed(), renewal(Some(Rejected))], StandingState::Installed),
        (vec![installed(), end(None)], StandingState::Dropping),
        (vec![installed(), end(Some(Expired))], StandingState::Installed),
        (vec![installed(), end(Some(Expired)), end(Some(Succeeded))], StandingState::Dropped),
        (vec![install(Some(Rejected)), end(Some(Succeeded))], StandingState::Dropped),
    ] {
        assert_eq!(record(steps.clone()).state(), state, "{steps:?}");
    }
    let failed = record(vec![installed(), renewal(Some(Rejected))]);
    assert_eq!((failed.held(), failed.problem()), (Some(seal(1, OLD)), Some("said")));
    let renewed = record(vec![installed(), renewal(Some(Succeeded))]);
    assert_eq!((renewed.held(), renewed.problem()), (Some(seal(2, NEW)), None));
}

#[test]
fn it_is_signed_anew_when_key_epoch_or_host_epoch_change_and_once_at_a_time() {
    let due = |steps: Vec<StandingStep>, wanted: Wanted| record(steps).is_renewal_due(&wanted, None, NOW);
    assert!(!due(vec![installed()], wanted(OLD)));
    assert!(due(vec![installed()], wanted(NEW)));
    assert!(due(vec![installed()], Wanted { epoch: Epoch(2), ..wanted(OLD) }));
    assert!(due(vec![installed()], Wanted { host_epoch: HostEpoch(2), ..wanted(OLD) }));
    assert!(!due(vec![installed(), renewal(None)], wanted(NEW)), "one is on its way");
    assert!(!due(vec![installed(), renewal(Some(CommandStatus::Succeeded))], wanted(NEW)));
    let dropping = vec![installed(), step(StepKind::Drop, None, None)];
    assert!(!due(dropping, wanted(NEW)), "what is dropped is not kept alive");
    let dropped = vec![installed(), step(StepKind::Drop, None, Some(CommandStatus::Succeeded))];
    assert!(!due(dropped, wanted(NEW)));
    let late = NOW.plus(DurationMs::from_days(90));
    assert!(!record(vec![installed()]).is_renewal_due(&wanted(NEW), None, late), "its time is over");
}

#[test]
fn a_renewal_that_came_to_nothing_is_tried_again_but_not_against_its_host() {
    let failed = |status| record(vec![installed(), renewal(Some(status))]);
    let later = NOW.plus(limits::STANDING_RENEWAL_RETRY);
    let expired = failed(CommandStatus::Expired);
    assert!(!expired.is_renewal_due(&wanted(NEW), None, NOW) && expired.is_renewal_due(&wanted(NEW), None, later));
    let refused = failed(CommandStatus::Rejected);
    assert!(!refused.is_renewal_due(&wanted(NEW), None, later), "it was asked and said no");
    assert!(!refused.is_renewal_due(&wanted(NEW), Some(Revision(1)), later));
    assert!(
        refused.is_renewal_due(&wanted(NEW), Some(Revision(2)), NOW),
        "it has taken higher ones than are known here"
    );
    let third = Wanted { key: KeyId::from_bytes([5; 16]), ..wanted(NEW) };
    assert!(refused.is_renewal_due(&third, None, NOW), "something has changed");
}

#[test]
fn a_key_is_kept_for_what_stands_under_it_on_hosts_that_can_be_asked() {
    let waits = |steps: Vec<StandingStep>, host: &Host| record(steps).waits_under(OLD, host, NOW);
    let quarantined = Host { standing: HostStanding::Quarantined { why: String::new() }, ..host() };
    let revoked = Host { standing: HostStanding::Revoked { at: NOW, is_retired: false }, ..host() };
    assert!(waits(vec![installed()], &host()));
    assert!(waits(vec![installed(), renewal(None)], &host()), "sent is not acknowledged");
    assert!(waits(vec![installed(), renewal(Some(CommandStatus::Expired))], &host()));
    assert!(!waits(vec![installed(), renewal(Some(CommandStatus::Succeeded))], &host()));
    assert!(!waits(vec![installed(), renewal(Some(CommandStatus::Rejected))], &host()), "it has answered");
    assert!(!waits(vec![installed()], &quarantined) && !waits(vec![installed()], &revoked));
    let mut on_its_way = step(StepKind::Install, Some(seal(1, OLD)), None);
    assert!(waits(vec![on_its_way.clone()], &host()), "it is about to stand");
    on_its_way.is_under_way = false;
    assert!(!waits(vec![on_its_way], &host()), "people may take a day");
    assert!(!record(vec![installed()]).waits_under(NEW, &host(), NOW));
}

fn steps() -> impl Strategy<Value = Vec<StandingStep>> {
    use CommandStatus::{Expired, Rejected, Succeeded, Unknown};
    let ended = prop::sample::select(vec![None, Some(Succeeded), Some(Rejected), Some(Expired), Some(Unknown)]);
    let kind = prop::sample::select(StepKind::ALL.to_vec());
    let one = (kind, ended, any::<bool>());
    prop::collection::vec(one, 1..6).prop_map(|all| {
        let number = |(at, (kind, ended, is_new)): (usize, (StepKind, Option<CommandStatus>, bool))| {
            let key = if is_new { NEW } else { OLD };
            let seal = (kind != StepKind::Drop).then(|| seal(at as u64 + 1, key));
            step(kind, seal, ended)
        };
        all.into_iter().enumerate().map(number).collect()
    })
}

proptest! {
    /// Whatever waits under a key that is not in use any more is on its way to be signed anew, or will be.
    #[test]
    fn nothing_keeps_a_key_for_ever(steps in steps()) {
        let record = record(steps);
        let much_later = NOW.plus(limits::STANDING_RENEWAL_RETRY);
        if record.waits_under(OLD, &host(), NOW) {
            prop_assert!(record.is_open() || record.is_renewal_due(&wanted(NEW), None, much_later), "{record:?}");
        }
    }

    /// What is dropped, or about to be, is never signed anew.
    #[test]
    fn what_is_dropped_stays_so(steps in steps()) {
        let record = record(steps);
        if matches!(record.state(), StandingState::Dropped | StandingState::Dropping) {
            prop_assert!(!record.is_renewal_due(&wanted(NEW), Some(Revision(u64::MAX)), UnixMs(u64::MAX)));
            prop_assert!(!record.is_outdated(&wanted(NEW)));
        }
    }
}
