//! The agent's side of the wire against real listeners: the right one, and wrong ones of every kind.

mod support;

use std::{error::Error as _, time::Duration};

use ids::{CommandId, Sha256};
use link::{Connection, DialError, LinkError, Purpose, Target, dial, probe};
use rcgen::{CertificateParams, KeyPair};
use session::frames::{AgentFrame, ControlFrame};
use support::{Listener, ServerKey, Stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use wire::v1;

const PATIENCE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Says which channel binding it sees, then repeats what it hears.
async fn repeat(mut stream: Stream) {
    stream.send(ControlFrame::AuditHead(stream.exporter.0.to_vec())).await;
    while let Some(frame) = stream.receive().await {
        match frame {
            AgentFrame::Report(bytes) => stream.send(ControlFrame::Hello(bytes)).await,
            AgentFrame::Proof(_) => return,
            _ => stream.send_raw(v1::ControlFrame { frame: None }).await,
        }
    }
}

async fn dialled(listener: &Listener) -> Connection {
    within(dial(&listener.target(), Purpose::Session)).await.expect("the pinned key is accepted")
}

async fn first_exporter(connection: &mut Connection) -> Vec<u8> {
    match within(connection.receiver.receive()).await {
        Ok(ControlFrame::AuditHead(bytes)) => bytes,
        other => panic!("expected the listener's exporter, got {other:?}"),
    }
}

#[tokio::test]
async fn both_ends_see_the_same_binding_and_another_connection_has_another() {
    let listener = Listener::start(ServerKey::self_signed(), repeat).await;
    let (mut first, mut second) = (dialled(&listener).await, dialled(&listener).await);
    assert_eq!(first_exporter(&mut first).await, first.exporter.0);
    assert_eq!(first_exporter(&mut second).await, second.exporter.0);
    assert_ne!(first.exporter, second.exporter);
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order() {
    let listener = Listener::start(ServerKey::self_signed(), repeat).await;
    let mut connection = dialled(&listener).await;
    first_exporter(&mut connection).await;
    let frames: Vec<Vec<u8>> = [1, 400_000, 0, 17].into_iter().map(|size: usize| vec![7; size]).collect();
    for frame in &frames {
        connection.sender.send(AgentFrame::Report(frame.clone())).await.expect("sent");
    }
    for frame in frames {
        assert_eq!(within(connection.receiver.receive()).await, Ok(ControlFrame::Hello(frame)));
    }
}

#[tokio::test]
async fn someone_in_between_with_a_valid_certificate_is_refused() {
    let (heard, mut streams) = mpsc::unbounded_channel();
    let between = Listener::start(ServerKey::signed_by_an_authority(), move |_| {
        heard.send(()).expect("the test listens");
        async {}
    })
    .await;
    let honest = ServerKey::self_signed();
    let target = Target { address: between.address.to_string(), pins: vec![honest.pin, Sha256([9; 32])] };
    for purpose in [Purpose::Enrol, Purpose::Session] {
        match within(dial(&target, purpose)).await {
            Err(DialError::NotPinned { presented, .. }) => assert_eq!(presented, between.pin),
            other => panic!("must be refused for its key, got {other:?}"),
        }
    }
    assert!(matches!(within(probe(&target)).await, Err(DialError::NotPinned { .. })));
    assert!(streams.try_recv().is_err(), "no word was said to it");

    // The control: the same server is fine for whoever pinned its key.
    within(dial(&between.target(), Purpose::Session)).await.expect("accepted");
    within(streams.recv()).await.expect("its stream was opened");
    within(probe(&between.target())).await.expect("accepted");
}

#[tokio::test]
async fn no_pins_trust_nobody() {
    let listener = Listener::start(ServerKey::self_signed(), repeat).await;
    let target = Target { pins: Vec::new(), ..listener.target() };
    assert!(matches!(within(dial(&target, Purpose::Session)).await, Err(DialError::NotPinned { .. })));
}

#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_refused() {
    // It shows the honest certificate and signs the handshake with a key of its own.
    let (honest, own) = (KeyPair::generate().expect("randomness"), KeyPair::generate().expect("randomness"));
    let certificate = CertificateParams::new(Vec::new()).expect("no names").self_signed(&honest).expect("signed");
    let pin = ids::sha256(&rcgen::PublicKeyData::subject_public_key_info(&honest));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let private = rustls::pki_types::PrivateKeyDer::Pkcs8(own.serialize_der().into());
    let signing = provider.key_provider.load_private_key(private).expect("a key");
    let certified = rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], signing);
    let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let thief = Listener::start(ServerKey { config, pin }, repeat).await;
    match within(dial(&thief.target(), Purpose::Session)).await {
        Err(DialError::Tls { source, .. }) => assert!(source.to_string().contains("BadSignature"), "{source}"),
        other => panic!("must be refused for its signature, got {other:?}"),
    }
}

#[tokio::test]
async fn an_older_tls_is_refused() {
    let listen = async |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let key = KeyPair::generate().expect("randomness");
        let certificate = CertificateParams::new(Vec::new()).expect("no names").self_signed(&key).expect("signed");
        Listener::start(ServerKey::new(&key, vec![certificate.der().clone()], versions), repeat).await
    };
    let old = listen(&[&rustls::version::TLS12]).await;
    assert!(matches!(within(dial(&old.target(), Purpose::Session)).await, Err(DialError::Tls { .. })));
    // The control: a server that has both is spoken to in 1.3.
    let both = listen(&[&rustls::version::TLS12, &rustls::version::TLS13]).await;
    let mut connection = dialled(&both).await;
    assert_eq!(first_exporter(&mut connection).await, connection.exporter.0);
}

#[tokio::test]
async fn a_cut_connection_ends_and_is_never_dialled_again_behind_its_back() {
    let listener = Listener::start(ServerKey::self_signed(), repeat).await;
    let mut connection = dialled(&listener).await;
    first_exporter(&mut connection).await;
    // The listener ends the stream at this.
    connection.sender.send(AgentFrame::Proof(Vec::new())).await.expect("sent");
    assert!(matches!(within(connection.receiver.receive()).await, Err(LinkError::Ended(_))));
    // What is sent now goes nowhere, and above all not into a new connection with another binding.
    let more = async {
        while connection.sender.send(AgentFrame::Report(vec![1])).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within(more).await;
    assert_eq!(listener.accepted(), 1);
}

#[tokio::test]
async fn a_listener_that_goes_away_ends_the_connection() {
    let listener = Listener::start(ServerKey::self_signed(), repeat).await;
    let mut connection = dialled(&listener).await;
    first_exporter(&mut connection).await;
    drop(listener);
    assert!(matches!(within(connection.receiver.receive()).await, Err(LinkError::Ended(_))));
}

#[tokio::test]
async fn a_malformed_frame_is_named() {
    let listener = Listener::start(ServerKey::self_signed(), repeat).await;
    let mut connection = dialled(&listener).await;
    first_exporter(&mut connection).await;
    let frame = AgentFrame::Progress { command: CommandId::from_bytes([1; 16]), text: String::new() };
    connection.sender.send(frame).await.expect("sent");
    assert!(matches!(within(connection.receiver.receive()).await, Err(LinkError::Frame(_))));
}

#[tokio::test]
async fn something_that_does_not_speak_tls_is_said_to_be_something_else() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = tcp.local_addr().expect("it listens").to_string();
    tokio::spawn(async move {
        let (mut stream, _) = tcp.accept().await.expect("dialled");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        // Reading to the end keeps the socket open until the other side has seen what was written.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let target = Target { address: address.clone(), pins: vec![Sha256([1; 32])] };
    let error = within(dial(&target, Purpose::Session)).await.expect_err("not TLS");
    assert!(matches!(error, DialError::Tls { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&address) && text.contains("something other than a ServerFlow control plane"), "{text}");
    assert!(error.source().is_some() && error.advice().contains("what listens there"), "{}", error.advice());
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    // A port that was free a moment ago.
    let address = {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        tcp.local_addr().expect("it listens").to_string()
    };
    let target = Target { address, pins: vec![Sha256([1; 32])] };
    let error = within(dial(&target, Purpose::Session)).await.expect_err("nobody there");
    assert!(matches!(error, DialError::Connect { .. }), "{error:?}");
    assert!(error.advice().contains("nothing listens"), "{}", error.advice());
    let nonsense = Target { address: "nonsense".to_owned(), pins: Vec::new() };
    assert!(matches!(within(dial(&nonsense, Purpose::Session)).await, Err(DialError::Address { .. })));
}

#[tokio::test]
async fn a_silent_listener_is_given_up_after_its_time() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = Target { address: tcp.local_addr().expect("it listens").to_string(), pins: vec![Sha256([1; 32])] };
    let listener = tokio::spawn(async move {
        let accepted = tcp.accept().await.expect("dialled");
        // From here on only the dialling side's patience is waited for, in paused time.
        tokio::time::pause();
        std::future::pending::<()>().await;
        drop(accepted);
    });
    let error = dial(&target, Purpose::Session).await.expect_err("silence");
    assert!(matches!(error, DialError::Timeout { phase: "TLS handshake", seconds: 10, .. }), "{error:?}");
    listener.abort();
}
