//! The join token's text.

use data_encoding::BASE64URL_NOPAD;
use envelope::{
    address,
    token::{JoinToken, TokenError},
};
use ids::Sha256;
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::samples::id;

fn token(address: &str) -> JoinToken {
    JoinToken {
        fleet: id(1),
        token: id(2),
        secret: Zeroizing::new([3; 32]),
        root_sha256: Sha256([4; 32]),
        spki_sha256: Sha256([5; 32]),
        address: address.into(),
    }
}

fn same(a: &JoinToken, b: &JoinToken) -> bool {
    let parts = |it: &JoinToken| (it.fleet, it.token, *it.secret, it.root_sha256, it.spki_sha256, it.address.clone());
    parts(a) == parts(b)
}

fn text(token: &JoinToken) -> String {
    token.to_text().expect("a good address").to_string()
}

#[test]
fn a_token_keeps_its_text() {
    let token = token("control.example:7443");
    assert_eq!(
        text(&token),
        "sf1.AQEBAQEBAQEBAQEBAQEBAQICAgICAgICAgICAgICAgIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUUY29udHJvbC5leGFtcGxlOjc0NDM"
    );
    for around in [text(&token), format!("  {}\r\n", text(&token))] {
        assert!(same(&JoinToken::parse(&around).expect("parses"), &token));
    }
}

#[test]
fn damaged_tokens_are_refused() {
    let good = text(&token("control.example:7443"));
    assert!(JoinToken::parse(&good).is_ok());
    for (bad, why) in [
        ("", TokenError::Prefix),
        ("sf2.AAAA", TokenError::Prefix),
        ("sf1.", TokenError::Damaged),
        ("sf1.!!!!", TokenError::Damaged),
        (&good["sf1.".len()..], TokenError::Prefix),
        (&format!("{good}="), TokenError::Damaged),
        (&format!("{good}AAAA"), TokenError::Damaged),
        (&format!("{good}{}", "A".repeat(1024)), TokenError::Damaged),
    ] {
        assert_eq!(JoinToken::parse(bad).err(), Some(why), "{bad}");
    }
    for length in 0..good.len() {
        assert!(JoinToken::parse(&good[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn an_address_that_is_none_is_refused_both_ways() {
    assert!(token("10.0.0.1:7443").to_text().is_ok());
    assert_eq!(token("nowhere").to_text().err(), Some(TokenError::Address));
    let good = text(&token("control.example:7443"));
    let mut bytes = BASE64URL_NOPAD.decode(&good.as_bytes()[4..]).expect("base64url");
    *bytes.last_mut().expect("not empty") = b'x';
    let bad = format!("sf1.{}", BASE64URL_NOPAD.encode(&bytes));
    assert_eq!(JoinToken::parse(&bad).err(), Some(TokenError::Address));
}

#[test]
fn addresses_are_host_and_port() {
    for good in ["a:1", "control.example:7443", "127.0.0.1:65535", "[::1]:7443", "localhost:80", "my_host:80"] {
        assert!(address::is_valid(good), "{good}");
    }
    let long = format!("{}:1", "a.".repeat(150));
    for bad in [
        "",
        ":",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:+1",
        "a:01",
        "a: 1",
        "a b:1",
        "a:1 ",
        "::1:1",
        "[::1:1",
        "[a]:1",
        "a/b:1",
        "http://a:1",
        "a..b:1",
        "-a:1",
        "a-:1",
        "ä:1",
        "a\0:1",
        "a;b:1",
        &long,
    ] {
        assert!(!address::is_valid(bad), "{bad}");
    }
}

#[test]
fn the_secret_is_not_printed() {
    let shown = format!("{:?}", token("a:1"));
    assert!(shown.contains("a:1"));
    assert!(!shown.contains('3') && !shown.contains("secret"), "{shown}");
}

proptest! {
    #[test]
    fn any_token_round_trips(parts: ([u8; 16], [u8; 16], [u8; 32], [u8; 32], [u8; 32]), host in "[a-z]{1,20}(\\.[a-z]{1,20}){0,3}", port in 1u16..) {
        let (fleet, token, secret, root, spki) = parts;
        let token = JoinToken {
            fleet: ids::FleetId::from_bytes(fleet),
            token: ids::TokenId::from_bytes(token),
            secret: Zeroizing::new(secret),
            root_sha256: Sha256(root),
            spki_sha256: Sha256(spki),
            address: format!("{host}:{port}"),
        };
        let parsed = JoinToken::parse(&text(&token));
        prop_assert!(parsed.is_ok_and(|parsed| same(&parsed, &token)));
    }

    #[test]
    fn the_parser_never_panics(text in "(sf1\\.)?\\PC{0,300}", bytes: Vec<u8>) {
        let _ = JoinToken::parse(&text);
        let encoded = format!("sf1.{}", BASE64URL_NOPAD.encode(&bytes));
        if let Ok(parsed) = JoinToken::parse(&encoded) {
            prop_assert_eq!(parsed.to_text().map(|text| text.to_string()), Ok(encoded));
        }
    }
}
