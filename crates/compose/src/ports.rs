//! Published ports: the short forms (`127.0.0.1:8080-8081:80-81/udp`) and the long one.
//!
//! A port without an address listens on `0.0.0.0`, as it does for Compose; the host's policy then
//! judges it and offers the loopback form.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

use actions::spec::{ExposedPort, PortProtocol, PortSpec};

use crate::{
    limits::{PORT_RANGE_MAX, PORTS_MAX},
    reading::{Field, Reading, is_extension},
};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const KEYS: &[&str] = &["target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"];

/// Reads `ports`; each port comes with the field it was read from.
pub(crate) fn read<'n>(reading: &mut Reading<'_>, field: &Field<'n>) -> Vec<(PortSpec, Field<'n>)> {
    let mut ports = Vec::new();
    for item in reading.list(field).unwrap_or_default() {
        if ports.len() > PORTS_MAX {
            break;
        }
        let read = if item.is_mapping() { long(reading, &item) } else { reading.parsed(&item, short) };
        ports.extend(read.unwrap_or_default().into_iter().map(|port| (port, item.clone())));
    }
    if ports.len() > PORTS_MAX {
        reading.refuse(field, format!("more than {PORTS_MAX} ports in one service"));
        ports.truncate(PORTS_MAX);
    }
    ports
}

fn port(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a port is written [address:][port on the host:]port in the container[/tcp or /udp]");
    }
    text.parse().ok().filter(|&port| port > 0).ok_or("a port is a number from 1 to 65535")
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if last < first {
        return Err("the range of ports ends before it begins");
    }
    if last - first >= PORT_RANGE_MAX {
        return Err("a range holds at most 256 ports");
    }
    Ok(first..=last)
}

fn protocol(text: &str) -> Result<PortProtocol, &'static str> {
    match text {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        _ => Err("the protocol is tcp or udp"),
    }
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "the address before the ports is not an IP address; IPv6 stands in brackets, as in [::1]:80:80")
}

/// Joins host ports to container ports one by one.
fn joined(
    host_ip: IpAddr,
    host: Option<RangeInclusive<u16>>,
    container: RangeInclusive<u16>,
    protocol: PortProtocol,
) -> Result<Vec<PortSpec>, &'static str> {
    let spec = |host_port, container_port| PortSpec { host_ip, host_port, container_port, protocol };
    let Some(host) = host else {
        return Ok(container.map(|container_port| spec(None, container_port)).collect());
    };
    if host.len() != container.len() {
        return Err("as many ports on the host as in the container are needed: ranges of the same length");
    }
    Ok(host.zip(container).map(|(host_port, container_port)| spec(Some(host_port), container_port)).collect())
}

/// `[[address:][host]:]container[/protocol]`, host and container each a port or a range.
pub(crate) fn short(text: &str) -> Result<Vec<PortSpec>, &'static str> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, name)) => (rest, protocol(name)?),
        None => (text, PortProtocol::Tcp),
    };
    let (host_ip, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (ip, rest) = bracketed.split_once("]:").ok_or("the address in brackets is not closed by `]:`")?;
            (Some(address(ip)?), rest)
        }
        None => match rest.match_indices(':').count() {
            0 | 1 => (None, rest),
            2 => {
                let (ip, rest) = rest.split_once(':').unwrap_or((rest, ""));
                (Some(address(ip)?), rest)
            }
            _ => return Err("too many colons; an IPv6 address stands in brackets, as in [::1]:80:80"),
        },
    };
    let (host, container) = match rest.split_once(':') {
        Some(("", container)) if host_ip.is_some() => (None, range(container)?),
        Some((host, container)) => (Some(range(host)?), range(container)?),
        None if host_ip.is_none() => (None, range(rest)?),
        None => return Err("after the address come the port on the host and the port in the container"),
    };
    joined(host_ip.unwrap_or(ANY), host, container, protocol)
}

/// Reads `expose`: ports and ranges of the container, without any of the host.
pub(crate) fn exposed(reading: &mut Reading<'_>, field: &Field<'_>) -> Vec<ExposedPort> {
    let mut ports = Vec::new();
    for item in reading.list(field).unwrap_or_default() {
        for port in reading.parsed(&item, exposed_short).unwrap_or_default() {
            if !ports.contains(&port) && ports.len() < PORTS_MAX {
                ports.push(port);
            }
        }
    }
    ports
}

fn exposed_short(text: &str) -> Result<Vec<ExposedPort>, &'static str> {
    let (numbers, protocol) = match text.split_once('/') {
        Some((numbers, name)) => (numbers, protocol(name)?),
        None => (text, PortProtocol::Tcp),
    };
    if numbers.contains(':') {
        return Err("an exposed port is one of the container alone; ports of the host stand in `ports`");
    }
    Ok(range(numbers)?.map(|port| ExposedPort { port, protocol }).collect())
}

/// What makes a port the same as another: all its parts.
pub(crate) fn identity(port: &PortSpec) -> String {
    let published = port.host_port.map(|port| port.to_string()).unwrap_or_default();
    let protocol = if port.protocol == PortProtocol::Udp { "udp" } else { "tcp" };
    format!("{}:{published}:{}/{protocol}", port.host_ip, port.container_port)
}

fn long(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<Vec<PortSpec>> {
    let (mut target, mut published, mut host_ip, mut transport) = (None, None, ANY, PortProtocol::Tcp);
    for entry in reading.mapping(field)? {
        match entry.key {
            "target" => target = Some(reading.parsed(&entry, port)?),
            "published" => published = Some(reading.parsed(&entry, range)?),
            "host_ip" => host_ip = reading.parsed(&entry, address)?,
            "protocol" => transport = reading.parsed(&entry, protocol)?,
            // Without a swarm both mean the same.
            "mode" => reading.parsed(&entry, |text| match text {
                "host" | "ingress" => Ok(()),
                _ => Err("the mode is host or ingress"),
            })?,
            // Names for people; nothing acts on them.
            "name" | "app_protocol" => drop(reading.value(&entry)?),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a port", KEYS, &[]),
        }
    }
    let Some(target) = target else {
        reading.refuse_with(field, "the port has no `target`", "name the port in the container: `target: 80`");
        return None;
    };
    match joined(host_ip, published, target..=target, transport) {
        Ok(ports) => Some(ports),
        Err(_) => {
            reading.refuse_with(field, "`published` is a range, but `target` is one port", "name one port");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(port: &PortSpec) -> String {
        let host = port.host_port.map_or("?".to_owned(), |port| port.to_string());
        let protocol = if port.protocol == PortProtocol::Udp { "udp" } else { "tcp" };
        format!("{} {host}>{} {protocol}", port.host_ip, port.container_port)
    }

    fn check(text: &str, expected: &[&str]) {
        let ports = short(text).map(|ports| ports.iter().map(shown).collect::<Vec<_>>());
        assert_eq!(ports, Ok(expected.iter().map(|&port| port.to_owned()).collect()), "{text}");
    }

    fn check_error(text: &str, part: &str) {
        let error = short(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }

    #[test]
    fn short_forms() {
        check("3000", &["0.0.0.0 ?>3000 tcp"]);
        check("3000-3001/udp", &["0.0.0.0 ?>3000 udp", "0.0.0.0 ?>3001 udp"]);
        check("8080:80", &["0.0.0.0 8080>80 tcp"]);
        check("9090-9091:8080-8081", &["0.0.0.0 9090>8080 tcp", "0.0.0.0 9091>8081 tcp"]);
        check("127.0.0.1:8001:8001", &["127.0.0.1 8001>8001 tcp"]);
        check("127.0.0.1:5000-5001:5000-5001/udp", &["127.0.0.1 5000>5000 udp", "127.0.0.1 5001>5001 udp"]);
        check("127.0.0.1::5000", &["127.0.0.1 ?>5000 tcp"]);
        check("[::1]:6060:6060", &["::1 6060>6060 tcp"]);
        check("[::1]::53/udp", &["::1 ?>53 udp"]);
    }

    #[test]
    fn exposed_ports_are_of_the_container_alone() {
        let port = |port, protocol| ExposedPort { port, protocol };
        assert_eq!(exposed_short("80"), Ok(vec![port(80, PortProtocol::Tcp)]));
        assert_eq!(exposed_short("53-54/udp"), Ok(vec![port(53, PortProtocol::Udp), port(54, PortProtocol::Udp)]));
        for bad in ["", "8080:80", "80/sctp", "web"] {
            assert!(exposed_short(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        check_error("", "a port is written");
        check_error("web", "a port is written");
        check_error("80:", "a port is written");
        check_error(":80", "a port is written");
        check_error("0", "1 to 65535");
        check_error("65536", "1 to 65535");
        check_error("80/sctp", "tcp or udp");
        check_error("80-70", "ends before");
        check_error("1-60000", "256 ports");
        check_error("8000-9000:80", "256 ports");
        check_error("8000-8001:80", "same length");
        check_error("localhost:80:80", "not an IP address");
        check_error("::1:80:80", "in brackets");
        check_error("[::1]80", "not closed");
        check_error("127.0.0.1:80:80:80", "too many colons");
        check_error("[::1]:80", "after the address");
    }

    proptest! {
        #[test]
        fn a_written_port_comes_back(ip in any::<[u8; 4]>(), host in 1u16.., container in 1u16.., udp in any::<bool>()) {
            let ip = Ipv4Addr::from(ip);
            let protocol = if udp { PortProtocol::Udp } else { PortProtocol::Tcp };
            let text = format!("{ip}:{host}:{container}/{}", if udp { "udp" } else { "tcp" });
            let spec = PortSpec { host_ip: IpAddr::V4(ip), host_port: Some(host), container_port: container, protocol };
            prop_assert_eq!(short(&text), Ok(vec![spec]));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), near in r"[0-9:./\[\]-]{0,24}(/udp)?") {
            let _ = (short(&text), short(&near));
        }
    }
}
