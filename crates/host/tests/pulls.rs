//! How many images are pulled at a time, against an engine that pulls for as long as the test wants. It says
//! just enough of Docker's API for that.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use actions::effect::{Effect, Observation};
use host::{Engine, EngineConfig, limits::PULLS_MAX};
use ids::{FleetId, HostId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long something is waited for that should happen at once.
const SOON: Duration = Duration::from_secs(30);

/// What happened, in the order in which it did.
#[derive(Debug)]
enum News {
    /// The engine was asked for an image; a word lets that pull end.
    Asked(mpsc::Sender<()>),
    /// A pull waits for its turn.
    Waits,
    /// A pull is over.
    Done,
}

/// Answers each connection on a thread of its own; a pull's answer waits for a word.
fn engine(listener: UnixListener, news: UnboundedSender<News>) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let news = news.clone();
            thread::spawn(move || answer(&stream, &news));
        }
    });
}

fn answer(mut stream: &UnixStream, news: &UnboundedSender<News>) -> Option<()> {
    let mut head = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let first = head.next()?;
    head.for_each(drop);
    let body = if first.contains("/images/create") {
        let (go, wait) = mpsc::channel();
        news.send(News::Asked(go)).ok()?;
        wait.recv_timeout(SOON).ok()?;
        "{\"status\":\"done\"}\r\n"
    } else {
        r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12","Version":"20.10.0"}"#
    };
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).ok()
}

async fn heard(news: &mut UnboundedReceiver<News>) -> News {
    let heard = tokio::time::timeout(SOON, news.recv()).await.expect("something happens");
    heard.expect("the engine listens")
}

#[tokio::test]
async fn a_host_pulls_so_many_images_at_a_time_and_the_others_say_that_they_wait() {
    const PULLS: usize = PULLS_MAX + 2;
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("docker.sock");
    let (tell, mut news) = unbounded_channel();
    engine(UnixListener::bind(&socket).expect("a socket"), tell.clone());
    let config =
        EngineConfig { socket: Some(socket), fleet: FleetId::from_bytes([1; 16]), host: HostId::from_bytes([2; 16]) };
    let host = Engine::new(config).expect("an absolute path").with_credentials(directory.path().join("none.json"));
    for number in 0..PULLS {
        let (host, tell) = (host.clone(), tell.clone());
        tokio::spawn(async move {
            let effect = Effect::ImagePull { reference: format!("image{number}:1"), platform: None };
            let waits = tell.clone();
            let mut progress = move |line: String| {
                if line.contains("waiting for other pulls") {
                    waits.send(News::Waits).expect("the test listens");
                }
            };
            let done = host.perform(effect, &mut progress).await;
            assert!(matches!(done, Ok(Observation::Done)), "{done:?}");
            tell.send(News::Done).expect("the test listens");
        });
    }
    // All have come as far as they can: those that may pull do, and the others wait.
    let (mut open, mut waiting, mut done) = (Vec::new(), 0, 0);
    for _ in 0..PULLS {
        match heard(&mut news).await {
            News::Asked(go) => open.push(go),
            News::Waits => waiting += 1,
            News::Done => panic!("nobody let it end"),
        }
    }
    assert_eq!((open.len(), waiting), (PULLS_MAX, PULLS - PULLS_MAX));

    // Each that ends makes room for one: its end, and a beginning if one waits, come in either order.
    while let Some(go) = open.pop() {
        go.send(()).expect("it waits for that");
        let begins = usize::from(waiting > 0);
        waiting -= begins;
        for _ in 0..=begins {
            match heard(&mut news).await {
                News::Asked(go) => open.push(go),
                News::Done => done += 1,
                News::Waits => panic!("it has waited already"),
            }
        }
        assert!(open.len() <= PULLS_MAX);
    }
    assert_eq!(done, PULLS, "each came to its turn");
}
