use ids::{SessionId, UserId};

use super::*;
use crate::model::{Credential, TokenStanding};

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn user(number: u8, role: UserRole) -> User {
    User {
        id: UserId::from_bytes([number; 16]),
        name: format!("user{number}").parse().expect("a name"),
        role,
        password_hash: "$secret-hash".to_owned(),
        created_at: NOW,
        disabled_at: None,
        approver: None,
    }
}

fn as_principal(user: &User) -> Principal {
    Principal {
        user: user.id,
        user_name: user.name.clone(),
        role: user.role,
        credential: Credential::Session { id: SessionId::from_bytes([9; 16]), token_sha256: Sha256::ZERO },
        expires: NOW,
    }
}

/// Everything one account may do to another, in words.
fn granted(actor: &Principal, target: &User) -> Vec<&'static str> {
    let was = || target.clone();
    let session = UserSession {
        id: SessionId::from_bytes([3; 16]),
        token_sha256: Sha256::ZERO,
        user: target.id,
        user_name: target.name.clone(),
        role: target.role,
        created_at: NOW,
        expires: NOW,
        peer: String::new(),
    };
    let token = ApiToken { user: target.id, user_role: target.role, ..token(&as_principal(target)) };
    let tries = [
        ("see", may_see(actor, target).is_ok()),
        ("create", user_create(actor, was()).is_ok()),
        ("role", user_role_set(actor, was(), UserRole::Viewer, NOW).is_ok()),
        ("password", user_password_set(actor, was(), String::new(), NOW).is_ok()),
        ("disable", user_enabled_set(actor, was(), false, NOW).is_ok()),
        ("enable", user_enabled_set(actor, was(), true, NOW).is_ok()),
        ("delete", user_delete(actor, was(), NOW).is_ok()),
        ("session", session_end(actor, &session, NOW).is_ok()),
        ("sessions", sessions_end(actor, target, NOW).is_ok()),
        ("token", token_revoke(actor, &token, NOW).is_ok()),
    ];
    tries.into_iter().filter(|(_, may)| *may).map(|(what, _)| what).collect()
}

fn token(actor: &Principal) -> ApiToken {
    let request = TokenRequest {
        id: ApiTokenId::from_bytes([4; 16]),
        secret_sha256: Sha256::ZERO,
        name: "ci".to_owned(),
        role: None,
        lifetime: None,
    };
    token_create(actor, request, NOW).expect("granted")
}

#[test]
fn who_looks_after_whom_is_one_rule() {
    let all = ["see", "create", "role", "password", "disable", "enable", "delete", "session", "sessions", "token"];
    for actor_role in UserRole::ALL {
        for target_role in UserRole::ALL {
            let (actor, target) = (as_principal(&user(1, actor_role)), user(2, target_role));
            let may = match (actor_role, target_role) {
                (UserRole::Owner, _) | (UserRole::Admin, UserRole::Viewer | UserRole::Operator) => &all[..],
                _ => &[],
            };
            assert_eq!(granted(&actor, &target), may, "{actor_role} on {target_role}");
        }
    }
}

#[test]
fn everyone_has_the_own_password_sessions_and_tokens_and_nobody_shuts_the_own_account() {
    let own = ["see", "password", "session", "sessions", "token"];
    for role in [UserRole::Viewer, UserRole::Operator, UserRole::Admin] {
        let user = user(1, role);
        assert_eq!(granted(&as_principal(&user), &user), own, "{role}");
    }
    let owner = user(1, UserRole::Owner);
    let may = granted(&as_principal(&owner), &owner);
    assert!(!may.contains(&"disable") && !may.contains(&"delete"), "{may:?}");
    let error = user_delete(&as_principal(&owner), owner.clone(), NOW).expect_err("own").to_string();
    assert_eq!(error, "user1 is your own account; ask another owner to delete it");
}

#[test]
fn a_role_may_only_be_given_by_who_looks_after_it() {
    let (admin, operator) = (as_principal(&user(1, UserRole::Admin)), user(2, UserRole::Operator));
    for role in UserRole::ALL {
        assert_eq!(user_role_set(&admin, operator.clone(), role, NOW).is_ok(), role < UserRole::Admin, "{role}");
    }
    let error = user_role_set(&admin, operator, UserRole::Owner, NOW).expect_err("refused").to_string();
    assert_eq!(error, "admins may not do this to an account that is or becomes an owner; ask an owner");
}

#[test]
fn a_token_is_never_stronger_than_its_maker_nor_makes_another() {
    for maker in UserRole::ALL {
        let actor = as_principal(&user(1, maker));
        for role in UserRole::ALL {
            let asked = TokenRequest {
                id: ApiTokenId::from_bytes([4; 16]),
                secret_sha256: Sha256::ZERO,
                name: String::new(),
                role: Some(role),
                lifetime: None,
            };
            assert_eq!(token_create(&actor, asked.clone(), NOW).is_ok(), role <= maker, "{role} by {maker}");
            let by_token = Principal { credential: Credential::Token(asked.id), ..actor.clone() };
            assert!(token_create(&by_token, asked, NOW).is_err());
        }
        for later in UserRole::ALL {
            let token = ApiToken { user_role: later, ..token(&actor) };
            assert_eq!(token.effective_role(), maker.min(later), "it weakens with its maker");
        }
    }
}

#[test]
fn tokens_have_bounds_and_say_which_was_broken() {
    let actor = as_principal(&user(1, UserRole::Viewer));
    let refused = |name: &str, lifetime| {
        let (id, secret_sha256) = (ApiTokenId::from_bytes([4; 16]), Sha256::ZERO);
        let request = TokenRequest { id, secret_sha256, name: name.to_owned(), role: None, lifetime };
        token_create(&actor, request, NOW).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(refused("fine", Some(DurationMs::from_days(366))), Ok(()));
    for span in [DurationMs::from_secs(59), DurationMs::from_days(367), DurationMs(u64::MAX)] {
        assert_eq!(refused("", Some(span)), Err("ttl_seconds: between 60 and 31622400".to_owned()));
    }
    for name in ["a\nb", &"x".repeat(65)] {
        assert!(refused(name, None).is_err_and(|why| why.starts_with("name: ")), "{name}");
    }
    let standing = |at: u64, change: fn(&mut ApiToken)| {
        let mut token = token(&actor);
        change(&mut token);
        token.standing(UnixMs(at))
    };
    let expires = NOW.plus(limits::API_TOKEN_LIFETIME_DEFAULT).0;
    assert_eq!(standing(expires - 1, |_| {}), TokenStanding::Good);
    assert_eq!(standing(expires, |_| {}), TokenStanding::Expired);
    assert_eq!(standing(NOW.0, |token| token.user_disabled = true), TokenStanding::AccountDisabled);
    assert_eq!(standing(NOW.0, |token| token.revoked_at = Some(NOW)), TokenStanding::Revoked);
}

#[test]
fn names_of_the_control_plane_itself_are_not_given() {
    let owner = as_principal(&user(1, UserRole::Owner));
    for name in RESERVED {
        let user = User { name: name.parse().expect("a name"), ..user(2, UserRole::Viewer) };
        assert!(user_create(&owner, user).is_err_and(|error| error.to_string().starts_with("name: ")), "{name}");
    }
}

#[test]
fn no_record_holds_a_credential() {
    let (owner, target) = (as_principal(&user(1, UserRole::Owner)), user(2, UserRole::Admin));
    let writes = [
        user_create(&owner, target.clone()),
        user_password_set(&owner, target.clone(), "$new-hash".to_owned(), NOW),
        Ok(machine_password_set(target, "$new-hash".to_owned(), 0, NOW)),
        Ok(token_created(&owner, token(&owner))),
    ];
    for write in writes.map(|write| write.expect("granted")) {
        let words = match &write {
            Write::UserCreate { audit, .. } | Write::UserChange { audit, .. } | Write::ApiTokenCreate { audit, .. } => {
                let crate::ports::AuditRecord::Inline(record) = &audit.record else { panic!("inline") };
                format!("{} {} {}", audit.actor, audit.subject, String::from_utf8_lossy(record))
            }
            other => panic!("{other:?}"),
        };
        assert!(!words.contains("hash") && !words.contains("secret"), "{words}");
        if !matches!(write, Write::ApiTokenCreate { .. }) {
            assert!(!format!("{write:?}").contains("hash"), "nor does what may be logged");
        }
    }
}
