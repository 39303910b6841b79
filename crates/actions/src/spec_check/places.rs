//! Where things go inside a container, and where binds come from.

use std::collections::BTreeSet;

use crate::{
    limits,
    registry::Fault,
    spec::{AppSpec, FileSpec, MountSpec, ServiceSpec},
};

/// How mounts made below a bind pass between host and container (`mount(2)`).
const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rslave", "slave", "rshared", "shared"];

pub(super) fn mount_check(spec: &AppSpec, mount: &MountSpec, at: &str) -> Result<(), Fault> {
    let target = match mount {
        MountSpec::Volume { volume, target, .. } => {
            if !spec.volumes.contains_key(volume) {
                return Err(Fault::new(at, format!("{volume} is not a volume of this app")));
            }
            target
        }
        MountSpec::Bind { source, target, propagation, .. } => {
            source_check(source, at)?;
            if propagation.as_ref().is_some_and(|how| !PROPAGATIONS.contains(&how.as_str())) {
                return Err(Fault::new(at, format!("propagation is one of {}", PROPAGATIONS.join(", "))));
            }
            target
        }
        MountSpec::Tmpfs { target, .. } => target,
    };
    target_check(target, at)
}

fn source_check(source: &str, at: &str) -> Result<(), Fault> {
    let relative = source == "." || source.starts_with("./");
    let climbs = source.split('/').any(|part| part == "..");
    if !(source.starts_with('/') || relative) || climbs || source.contains('\0') {
        return Err(Fault::new(
            at,
            format!(
                "{source:?} is not a path of the host: write it from /, or from ./ for the app's own directory, without .."
            ),
        ));
    }
    if source.len() > limits::PATH_BYTES_MAX {
        return Err(Fault::new(at, format!("a path of {} bytes, more than {}", source.len(), limits::PATH_BYTES_MAX)));
    }
    Ok(())
}

fn target_check(target: &str, at: &str) -> Result<(), Fault> {
    if !target.starts_with('/') || target.contains('\0') || target.split('/').any(|part| part == "..") {
        return Err(Fault::new(at, format!("{target:?} is not an absolute path inside the container")));
    }
    Ok(())
}

pub(super) fn files_check(service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    let max = limits::SERVICE_LIST_MAX;
    if service.files.len() > max {
        return Err(Fault::new(
            format!("{at}.files"),
            format!("{} files, more than the {max} that are possible", service.files.len()),
        ));
    }
    let of_mount = |mount: &MountSpec| match mount {
        MountSpec::Volume { target, .. } | MountSpec::Bind { target, .. } | MountSpec::Tmpfs { target, .. } => {
            target.clone()
        }
    };
    let mut taken: BTreeSet<String> = service.mounts.iter().map(of_mount).collect();
    for (index, FileSpec { target, mode, .. }) in service.files.iter().enumerate() {
        let at = format!("{at}.files[{index}]");
        target_check(target, &at)?;
        if target.ends_with('/') {
            return Err(Fault::new(at, format!("{target:?} is a directory; name the file itself")));
        }
        if mode.is_some_and(|mode| mode > 0o777) {
            return Err(Fault::new(at, "a mode is at most 0o777"));
        }
        if !taken.insert(target.clone()) {
            return Err(Fault::new(at, format!("something else is mounted at {target} already")));
        }
    }
    Ok(())
}
