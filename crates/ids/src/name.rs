//! Names people choose, checked once where they enter.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A name that breaks its kind's rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {} {kind}: use {rule}", article(kind))]
pub struct NameError {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

/// The indefinite article before a kind. (A user is "a user".)
pub(crate) fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'A', 'e', 'i', 'o']) { "an" } else { "a" }
}

fn is_label(text: &str, max: usize, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=max).contains(&bytes.len())
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
        && bytes.iter().all(|&b| edge(b) || inner(b))
}

fn is_action_name(text: &str) -> bool {
    text.len() <= 64 && text.contains('.') && text.split('.').all(|part| is_label(part, 32, |b| b == b'-'))
}

fn is_service_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(NameError { text, kind: $kind, rule: $rule })
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": concat!("A ", $kind, ": ", $rule, ".") })
            }
        }
    )*};
}

names! {
    /// A host's name: one DNS label (RFC 1123), so that it can become a DNS name.
    HostName, "host name", "1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
        |text| is_label(text, 63, |b| b == b'-');
    /// An app's name: unique in the fleet; also the Compose project name.
    AppName, "app name", "1 to 48 lower-case letters, digits, hyphens and underscores, beginning and ending with a letter or digit",
        |text| is_label(text, 48, |b| matches!(b, b'-' | b'_'));
    /// A service, network or volume inside an app.
    ServiceName, "service, network or volume name", "1 to 63 letters, digits, hyphens, underscores and dots, beginning with a letter or digit",
        is_service_name;
    /// An action's name, such as `app.deploy`.
    ActionName, "action name", "lower-case words joined by dots, such as app.deploy", is_action_name;
    /// What a label of a host is called, such as `env`.
    LabelKey, "label", "1 to 63 lower-case letters, digits, hyphens, underscores, dots and slashes, beginning and ending with a letter or digit",
        |text| is_label(text, 63, |b| matches!(b, b'-' | b'_' | b'.' | b'/'));
    /// What a label of a host says, such as `prod`.
    LabelValue, "label's value", "1 to 63 letters, digits, hyphens, underscores and dots, beginning with a letter or digit",
        is_service_name;
    /// An account's name.
    UserName, "user name", "1 to 48 lower-case letters, digits, hyphens, underscores, dots and at signs, beginning and ending with a letter or digit",
        |text| is_label(text, 48, |b| matches!(b, b'-' | b'_' | b'.' | b'@'));
}

/// What a host is for. A host carries one or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Role {
    /// Runs apps.
    App,
    /// Runs databases.
    Database,
    /// Keeps backups of other hosts.
    Backup,
    /// Answers DNS.
    Dns,
    /// Carries mail.
    Mail,
    /// Publishes apps.
    Proxy,
}

impl Role {
    /// Every role, in display order.
    pub const ALL: [Self; 6] = [Self::App, Self::Database, Self::Backup, Self::Dns, Self::Mail, Self::Proxy];

    /// The role's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Database => "database",
            Self::Backup => "backup",
            Self::Dns => "dns",
            Self::Mail => "mail",
            Self::Proxy => "proxy",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| NameError {
            text: text.chars().take(80).collect(),
            kind: "role",
            rule: "one of app, database, backup, dns, mail, proxy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        for good in ["a", "web-1", "db01"] {
            assert!(good.parse::<HostName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a\0", "a;b", &"a".repeat(64)] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        assert!("app.deploy".parse::<ActionName>().is_ok());
        for bad in ["app", "app..deploy", ".app", "App.deploy", "app.$(x)"] {
            assert!(bad.parse::<ActionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn error_names_text_and_rule() {
        let error = "Web".parse::<HostName>().map_err(|e| e.to_string());
        let action = "x".parse::<ActionName>().map_err(|e| e.to_string()).expect_err("refused");
        assert!(action.starts_with("\"x\" is not an action name"), "{action}");
        assert_eq!(article("user name"), "a");
        assert_eq!(error, Err("\"Web\" is not a host name: use 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit".to_owned()));
    }
}
