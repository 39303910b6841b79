//! Accounts, sessions, API tokens, root metadata.

use envelope::audit::AuditKind;
use fleet::{
    limits::{API_TOKENS_PER_USER_MAX, LIST_MAX, SESSIONS_PER_USER_MAX},
    list::{CredentialSort, ListPage, SessionFilter, TokenFilter},
    model::{ApiToken, Credential, Principal, TokenStanding, User, UserChange, UserRole, UserSession},
    ports::{Store, StoreError, Write, Written},
};
use ids::{ApiTokenId, RootVersion, SessionId, UnixMs, UserId, sha256};

use super::fixtures::*;

pub(super) fn user(name: &str, role: UserRole) -> User {
    User {
        id: UserId::from_bytes(fresh()),
        name: name.parse().unwrap(),
        role,
        password_hash: format!("$argon2id${name}"),
        created_at: NOW,
        disabled_at: None,
        approver: None,
    }
}

pub(super) fn admin() -> User {
    user("anna", UserRole::Owner)
}

pub(super) fn create(user: &User) -> Write {
    Write::UserCreate { user: user.clone(), audit: entry(AuditKind::AccountChange, user.name.as_str()) }
}

pub(super) fn change(was: &User, change: UserChange) -> Write {
    Write::UserChange { was: was.clone(), change, audit: entry(AuditKind::AccountChange, was.name.as_str()) }
}

pub(super) fn token_of(user: &User, name: &str) -> ApiToken {
    ApiToken {
        id: ApiTokenId::from_bytes(fresh()),
        name: name.to_owned(),
        user: user.id,
        user_name: user.name.clone(),
        role: UserRole::Operator,
        user_role: user.role,
        user_disabled: false,
        secret_sha256: sha256(name.as_bytes()),
        created_at: NOW,
        expires: UnixMs(NOW.0 + 1_000),
        last_used_at: None,
        revoked_at: None,
    }
}

pub(super) fn token_create(token: &ApiToken) -> Write {
    Write::ApiTokenCreate { token: token.clone(), audit: entry(AuditKind::AccountChange, "a token") }
}

pub(super) fn initialise(admin: &User) -> Write {
    let audit = vec![entry(AuditKind::FleetCreated, "fleet"), entry(AuditKind::AccountChange, "anna")];
    Write::Initialise { root: b"root 1".to_vec(), admin: admin.clone(), audit }
}

pub(super) fn session(user: &User, token: &[u8], expires: UnixMs) -> UserSession {
    UserSession {
        id: SessionId::from_bytes(fresh()),
        token_sha256: sha256(token),
        user: user.id,
        user_name: user.name.clone(),
        role: user.role,
        created_at: NOW,
        expires,
        peer: "192.0.2.1".to_owned(),
    }
}

pub(super) fn sign_in(session: &UserSession, user: &User) -> Write {
    let (session, password_hash) = (session.clone(), user.password_hash.clone());
    Write::UserSessionCreate { session, password_hash, audit: entry(AuditKind::SignIn, "anna") }
}

fn sign_out(session: &UserSession) -> Write {
    Write::UserSessionEnd { session: session.id, audit: entry(AuditKind::SignOut, "anna") }
}

/// Open sessions at that time, newest first.
async fn sessions_of(store: &dyn Store, user: &User, now: UnixMs) -> Vec<UserSession> {
    let filter = SessionFilter { user: user.id, now, peer: None };
    let page = ListPage { descending: true, after: None, limit: LIST_MAX };
    let listed = store.user_sessions_list(filter, CredentialSort::CreatedAt, page).await.unwrap();
    listed.items.into_iter().map(|(_, session)| session).collect()
}

pub(crate) async fn a_fleet_is_made_once(store: &dyn Store) {
    assert_eq!(store.root_chain().await, Ok(vec![]));
    let admin = admin();
    done(store, initialise(&admin)).await;
    assert_eq!(store.root_chain().await, Ok(vec![b"root 1".to_vec()]));
    assert_eq!(store.user_by_name(admin.name.clone()).await, Ok(Some(admin.clone())));
    assert_eq!(store.user_by_name("berta".parse().unwrap()).await, Ok(None));
    conflicts(store, initialise(&admin), "initialised before").await;
    assert_eq!(audit_kinds(store).await, [AuditKind::FleetCreated, AuditKind::AccountChange]);
}

pub(crate) async fn root_metadata_follows_in_order(store: &dyn Store) {
    let advance = |version: u64| Write::RootAdvance {
        version: RootVersion(version),
        envelope: format!("root {version}").into_bytes(),
        audit: entry(AuditKind::RootChange, "root"),
    };
    conflicts(store, advance(1), "does not follow").await;
    done(store, initialise(&admin())).await;
    for skipped in [1, 3] {
        conflicts(store, advance(skipped), "does not follow").await;
    }
    done(store, advance(2)).await;
    done(store, advance(3)).await;
    let chain: Vec<Vec<u8>> = [1, 2, 3].map(|version| format!("root {version}").into_bytes()).into();
    assert_eq!(store.root_chain().await, Ok(chain));
}

pub(crate) async fn sessions_live_until_they_end(store: &dyn Store) {
    let admin = admin();
    done(store, initialise(&admin)).await;
    let (first, second) =
        (session(&admin, b"first", UnixMs(NOW.0 + 100)), session(&admin, b"second", UnixMs(NOW.0 + 200)));
    done(store, sign_in(&first, &admin)).await;
    done(store, sign_in(&second, &admin)).await;
    let read = |session: &UserSession| store.user_session(session.token_sha256);
    assert_eq!(read(&first).await, Ok(Some(first.clone())));
    assert_eq!(store.user_session_by_id(second.id).await, Ok(Some(second.clone())));
    assert_eq!(store.user_session(sha256(b"third")).await, Ok(None));
    assert_eq!(sessions_of(store, &admin, NOW).await, [second.clone(), first.clone()], "newest first");
    assert_eq!(sessions_of(store, &admin, UnixMs(NOW.0 + 100)).await, core::slice::from_ref(&second), "not expired");
    assert_eq!(read(&first).await, Ok(Some(first.clone())), "expired ones are known for a while");
    done(store, sign_out(&second)).await;
    assert_eq!(read(&second).await, Ok(None), "signed out");
    let leaves = audit_kinds(store).await.len();
    done(store, sign_out(&second)).await;
    assert_eq!(audit_kinds(store).await.len(), leaves, "signing out twice is no news");
    let nobody = User { id: UserId::from_bytes(fresh()), ..admin.clone() };
    conflicts(store, sign_in(&session(&nobody, b"x", UnixMs(NOW.0 + 1)), &nobody), "not known").await;
    for n in 0..SESSIONS_PER_USER_MAX + 3 {
        done(store, sign_in(&session(&admin, &n.to_be_bytes(), UnixMs(NOW.0 + 100)), &admin)).await;
    }
    let open = sessions_of(store, &admin, NOW).await;
    assert_eq!(open.len(), SESSIONS_PER_USER_MAX as usize, "bounded");
    assert_eq!(read(&first).await, Ok(None), "the oldest gave way");
    let all = Write::UserSessionsEnd { user: admin.id, audit: entry(AuditKind::SignOut, "anna") };
    done(store, all).await;
    assert_eq!(sessions_of(store, &admin, NOW).await, []);
}

pub(crate) async fn a_sign_in_is_refused_when_the_account_moved_meanwhile(store: &dyn Store) {
    let admin = admin();
    done(store, initialise(&admin)).await;
    let kept = session(&admin, b"one", UnixMs(NOW.0 + 100));
    done(store, sign_in(&kept, &admin)).await;
    done(store, change(&admin, UserChange::Password("$argon2id$two".to_owned()))).await;
    assert_eq!(store.user_session(kept.token_sha256).await, Ok(None), "a new password ends all sessions");
    let changed = store.user_by_name(admin.name.clone()).await.unwrap().unwrap();
    assert_eq!(changed.password_hash, "$argon2id$two");
    // Its password was checked before the change, and it is stored after it.
    let late = session(&admin, b"two", UnixMs(NOW.0 + 100));
    conflicts(store, sign_in(&late, &admin), "password").await;
    let bob = user("bob", UserRole::Viewer);
    done(store, create(&bob)).await;
    done(store, change(&bob, UserChange::Disable(NOW))).await;
    conflicts(store, sign_in(&session(&bob, b"three", UnixMs(NOW.0 + 100)), &bob), "disabled").await;
}

pub(crate) async fn accounts_are_made_changed_and_deleted(store: &dyn Store) {
    let admin = admin();
    done(store, initialise(&admin)).await;
    let bob = user("bob", UserRole::Viewer);
    done(store, create(&bob)).await;
    conflicts(store, create(&user("bob", UserRole::Viewer)), "already").await;
    assert_eq!(store.users().await, Ok(vec![admin.clone(), bob.clone()]), "by name");
    done(store, change(&bob, UserChange::Role(UserRole::Operator))).await;
    conflicts(store, change(&bob, UserChange::Role(UserRole::Admin)), "meanwhile").await;
    let bob = User { role: UserRole::Operator, ..bob };
    assert_eq!(store.user_by_name(bob.name.clone()).await, Ok(Some(bob.clone())));
    let (open, token) = (session(&bob, b"b", UnixMs(NOW.0 + 100)), token_of(&bob, "ci"));
    done(store, sign_in(&open, &bob)).await;
    done(store, token_create(&token)).await;

    done(store, change(&bob, UserChange::Disable(NOW))).await;
    assert_eq!(store.user_session(open.token_sha256).await, Ok(None));
    let disabled = store.user_by_name(bob.name.clone()).await.unwrap().unwrap();
    assert_eq!(disabled.disabled_at, Some(NOW));
    let standing = store.api_token(token.id).await.unwrap().unwrap().standing(NOW);
    assert_eq!(standing, TokenStanding::AccountDisabled);
    done(store, change(&disabled, UserChange::Enable)).await;
    assert_eq!(store.user_by_name(bob.name.clone()).await, Ok(Some(bob.clone())));
    assert_eq!(store.api_token(token.id).await.unwrap().unwrap().standing(NOW), TokenStanding::Good);

    done(store, sign_in(&open, &bob)).await;
    done(store, change(&bob, UserChange::Delete(NOW))).await;
    assert_eq!(store.users().await, Ok(vec![admin]));
    assert_eq!(store.user_session(open.token_sha256).await, Ok(None));
    assert_eq!(store.api_token(token.id).await, Ok(None));
    conflicts(store, change(&bob, UserChange::Enable), "gone").await;
    conflicts(store, create(&user("bob", UserRole::Viewer)), "is deleted").await;
}

pub(crate) async fn a_fleet_keeps_an_owner_whoever_is_first(store: &dyn Store) {
    let anna = admin();
    done(store, initialise(&anna)).await;
    let changes = || [UserChange::Role(UserRole::Admin), UserChange::Disable(NOW), UserChange::Delete(NOW)].into_iter();
    for change_of in changes() {
        assert_eq!(store.write(change(&anna, change_of)).await, Err(StoreError::LastOwner));
    }
    assert_eq!(store.user_by_name(anna.name.clone()).await, Ok(Some(anna.clone())), "nothing of it stands");
    let mut last = anna;
    for (number, change_of) in changes().enumerate() {
        let berta = user(&format!("berta{number}"), UserRole::Owner);
        done(store, create(&berta)).await;
        // Both at once, in one transaction or two: one of them is the last.
        let (one, other) =
            tokio::join!(store.write(change(&last, change_of.clone())), store.write(change(&berta, change_of)));
        let outcomes = [one, other];
        assert!(
            outcomes.contains(&Ok(Written::Done)) && outcomes.contains(&Err(StoreError::LastOwner)),
            "{outcomes:?}"
        );
        let users = store.users().await.unwrap();
        let owners: Vec<&User> =
            users.iter().filter(|user| user.role == UserRole::Owner && user.disabled_at.is_none()).collect();
        assert_eq!(owners.len(), 1);
        last = owners[0].clone();
    }
}

pub(crate) async fn api_tokens_are_kept_used_and_revoked(store: &dyn Store) {
    let anna = admin();
    done(store, initialise(&anna)).await;
    let token = token_of(&anna, "ci");
    done(store, token_create(&token)).await;
    assert_eq!(store.api_token(token.id).await, Ok(Some(token.clone())));
    let used = |at: u64| Write::ApiTokenUsed { token: token.id, at: UnixMs(NOW.0 + at) };
    let leaves = audit_kinds(store).await.len();
    done(store, used(7)).await;
    done(store, used(5)).await;
    let read = store.api_token(token.id).await.unwrap().unwrap();
    assert_eq!(read.last_used_at, Some(UnixMs(NOW.0 + 7)), "time moves on only");
    assert_eq!(audit_kinds(store).await.len(), leaves, "its use leaves no entry");
    let revoke = |at| Write::ApiTokenRevoke { token: token.id, at, audit: entry(AuditKind::AccountChange, "a token") };
    done(store, revoke(NOW)).await;
    done(store, revoke(UnixMs(NOW.0 + 9))).await;
    let read = store.api_token(token.id).await.unwrap().unwrap();
    assert_eq!(read.revoked_at, Some(NOW));
    assert_eq!(audit_kinds(store).await.len(), leaves + 1, "revoking twice is no news");
    for n in 0..API_TOKENS_PER_USER_MAX {
        done(store, token_create(&token_of(&anna, &format!("t{n}")))).await;
    }
    conflicts(store, token_create(&token_of(&anna, "one more")), "no more are possible").await;
    let filter = TokenFilter { user: anna.id, now: NOW, standing: None };
    let page = ListPage { descending: true, after: None, limit: LIST_MAX };
    let listed = store.api_tokens_list(filter, CredentialSort::CreatedAt, page).await.unwrap();
    assert_eq!((listed.items.len(), listed.more), (API_TOKENS_PER_USER_MAX as usize + 1, false));
    assert_eq!(listed.items[0].1.name, format!("t{}", API_TOKENS_PER_USER_MAX - 1), "newest first");
    let nobody = User { id: UserId::from_bytes(fresh()), ..anna };
    conflicts(store, token_create(&token_of(&nobody, "x")), "not known").await;
}

fn by(user: &User, role: UserRole, credential: Credential, at: u64) -> Write {
    let actor =
        Principal { user: user.id, user_name: user.name.clone(), role, credential, expires: UnixMs(NOW.0 + 1_000) };
    let write = Box::new(Write::Audit(entry(AuditKind::AuditExport, "asked for")));
    Write::By { actor, at: UnixMs(NOW.0 + at), write }
}

pub(crate) async fn what_is_asked_for_is_written_only_while_whoever_asks_is_let_in(store: &dyn Store) {
    let (anna, berta) = (admin(), user("berta", UserRole::Admin));
    done(store, initialise(&anna)).await;
    done(store, create(&berta)).await;
    let (session, token) = (session(&berta, b"in", UnixMs(NOW.0 + 1_000)), token_of(&berta, "ci"));
    done(store, sign_in(&session, &berta)).await;
    done(store, token_create(&token)).await;
    let signed_in = Credential::Session { id: session.id, token_sha256: session.token_sha256 };
    let (of_session, of_token) = (
        |at| by(&berta, UserRole::Admin, signed_in, at),
        // An operator's token of an admin.
        |at| by(&berta, UserRole::Operator, Credential::Token(token.id), at),
    );
    let refused = async |write: Write, error: StoreError| {
        let before = audit_kinds(store).await;
        assert_eq!(store.write(write).await, Err(error));
        assert_eq!(audit_kinds(store).await, before, "nothing of it is left");
    };
    for write in [of_session(999), of_token(999)] {
        done(store, write).await;
    }
    assert_eq!(audit_kinds(store).await.iter().filter(|kind| **kind == AuditKind::AuditExport).count(), 2);
    for write in [of_session(1_000), of_token(1_000)] {
        refused(write, StoreError::CredentialEnded).await;
    }

    done(store, change(&berta, UserChange::Role(UserRole::Operator))).await;
    let berta = User { role: UserRole::Operator, ..berta.clone() };
    refused(of_session(1), StoreError::RoleLowered).await;
    done(store, of_token(1)).await;
    done(store, change(&berta, UserChange::Role(UserRole::Viewer))).await;
    let berta = User { role: UserRole::Viewer, ..berta };
    refused(of_token(1), StoreError::RoleLowered).await;
    done(store, change(&berta, UserChange::Role(UserRole::Owner))).await;
    let berta = User { role: UserRole::Owner, ..berta };
    done(store, of_session(1)).await;

    done(store, change(&berta, UserChange::Disable(NOW))).await;
    refused(of_session(1), StoreError::CredentialEnded).await;
    refused(of_token(1), StoreError::CredentialEnded).await;
    done(store, change(&berta, UserChange::Enable)).await;
    refused(of_session(1), StoreError::CredentialEnded).await;
    done(store, of_token(1)).await;
    done(store, Write::ApiTokenRevoke { token: token.id, at: NOW, audit: entry(AuditKind::AccountChange, "t") }).await;
    refused(of_token(1), StoreError::CredentialEnded).await;
}
