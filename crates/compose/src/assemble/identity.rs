//! When two items of a list are the same thing, so that a later one replaces the earlier: a mount by
//! its target, a port by all its parts, a file by where it goes. Items that are not understood are
//! like no other; whoever reads them says what is wrong.

use super::quiet;
use crate::{
    files, paths, ports,
    sources::Sources,
    yaml::{Kind, Node},
};

/// What makes an item the same as another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unique {
    /// The whole text.
    Text,
    Port,
    Mount,
    Device,
    EnvFile,
    Config,
    Secret,
}

/// What stands for the item.
pub(super) fn identity(sources: &Sources<'_>, item: &Node, unique: Unique) -> Option<String> {
    let text = || quiet(sources, item);
    let of = |key: &str| item.get(key).and_then(|node| quiet(sources, node));
    let is_mapping = matches!(item.kind, Kind::Mapping(_));
    match (unique, is_mapping) {
        (Unique::Text, false) => text(),
        (Unique::Text, true) => None,
        (Unique::Port, false) => match ports::short(&text()?).ok()?.as_slice() {
            [port] => Some(ports::identity(port)),
            // A range is the same as the same range.
            _ => text(),
        },
        (Unique::Port, true) => {
            let default = |key: &str, default: &str| of(key).unwrap_or_else(|| default.to_owned());
            let (ip, protocol) = (default("host_ip", "0.0.0.0"), default("protocol", "tcp"));
            Some(format!("{ip}:{}:{}/{protocol}", default("published", ""), of("target")?))
        }
        (Unique::Mount, false) => {
            let text = text()?;
            let mut parts = text.split(':');
            let first = parts.next()?;
            paths::absolute(parts.next().unwrap_or(first)).ok()
        }
        (Unique::Mount, true) => paths::absolute(&of("target")?).ok(),
        (Unique::Device, false) => {
            let text = text()?;
            let mut parts = text.split(':');
            let first = parts.next()?;
            Some(parts.next().unwrap_or(first).to_owned())
        }
        (Unique::Device, true) => of("target").or_else(|| of("source")),
        (Unique::EnvFile, false) => text().map(|path| paths::plain(&path)),
        (Unique::EnvFile, true) => of("path").map(|path| paths::plain(&path)),
        (Unique::Config, false) => files::target(files::Grant::Config, &text()?).ok(),
        (Unique::Secret, false) => files::target(files::Grant::Secret, &text()?).ok(),
        (Unique::Config, true) => files::target(files::Grant::Config, &of("target").or_else(|| of("source"))?).ok(),
        (Unique::Secret, true) => files::target(files::Grant::Secret, &of("target").or_else(|| of("source"))?).ok(),
    }
}
