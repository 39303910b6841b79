//! The two kinds of pattern in `policy.toml`.

use core::{fmt, net::IpAddr, str::FromStr};

use ids::ActionName;
use serde::{Deserialize, Deserializer, de};

/// An action's exact name, or every action below a word (`app.*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActionPattern {
    Exact(ActionName),
    Below(String),
}

impl ActionPattern {
    pub(crate) fn matches(&self, action: &ActionName) -> bool {
        match self {
            Self::Exact(name) => name == action,
            Self::Below(word) => action.as_str().strip_prefix(word).is_some_and(|rest| rest.starts_with('.')),
        }
    }
}

impl FromStr for ActionPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not an action: write an exact name such as \"app.deploy\", or \"app.*\" for all below app"
            )
        };
        if let Some(word) = text.strip_suffix(".*") {
            // Any name below the word must be an action name; a star elsewhere is no pattern.
            format!("{word}.x").parse::<ActionName>().map_err(|_| wrong())?;
            return Ok(Self::Below(word.to_owned()));
        }
        text.parse().map(Self::Exact).map_err(|_| wrong())
    }
}

/// An address and a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPattern {
    address: IpAddr,
    first: u16,
    last: u16,
}

impl PortPattern {
    /// Whether it covers publishing on `address`; no `port` means any the engine chooses.
    pub(crate) fn covers(&self, address: IpAddr, port: Option<u16>) -> bool {
        // Publishing on every address includes publishing on one of them.
        let address_covered =
            self.address == address || (self.address.is_unspecified() && self.address.is_ipv4() == address.is_ipv4());
        let ports_covered = match port {
            Some(port) => (self.first..=self.last).contains(&port),
            None => self.first <= 1 && self.last == u16::MAX,
        };
        address_covered && ports_covered
    }
}

impl FromStr for PortPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a port to publish: write \"127.0.0.1:8080\", \"127.0.0.1:8000-9000\", \"127.0.0.1:*\" or \"[::1]:443\""
            )
        };
        let (address, ports) = text.rsplit_once(':').ok_or_else(wrong)?;
        let address: IpAddr = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => IpAddr::V6(inner.parse().map_err(|_| wrong())?),
            None => IpAddr::V4(address.parse().map_err(|_| wrong())?),
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let (first, last) = match (ports, ports.split_once('-')) {
            ("*", _) => (1, u16::MAX),
            (_, Some((first, last))) => (port(first)?, port(last)?),
            (_, None) => (port(ports)?, port(ports)?),
        };
        if first > last { Err(wrong()) } else { Ok(Self { address, first, last }) }
    }
}

/// An address as it stands before a colon and a port.
pub(crate) struct Bracketed(pub(crate) IpAddr);

impl fmt::Display for Bracketed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}

macro_rules! deserialize_from_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

deserialize_from_text!(ActionPattern, PortPattern);
