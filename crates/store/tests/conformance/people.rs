//! Accounts, sessions, root metadata.

use envelope::audit::AuditKind;
use fleet::{
    model::{User, UserRole, UserSession},
    ports::{Store, Write},
};
use ids::{RootVersion, Sha256, UnixMs, UserId, sha256};

use super::fixtures::*;

fn admin() -> User {
    User {
        id: UserId::from_bytes(fresh()),
        name: "anna".parse().unwrap(),
        role: UserRole::Admin,
        password_hash: "$argon2id$one".to_owned(),
    }
}

fn initialise(admin: &User) -> Write {
    let audit = vec![entry(AuditKind::FleetCreated, "fleet"), entry(AuditKind::AccountChange, "anna")];
    Write::Initialise { root: b"root 1".to_vec(), admin: admin.clone(), audit }
}

fn session(user: &User, token: &[u8], expires: UnixMs) -> UserSession {
    UserSession {
        token_sha256: sha256(token),
        user: user.id,
        user_name: user.name.clone(),
        role: user.role,
        created_at: NOW,
        expires,
    }
}

fn sign_in(session: &UserSession) -> Write {
    Write::UserSessionCreate { session: session.clone(), audit: entry(AuditKind::SignIn, "anna") }
}

fn sign_out(token_sha256: Sha256) -> Write {
    Write::UserSessionEnd { token_sha256, audit: entry(AuditKind::SignOut, "anna") }
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
    done(store, sign_in(&first)).await;
    done(store, sign_in(&second)).await;
    let at = |session: &UserSession, ms: u64| store.user_session(session.token_sha256, UnixMs(NOW.0 + ms));
    assert_eq!(at(&first, 99).await, Ok(Some(first.clone())));
    assert_eq!(at(&first, 100).await, Ok(None), "expired");
    assert_eq!(at(&second, 100).await, Ok(Some(second.clone())));
    assert_eq!(store.user_session(sha256(b"third"), NOW).await, Ok(None));
    done(store, sign_out(second.token_sha256)).await;
    assert_eq!(at(&second, 0).await, Ok(None), "signed out");
    let leaves = audit_kinds(store).await.len();
    done(store, sign_out(second.token_sha256)).await;
    assert_eq!(audit_kinds(store).await.len(), leaves, "signing out twice is no news");
    let nobody = session(&User { id: UserId::from_bytes(fresh()), ..admin }, b"x", UnixMs(NOW.0 + 1));
    conflicts(store, sign_in(&nobody), "not known").await;
}

pub(crate) async fn a_new_password_ends_all_sessions(store: &dyn Store) {
    let admin = admin();
    done(store, initialise(&admin)).await;
    let kept = session(&admin, b"one", UnixMs(NOW.0 + 100));
    done(store, sign_in(&kept)).await;
    let set = |user: UserId| Write::UserPasswordSet {
        user,
        password_hash: "$argon2id$two".to_owned(),
        audit: entry(AuditKind::AccountChange, "anna"),
    };
    conflicts(store, set(UserId::from_bytes(fresh())), "not known").await;
    assert_eq!(store.user_session(kept.token_sha256, NOW).await, Ok(Some(kept.clone())));
    done(store, set(admin.id)).await;
    assert_eq!(store.user_session(kept.token_sha256, NOW).await, Ok(None));
    let changed = store.user_by_name(admin.name).await.unwrap().unwrap();
    assert_eq!(changed.password_hash, "$argon2id$two");
}
