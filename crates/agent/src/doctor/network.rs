//! The check of each address: does its name resolve, does something answer, and is it our control plane.

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
    Finding::fail(check, words(&error), error.advice())
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
