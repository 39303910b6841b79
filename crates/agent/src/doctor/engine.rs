//! How the Docker Engine is set up, as far as that matters to apps and their logs.

use host::EngineVersion;

use super::Finding;

/// Storage drivers that copy whole files or are not kept any more.
const STORAGE_DRIVERS_POOR: [&str; 4] = ["vfs", "devicemapper", "aufs", "overlay"];
/// Log drivers whose lines can be read back through the engine.
const LOG_DRIVERS_READABLE: [&str; 3] = ["json-file", "local", "journald"];

/// One finding each for storage, control groups, logs and restarts.
pub(super) fn findings(engine: &EngineVersion) -> Vec<Finding> {
    vec![
        storage(&engine.storage_driver),
        cgroup(&engine.cgroup),
        logs(&engine.logging_driver),
        restarts(engine.live_restore),
    ]
}

fn storage(driver: &str) -> Finding {
    let (check, found) = ("storage", format!("Docker's storage driver is {driver}"));
    if STORAGE_DRIVERS_POOR.contains(&driver) {
        let advice = "Use overlay2 or the containerd image store: each container takes the space of its whole image \
                      otherwise, or the driver is not kept any more.";
        return Finding::warn(check, found, advice);
    }
    Finding::ok(check, found)
}

fn cgroup(version_and_driver: &str) -> Finding {
    let (check, found) = ("cgroup", format!("control groups: version {version_and_driver}"));
    if version_and_driver.starts_with('2') {
        return Finding::ok(check, found);
    }
    let advice = "Boot with control groups version 2 (systemd.unified_cgroup_hierarchy=1): limits on memory and processes \
                  hold only in part without it.";
    Finding::warn(check, found, advice)
}

fn logs(driver: &str) -> Finding {
    let (check, found) = ("logs", format!("Docker's log driver is {driver}"));
    if driver == "json-file" {
        let advice = "Set \"log-driver\": \"local\" in /etc/docker/daemon.json, or \"max-size\" and \"max-file\" for json-file: \
                      its files grow without end otherwise.";
        return Finding { advice: Some(advice.to_owned()), ..Finding::ok(check, found) };
    }
    if LOG_DRIVERS_READABLE.contains(&driver) {
        return Finding::ok(check, found);
    }
    let advice = "Use local, json-file or journald: `serverflow app logs` cannot read lines back from this one, and a deploy \
                  that fails cannot show them.";
    Finding::warn(check, found, advice)
}

fn restarts(live_restore: bool) -> Finding {
    let check = "restarts";
    if live_restore {
        return Finding::ok(check, "containers go on while Docker's daemon restarts");
    }
    let found = "containers stop while Docker's daemon restarts";
    let advice = "Set \"live-restore\": true in /etc/docker/daemon.json if apps shall go on while Docker is upgraded.";
    Finding { advice: Some(advice.to_owned()), ..Finding::ok(check, found) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::doctor::render;

    fn engine(storage: &str, cgroup: &str, logs: &str, live_restore: bool) -> EngineVersion {
        EngineVersion {
            version: "28.2.2".to_owned(),
            api_version: "1.50".to_owned(),
            storage_driver: storage.to_owned(),
            cgroup: cgroup.to_owned(),
            logging_driver: logs.to_owned(),
            root: "/var/lib/docker".into(),
            socket: "/var/run/docker.sock".into(),
            live_restore,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn an_engine_is_told_in_words() {
        let mut all = findings(&engine("overlay2", "2 (systemd)", "local", true));
        all.extend(findings(&engine("vfs", "1 (cgroupfs)", "syslog", false)));
        all.extend(findings(&engine("overlayfs", "2 (cgroupfs)", "json-file", false)));
        expect_file!["golden/engine.txt"].assert_eq(&render(&all));
    }
}
