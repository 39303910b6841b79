//! The form of an agents' listener address: `host:port`, where host is a DNS name, an IPv4 address,
//! or an IPv6 address in brackets.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::limits;

/// Whether `text` is `host:port` with a port from 1 on.
#[must_use]
pub fn is_valid(text: &str) -> bool {
    if text.len() > limits::ADDRESS_BYTES_MAX {
        return false;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    is_port(port) && is_host(host)
}

fn is_port(text: &str) -> bool {
    // One text per port: no sign, no leading zero.
    !text.starts_with(['+', '0']) && text.parse::<u16>().is_ok()
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    host.parse::<Ipv4Addr>().is_ok() || host.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}
