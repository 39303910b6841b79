//! Mounts of a service: named volumes, files of the host, and temporary file systems in memory.

use std::collections::BTreeSet;

use actions::spec::{MountSpec, ServiceSpec};
use ids::ServiceName;

use crate::{
    paths,
    reading::{Field, Reading, Value, is_extension},
    units,
};

pub(crate) const KEYS: &[&str] = &["type", "source", "target", "read_only", "volume", "tmpfs", "bind", "consistency"];
const LATER: &[(&str, &str)] =
    &[("image", "copy the files into a named volume, or put them into the service's own image")];
const NO_ANONYMOUS: &str =
    "name it, so that its data is found again: `data:/path`, with `volumes: {data: }` at the top";
const NO_SELINUX: &str = "label the files on the host (`chcon -t container_file_t`), and leave it out";
const PROPAGATIONS: &[&str] = &["rprivate", "private", "rslave", "slave", "rshared", "shared"];

/// Reads `volumes` of a service. Each named volume comes with the field it was read from.
pub(crate) fn read<'n>(
    reading: &mut Reading<'_>,
    field: &Field<'n>,
    used: &mut Vec<(ServiceName, Field<'n>)>,
) -> Vec<MountSpec> {
    let mut mounts: Vec<MountSpec> = Vec::new();
    let mut targets = BTreeSet::new();
    for item in reading.list(field).unwrap_or_default() {
        let mount = if item.is_mapping() { long(reading, &item) } else { short(reading, &item) };
        let Some(mount) = mount else { continue };
        if !targets.insert(target(&mount).to_owned()) {
            reading.refuse(&item, "two mounts have the same target");
        }
        if let MountSpec::Volume { volume, .. } = &mount {
            used.push((volume.clone(), item));
        }
        mounts.push(mount);
    }
    mounts
}

fn target(mount: &MountSpec) -> &str {
    match mount {
        MountSpec::Volume { target, .. } | MountSpec::Bind { target, .. } | MountSpec::Tmpfs { target, .. } => target,
    }
}

/// No two mounts or files of a service at one place, whichever keys bring them.
pub(crate) fn check_targets(reading: &mut Reading<'_>, field: &Field<'_>, spec: &ServiceSpec) {
    let mut targets = BTreeSet::new();
    let files = spec.files.iter().map(|file| file.target.as_str());
    let memory = spec.mounts.iter().filter(|mount| matches!(mount, MountSpec::Tmpfs { .. })).map(target);
    let others = spec.mounts.iter().filter(|mount| !matches!(mount, MountSpec::Tmpfs { .. })).map(target);
    // Two of `volumes` are told where they stand.
    let others: BTreeSet<&str> = others.collect();
    for target in others.into_iter().chain(memory).chain(files) {
        if !targets.insert(target) {
            let hint = "give one of `volumes`, `tmpfs`, `configs` and `secrets` another target";
            reading.refuse_with(field, "two mounts or files of the service have the same target", hint);
            return;
        }
    }
}

/// Whether Compose would take the source for a path of the host.
fn is_host_path(source: &str) -> bool {
    source.starts_with(['.', '~']) || source.contains(['/', '\\'])
}

/// What stands after the second colon.
#[derive(Default)]
struct ShortOptions {
    read_only: bool,
    propagation: Option<String>,
}

/// `name:/path[:ro|rw]`, `./path:/path[:ro|rw]`, `/path:/path[:ro|rw]`.
fn short(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<MountSpec> {
    let value = reading.value(field)?;
    let Some((source, rest)) = value.text.split_once(':') else {
        if value.text.starts_with('/') {
            reading.refuse_with(field, format!("{} is a volume without a name", value.shown()), NO_ANONYMOUS);
        } else {
            reading.refuse_with(
                field,
                format!("{} is not a mount", value.shown()),
                "write `name:/path in the container`",
            );
        }
        return None;
    };
    let (path, options) = rest.split_once(':').unwrap_or((rest, ""));
    if rest.starts_with('\\') || path.starts_with('\\') {
        reading.refuse_with(field, format!("{} is not a mount", value.shown()), "paths of Windows are not known here");
        return None;
    }
    let target = match paths::mount_target(path) {
        Ok(target) => target,
        Err(reason) => {
            reading.refuse_value(field, &value, reason);
            return None;
        }
    };
    let bind = is_host_path(source);
    let options = short_options(reading, field, &value, options, bind);
    if bind {
        let (source, create) = bind_source(reading, field, &value, source)?;
        let ShortOptions { read_only, propagation } = options;
        return Some(MountSpec::Bind { source, target, read_only, create, propagation });
    }
    let volume = reading.name(field, &value, source)?;
    Some(MountSpec::Volume { volume, target, read_only: options.read_only })
}

fn short_options(reading: &mut Reading<'_>, field: &Field<'_>, value: &Value, text: &str, bind: bool) -> ShortOptions {
    let mut options = ShortOptions::default();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => options.read_only = true,
            "rw" => options.read_only = false,
            "z" | "Z" => {
                reading.refuse_with(field, "the options z and Z (SELinux labels) are not supported here", NO_SELINUX)
            }
            "nocopy" | "volume-nocopy" => reading.refuse(field, "the option nocopy is not supported here"),
            // They tell Docker Desktop how to share files with its virtual machine.
            "cached" | "delegated" | "consistent" => {
                reading.note_plain(field, format!("the option {option} has no effect on Linux"));
            }
            known if bind && PROPAGATIONS.contains(&known) => options.propagation = Some(known.to_owned()),
            _ => reading.refuse_value(field, value, "after the second colon stands ro or rw"),
        }
    }
    options
}

/// The source of a bind as the specification has it, and whether its directory is made if it is not
/// there: only where the last part of the path does not look like a file's name.
fn bind_source(reading: &mut Reading<'_>, field: &Field<'_>, value: &Value, source: &str) -> Option<(String, bool)> {
    let looks_like_a_file = source.rsplit('/').next().is_some_and(|name| name.trim_start_matches('.').contains('.'));
    if source.starts_with('/') {
        return match paths::mount_target(source) {
            Ok(path) => Some((path, !looks_like_a_file)),
            Err(_) => {
                reading.refuse_value(
                    field,
                    value,
                    "a path of the host has no `..` and no control characters, and is not / itself",
                );
                None
            }
        };
    }
    let folder = reading.sources.folder(field.node.at).to_owned();
    let joined = match paths::joined(&folder, source) {
        Ok(joined) => joined,
        Err(reason) => {
            reading.refuse_value(field, value, reason);
            return None;
        }
    };
    let project = &reading.sources.project;
    let below = if joined == *project { Some("") } else { paths::relative(&joined, project) };
    let Some(below) = below else {
        let hint = "on the host a relative path stands for `<root>/<app>/…`, and nothing above that can be mounted";
        reading.refuse_with(field, format!("{} leaves the app's folder", value.shown()), hint);
        return None;
    };
    let source = format!("./{below}");
    let shown =
        if value.reached { "the path (hidden: a variable reached it)".to_owned() } else { format!("`{source}`") };
    let message = format!(
        "{shown} is looked for on the host, below `<root>/<app>/` of its first allowed root; nothing is sent from here"
    );
    reading.note(field, message, "files that the deploy shall bring stand in `configs`");
    Some((source, !looks_like_a_file))
}

/// A mount in long form, as it comes together.
#[derive(Default)]
struct Long {
    source: Option<(String, bool)>,
    volume: Option<ServiceName>,
    target: Option<String>,
    read_only: bool,
    create: Option<bool>,
    propagation: Option<String>,
    size_bytes: Option<u64>,
    mode: Option<u32>,
}

fn long(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<MountSpec> {
    let Some(kind) = field.find("type") else {
        let hint = "write `type: volume`, `type: bind` or `type: tmpfs`";
        reading.refuse_with(field, "the mount has no `type`", hint);
        return None;
    };
    let value = reading.value(&kind)?;
    let kind = match value.text.as_str() {
        "volume" => "volume",
        "tmpfs" => "tmpfs",
        "bind" => "bind",
        _ => {
            reading.refuse_value(&kind, &value, "the type is volume, bind or tmpfs");
            return None;
        }
    };
    let mut long = Long::default();
    for entry in reading.mapping(field)? {
        match (entry.key, kind) {
            ("type", _) => {}
            ("source", "volume") => {
                let value = reading.value(&entry)?;
                long.volume = Some(reading.name(&entry, &value, &value.text)?);
            }
            ("source", "bind") => {
                let value = reading.value(&entry)?;
                long.source = Some(bind_source(reading, &entry, &value, &value.text)?);
            }
            ("target", _) => long.target = Some(reading.parsed(&entry, paths::mount_target)?),
            ("read_only", "volume" | "bind") => {
                long.read_only = reading.parsed(&entry, units::switch).unwrap_or_default();
            }
            ("volume", "volume") => volume_options(reading, &entry),
            ("bind", "bind") => bind_options(reading, &entry, &mut long),
            ("tmpfs", "tmpfs") => (long.size_bytes, long.mode) = tmpfs_options(reading, &entry),
            ("consistency", _) => reading.note_plain(&entry, "`consistency` has no effect on Linux"),
            ("source" | "read_only" | "volume" | "tmpfs" | "bind", _) => {
                reading.refuse(&entry, format!("`{}` does not go with `type: {kind}`", entry.key));
            }
            (key, _) if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a mount", KEYS, LATER),
        }
    }
    finish_long(reading, field, kind, long)
}

fn finish_long(reading: &mut Reading<'_>, field: &Field<'_>, kind: &str, long: Long) -> Option<MountSpec> {
    let Some(target) = long.target else {
        reading.refuse_with(field, "the mount has no `target`", "name the path in the container: `target: /data`");
        return None;
    };
    let read_only = long.read_only;
    match kind {
        "tmpfs" => Some(MountSpec::Tmpfs { target, size_bytes: long.size_bytes, mode: long.mode }),
        "bind" => {
            let Some((source, create)) = long.source else {
                reading.refuse_with(field, "the bind has no `source`", "name the path on the host: `source: /srv/app`");
                return None;
            };
            let create = long.create.unwrap_or(create);
            Some(MountSpec::Bind { source, target, read_only, create, propagation: long.propagation })
        }
        _ => {
            let Some(volume) = long.volume else {
                reading.refuse_with(field, "the volume has no `source`", NO_ANONYMOUS);
                return None;
            };
            Some(MountSpec::Volume { volume, target, read_only })
        }
    }
}

fn bind_options(reading: &mut Reading<'_>, field: &Field<'_>, long: &mut Long) {
    const KEYS: &[&str] = &["propagation", "create_host_path", "recursive"];
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "create_host_path" => long.create = reading.parsed(&entry, units::switch),
            "propagation" => {
                long.propagation = reading.parsed(&entry, |text| match PROPAGATIONS.contains(&text) {
                    true => Ok(text.to_owned()),
                    false => Err("write rprivate, private, rslave, slave, rshared or shared"),
                });
            }
            "recursive" => {
                reading.parsed(&entry, |text| match text {
                    "enabled" => Ok(()),
                    _ => Err("mounts below the directory always come along: write enabled, or leave it out"),
                });
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "`bind` of a mount", KEYS, &[("selinux", NO_SELINUX)]),
        }
    }
}

fn volume_options(reading: &mut Reading<'_>, field: &Field<'_>) {
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "nocopy" => {
                if reading.parsed(&entry, units::switch) == Some(true) {
                    reading.refuse(&entry, "`nocopy: true` is not supported here");
                }
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(
                &entry,
                "`volume` of a mount",
                &["nocopy"],
                &[("subpath", "use a volume of its own instead"), ("labels", "put them on the volume at the top")],
            ),
        }
    }
}

fn tmpfs_options(reading: &mut Reading<'_>, field: &Field<'_>) -> (Option<u64>, Option<u32>) {
    let (mut size_bytes, mut mode) = (None, None);
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "size" => size_bytes = reading.parsed(&entry, units::bytes),
            "mode" => mode = reading.parsed(&entry, units::mode),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "`tmpfs` of a mount", &["size", "mode"], &[]),
        }
    }
    (size_bytes, mode)
}

/// `tmpfs` of a service: one or more of `/path[:option,…]`.
pub(crate) fn tmpfs(reading: &mut Reading<'_>, field: &Field<'_>) -> Vec<MountSpec> {
    let items = reading.one_or_more(field);
    items.iter().filter_map(|item| reading.parsed(item, tmpfs_short)).collect()
}

fn tmpfs_short(text: &str) -> Result<MountSpec, &'static str> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let (target, mut size_bytes, mut mode) = (paths::mount_target(path)?, None, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => size_bytes = Some(units::bytes(size)?),
            // Octal with or without a zero before it, as mount(8) takes it.
            Some(("mode", bits)) => mode = Some(units::mode(&format!("0o{}", bits.trim_start_matches("0o")))?),
            // What holds anyway.
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => {
                return Err(
                    "the options known are size=64m and mode=1777; it is never executable, has no set-user bits and no devices",
                );
            }
        }
    }
    Ok(MountSpec::Tmpfs { target, size_bytes, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_one_line() {
        let spec = |size_bytes, mode| Ok(MountSpec::Tmpfs { target: "/run".to_owned(), size_bytes, mode });
        assert_eq!(tmpfs_short("/run"), spec(None, None));
        assert_eq!(tmpfs_short("/run/:size=64m,mode=1777"), spec(Some(64 << 20), Some(0o1777)));
        assert_eq!(tmpfs_short("/run:rw,noexec,nosuid,mode=0755"), spec(None, Some(0o755)));
        for bad in ["", "run", "/", "/run:exec", "/run:uid=0", "/run:mode=9", "/run:size=x"] {
            assert!(tmpfs_short(bad).is_err(), "{bad}");
        }
    }
}
