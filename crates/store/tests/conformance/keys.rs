//! Changes of the control plane's own keys.

use envelope::{
    audit::AuditKind,
    root::{OnlineKey, OnlineRole, StagedKeys},
};
use fleet::{
    keys::{ChangeState, KeyChange, KeyChangeMove},
    ports::{Store, Write},
};
use ids::{DurationMs, RootVersion};

use super::fixtures::*;

fn change(role: OnlineRole, n: u8, is_emergency: bool) -> KeyChange {
    let key = |n| OnlineKey([n; 32]);
    let keys = StagedKeys { role, old: key(1), new: key(n), fresh: key(n + 1), is_emergency };
    KeyChange::new(keys, "anna (token x)".to_owned(), NOW)
}

fn begin(change: &KeyChange) -> Write {
    Write::KeyChangeBegin { change: Box::new(change.clone()), audit: entry(AuditKind::KeyChange, "begun") }
}

fn moved(change: &KeyChange, from: ChangeState, to: ChangeState) -> KeyChangeMove {
    KeyChangeMove {
        role: change.keys.role,
        new: change.keys.new,
        from,
        to,
        root_version: None,
        activated_at: None,
        is_anyway: false,
        at: NOW.plus(DurationMs(5)),
        audit: entry(AuditKind::KeyChange, "moved"),
    }
}

pub(crate) async fn a_change_is_open_once_for_each_role_and_moves_in_order(store: &dyn Store) {
    use ChangeState as S;
    assert_eq!(store.key_changes().await, Ok(vec![]));
    let (command, tls) = (change(OnlineRole::Command, 2, false), change(OnlineRole::Tls, 2, false));
    done(store, begin(&command)).await;
    done(store, begin(&tls)).await;
    conflicts(store, begin(&change(OnlineRole::Command, 4, false)), "under way already").await;
    assert_eq!(store.key_changes().await, Ok(vec![tls.clone(), command.clone()]), "read back whole");

    let leaves = store.audit(0, 100).await.unwrap().len();
    let wrong = KeyChangeMove { new: OnlineKey([9; 32]), ..moved(&command, S::Prepared, S::Published) };
    conflicts(store, Write::KeyChangeMove(Box::new(wrong)), "not prepared any more").await;
    let late = moved(&command, S::Published, S::Activated);
    conflicts(store, Write::KeyChangeMove(Box::new(late)), "not published any more").await;
    assert_eq!(store.audit(0, 100).await.unwrap().len(), leaves, "what is refused leaves nothing");

    let published = KeyChangeMove { root_version: Some(RootVersion(7)), ..moved(&command, S::Prepared, S::Published) };
    let hastened = KeyChangeMove { is_anyway: true, ..moved(&command, S::Published, S::Published) };
    let activated = KeyChangeMove { activated_at: Some(NOW), ..moved(&command, S::Published, S::Activated) };
    for step in [published, hastened, activated] {
        done(store, Write::KeyChangeMove(Box::new(step))).await;
    }
    let now = KeyChange {
        state: S::Activated,
        moved_at: NOW.plus(DurationMs(5)),
        root_version: Some(RootVersion(7)),
        activated_at: Some(NOW),
        is_anyway: true,
        ..command.clone()
    };
    assert_eq!(store.key_changes().await, Ok(vec![tls.clone(), now.clone()]));
    done(store, Write::KeyChangeMove(Box::new(moved(&command, S::Activated, S::Retired)))).await;
    let again = moved(&command, S::Activated, S::Retired);
    conflicts(store, Write::KeyChangeMove(Box::new(again)), "not activated any more").await;
    let next = change(OnlineRole::Command, 4, false);
    done(store, begin(&next)).await;
    let ended = KeyChange { state: S::Retired, ..now };
    assert_eq!(store.key_changes().await, Ok(vec![next, tls, ended]), "open ones first, then the newest");
}

pub(crate) async fn a_stolen_key_ends_the_change_that_was_open(store: &dyn Store) {
    let staged = change(OnlineRole::Command, 2, false);
    let (other, stolen) = (change(OnlineRole::Session, 2, false), change(OnlineRole::Command, 4, true));
    for write in [begin(&staged), begin(&other), begin(&stolen)] {
        done(store, write).await;
    }
    let states: Vec<_> = store.key_changes().await.unwrap().into_iter().map(|it| (it.keys.new, it.state)).collect();
    use ChangeState as S;
    let expected = [(stolen.keys.new, S::Prepared), (other.keys.new, S::Prepared), (staged.keys.new, S::Aborted)];
    assert_eq!(states, expected);
}

pub(crate) async fn orders_under_way_are_those_delivered_in_that_time(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let command = queued(store, &host).await;
    let count = async |from: u64, until: u64| {
        let (from, until) = (NOW.plus(DurationMs(from)), NOW.plus(DurationMs(until)));
        store.orders_under_way(from, until).await.unwrap()
    };
    assert_eq!(count(0, 1_000_000).await, 0, "only queued");
    done(store, seal_write(&command, 0, 1)).await;
    let at = store.command(command.order.command).await.unwrap().unwrap().delivered_at.unwrap().since(NOW).0;
    assert_eq!((count(at, at).await, count(at + 1, at + 9).await), (1, 0));
    done(store, Write::CommandSettle(Box::new(settlement(&command, 1, 1)))).await;
    assert_eq!(count(at, at).await, 0, "ended");
}
