//! Tokens, enrolment, standing.

use envelope::{
    audit::AuditKind,
    messages::{LogPosition, PublicKeyBytes, SealingKeyBytes},
};
use fleet::{
    model::{CommandStatus, FormerKey, HostStanding, NewCommand},
    ports::{HostKeyRotation, Store, StoreError, Write},
};
use ids::{AuditLogId, BootId, HostEpoch, HostId, ReportSequence, RootVersion, TokenId, UnixMs, sha256};
use session::frames::{ActionRef, Stage};

use super::fixtures::*;

fn create(token: &fleet::model::JoinTokenRecord) -> Write {
    Write::TokenCreate { token: token.clone(), audit: entry(AuditKind::TokenIssued, "token") }
}

fn revoke(host: HostId) -> Write {
    Write::HostRevoke { host, at: NOW, audit: entry(AuditKind::HostRevoked, "host") }
}

pub(crate) async fn a_token_becomes_one_host(store: &dyn Store) {
    let (token, mut host) = (token("web-1", b"secret"), host("web-1"));
    host.audit_head = Some(LogPosition { log: AuditLogId::from_bytes([3; 16]), size: 4, root: sha256(b"root") });
    done(store, create(&token)).await;
    assert_eq!(store.join_token(token.id).await, Ok(Some(token.clone())));
    done(store, enrol_write(&token, b"secret", &host)).await;
    assert_eq!(store.host(host.id).await, Ok(Some(host.clone())));
    assert_eq!(store.host_by_name(host.name.clone()).await, Ok(Some(host.clone())));
    let spent = store.join_token(token.id).await.unwrap().unwrap();
    assert_eq!(spent.spent_by, Some(host.id));
    let again = fleet::model::Host { id: HostId::from_bytes(fresh()), ..host };
    assert_eq!(store.write(enrol_write(&token, b"secret", &again)).await, Err(StoreError::TokenRefused));
    assert_eq!(audit_kinds(store).await, [AuditKind::TokenIssued, AuditKind::Enrolment]);
}

pub(crate) async fn bad_tokens_get_one_answer(store: &dyn Store) {
    let (good, host) = (token("web-1", b"secret"), host("web-1"));
    done(store, create(&good)).await;
    let mut expired = enrol_write(&good, b"secret", &host);
    if let Write::Enrol { now, .. } = &mut expired {
        *now = good.expires;
    }
    let mut unknown = good.clone();
    unknown.id = TokenId::from_bytes(fresh());
    let other_name = super::fixtures::host("web-2");
    let mut other_roles = host.clone();
    other_roles.roles.pop();
    let bad = [
        expired,
        enrol_write(&unknown, b"secret", &host),
        enrol_write(&good, b"other", &host),
        enrol_write(&good, b"secret", &other_name),
        enrol_write(&good, b"secret", &other_roles),
    ];
    for write in bad {
        assert_eq!(store.write(write).await, Err(StoreError::TokenRefused));
    }
    assert_eq!(store.hosts().await, Ok(vec![]));
    // The token is as good as before.
    done(store, enrol_write(&good, b"secret", &host)).await;
}

pub(crate) async fn names_are_unique_among_living_hosts(store: &dyn Store) {
    let early = token("web-1", b"early");
    done(store, create(&early)).await;
    let first = enrolled(store, "web-1").await;
    conflicts(store, create(&token("web-1", b"late")), "a host named web-1 exists").await;
    let second = host("web-1");
    conflicts(store, enrol_write(&early, b"early", &second), "a host named web-1 exists").await;
    done(store, revoke(first.id)).await;
    assert_eq!(store.host_by_name(first.name.clone()).await, Ok(None));
    done(store, enrol_write(&early, b"early", &second)).await;
    assert_eq!(store.host_by_name(first.name.clone()).await, Ok(Some(second.clone())));
    enrolled(store, "alpha").await;
    let names: Vec<_> = store.hosts().await.unwrap().into_iter().map(|host| (host.name.to_string(), host.id)).collect();
    let expected = [("alpha", None), ("web-1", Some(second.id)), ("web-1", Some(first.id))];
    for ((name, id), (expected_name, expected_id)) in names.iter().zip(expected) {
        assert_eq!(name, expected_name, "the living by name, then the revoked");
        assert!(expected_id.is_none_or(|expected| expected == *id));
    }
}

pub(crate) async fn what_a_session_shows_is_kept(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let action = |name: &str| ActionRef { name: name.parse().unwrap(), version: 2, schema_sha256: sha256(b"s") };
    let seen = |host: HostId| Write::HostSeen {
        host,
        actions: vec![action("app.deploy"), action("host.facts")],
        agent_version: "0.2.0".to_owned(),
        boots: vec![BootId::from_bytes([9; 16]), BootId::from_bytes([1; 16])],
        root_version: RootVersion(3),
    };
    done(store, seen(host.id)).await;
    done(store, Write::HostLeft { host: host.id, at: UnixMs(NOW.0 + 9) }).await;
    done(store, Write::HostLeft { host: host.id, at: UnixMs(NOW.0 + 5) }).await;
    let now = host_now(store, &host).await;
    assert_eq!(now.actions, [action("app.deploy"), action("host.facts")]);
    assert_eq!((now.agent_version.as_str(), now.root_version), ("0.2.0", RootVersion(3)));
    assert_eq!(now.boots, [BootId::from_bytes([9; 16]), BootId::from_bytes([1; 16])]);
    assert_eq!(now.last_seen, Some(UnixMs(NOW.0 + 9)), "the latest stands");
    conflicts(store, seen(HostId::from_bytes(fresh())), "not known").await;
}

pub(crate) async fn quarantine_stops_orders_and_not_reports(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let (first, second) = (queued(store, &host).await, queued(store, &host).await);
    done(store, seal_write(&first, 0, 1)).await;
    let quarantine = Write::HostQuarantine {
        host: host.id,
        why: "its state is an old copy".to_owned(),
        audit: entry(AuditKind::Quarantine, "web-1"),
    };
    done(store, quarantine).await;
    let standing = host_now(store, &host).await.standing;
    assert_eq!(standing, HostStanding::Quarantined { why: "its state is an old copy".to_owned() });
    conflicts(store, seal_write(&second, 1, 2), "quarantined").await;
    done(store, Write::CommandSettle(Box::new(settlement(&first, 1, 1)))).await;
    assert_eq!(command(store, &first).await.status, CommandStatus::Succeeded);
}

pub(crate) async fn revocation_ends_what_is_open(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let mut commands = Vec::new();
    for _ in 0..4 {
        commands.push(queued(store, &host).await);
    }
    for (index, command) in commands.iter().enumerate().skip(1) {
        done(store, seal_write(command, index as u64 - 1, index as u64)).await;
    }
    done(store, stage_write(&commands[2], 2, Stage::Started)).await;
    done(store, Write::CommandSettle(Box::new(settlement(&commands[3], 3, 1)))).await;
    done(store, revoke(host.id)).await;

    assert_eq!(host_now(store, &host).await.standing, HostStanding::Revoked { at: NOW, is_retired: false });
    let expected = [CommandStatus::Cancelled, CommandStatus::Unknown, CommandStatus::Unknown, CommandStatus::Succeeded];
    for (new, expected) in commands.iter().zip(expected) {
        let now = command(store, new).await;
        assert_eq!(now.status, expected);
        assert_eq!(now.settled_at, Some(NOW));
        assert!(!now.message.is_empty());
    }
    assert_eq!(store.commands_open(host.id).await, Ok(vec![]));
    conflicts(store, revoke(host.id), "revoked before").await;
    conflicts(store, seal_write(&commands[0], 3, 4), "revoked").await;
    let operation = operation(fleet::model::OperationKind::Single);
    let order = new_command(&operation, &host, "host.facts");
    conflicts(store, propose_write(&operation, &[order]), "was revoked").await;
    let quarantine =
        Write::HostQuarantine { host: host.id, why: "x".to_owned(), audit: entry(AuditKind::Quarantine, "x") };
    conflicts(store, quarantine, "was revoked").await;
}

pub(crate) async fn a_retirement_is_a_report_and_a_revocation_in_one(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let (waiting, retirement) = (queued(store, &host).await, queued(store, &host).await);
    done(store, seal_write(&retirement, 0, 1)).await;
    let retire = |sequence: u64, command: &NewCommand| {
        let mut settlement = settlement(command, sequence, 1);
        settlement.audit.push(entry(AuditKind::HostRevoked, "web-1"));
        Write::HostRetire(Box::new(settlement))
    };
    let before = store.audit(0, 1000).await.unwrap().len();
    conflicts(store, retire(2, &retirement), "never sealed").await;
    assert_eq!(host_now(store, &host).await.standing, HostStanding::Active);
    assert_eq!(store.audit(0, 1000).await.unwrap().len(), before, "nothing of it stands");
    done(store, retire(1, &retirement)).await;
    let now = host_now(store, &host).await;
    assert_eq!(now.standing, HostStanding::Revoked { at: NOW, is_retired: true });
    assert_eq!(now.last_report.sequence.0, 1, "its chain of reports went on");
    let ends = [command(store, &retirement).await.status, command(store, &waiting).await.status];
    assert_eq!(ends, [CommandStatus::Succeeded, CommandStatus::Cancelled]);
    let leaves: Vec<_> = store.audit(0, 1000).await.unwrap().split_off(before);
    let kinds: Vec<_> = leaves.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [AuditKind::Report, AuditKind::HostRevoked]);
    conflicts(store, retire(1, &retirement), "revoked").await;
    conflicts(store, revoke(host.id), "revoked before").await;
}

/// A rotation to keys that no host ever had.
fn rotation(host: HostId, was: u64) -> HostKeyRotation {
    let (identity, sealing) = ([fresh(), fresh()].concat(), [fresh(), fresh()].concat());
    HostKeyRotation {
        host,
        was: HostEpoch(was),
        host_epoch: HostEpoch(was + 1),
        identity_key: PublicKeyBytes(identity.try_into().unwrap()),
        sealing_key: SealingKeyBytes(sealing.try_into().unwrap()),
        rotation: format!("rotation {was}").into_bytes(),
        released: None,
        audit: entry(AuditKind::HostKeyChange, "web-1"),
    }
}

fn rotate(rotation: &HostKeyRotation) -> Write {
    Write::HostKeysRotate(Box::new(rotation.clone()))
}

pub(crate) async fn keys_follow_one_another_and_none_comes_twice(store: &dyn Store) {
    let (host, other) = (enrolled(store, "web-1").await, enrolled(store, "web-2").await);
    assert_eq!(store.host_former_keys(host.id).await, Ok(vec![]));
    let retire = |epoch, last| Write::HostKeysRetire {
        host: host.id,
        host_epoch: HostEpoch(epoch),
        last_report: ReportSequence(last),
    };
    conflicts(store, retire(1, 0), "not known").await;
    let (second, third) = (rotation(host.id, 1), rotation(host.id, 2));
    conflicts(store, rotate(&third), "changed meanwhile").await;
    done(store, rotate(&second)).await;
    let now = host_now(store, &host).await;
    assert_eq!(
        (now.host_epoch, now.identity_key, now.sealing_key),
        (HostEpoch(2), second.identity_key, second.sealing_key)
    );
    conflicts(store, rotate(&second), "changed meanwhile").await;
    let stolen = |key| HostKeyRotation { identity_key: key, ..rotation(other.id, 1) };
    conflicts(store, rotate(&stolen(second.identity_key)), "a host's before").await;
    conflicts(store, rotate(&stolen(host.identity_key)), "a host's before").await;
    let first = |last_report: Option<u64>| FormerKey {
        host_epoch: HostEpoch(1),
        identity_key: host.identity_key,
        last_report: last_report.map(ReportSequence),
        replaced_at: NOW,
        rotation: b"rotation 1".to_vec(),
    };
    assert_eq!(store.host_former_keys(host.id).await, Ok(vec![first(None)]));
    done(store, retire(2, 7)).await;
    assert_eq!(store.host_former_keys(host.id).await, Ok(vec![first(Some(7))]));
    conflicts(store, retire(2, 9), "not known").await;

    done(store, rotate(&third)).await;
    done(store, retire(3, 9)).await;
    let before = FormerKey {
        host_epoch: HostEpoch(2),
        identity_key: second.identity_key,
        last_report: Some(ReportSequence(9)),
        replaced_at: NOW,
        rotation: b"rotation 2".to_vec(),
    };
    assert_eq!(store.host_former_keys(host.id).await, Ok(vec![before, first(Some(7))]), "what is fixed stays");
    done(store, revoke(host.id)).await;
    conflicts(store, rotate(&rotation(host.id, 3)), "was revoked").await;
}
