//! A control plane with canned answers. It hears every request and keeps it.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

/// Longest wait for something that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What to answer.
#[derive(Clone)]
pub(crate) enum Answer {
    /// A status and a JSON body.
    Json(u16, Value),
    /// A status and any body.
    Text(u16, String),
    /// A stream of events, which then ends.
    Events(Vec<Value>),
    /// A stream of events that never ends.
    EventsForEver(Vec<Value>),
    /// The connection is cut before any answer.
    Cut,
}

/// A request that was heard.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// Such as `GET /api/v1/hosts?x=y`.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

type Answers = BTreeMap<String, Vec<Answer>>;

#[derive(Default)]
struct State {
    answers: Answers,
    heard: Vec<Heard>,
}

/// The control plane. Its thread ends with the test's process.
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Server {
    /// Answers each request line, such as `GET /api/v1/hosts`, with its answers in turn, the last one
    /// for ever. Anything else is a 404 of the test server.
    pub(crate) fn new(answers: impl IntoIterator<Item = (&'static str, Vec<Answer>)>) -> Self {
        Self::start(answers, None)
    }

    /// The same over HTTPS; its address has the name `localhost`.
    pub(crate) fn secure(
        answers: impl IntoIterator<Item = (&'static str, Vec<Answer>)>,
        tls: Arc<rustls::ServerConfig>,
    ) -> Self {
        Self::start(answers, Some(tls))
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit_once(':').expect("a port").1.parse().expect("a port")
    }

    fn start(
        answers: impl IntoIterator<Item = (&'static str, Vec<Answer>)>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        let url = if tls.is_some() { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        let answers = answers.into_iter().map(|(line, answers)| (line.to_owned(), answers)).collect();
        let state = Arc::new((Mutex::new(State { answers, heard: Vec::new() }), Condvar::new()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &shared),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(tls).expect("a usable configuration");
                        serve(rustls::StreamOwned::new(session, stream), &shared);
                    }
                });
            }
        });
        Self { url, state }
    }

    /// From now on, this request is answered so.
    pub(crate) fn answer(&self, line: &str, answer: Answer) {
        self.state.0.lock().expect("not poisoned").answers.insert(line.to_owned(), vec![answer]);
    }

    /// Everything that was heard so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.state.0.lock().expect("not poisoned").heard.clone()
    }

    /// The requests whose line begins so.
    pub(crate) fn heard_of(&self, line: &str) -> Vec<Heard> {
        self.heard().into_iter().filter(|heard| heard.line.starts_with(line)).collect()
    }

    /// Waits until such a request was heard.
    pub(crate) fn wait_for(&self, line: &str) {
        let state = self.state.0.lock().expect("not poisoned");
        let none = |state: &mut State| !state.heard.iter().any(|heard| heard.line.starts_with(line));
        let (state, timeout) = self.state.1.wait_timeout_while(state, SOON, none).expect("not poisoned");
        assert!(!timeout.timed_out(), "{line} was not asked for; heard {:?}", state.heard);
    }
}

fn serve(mut stream: impl Read + Write, shared: &(Mutex<State>, Condvar)) {
    let Some(heard) = hear(&mut stream) else { return };
    let answer = {
        let mut state = shared.0.lock().expect("not poisoned");
        state.heard.push(heard.clone());
        shared.1.notify_all();
        match state.answers.get_mut(&heard.line) {
            None => Answer::Text(404, format!("the test has no answer to {}", heard.line)),
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
        }
    };
    // A client that went away is no matter of this side.
    let _ = reply(&mut stream, answer);
}

fn hear(stream: &mut impl Read) -> Option<Heard> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    let mut authorization = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = first.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    Some(Heard { line, authorization, body })
}

fn reply(stream: &mut (impl Read + Write), answer: Answer) -> std::io::Result<()> {
    let head =
        |status: u16, kind: &str| format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\n");
    let event = |value: &Value| format!("event: {}\ndata: {value}\n\n", value["event"].as_str().unwrap_or_default());
    match answer {
        Answer::Cut => Ok(()),
        Answer::Json(status, body) => {
            let kind = if status < 400 { "application/json" } else { "application/problem+json" };
            let body = if status == 204 { String::new() } else { body.to_string() };
            write!(stream, "{}content-length: {}\r\n\r\n{body}", head(status, kind), body.len())
        }
        Answer::Text(status, body) => {
            write!(stream, "{}content-length: {}\r\n\r\n{body}", head(status, "text/plain"), body.len())
        }
        Answer::Events(events) => {
            let body: String = events.iter().map(event).collect();
            write!(stream, "{}\r\n: hello\n\n{body}", head(200, "text/event-stream"))
        }
        Answer::EventsForEver(events) => {
            let body: String = events.iter().map(event).collect();
            write!(stream, "{}\r\n: hello\n\n{body}", head(200, "text/event-stream"))?;
            // Until the client goes away.
            stream.read(&mut [0]).map(drop)
        }
    }
}
