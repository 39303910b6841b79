//! The units of systemd against the programs they start. A family of sockets that a unit does not allow is refused by
//! the kernel on packaged machines only, where no test of the program itself runs.

use crate::workspace::TextFile;

use super::Finding;
use super::rust_text::{code_only, without_tests};

/// Each unit, and the rooms whose sockets its program opens.
const UNITS: [(&str, &[&str]); 3] = [
    (
        "deploy/units/serverflow-control-plane.service",
        &["crates/control-plane/src/", "crates/web/src/", "crates/signer/src/"],
    ),
    ("deploy/units/serverflow-signer.service", &["crates/signer/src/"]),
    ("deploy/units/serverflow-agent.service", &["crates/agent/src/", "crates/host/src/", "crates/link/src/"]),
];

/// What opens a socket, and the families it may be of.
const SOCKETS: [(&str, &[&str]); 7] = [
    ("UnixListener", &["AF_UNIX"]),
    ("UnixStream", &["AF_UNIX"]),
    ("UnixDatagram", &["AF_UNIX"]),
    ("connect_with_unix", &["AF_UNIX"]),
    ("TcpListener", &["AF_INET", "AF_INET6"]),
    ("TcpStream", &["AF_INET", "AF_INET6"]),
    ("UdpSocket", &["AF_INET", "AF_INET6"]),
];

/// Every family that a program's rooms name a socket of stands in its unit.
pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    UNITS.iter().flat_map(|(unit, rooms)| check_unit(files, unit, rooms)).collect()
}

fn check_unit(files: &[TextFile], unit: &str, rooms: &[&str]) -> Vec<Finding> {
    let finding = |message: String| Finding { rule: "unit-sockets", place: unit.to_owned(), message };
    let line = files
        .iter()
        .find(|file| file.path == unit)
        .and_then(|file| file.text.lines().find_map(|line| line.strip_prefix("RestrictAddressFamilies=")));
    let Some(line) = line else {
        return vec![finding("has no RestrictAddressFamilies=, so its program may open any socket there is.".into())];
    };
    let allowed: Vec<&str> = line.split_whitespace().collect();
    let mut findings = Vec::new();
    for file in files {
        if !file.path.ends_with(".rs") || !rooms.iter().any(|room| file.path.starts_with(room)) {
            continue;
        }
        let code = without_tests(&code_only(&file.text));
        for (word, families) in SOCKETS.iter().filter(|(word, _)| code.contains(word)) {
            for family in families.iter().filter(|family| !allowed.contains(family)) {
                findings
                    .push(finding(format!("does not allow {family}, which {word} in {} needs. Add it.", file.path)));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(unit: &str, path: &str, code: &str) -> Vec<String> {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let files = [file(UNITS[0].0, unit), file(path, code)];
        check_unit(&files, UNITS[0].0, UNITS[0].1).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_family_that_is_opened_must_be_allowed() {
        let both = "[Service]\nRestrictAddressFamilies=AF_INET AF_INET6\n";
        let code = "let listener = UnixListener::bind(path)?;\nlet tcp = TcpListener::bind(address);";
        let expected = "does not allow AF_UNIX, which UnixListener in crates/control-plane/src/a.rs needs. Add it.";
        assert_eq!(found(both, "crates/control-plane/src/a.rs", code), [expected]);
        assert_eq!(found("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "crates/web/src/a.rs", code), [""; 0]);
        assert_eq!(found(both, "crates/cli/src/a.rs", code), [""; 0], "another program's");
        assert_eq!(found(both, "crates/web/src/a.rs", "// UnixListener\n"), [""; 0], "words");
        assert_eq!(found("[Service]", "crates/web/src/a.rs", "").len(), 1);
    }
}
