//! What the engine refuses, in words for a person.
//!
//! The engine answers with an HTTP status and a sentence in Go's manner. The kinds an action decides
//! on, and the hints a person needs, are read from both. A sentence that is not known is passed on
//! as it is, never hidden.

use std::{error::Error as _, io, path::Path};

use actions::effect::{EffectError, EffectErrorKind};
use bollard::errors::Error;

use crate::limits;

/// An error of this kind with these words.
pub(super) fn error(kind: EffectErrorKind, message: String) -> EffectError {
    EffectError { kind, message }
}

/// The status the engine answered with, if it answered.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine did not answer in time.
pub(super) fn timed_out(doing: &str, seconds: u64) -> EffectError {
    error(
        EffectErrorKind::EngineUnreachable,
        format!(
            "Could not {doing}: Docker did not answer within {seconds} s. It may still be busy with it. Look at the load \
             and the disk of the host and at `journalctl -u docker`, then try again."
        ),
    )
}

/// Why `doing` (such as `start container "web"`) failed.
pub(super) fn explain(doing: &str, socket: &Path, failed: &Error) -> EffectError {
    match failed {
        Error::DockerResponseServerError { status_code, message } => refusal(doing, *status_code, message),
        Error::DockerStreamError { error } => refusal(doing, 0, error),
        Error::RequestTimeoutError => timed_out(doing, limits::PULL_TIMEOUT.as_secs()),
        Error::IOError { .. }
        | Error::HyperResponseError { .. }
        | Error::HyperLegacyError { .. }
        | Error::SocketNotFoundError(_) => unreachable_engine(doing, socket, failed),
        other => error(
            EffectErrorKind::Refused,
            format!(
                "Could not {doing}: Docker's answer could not be understood ({}). Docker 20.10 or newer is needed; \
                 if it is, please report this.",
                clip(&other.to_string())
            ),
        ),
    }
}

fn unreachable_engine(doing: &str, socket: &Path, failed: &Error) -> EffectError {
    let socket = socket.display();
    let advice = match root_cause(failed) {
        _ if matches!(failed, Error::SocketNotFoundError(_)) => no_socket(),
        Some(io::ErrorKind::NotFound) => no_socket(),
        Some(io::ErrorKind::PermissionDenied) => {
            "the agent may not open it. Run the agent as root, or add its user to the group that owns the socket."
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            "nothing listens there. Start Docker with `systemctl start docker`; if it does not stay up, see \
             `journalctl -u docker`."
        }
        _ => {
            "the connection broke. Docker may be restarting; if it does not come back, see `systemctl status docker` \
             and `journalctl -u docker`."
        }
    };
    error(EffectErrorKind::EngineUnreachable, format!("Could not {doing}: Docker's socket is {socket}, and {advice}"))
}

const fn no_socket() -> &'static str {
    "it does not exist. Start Docker with `systemctl start docker`, or install it (Debian, Ubuntu: `apt-get install \
     docker.io`; elsewhere see docs.docker.com/engine/install); if its socket is elsewhere, tell the agent with \
     DOCKER_HOST=unix:///path."
}

fn root_cause(failed: &Error) -> Option<io::ErrorKind> {
    if let Error::IOError { err } = failed {
        return Some(err.kind());
    }
    let mut source = match failed {
        Error::HyperLegacyError { err } => err.source(),
        Error::HyperResponseError { err } => err.source(),
        _ => None,
    };
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return Some(cause.kind());
        }
        source = cause.source();
    }
    None
}

/// What a refusal means.
enum Meaning {
    Port,
    Address,
    DiskFull,
    ImageAbsent,
    ImageDenied,
    Platform,
    RateLimit,
    Registry,
    Program,
    Version,
    AddressPool,
    Other,
}

/// Phrases of the engine, of its registry client and of the runtime, in the order they are looked for.
const PHRASES: &[(&str, Meaning)] = &[
    ("client version", Meaning::Version),
    ("non-overlapping ipv4 address pool", Meaning::AddressPool),
    ("all predefined address pools have been fully subnetted", Meaning::AddressPool),
    ("no space left on device", Meaning::DiskFull),
    ("disk quota exceeded", Meaning::DiskFull),
    ("port is already allocated", Meaning::Port),
    ("address already in use", Meaning::Port),
    ("cannot assign requested address", Meaning::Address),
    ("toomanyrequests", Meaning::RateLimit),
    ("pull access denied", Meaning::ImageDenied),
    ("unauthorized", Meaning::ImageDenied),
    ("authentication required", Meaning::ImageDenied),
    ("no basic auth credentials", Meaning::ImageDenied),
    ("requested access to the resource is denied", Meaning::ImageDenied),
    ("no matching manifest", Meaning::Platform),
    ("no such image", Meaning::ImageAbsent),
    ("manifest unknown", Meaning::ImageAbsent),
    ("name unknown", Meaning::ImageAbsent),
    ("manifest for ", Meaning::ImageAbsent),
    ("repository does not exist", Meaning::ImageAbsent),
    ("repository name not known", Meaning::ImageAbsent),
    ("dial tcp", Meaning::Registry),
    ("no such host", Meaning::Registry),
    ("tls:", Meaning::Registry),
    ("x509:", Meaning::Registry),
    ("i/o timeout", Meaning::Registry),
    ("request canceled while waiting for connection", Meaning::Registry),
    ("server gave http response to https client", Meaning::Registry),
    ("executable file not found", Meaning::Program),
    ("exec format error", Meaning::Program),
    ("oci runtime create failed", Meaning::Program),
];

fn refusal(doing: &str, status: u16, text: &str) -> EffectError {
    let lower = text.to_ascii_lowercase();
    let meaning =
        PHRASES.iter().find(|(phrase, _)| lower.contains(phrase)).map_or(&Meaning::Other, |(_, meaning)| meaning);
    let said = clip(text);
    let (kind, hint) = match meaning {
        Meaning::Port => return port_taken(doing, &said),
        Meaning::Address => (
            EffectErrorKind::Refused,
            "the host has no such address to publish a port on. See `ip address`, then correct the port's address",
        ),
        Meaning::DiskFull => (
            EffectErrorKind::Refused,
            "the disk is full. See `df -h` and `docker system df`, free some space, then try again",
        ),
        Meaning::ImageAbsent => (
            EffectErrorKind::ImageNotFound,
            "the image does not exist. Check its name and tag; if it is built on this host, build it first",
        ),
        Meaning::ImageDenied => (
            EffectErrorKind::ImageNotFound,
            "the image does not exist, or it is private. Check its name; if it is private, run `docker login` on the \
             host as the agent's user",
        ),
        Meaning::Platform => {
            (EffectErrorKind::ImageNotFound, "the image is not made for this host's architecture. Use one that is")
        }
        Meaning::RateLimit => (
            EffectErrorKind::Refused,
            "the registry limits how much may be pulled. Wait, or run `docker login` on the host as the agent's user",
        ),
        Meaning::Registry => (
            EffectErrorKind::Refused,
            "the registry could not be reached from this host. Check its name, DNS, firewall and proxy, then try again",
        ),
        Meaning::Program => (
            EffectErrorKind::Refused,
            "the process of the container could not be started. Check command, entrypoint, user and working directory \
             against the image",
        ),
        Meaning::AddressPool => (
            EffectErrorKind::Refused,
            "Docker has no address range left for another network. Remove networks that nothing uses (`docker network \
             ls`), or give it more with `default-address-pools` in /etc/docker/daemon.json",
        ),
        // The engine was replaced since the version was agreed on: forgetting the connection agrees anew.
        Meaning::Version => {
            (EffectErrorKind::EngineUnreachable, "Docker was replaced by another version in the meantime. Try again")
        }
        Meaning::Other => return unnamed(doing, status, &said),
    };
    error(kind, format!("Could not {doing}: {hint}. Docker said: {said}"))
}

fn unnamed(doing: &str, status: u16, said: &str) -> EffectError {
    let kind = match status {
        404 => EffectErrorKind::NotFound,
        409 => EffectErrorKind::Conflict,
        _ => EffectErrorKind::Refused,
    };
    error(kind, format!("Could not {doing}. Docker said: {said}"))
}

fn port_taken(doing: &str, said: &str) -> EffectError {
    let message = match taken_address(said) {
        Some(address) => {
            let port = address.rsplit(':').next().unwrap_or(address);
            format!(
                "Could not {doing}: {address} is already taken on this host. See who has it with \
                 `docker ps --filter publish={port}` and `ss -lntup 'sport = :{port}'`, then stop that, or publish \
                 another port."
            )
        }
        None => format!(
            "Could not {doing}: a port it publishes is already taken on this host. See `docker ps` and `ss -lntup`, then \
             stop that, or publish another port. Docker said: {said}"
        ),
    };
    error(EffectErrorKind::Conflict, message)
}

/// The address in `Bind for 127.0.0.1:80 failed: …` or in `listen tcp4 127.0.0.1:80: bind: …`.
fn taken_address(text: &str) -> Option<&str> {
    let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    if let Some(rest) = after("Bind for ") {
        return rest.split_once(" failed").map(|(address, _)| address);
    }
    let rest = after("listen tcp").or_else(|| after("listen udp"))?;
    let (_, rest) = rest.split_once(' ')?;
    rest.split_once(": bind").map(|(address, _)| address)
}

/// Cuts the engine's text to what a message may carry, and to one line.
pub(super) fn clip(text: &str) -> String {
    let mut end = text.len().min(limits::ENGINE_TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut line: String = text[..end].trim().replace(['\n', '\r'], " ");
    if end < text.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use EffectErrorKind::{Conflict, EngineUnreachable, ImageNotFound, NotFound, Refused};

    fn check(status_code: u16, text: &str, kind: EffectErrorKind, words: &str) {
        let failed = Error::DockerResponseServerError { status_code, message: text.to_owned() };
        let got = explain("start container \"web\"", Path::new("/run/x.sock"), &failed);
        assert_eq!(got.kind, kind, "{text}");
        assert!(got.message.starts_with("Could not start container \"web\""), "{}", got.message);
        assert!(got.message.contains(words), "{words:?} is not in {:?}", got.message);
    }

    #[test]
    fn engine_sentences_become_kinds_and_advice() {
        let bind = "driver failed programming external connectivity on endpoint web (0a): Bind for 127.0.0.1:8088 \
                    failed: port is already allocated";
        check(500, bind, Conflict, "127.0.0.1:8088 is already taken");
        let listen = "Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use";
        check(500, listen, Conflict, "publish=80`");
        check(500, "listen udp4 [::]:53: bind: address already in use", Conflict, "[::]:53 is already");
        check(500, "address already in use", Conflict, "Docker said");
        check(500, "listen tcp4 10.9.9.9:80: bind: cannot assign requested address", Refused, "ip address");
        check(500, "write /var/lib/docker/x: no space left on device", Refused, "disk is full");
        check(404, "No such image: nginx:9", ImageNotFound, "name and tag");
        check(
            404,
            "pull access denied for x, repository does not exist or may require 'docker login'",
            ImageNotFound,
            "private",
        );
        check(404, "manifest for nginx:9 not found: manifest unknown: manifest unknown", ImageNotFound, "name and tag");
        check(500, "Get \"https://r/v2/\": dial tcp: lookup r: no such host", Refused, "DNS");
        check(429, "toomanyrequests: You have reached your pull rate limit", Refused, "docker login");
        check(
            400,
            "OCI runtime create failed: exec: \"/x\": stat /x: no such file or directory: unknown",
            Refused,
            "entrypoint",
        );
        check(404, "network blog_default not found", NotFound, "blog_default not found");
        check(409, "Conflict. The container name \"/web\" is already in use", Conflict, "already in use");
        check(
            400,
            "client version 1.53 is too new. Maximum supported API version is 1.41",
            EngineUnreachable,
            "Try again",
        );
        check(500, "something new", Refused, "Docker said: something new");
    }

    #[test]
    fn a_broken_connection_names_the_socket() {
        for (kind, words) in [
            (io::ErrorKind::PermissionDenied, "as root"),
            (io::ErrorKind::ConnectionRefused, "systemctl start docker"),
            (io::ErrorKind::BrokenPipe, "restarting"),
        ] {
            let got = explain("read it", Path::new("/run/x.sock"), &Error::IOError { err: kind.into() });
            assert_eq!(got.kind, EngineUnreachable);
            assert!(got.message.contains("/run/x.sock") && got.message.contains(words), "{}", got.message);
        }
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let text = "é".repeat(limits::ENGINE_TEXT_MAX);
        let got = clip(&text);
        assert!(got.len() <= limits::ENGINE_TEXT_MAX + '…'.len_utf8() && got.ends_with("é…"), "{}", got.len());
        assert_eq!(clip(" a\nb "), "a b");
    }
}
