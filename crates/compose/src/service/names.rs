//! Names and addresses: what a container is called, and how it looks up others.

use std::{collections::BTreeMap, net::IpAddr};

use super::{process::distinct, reach};
use crate::{
    limits::NAME_BYTES_MAX,
    reading::{Field, Reading},
};

/// Containers are named after app and service, so that two releases can stand side by side; the name
/// the file gives becomes one under which the others reach it.
pub(super) fn container_name(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<String> {
    let name = reading.parsed(field, reach::alias)?;
    reading.note(
        field,
        "containers are named after the app and the service; this name becomes an alias on the service's networks",
        "leave it out if nothing outside of the app looks for it",
    );
    Some(name)
}

/// A host name.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(known) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= NAME_BYTES_MAX && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("a host name has letters, digits, hyphens and underscores, in parts of at most 63 with dots between")
    }
}

/// `name=address` and `name:address`, or a mapping of names to one or more addresses.
pub(super) fn extra_hosts(reading: &mut Reading<'_>, field: &Field<'_>) -> BTreeMap<String, Vec<String>> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |name: String, address: String| {
        let addresses = hosts.entry(name).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    };
    if field.is_mapping() {
        for entry in reading.mapping(field).unwrap_or_default() {
            let Ok(name) = host(entry.key) else {
                reading.refuse(&entry, "the key is not a host name");
                continue;
            };
            for item in reading.one_or_more(&entry) {
                if let Some(address) = reading.parsed(&item, host_address) {
                    add(name.clone(), address);
                }
            }
        }
    } else {
        for item in reading.list(field).unwrap_or_default() {
            if let Some((name, address)) = reading.parsed(&item, host_with_address) {
                add(name, address);
            }
        }
    }
    hosts
}

fn host_with_address(text: &str) -> Result<(String, String), &'static str> {
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or("a host is written name=address")?;
    Ok((host(name)?, host_address(address)?))
}

/// An IP address, or the host itself. IPv6 may stand in brackets.
fn host_address(text: &str) -> Result<String, &'static str> {
    if text == "host-gateway" {
        return Ok(text.to_owned());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| "the address is an IP address or host-gateway")
}

pub(super) fn resolvers(reading: &mut Reading<'_>, field: &Field<'_>) -> Vec<IpAddr> {
    let mut resolvers = Vec::new();
    for item in reading.one_or_more(field) {
        let ip = reading.parsed(&item, |text| text.parse::<IpAddr>().map_err(|_| "a resolver is an IP address"));
        resolvers.extend(ip.filter(|ip| !resolvers.contains(ip)));
    }
    resolvers
}

pub(super) fn search_domains(reading: &mut Reading<'_>, field: &Field<'_>) -> Vec<String> {
    // `.` alone switches the host's own search domains off.
    let domain = |text: &str| if text == "." { Ok(text.to_owned()) } else { host(text) };
    if !field.is_list() {
        return reading.parsed(field, domain).into_iter().collect();
    }
    distinct(reading, field, domain)
}

/// `ndots:2`, `use-vc`.
pub(super) fn resolver_option(text: &str) -> Result<String, &'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':');
    if (1..=64).contains(&text.len()) && text.bytes().all(known) {
        Ok(text.to_owned())
    } else {
        Err("an option of the resolver is a word such as ndots:2")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        for good in ["web", "a.example.org", "x_y-1"] {
            assert!(host(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "ä", &"a".repeat(64)] {
            assert!(host(bad).is_err(), "{bad}");
        }
        for (text, expected) in [
            ("db=10.0.0.1", ("db", "10.0.0.1")),
            ("db:10.0.0.1", ("db", "10.0.0.1")),
            ("db=[::1]", ("db", "::1")),
            ("db:::1", ("db", "::1")),
            ("gw:host-gateway", ("gw", "host-gateway")),
        ] {
            let expected = Ok((expected.0.to_owned(), expected.1.to_owned()));
            assert_eq!(host_with_address(text), expected, "{text}");
        }
        for bad in ["db", "db=", "=1.2.3.4", "db=example.org", "db:1.2.3.4:80"] {
            assert!(host_with_address(bad).is_err(), "{bad}");
        }
        assert!(resolver_option("ndots:2").is_ok() && resolver_option("a b").is_err());
    }
}
