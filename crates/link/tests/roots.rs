//! Root metadata from a server whose key is not known: one connection, two calls at most, and nothing else said.

mod support;

use ids::{FleetId, HostId, RootVersion};
use link::{DialError, exchange_roots};
use session::frames::RootsRequest;
use support::{Listener, ServerKey, Stream};
use wire::v1;

fn request(root_version: u64) -> RootsRequest {
    let (fleet, host) = (FleetId::from_bytes([1; 16]), HostId::from_bytes([2; 16]));
    RootsRequest { fleet, host, root_version: RootVersion(root_version), chain: Vec::new() }
}

fn answer(root_version: u64, envelopes: &[&[u8]]) -> v1::RootsAnswer {
    let envelopes = envelopes.iter().map(|envelope| envelope.to_vec()).collect();
    v1::RootsAnswer { root_version, chain: Some(v1::RootChain { envelopes }) }
}

async fn listener() -> Listener {
    // Neither pinned nor of this fleet: a stranger's certificate.
    Listener::start(ServerKey::signed_by_an_authority(), async |_: Stream| {}).await
}

#[tokio::test]
async fn an_unknown_server_is_asked_once_and_told_who_asks() {
    let listener = listener().await;
    listener.roots().answer(answer(3, &[b"two", b"three"]));
    let address = listener.address.to_string();
    let got = exchange_roots(&address, request(1), |_| unreachable!("it is not behind")).await.expect("an answer");
    assert_eq!((got.root_version, got.chain), (RootVersion(3), vec![b"two".to_vec(), b"three".to_vec()]));
    let asked = listener.roots().asked();
    assert_eq!((asked.len(), asked[0].root_version, &asked[0].chain), (1, 1, &Some(v1::RootChain::default())));
    assert_eq!((asked[0].fleet.as_slice(), asked[0].host.as_slice()), (&[1; 16][..], &[2; 16][..]));
    assert_eq!(listener.accepted(), 1);
}

#[tokio::test]
async fn one_that_is_behind_is_handed_what_it_lacks_on_the_same_connection() {
    let listener = listener().await;
    listener.roots().answer(answer(1, &[]));
    let lacks = |version: RootVersion| vec![format!("above {version}").into_bytes()];
    exchange_roots(&listener.address.to_string(), request(2), lacks).await.expect("an answer");
    let asked = listener.roots().asked();
    assert_eq!(asked.len(), 2, "and not a third time, though it says the same again");
    assert_eq!(asked[1].chain, Some(v1::RootChain { envelopes: vec![b"above 1".to_vec()] }));
    assert_eq!(listener.accepted(), 1, "one connection");
}

#[tokio::test]
async fn an_older_control_plane_and_one_that_sends_too_much_give_nothing() {
    let listener = listener().await;
    let address = listener.address.to_string();
    let ask = async || exchange_roots(&address, request(1), |_| Vec::new()).await.expect_err("nothing");
    assert!(matches!(ask().await, DialError::Call { message, .. } if message.contains("no such method")));
    listener.roots().answer(answer(9, &vec![&b""[..]; wire::limits::ROOT_CHAIN_MAX + 1]));
    assert!(matches!(ask().await, DialError::Call { message, .. } if message.contains("limit")));
    let large = vec![0; wire::limits::ENVELOPE_BYTES_MAX];
    listener.roots().answer(answer(9, &[&large[..]; 5]));
    assert!(matches!(ask().await, DialError::Call { .. }), "more bytes than a message may have");
}
