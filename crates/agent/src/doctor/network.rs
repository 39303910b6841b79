//! The check of each address: does its name resolve, does something answer, and is it our control plane.

use std::{io, net::IpAddr};

use link::{DialError, Target, probe};
use tokio::{net::lookup_host, time::timeout};

use super::Finding;
use crate::{
    failure::words,
    limits,
    state_dir::{Enrolment, StateDir},
    status::Status,
};

/// Dials every address as the agent would, says nothing, and closes.
pub(super) async fn addresses(state: &StateDir, enrolment: &Enrolment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let directions = Status::read(state).ok().flatten().and_then(|status| status.directions);
    let (addresses, pins) = match directions {
        Some(directions) => (directions.addresses, directions.tls_pins),
        None => (enrolment.addresses.clone(), enrolment.tls_pins.clone()),
    };
    for address in addresses {
        findings.extend(name(&address).await);
        let target = Target { address: address.clone(), pins: pins.clone() };
        findings.push(finding(&address, probe(&target).await));
    }
    findings
}

/// Does the name resolve? An address without a name has nothing to look up.
async fn name(address: &str) -> Option<Finding> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return None;
    }
    let looked_up = timeout(limits::LOOK_UP_MAX, lookup_host(address)).await;
    Some(name_finding(host, looked_up.map(|found| found.map(|all| all.map(|one| one.ip()).collect())).ok()))
}

/// `None` for a look-up that took too long.
fn name_finding(host: &str, looked_up: Option<io::Result<Vec<IpAddr>>>) -> Finding {
    let check = "name";
    let advice = "Look at /etc/resolv.conf and /etc/hosts, and ask with `getent hosts NAME`; or let an administrator put \
                  an address instead of the name into the root metadata.";
    match looked_up {
        None => {
            let found = format!("{host} was not resolved within {} s", limits::LOOK_UP_MAX.as_secs());
            Finding::fail(check, found, advice)
        }
        Some(Err(error)) => Finding::fail(check, format!("{host} does not resolve: {}", words(&error)), advice),
        Some(Ok(found)) if found.is_empty() => Finding::fail(check, format!("{host} has no address"), advice),
        Some(Ok(mut found)) => {
            found.sort();
            found.dedup();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            Finding::ok(check, format!("{host} is {}", found.join(", ")))
        }
    }
}

/// Are there proxies set that somebody expects the agent to use?
pub(super) fn proxies(variable: impl Fn(&str) -> Option<String>) -> Option<Finding> {
    let names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    // Their values may hold a password.
    let set: Vec<&str> = names.into_iter().filter(|name| variable(name).is_some_and(|it| !it.is_empty())).collect();
    if set.is_empty() {
        return None;
    }
    let found = format!("{} set, which the agent does not use: it dials the control plane directly", set.join(", "));
    let advice = "Let the addresses below be reached without a proxy. Pulling images is Docker's part, whose daemon has \
                  proxy settings of its own.";
    Some(Finding::warn("proxy", found, advice))
}

fn finding(address: &str, probed: Result<(), DialError>) -> Finding {
    let check = "address";
    let error = match probed {
        Ok(()) => return Finding::ok(check, format!("{address} answers with a pinned TLS key")),
        Err(error) => error,
    };
    Finding::fail(check, words(&error), error.advice())
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use ids::Sha256;

    use super::*;
    use crate::doctor::render;

    #[test]
    fn every_way_to_fail_has_its_advice() {
        let address = || "control.example:7443".to_owned();
        let unresolved = io::Error::other("failed to lookup address information: Name or service not known");
        let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        let findings = [
            finding(&address(), Ok(())),
            finding(&address(), Err(DialError::Connect { address: address(), source: unresolved })),
            finding(&address(), Err(DialError::Connect { address: address(), source: refused })),
            finding(&address(), Err(DialError::Timeout { address: address(), seconds: 10, phase: "connecting" })),
            finding(&address(), Err(DialError::NotPinned { address: address(), presented: Sha256([7; 32]) })),
            finding(&address(), Err(DialError::Tls { address: address(), source: io::Error::other("not TLS") })),
        ];
        expect_file!["golden/addresses.txt"].assert_eq(&render(&findings));
    }

    #[test]
    fn names_and_proxies_are_told_in_words() {
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        let proxy = |name: &str| (name == "HTTPS_PROXY").then(|| "http://user:secret@proxy:3128".to_owned());
        let findings = [
            name_finding("control.example", Some(Ok(vec![[10, 0, 0, 2].into(), [10, 0, 0, 1].into()]))),
            name_finding("control.example", Some(Ok(Vec::new()))),
            name_finding("control.example", Some(Err(unknown))),
            name_finding("control.example", None),
            proxies(proxy).expect("one is set"),
        ];
        let text = render(&findings);
        assert!(!text.contains("secret"), "{text}");
        expect_file!["golden/names.txt"].assert_eq(&text);
        assert_eq!(proxies(|_| Some(String::new())), None);
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_does_not_resolve() {
        let finding = name("no-such-host.invalid:7443").await.expect("a name");
        assert_eq!(finding.verdict, crate::doctor::Verdict::Fail, "{finding:?}");
        assert_eq!(name("127.0.0.1:7443").await, None);
        assert_eq!(name("[::1]:7443").await, None);
        assert!(name("localhost:7443").await.expect("a name").found.contains("127.0.0.1"));
    }
}
