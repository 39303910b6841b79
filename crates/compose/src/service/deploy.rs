//! `deploy` and `scale`: what one host can do of them. Limits and the restart policy are carried out;
//! what only a swarm does is told in a note, for the app runs without it.

use actions::spec::RestartPolicy;

use super::{Draft, bounds};
use crate::{
    reading::{Field, Reading, is_extension},
    units,
};

const KEYS: &[&str] = &[
    "resources",
    "restart_policy",
    "replicas",
    "mode",
    "labels",
    "placement",
    "update_config",
    "rollback_config",
    "endpoint_mode",
];
const RESERVATIONS_LATER: &[(&str, &str)] = &[
    ("devices", "leave it out: devices of the host are named in `devices` of the service"),
    ("generic_resources", "leave it out: it serves swarms only"),
];

/// What `deploy` says, each with its place.
#[derive(Default)]
pub(super) struct Deploy<'n> {
    memory: Option<(u64, Field<'n>)>,
    memory_reserved: Option<(u64, Field<'n>)>,
    cpus_milli: Option<(u64, Field<'n>)>,
    pids: Option<(i64, Field<'n>)>,
    restart: Option<(RestartPolicy, Field<'n>)>,
}

pub(super) fn read<'n>(reading: &mut Reading<'_>, field: &Field<'n>) -> Deploy<'n> {
    let mut deploy = Deploy::default();
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "resources" => resources(reading, &mut deploy, &entry),
            "restart_policy" => deploy.restart = restart_policy(reading, &entry).map(|policy| (policy, entry)),
            "replicas" => one(reading, &entry),
            "mode" => {
                reading.parsed(&entry, |text| match text {
                    "replicated" | "global" => Ok(()),
                    _ => Err("write replicated or global: one container runs on each host either way. \
                        A job is a service with `restart: \"no\"`"),
                });
            }
            "placement" => {
                reading.note(&entry, "`placement` has no effect: a deploy goes to the hosts it names", "pass `--host`");
            }
            "labels" | "update_config" | "rollback_config" | "endpoint_mode" => {
                reading.note_plain(&entry, format!("`{}` has no effect: it serves swarms only", entry.key));
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "`deploy`", KEYS, &[]),
        }
    }
    deploy
}

/// A number of containers: one.
fn one(reading: &mut Reading<'_>, field: &Field<'_>) {
    let Some(value) = reading.value(field) else { return };
    if value.text.as_str() != "1" {
        let hint = "one container runs for each service on each host: write a second service instead, or deploy to a second host; \
            for none, give the service a profile";
        reading.refuse_with(field, format!("{} is refused: the number is 1", value.shown()), hint);
    }
}

fn resources<'n>(reading: &mut Reading<'_>, deploy: &mut Deploy<'n>, field: &Field<'n>) {
    for part in reading.mapping(field).unwrap_or_default() {
        match part.key {
            "limits" => limits(reading, deploy, &part),
            "reservations" => reservations(reading, deploy, &part),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&part, "`resources`", &["limits", "reservations"], &[]),
        }
    }
}

fn limits<'n>(reading: &mut Reading<'_>, deploy: &mut Deploy<'n>, field: &Field<'n>) {
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "cpus" => deploy.cpus_milli = reading.parsed(&entry, units::cpus_milli).map(|cpus| (cpus, entry)),
            "memory" => deploy.memory = reading.parsed(&entry, bounds::memory).map(|bytes| (bytes, entry)),
            "pids" => deploy.pids = reading.parsed(&entry, bounds::pids).map(|pids| (pids, entry)),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "`limits`", &["cpus", "memory", "pids"], &[]),
        }
    }
}

fn reservations<'n>(reading: &mut Reading<'_>, deploy: &mut Deploy<'n>, field: &Field<'n>) {
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "memory" => deploy.memory_reserved = reading.parsed(&entry, bounds::memory).map(|bytes| (bytes, entry)),
            "cpus" => {
                reading.parsed(&entry, units::cpus_milli);
                reading.note(
                    &entry,
                    "reserved cores have no effect: nothing plans them",
                    "use `cpu_shares` for a greater share",
                );
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "`reservations`", &["memory", "cpus"], RESERVATIONS_LATER),
        }
    }
}

fn restart_policy(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<RestartPolicy> {
    let (mut policy, mut attempts) = (RestartPolicy::Always, None);
    for entry in reading.mapping(field)? {
        match entry.key {
            "condition" => {
                policy = reading.parsed(&entry, |text| match text {
                    "none" => Ok(RestartPolicy::No),
                    "on-failure" => Ok(RestartPolicy::OnFailure { max_attempts: None }),
                    "any" => Ok(RestartPolicy::Always),
                    _ => Err("the condition is none, on-failure or any"),
                })?;
            }
            "max_attempts" => attempts = Some(reading.parsed(&entry, units::whole)?),
            "delay" | "window" => {
                reading.parsed(&entry, units::duration_ms);
                reading.note_plain(
                    &entry,
                    format!("`{}` has no effect: the engine waits as it sees fit, longer each time", entry.key),
                );
            }
            key if is_extension(key) => {}
            _ => {
                reading.unknown_key(&entry, "`restart_policy`", &["condition", "delay", "max_attempts", "window"], &[])
            }
        }
    }
    match (policy, attempts) {
        (RestartPolicy::OnFailure { .. }, attempts) => {
            Some(RestartPolicy::OnFailure { max_attempts: attempts.filter(|attempts| *attempts > 0) })
        }
        (RestartPolicy::Always, Some(1..)) => {
            reading.refuse_with(
                field,
                "`max_attempts` goes with `condition: on-failure` alone",
                "write that, or leave it out",
            );
            None
        }
        (policy, _) => Some(policy),
    }
}

impl<'n> Deploy<'n> {
    pub(super) fn scale(&mut self, reading: &mut Reading<'_>, field: &Field<'n>) {
        one(reading, field);
    }

    /// Puts it beside what the service's own keys say; two different answers are refused.
    pub(super) fn settle(self, reading: &mut Reading<'_>, draft: &mut Draft<'n>) {
        let spec = &mut draft.spec;
        settle(reading, &mut spec.mem_limit_bytes, self.memory, "mem_limit");
        settle(reading, &mut spec.mem_reservation_bytes, self.memory_reserved, "mem_reservation");
        settle(reading, &mut spec.cpus_milli, self.cpus_milli, "cpus");
        settle(reading, &mut spec.pids_limit, self.pids, "pids_limit");
        let Some((policy, field)) = self.restart else { return };
        if draft.restart.is_none() {
            spec.restart = policy;
            draft.restart = Some(field);
        } else if spec.restart != policy {
            reading.note(&field, "`restart` of the service wins over `restart_policy`", "remove one of them");
        }
    }
}

fn settle<T: PartialEq>(reading: &mut Reading<'_>, own: &mut Option<T>, other: Option<(T, Field<'_>)>, key: &str) {
    let Some((value, field)) = other else { return };
    if own.as_ref().is_some_and(|own| *own != value) {
        reading.refuse_with(&field, format!("`{key}` of the service says something else"), "remove one of them");
        return;
    }
    *own = Some(value);
}
