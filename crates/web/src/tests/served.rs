//! Over a real connection: the listener, its limits and its end.

use fleet::model::UserRole;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Duration, timeout},
};

use super::world;
use crate::{credentials, serve};

const SOON: Duration = Duration::from_secs(20);

async fn ask(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let count = timeout(SOON, stream.read_buf(&mut read)).await.expect("an answer in time").unwrap();
        assert!(count > 0, "the connection ended before {end:?}: {}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn connections_are_answered_and_the_end_is_orderly() {
    let (state, parts) = world::state(UserRole::Admin).await;
    let (token, token_sha256) = credentials::bearer_token().unwrap();
    let session = fleet::model::UserSession {
        id: world::fresh(),
        token_sha256,
        user: parts.user.id,
        user_name: parts.user.name.clone(),
        role: UserRole::Admin,
        created_at: world::NOW,
        expires: world::NOW.plus(ids::DurationMs::from_days(1)),
        peer: String::new(),
    };
    let audit = crate::records::sign_in(&parts.user, session.expires, [127, 0, 0, 1].into(), world::NOW);
    let (store, password_hash) = (parts.store.clone(), parts.user.password_hash.clone());
    let write = fleet::ports::Write::UserSessionCreate { session, password_hash, audit };
    fleet::ports::Store::write(&*store, write).await.unwrap();

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, state, async {
        let _ = stopped.await;
    }));

    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("Host: {address}\r\nAuthorization: Bearer {}\r\n", token.as_str());
    ask(&mut stream, &format!("GET /health HTTP/1.1\r\n{head}\r\n")).await;
    assert!(read_until(&mut stream, "{\"status\":\"ok\"}").await.starts_with("HTTP/1.1 200"));
    ask(&mut stream, &format!("GET /api/v1/session HTTP/1.1\r\n{head}\r\n")).await;
    assert!(read_until(&mut stream, "\"name\":\"ada\"").await.starts_with("HTTP/1.1 200"), "the connection is kept");

    let mut other = TcpStream::connect(address).await.unwrap();
    ask(&mut other, "GET /health HTTP/1.1\r\nHost: rebound.example\r\n\r\n").await;
    assert!(read_until(&mut other, "wrong-host").await.starts_with("HTTP/1.1 421"));

    let mut strange = TcpStream::connect(address).await.unwrap();
    ask(&mut strange, "\x16\x03\x01 not HTTP\r\n\r\n").await;
    assert!(read_until(&mut strange, "\r\n\r\n").await.starts_with("HTTP/1.1 400"));

    stop.send(()).unwrap();
    timeout(SOON, served).await.expect("an end in time").unwrap().unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 16])).await.unwrap().unwrap(), 0, "idle connections are closed");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}
