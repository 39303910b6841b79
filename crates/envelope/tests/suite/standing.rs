//! Standing orders: when they are taken, when they still count, and when they may run.

use envelope::{
    VerifyError, VerifyingKey,
    keys::role,
    limits::REVISION_JUMP_MAX,
    messages::{Standing, StandingOrder},
    standing::{Ground, NotNow, StandingError, Times, install, load, may_run, shown},
};
use ids::{DurationMs, Epoch, FleetId, HostEpoch, HostId, Revision, UnixMs};
use proptest::prelude::*;

use crate::samples::{NOW, id, key, seeded, standing_order};

fn keys() -> [VerifyingKey<role::Command>; 1] {
    [key().verifying()]
}

fn ground(keys: &[VerifyingKey<role::Command>]) -> Ground<'_> {
    let StandingOrder { standing: Standing { fleet, host, .. }, host_epoch, epoch, .. } = standing_order();
    Ground { fleet, host, host_epoch, epoch: Some(epoch), keys }
}

fn signed(order: &StandingOrder) -> Vec<u8> {
    key::<role::Command>().sign(order).into_envelope()
}

fn refused(envelope: &[u8], ground: Ground<'_>) -> String {
    let at_load = load(envelope, ground).expect_err("it does not count").to_string();
    let at_install = install(envelope, ground, Revision(0), NOW).expect_err("it is not taken").to_string();
    assert_eq!(at_load, at_install, "one rule for both");
    at_load
}

#[test]
fn a_standing_order_counts_on_the_host_and_in_the_epochs_it_was_signed_for_alone() {
    let (keys, envelope) = (keys(), signed(&standing_order()));
    let good = ground(&keys);
    assert_eq!(load(&envelope, good).expect("it counts").into_value(), standing_order());

    assert_eq!(
        refused(&envelope, Ground { fleet: FleetId::from_bytes([9; 16]), ..good }),
        "ids: it is for another fleet"
    );
    assert_eq!(refused(&envelope, Ground { host: HostId::from_bytes([9; 16]), ..good }), "ids: it is for another host");
    for host_epoch in [HostEpoch(0), HostEpoch(2)] {
        assert!(refused(&envelope, Ground { host_epoch, ..good }).contains("host epoch 1"));
    }
    for epoch in [None, Some(Epoch(2)), Some(Epoch(4))] {
        assert!(refused(&envelope, Ground { epoch, ..good }).contains("epoch 3"), "{epoch:?}");
    }
    assert!(refused(&envelope, Ground { keys: &[], ..good }).contains("not a valid command key"), "nobody is nobody");
    let others = [seeded(7).verifying()];
    assert!(refused(&envelope, Ground { keys: &others, ..good }).contains("not a valid command key"));
}

#[test]
fn an_old_or_dropped_standing_order_is_not_taken_again_and_no_number_is_used_up() {
    let (keys, envelope) = (keys(), signed(&standing_order()));
    let good = ground(&keys);
    let taken = |highest: u64| install(&envelope, good, Revision(highest), NOW).map(|order| order.revision);
    assert_eq!(taken(6), Ok(Revision(7)));
    for highest in [7, 8, u64::MAX] {
        let error = taken(highest).expect_err("an old one");
        assert_eq!(error, StandingError::OldRevision { revision: Revision(7), highest: Revision(highest) });
    }
    let far = |revision| {
        let envelope = signed(&StandingOrder { revision: Revision(revision), ..standing_order() });
        install(&envelope, good, Revision(6), NOW).map(drop)
    };
    assert_eq!(far(6 + REVISION_JUMP_MAX), Ok(()));
    assert!(matches!(far(7 + REVISION_JUMP_MAX), Err(StandingError::FarRevision { .. })));
    assert!(matches!(far(u64::MAX), Err(StandingError::FarRevision { .. })));
}

#[test]
fn not_one_byte_of_a_standing_order_can_be_changed() {
    let (keys, envelope) = (keys(), signed(&standing_order()));
    for at in 0..envelope.len() {
        let mut changed = envelope.clone();
        changed[at] ^= 1;
        assert!(load(&changed, ground(&keys)).is_err(), "byte {at}");
    }
    assert!(load(&envelope, ground(&keys)).is_ok());
    // As whose word it is shown proves nothing.
    let mut standing = standing_order();
    standing.standing.schedule = "* * * * *".into();
    let forged = seeded::<role::Command>(9).sign(&standing).into_envelope();
    assert_eq!(shown(&forged).expect("it can be shown").1, standing);
    assert!(matches!(load(&forged, ground(&keys)), Err(StandingError::Verify(VerifyError::NoKey { .. }))));
}

#[test]
fn a_schedule_that_means_nothing_and_an_order_whose_time_is_over_are_not_taken() {
    let keys = keys();
    let taken = |change: &dyn Fn(&mut Standing), now| {
        let mut order = standing_order();
        change(&mut order.standing);
        install(&signed(&order), ground(&keys), Revision(0), now).map(drop)
    };
    assert_eq!(taken(&|_| {}, NOW), Ok(()));
    assert!(matches!(taken(&|it| it.schedule = "99 * * * *".into(), NOW), Err(StandingError::Schedule(_))));
    assert!(matches!(taken(&|it| it.zone = "../x".into(), NOW), Err(StandingError::Schedule(_))));
    let end = standing_order().standing.valid_until;
    assert_eq!(taken(&|_| {}, end), Ok(()));
    assert_eq!(taken(&|_| {}, UnixMs(end.0 + 5)), Err(StandingError::Over { late: DurationMs(5) }));
}

#[test]
fn it_runs_until_its_end_and_alone_for_as_long_as_it_says() {
    let standing = standing_order().standing;
    let (end, alone_for) = (standing.valid_until, standing.alone_for);
    let may = |wall: UnixMs, floor: UnixMs, contact| may_run(&standing, Times { wall, floor, contact });
    assert_eq!(may(NOW, UnixMs(0), Some(NOW)), Ok(()));
    assert_eq!(may(NOW, UnixMs(0), None), Err(NotNow::NeverMet));
    assert_eq!(may(NOW.plus(alone_for), UnixMs(0), Some(NOW)), Ok(()));
    let late = may(NOW.plus(DurationMs(alone_for.0 + 1)), UnixMs(0), Some(NOW));
    assert_eq!(late, Err(NotNow::Alone { since: DurationMs(alone_for.0 + 1), alone_for }));
    assert_eq!(may(UnixMs(end.0 + 1), UnixMs(0), Some(end)), Err(NotNow::Over { late: DurationMs(1) }));
    // A clock set back a year brings nothing to life.
    let back = NOW.minus(DurationMs::from_days(365));
    assert!(matches!(may(back, UnixMs(end.0 + 1), Some(NOW)), Err(NotNow::Over { .. })));
    assert!(matches!(may(back, NOW.plus(DurationMs(alone_for.0 + 1)), Some(NOW)), Err(NotNow::Alone { .. })));
    assert_eq!(may(back, UnixMs(0), Some(NOW)), Ok(()));
    // One set on a year stops it.
    assert!(may(NOW.plus(DurationMs::from_days(365)), UnixMs(0), Some(NOW)).is_err());
}

proptest! {
    /// Later is never better, whichever clock says so; hearing of the control plane never hurts before the end.
    #[test]
    fn time_only_takes_away(wall in 0u64..1 << 42, floor in 0u64..1 << 42, contact in 0u64..1 << 42, more in 0u64..1 << 40) {
        let standing = Standing { valid_until: UnixMs(1 << 41), alone_for: DurationMs(1 << 38), ..standing_order().standing };
        let may = |wall, floor, contact| {
            may_run(&standing, Times { wall: UnixMs(wall), floor: UnixMs(floor), contact: Some(UnixMs(contact)) }).is_ok()
        };
        prop_assert!(!may(wall + more, floor, contact) || may(wall, floor, contact));
        prop_assert!(!may(wall, floor + more, contact) || may(wall, floor, contact));
        let now = wall.max(floor);
        if now <= 1 << 41 && contact <= now {
            prop_assert!(may(wall, floor, now));
        }
    }

    /// What is taken is above everything taken before, so nothing is taken twice, in whatever order it comes.
    #[test]
    fn revisions_only_rise(given in proptest::collection::vec(1u64..20, 1..40)) {
        let keys = keys();
        let (mut highest, mut taken) = (Revision(0), Vec::new());
        for revision in given {
            let envelope = signed(&StandingOrder { revision: Revision(revision), ..standing_order() });
            if let Ok(order) = install(&envelope, ground(&keys), highest, NOW) {
                highest = order.revision;
                taken.push(revision);
            }
        }
        prop_assert!(taken.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

#[test]
fn one_id_says_nothing() {
    // Two orders of one host share the counter: the revision, not the order's id, is what rises.
    let keys = keys();
    let other = StandingOrder { standing: Standing { order: id(99), ..standing_order().standing }, ..standing_order() };
    assert!(install(&signed(&other), ground(&keys), Revision(7), NOW).is_err());
}
