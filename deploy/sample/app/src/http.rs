//! Just enough HTTP/1.1: one request per connection, one thread per connection, both bounded.
//!
//! The server keeps answering until SIGTERM or SIGINT; then it lets the requests under way finish,
//! for at most [`DRAIN_MAX`], and ends with 0. That is what an update without failed requests needs
//! from an app.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{self, ExitCode},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::fault::Fault;

/// Largest request head read, in bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Time one connection may take to send its request or to take the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections served at the same time; more are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// Time requests under way get after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(3);

struct Site {
    started: Instant,
    fault: Option<Fault>,
    page: String,
    /// Connections being served, and word of each that ends.
    open: Mutex<usize>,
    closed: Condvar,
}

/// Serves until a signal ends the process.
pub(crate) fn serve(port: u16, fault: Option<Fault>, page: &str) -> Result<ExitCode, String> {
    let site = Arc::new(Site::new(fault, page));
    let signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| format!("cannot watch for signals: {error}"))?;
    let drained = Arc::clone(&site);
    thread::spawn(move || end_on_signal(signals, &drained));
    if let Some(Fault::CrashAfter(span)) = fault {
        thread::spawn(move || crash_after(span));
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("cannot listen on port {port}: {error}; set PORT to a free one"))?;
    println!("sample: listening on port {port}");
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        if !site.enter() {
            continue;
        }
        let site = Arc::clone(&site);
        thread::spawn(move || {
            // A client that went away is its own affair.
            let _ = site.answer(connection);
            site.leave();
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn end_on_signal(mut signals: Signals, site: &Site) {
    if signals.forever().next().is_none() {
        return;
    }
    println!("sample: ending");
    // Whether it drained or the time is over: it ends.
    drop(site.closed.wait_timeout_while(site.open(), DRAIN_MAX, |open| *open > 0));
    process::exit(0);
}

#[expect(clippy::disallowed_methods, reason = "there is nothing to wait for: the delay itself is asked for")]
fn crash_after(span: Duration) {
    thread::sleep(span);
    eprintln!("sample: crashing, as FAIL says");
    process::exit(1);
}

impl Site {
    fn new(fault: Option<Fault>, page: &str) -> Self {
        let (open, closed) = (Mutex::new(0), Condvar::new());
        Self { started: Instant::now(), fault, page: page.to_owned(), open, closed }
    }

    fn open(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one connection in, if there is room.
    fn enter(&self) -> bool {
        let mut open = self.open();
        let has_room = *open < CONNECTIONS_MAX;
        *open += usize::from(has_room);
        has_room
    }

    fn leave(&self) {
        *self.open() -= 1;
        self.closed.notify_all();
    }

    fn answer(&self, mut connection: TcpStream) -> io::Result<()> {
        connection.set_read_timeout(Some(IO_TIMEOUT))?;
        connection.set_write_timeout(Some(IO_TIMEOUT))?;
        let head = read_head(&mut connection)?;
        let (status, kind, body) = self.respond(&head);
        write!(
            connection,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}; charset=utf-8\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nconnection: close\r\n\r\n",
            body.len()
        )?;
        if !head.starts_with("HEAD ") {
            connection.write_all(body.as_bytes())?;
        }
        connection.flush()
    }

    fn respond(&self, head: &str) -> (&'static str, &'static str, &str) {
        let mut words = head.lines().next().unwrap_or("").split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if !matches!(method, "GET" | "HEAD") {
            return ("405 Method Not Allowed", "text/plain", "only GET and HEAD\n");
        }
        match target.split('?').next().unwrap_or("") {
            "/" => ("200 OK", "text/html", &self.page),
            "/health" if self.is_healthy() => ("200 OK", "text/plain", "healthy\n"),
            "/health" => ("503 Service Unavailable", "text/plain", "not healthy\n"),
            _ => ("404 Not Found", "text/plain", "nothing here\n"),
        }
    }

    fn is_healthy(&self) -> bool {
        match self.fault {
            Some(Fault::Unhealthy) => false,
            Some(Fault::SlowHealth(span)) => self.started.elapsed() >= span,
            _ => true,
        }
    }
}

fn read_head(connection: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let count = connection.read(&mut buffer)?;
        if count == 0 || head.len() + count > HEAD_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        head.extend_from_slice(&buffer[..count]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Asks the server in this container for `/health`; the HTTP status it answered.
pub(crate) fn probe(port: u16) -> Result<u16, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |error: io::Error| format!("no answer from port {port}: {error}");
    let mut connection = TcpStream::connect_timeout(&address, IO_TIMEOUT).map_err(failed)?;
    connection.set_read_timeout(Some(IO_TIMEOUT)).map_err(failed)?;
    connection.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").map_err(failed)?;
    let head = read_head(&mut connection).map_err(failed)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.ok_or_else(|| format!("port {port} answered something that is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(fault: Option<Fault>, request: &str) -> &'static str {
        Site::new(fault, "page").respond(request).0
    }

    #[test]
    fn paths_methods_and_faults_decide_the_status() {
        assert_eq!(status(None, "GET / HTTP/1.1\r\n"), "200 OK");
        assert_eq!(status(None, "GET /health?x=1 HTTP/1.1\r\n"), "200 OK");
        assert_eq!(status(None, "GET /other HTTP/1.1\r\n"), "404 Not Found");
        assert_eq!(status(None, "POST / HTTP/1.1\r\n"), "405 Method Not Allowed");
        assert_eq!(status(Some(Fault::Unhealthy), "GET /health HTTP/1.1\r\n"), "503 Service Unavailable");
        let slow = Some(Fault::SlowHealth(Duration::from_secs(3600)));
        assert_eq!(status(slow, "GET /health HTTP/1.1\r\n"), "503 Service Unavailable");
        assert_eq!(status(Some(Fault::SlowHealth(Duration::ZERO)), "GET /health HTTP/1.1\r\n"), "200 OK");
    }
}
