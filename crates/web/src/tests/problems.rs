//! Problem documents, word for word: people and scripts rely on them.

use actions::DecodeError;
use axum::{body::to_bytes, response::IntoResponse as _};
use expect_test::expect_file;
use fleet::{
    model::{CommandStatus, UserRole},
    operation::{AppTargetError, CancelError, ProposeError},
    ports::StoreError,
};
use ids::CommandId;

use crate::{
    credentials::CredentialError,
    problem::{ApiError, Kind},
};

fn all() -> Vec<ApiError> {
    let id = CommandId::from_bytes([0x11; 16]);
    let deploy = || "app.deploy".parse().unwrap();
    vec![
        ApiError::field("ttl_seconds", "between 10 and 604800"),
        ApiError::new(Kind::HostNotFound, "there is no host alpha; see `serverflow host list`"),
        StoreError::Conflict("operation x exists already and asks for something else".to_owned()).into(),
        StoreError::TokenRefused.into(),
        StoreError::Unavailable("/var/lib/secret/path: disk full".to_owned()).into(),
        StoreError::Corrupt("/var/lib/secret/path: row 7".to_owned()).into(),
        CredentialError::Randomness.into(),
        CredentialError::Password.into(),
        DecodeError::Unknown { name: deploy(), version: 9 }.into(),
        DecodeError::TooLarge { name: deploy(), bytes: 300_000 }.into(),
        DecodeError::Parameter { name: deploy(), path: "spec.app".to_owned(), message: "missing".to_owned() }.into(),
        DecodeError::Parameter { name: deploy(), path: ".".to_owned(), message: "not UTF-8".to_owned() }.into(),
        ProposeError::NotAllowed { action: "app.deploy".to_owned(), needs: UserRole::Operator, has: UserRole::Viewer }
            .into(),
        ProposeError::HostNotActive { name: "alpha".to_owned(), why: "is quarantined".to_owned() }.into(),
        ProposeError::ActionMissing {
            host: "alpha".to_owned(),
            agent: "0.1.0".to_owned(),
            action: "a.b".to_owned(),
            version: 2,
            has: Some(1),
        }
        .into(),
        ProposeError::SchemaDiffers { host: "alpha".to_owned(), action: "a.b".to_owned(), version: 1 }.into(),
        AppTargetError::NotDeployed("shop".parse().unwrap()).into(),
        CancelError::Ended { command: id, status: CommandStatus::Succeeded }.into(),
        CancelError::IsCancel(id).into(),
    ]
}

#[test]
fn documents_are_as_written_down() {
    let mut text = String::new();
    for error in all() {
        text += &serde_json::to_string_pretty(&error.problem()).unwrap();
        text.push('\n');
    }
    assert!(!text.contains("secret/path"), "where the database lies is for the log");
    expect_file!["golden/problems.txt"].assert_eq(&text);
}

#[test]
fn each_kind_has_one_status_and_a_name_of_its_own() {
    let mut text = String::new();
    let mut names = std::collections::BTreeSet::new();
    for kind in Kind::ALL {
        assert!(names.insert(kind.urn()), "{}", kind.urn());
        text += &format!("{} {:40} {}\n", kind.status().as_u16(), kind.urn(), kind.title());
    }
    expect_file!["golden/kinds.txt"].assert_eq(&text);
}

#[tokio::test]
async fn a_problem_goes_out_as_problem_json() {
    let response = ApiError::new(Kind::Busy, "later").retry_after(7).into_response();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"7".parse().unwrap()));
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let bytes = to_bytes(response.into_body(), 10_000).await.unwrap();
    let problem: api::Problem = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((problem.kind.as_str(), problem.detail.as_str()), ("urn:serverflow:busy", "later"));
}

#[tokio::test]
async fn every_kind_goes_out_whole() {
    for kind in Kind::ALL {
        let response = ApiError::new(*kind, "what happened, to what, and what to do").into_response();
        assert_eq!(response.status(), kind.status());
        assert!(response.status().is_client_error() || response.status().is_server_error());
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let is_401 = response.status() == 401;
        assert_eq!(response.headers().contains_key("www-authenticate"), is_401, "RFC 9110 section 11.6.1");
        let bytes = to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: api::Problem = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((problem.kind.as_str(), problem.title.as_str()), (kind.urn(), kind.title()));
        assert_eq!(
            (problem.status, problem.detail.as_str()),
            (kind.status().as_u16(), "what happened, to what, and what to do")
        );
    }
}
