//! The people's certificate: can it be used, for how long, and for the names people use?

use ids::UnixMs;
use rustls::pki_types::CertificateDer;

use super::{Finding, dates};
use crate::{
    config::Config,
    limits,
    people_tls::{self, PeopleTls},
    serve,
};

const CHECK: &str = "certificate";
const RENEW: &str = "Renew it (`serverflow-control-plane certificate` makes a self-signed one); a running control plane takes a new one up by itself.";

pub(super) fn people(config: &Config, now: UnixMs) -> Vec<Finding> {
    let Some((cert, key)) = &config.https else {
        return vec![Finding::ok(CHECK, "none: people are served plain HTTP, on loopback only")];
    };
    let leaf = match PeopleTls::load(cert, key).and_then(|_| people_tls::leaf(cert)) {
        Ok(leaf) => leaf,
        Err(error) => return vec![Finding::error(CHECK, &error)],
    };
    let mut findings = vec![valid(&leaf, now)];
    findings.extend(names(&leaf, &serve::host_names(config)));
    findings
}

fn valid(leaf: &CertificateDer<'_>, now: UnixMs) -> Finding {
    let Some((from, until)) = dates::validity(leaf) else {
        return Finding::fail(CHECK, "its dates cannot be read", RENEW);
    };
    if now < from {
        let found = format!("it fits its key, and is valid only in {}", from.since(now));
        return Finding::fail(CHECK, found, "Look at this machine's clock, or wait.");
    }
    let left = until.since(now);
    if left.0 == 0 {
        return Finding::fail(CHECK, format!("it expired {} ago", now.since(until)), RENEW);
    }
    let found = format!("it fits its key and is valid for {left}");
    if left < limits::CERTIFICATE_EXPIRY_WARNING {
        return Finding::warn(CHECK, found, RENEW);
    }
    Finding::ok(CHECK, found)
}

/// Every name that this control plane is configured to answer to should be one of the certificate's.
fn names(leaf: &CertificateDer<'_>, names: &[String]) -> Option<Finding> {
    let (certified, others): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| people_tls::certifies(leaf, name));
    let listed = |names: &[&String]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if others.is_empty() {
        return (!certified.is_empty()).then(|| Finding::ok("names", format!("it is for {}", listed(&certified))));
    }
    let found =
        format!("the certificate is not for {}: who connects by that is refused by their own side", listed(&others));
    let advice =
        "Have a certificate made with that name too, unless a proxy with a certificate of its own stands in front.";
    Some(Finding::warn("names", found, advice))
}
