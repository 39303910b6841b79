//! The replay guard: a command runs at most once, whatever is delivered.

use std::collections::BTreeSet;

use envelope::{
    guard::{GuardError, Judgement, ReplayGuard, RingEntry, Room, Stage, Untimely, check_time, raise_high},
    limits::{RING_MAX, SEQUENCE_JUMP_MAX},
    messages::Command,
};
use ids::{CommandId, DurationMs, Sequence, Sha256, UnixMs};
use proptest::prelude::*;

use crate::samples::{NOW, command};

fn numbered(n: u64) -> CommandId {
    CommandId::from_bytes(u128::from(n).to_be_bytes())
}

fn with(id: u64, sequence: u64) -> Command {
    let mut command = command();
    command.order.command = numbered(id);
    command.sequence = Sequence(sequence);
    command
}

fn entry(id: u64, stage: Stage) -> RingEntry {
    RingEntry { command: numbered(id), sequence: Sequence(id), order_sha256: Sha256([0; 32]), stage }
}

#[test]
fn the_table_of_judgements() {
    let mut guard = ReplayGuard::restore(Sequence(0), []).expect("empty");
    let first = with(1, 42);
    assert_eq!(guard.judge(&first, NOW), Judgement::Fresh);
    assert_eq!(guard.judge(&first, NOW), Judgement::Fresh, "judging remembers nothing");
    guard.remember(RingEntry::new(&first, Stage::Accepted), None);
    assert_eq!(guard.high(), Sequence(42));

    // The same again, and sealed again under another sequence and time: the stored stage.
    assert_eq!(guard.judge(&first, NOW), Judgement::Known(Stage::Accepted));
    guard.set_stage(numbered(1), Stage::Started);
    let mut resealed = with(1, 50);
    resealed.not_before = NOW.plus(DurationMs::from_days(9));
    assert_eq!(guard.judge(&resealed, NOW), Judgement::Known(Stage::Started));
    guard.set_stage(numbered(1), Stage::Done);
    guard.set_stage(numbered(1), Stage::Accepted);
    assert_eq!(guard.judge(&first, NOW), Judgement::Known(Stage::Done), "stages do not fall back");

    // The same id with other content.
    let mut other = with(1, 43);
    other.order.parameters = b"{}".to_vec();
    assert_eq!(guard.judge(&other, NOW), Judgement::Conflict);

    // Another id at or below the highest, even when it is long expired.
    assert_eq!(guard.judge(&with(2, 42), NOW), Judgement::Unknown);
    assert_eq!(guard.judge(&with(2, 1), NOW.plus(DurationMs::from_days(9))), Judgement::Unknown);
    assert_eq!(guard.judge(&with(2, 43), NOW), Judgement::Fresh);

    // Jumps.
    assert_eq!(guard.judge(&with(2, 42 + SEQUENCE_JUMP_MAX), NOW), Judgement::Fresh);
    assert_eq!(guard.judge(&with(2, 43 + SEQUENCE_JUMP_MAX), NOW), Judgement::TooFarAhead);
    assert_eq!(guard.judge(&with(2, u64::MAX), NOW), Judgement::TooFarAhead);

    let late = guard.judge(&with(2, 43), NOW.plus(DurationMs::from_days(1)));
    assert!(matches!(late, Judgement::Untimely(Untimely::Expired { .. })), "{late:?}");
}

#[test]
fn times_are_judged_to_the_millisecond() {
    let command = with(1, 1);
    let (not_before, expires, deliver_by) = (command.not_before, command.expires, command.order.deliver_by);
    let ms = DurationMs;
    let at = |now: UnixMs| check_time(&command, now);
    assert_eq!(at(not_before), Ok(()));
    assert_eq!(at(not_before.minus(ms(30_000))), Ok(()));
    assert_eq!(at(not_before.minus(ms(30_001))), Err(Untimely::NotYet { early: ms(30_001) }));
    assert_eq!(at(expires), Ok(()));
    assert_eq!(at(expires.plus(ms(1))), Err(Untimely::Expired { late: ms(1) }));

    let mut stale = command.clone();
    stale.order.deliver_by = not_before.plus(ms(5));
    assert_eq!(check_time(&stale, not_before.plus(ms(5))), Ok(()));
    assert_eq!(check_time(&stale, not_before.plus(ms(6))), Err(Untimely::Stale { late: ms(1) }));
    assert!(deliver_by > expires, "the sample is bounded by its own expiry first");

    let mut long = command.clone();
    long.expires = not_before.plus(ms(300_000));
    assert_eq!(check_time(&long, not_before), Ok(()));
    long.expires = not_before.plus(ms(300_001));
    assert_eq!(check_time(&long, not_before), Err(Untimely::Lifetime));
    long.expires = not_before.minus(ms(1));
    assert_eq!(check_time(&long, not_before), Err(Untimely::Lifetime));
    long.expires = UnixMs(u64::MAX);
    assert_eq!(check_time(&long, UnixMs(u64::MAX)), Err(Untimely::Lifetime));
}

#[test]
fn a_jump_does_not_use_up_the_numbers() {
    assert_eq!(raise_high(Sequence(5), Sequence(6)), Sequence(6));
    assert_eq!(raise_high(Sequence(5), Sequence(4)), Sequence(5));
    assert_eq!(raise_high(Sequence(5), Sequence(u64::MAX)), Sequence(5));
    let mut guard = ReplayGuard::default();
    guard.remember(RingEntry::new(&with(1, u64::MAX), Stage::Done), None);
    assert_eq!(guard.high(), Sequence(0));
    assert_eq!(guard.judge(&with(1, u64::MAX), NOW), Judgement::Known(Stage::Done), "refused for good");
    assert_eq!(guard.judge(&with(2, 1), NOW), Judgement::Fresh);
}

#[test]
fn only_settled_commands_make_room() {
    let max = RING_MAX as u64;
    let full = (0..max).map(|n| entry(n, if n < 3 { Stage::Started } else { Stage::Done }));
    let mut guard = ReplayGuard::restore(Sequence(max), full).expect("a full ring");
    assert_eq!(guard.room(|_| false), Room::Full, "all open or unreported");
    assert_eq!(guard.room(|_| true), Room::Evict(numbered(3)), "the oldest that is done");
    assert_eq!(guard.room(|entry| entry.sequence.0 > 9), Room::Evict(numbered(10)));
    guard.remember(RingEntry::new(&with(max + 1, max + 1), Stage::Accepted), Some(numbered(10)));
    assert_eq!(guard.get(numbered(10)), None);
    assert_eq!(guard.iter().count(), RING_MAX);
    assert_eq!(guard.iter().last().map(|entry| entry.command), Some(numbered(max + 1)));
    // The forgotten one comes again: it may have run, and does not run.
    assert_eq!(guard.judge(&with(10, 10), NOW), Judgement::Unknown);
    assert_eq!(ReplayGuard::default().room(|_| false), Room::Free);
}

#[test]
fn stored_state_that_no_guard_wrote_is_refused() {
    let max = RING_MAX as u64;
    assert!(ReplayGuard::restore(Sequence(1), (0..max).map(|n| entry(n, Stage::Done))).is_ok());
    let many = ReplayGuard::restore(Sequence(1), (0..=max).map(|n| entry(n, Stage::Done)));
    assert_eq!(many, Err(GuardError::TooMany { count: RING_MAX + 1 }));
    let twice = ReplayGuard::restore(Sequence(1), [entry(1, Stage::Done), entry(1, Stage::Done)]);
    assert_eq!(twice, Err(GuardError::Duplicate { command: numbered(1) }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any deliveries, replays and restarts: no order is ever fresh after it was once remembered, and
    /// the highest sequence never falls.
    #[test]
    fn nothing_is_fresh_twice(deliveries in prop::collection::vec((0u64..3000, -20i64..4, prop::bool::weighted(0.01)), 1..4000)) {
        let mut guard = ReplayGuard::default();
        let mut run = BTreeSet::new();
        for (id, ahead, restart) in deliveries {
            let high = guard.high();
            let command = with(id, high.0.saturating_add_signed(ahead).max(1));
            if guard.judge(&command, NOW) == Judgement::Fresh {
                prop_assert!(run.insert(id), "command {} would run twice", id);
                let evict = match guard.room(|_| true) {
                    Room::Free => None,
                    Room::Evict(command) => Some(command),
                    Room::Full => unreachable!("everything is settled at once here"),
                };
                guard.remember(RingEntry::new(&command, Stage::Done), evict);
            }
            prop_assert!(guard.high() >= high);
            prop_assert!(guard.iter().count() <= RING_MAX);
            if restart {
                let stored: Vec<_> = guard.iter().cloned().collect();
                let restored = ReplayGuard::restore(guard.high(), stored);
                prop_assert_eq!(restored.as_ref(), Ok(&guard));
            }
        }
    }
}
