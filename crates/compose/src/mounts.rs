//! Mounts of a service: named volumes and temporary file systems in memory. What would reach into
//! the host's own files is refused in words.

use actions::spec::MountSpec;
use ids::ServiceName;

use crate::{
    paths,
    reading::{Field, Reading, is_extension},
    units,
};

const KEYS: &[&str] = &["type", "source", "target", "read_only", "volume", "tmpfs"];
const LATER: &[(&str, &str)] = &[
    ("bind", NO_BIND),
    ("consistency", "it has no effect on Linux: leave it out"),
    ("image", "copy the files into a named volume, or put them into the service's own image"),
];
const NO_BIND: &str = "mounts of the host's own files (binds) are not supported by this version: \
    put data into a named volume (`data:/path`, with `volumes: {data: }` at the top), \
    files that never change into the image, and settings into `environment`";
const NO_ANONYMOUS: &str =
    "name it, so that its data is found again: `data:/path`, with `volumes: {data: }` at the top";

/// Reads `volumes` of a service. Each named volume comes with the field it was read from.
pub(crate) fn read<'n>(
    reading: &mut Reading<'_>,
    field: &Field<'n>,
    used: &mut Vec<(ServiceName, Field<'n>)>,
) -> Vec<MountSpec> {
    let mut mounts: Vec<MountSpec> = Vec::new();
    for item in reading.list(field).unwrap_or_default() {
        let mount = if item.is_mapping() { long(reading, &item) } else { short(reading, &item) };
        let Some(mount) = mount else { continue };
        if mounts.iter().any(|other| target(other) == target(&mount)) {
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

/// Whether Compose would take the source for a path of the host.
fn is_host_path(source: &str) -> bool {
    source.starts_with(['.', '~']) || source.contains(['/', '\\'])
}

/// `name:/path[:ro|rw]`.
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
    if is_host_path(source) || rest.starts_with('\\') {
        reading.refuse_with(field, format!("{} mounts files of the host", value.shown()), NO_BIND);
        return None;
    }
    let (path, options) = rest.split_once(':').unwrap_or((rest, "rw"));
    let volume = reading.name(field, &value, source)?;
    let target = match paths::mount_target(path) {
        Ok(target) => target,
        Err(reason) => {
            reading.refuse_value(field, &value, reason);
            return None;
        }
    };
    let mut read_only = false;
    for option in options.split(',') {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "z" | "Z" => {
                reading.refuse(field, "the options z and Z (SELinux labels) are not supported by this version")
            }
            "nocopy" | "volume-nocopy" => reading.refuse(field, "the option nocopy is not supported by this version"),
            _ => reading.refuse_value(field, &value, "after the second colon stands ro or rw"),
        }
    }
    Some(MountSpec::Volume { volume, target, read_only })
}

fn long(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<MountSpec> {
    let entries = reading.mapping(field)?;
    let Some(kind) = entries.iter().find(|entry| entry.key == "type") else {
        reading.refuse_with(field, "the mount has no `type`", "write `type: volume` or `type: tmpfs`");
        return None;
    };
    let value = reading.value(kind)?;
    let kind = match value.text.as_str() {
        "volume" => "volume",
        "tmpfs" => "tmpfs",
        "bind" => {
            reading.refuse_with(kind, "the mount brings in files of the host", NO_BIND);
            return None;
        }
        _ => {
            reading.refuse_value(kind, &value, "the type is volume or tmpfs");
            return None;
        }
    };
    let (mut source, mut target, mut read_only, mut size_bytes, mut mode) = (None, None, None, None, None);
    for entry in entries {
        match entry.key {
            "type" => {}
            "source" if kind == "volume" => {
                let value = reading.value(&entry)?;
                source = Some(reading.name(&entry, &value, &value.text)?);
            }
            "target" => target = Some(reading.parsed(&entry, paths::mount_target)?),
            "read_only" if kind == "volume" => read_only = reading.parsed(&entry, units::switch),
            "volume" if kind == "volume" => volume_options(reading, &entry),
            "tmpfs" if kind == "tmpfs" => (size_bytes, mode) = tmpfs_options(reading, &entry),
            "source" | "read_only" | "volume" | "tmpfs" => {
                reading.refuse(&entry, format!("`{}` does not go with `type: {kind}`", entry.key));
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a mount", KEYS, LATER),
        }
    }
    let Some(target) = target else {
        reading.refuse_with(field, "the mount has no `target`", "name the path in the container: `target: /data`");
        return None;
    };
    if kind == "tmpfs" {
        return Some(MountSpec::Tmpfs { target, size_bytes, mode });
    }
    let Some(volume) = source else {
        reading.refuse_with(field, "the volume has no `source`", NO_ANONYMOUS);
        return None;
    };
    Some(MountSpec::Volume { volume, target, read_only: read_only.unwrap_or(false) })
}

fn volume_options(reading: &mut Reading<'_>, field: &Field<'_>) {
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "nocopy" => {
                if reading.parsed(&entry, units::switch) == Some(true) {
                    reading.refuse(&entry, "`nocopy: true` is not supported by this version");
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
