//! The check of each address: does its name resolve, does something answer, and is it our control plane.

use std::error::Error as _;

use link::{DialError, Target, probe};

use super::Finding;
use crate::{
    failure::words,
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
        let target = Target { address: address.clone(), pins: pins.clone() };
        findings.push(finding(&address, probe(&target).await));
    }
    findings
}

fn finding(address: &str, probed: Result<(), DialError>) -> Finding {
    let check = "address";
    let error = match probed {
        Ok(()) => return Finding::ok(check, format!("{address} answers with a pinned TLS key")),
        Err(error) => error,
    };
    let advice = match &error {
        DialError::Connect { source, .. } if source.raw_os_error().is_none() => {
            "The name does not resolve: look at /etc/resolv.conf, and try the name with `getent hosts`."
        }
        DialError::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused => {
            "The machine answers, and nothing listens on that port: start the control plane, or look at its firewall."
        }
        DialError::Connect { .. } | DialError::Timeout { .. } => {
            "Look at the network and at the firewalls between this host and the control plane."
        }
        DialError::NotPinned { .. } => {
            "Ask an administrator which key the control plane has (its pins stand in the root metadata) before you trust \
             this network."
        }
        DialError::Tls { .. } => "See what listens there: a proxy in between must pass TLS through unopened.",
        DialError::Address { .. } | DialError::Exporter { .. } | DialError::Call { .. } => {
            "Ask an administrator for root metadata with a right address."
        }
    };
    let found = if error.source().is_some() { words(&error) } else { error.to_string() };
    Finding::fail(check, found, advice)
}

#[cfg(test)]
mod tests {
    use std::io;

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
}
