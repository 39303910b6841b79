//! Which room may reach which: the list "What must not happen" of the architecture, as data.
//!
//! Reach is judged over normal dependencies, directly or through others, with the features each package asks for
//! by itself; tests may use what they like.

use crate::workspace::{Kind, Package, Reach};

use super::Finding;

/// "None of `who` reaches any of `never`."
#[derive(Debug)]
pub(crate) struct ReachRule {
    pub(crate) who: &'static [&'static str],
    /// A package's name; it also stands for packages of its family (`sqlx` for `sqlx-core`).
    pub(crate) never: &'static [&'static str],
    pub(crate) reason: &'static str,
}

/// The core: it decides, and knows neither time nor chance nor the machine.
pub(crate) const PURE: &[&str] = &[
    "serverflow-ids",
    "serverflow-envelope",
    "serverflow-session",
    "serverflow-actions",
    "serverflow-compose",
    "serverflow-fleet",
];

pub(crate) const RULES: &[ReachRule] = &[
    ReachRule {
        who: PURE,
        never: &[
            "tokio",
            "async-std",
            "smol",
            "mio",
            "socket2",
            "hyper",
            "axum",
            "tonic",
            "reqwest",
            "sqlx",
            "libsqlite3-sys",
            "bollard",
            "rustls",
            "aws-lc-rs",
            "ring",
            "rustix",
            "nix",
            "getrandom",
            "rand",
            "jiff",
            "chrono",
            "time",
            "tempfile",
            "clap",
        ],
        reason: "the core decides and has no clock, randomness, network or disk; only so can the simulation replay it \
                 from a seed. Take time, randomness and ids as arguments, and let a shell give them",
    },
    ReachRule {
        who: &["serverflow-agent"],
        never: &["serverflow-store", "serverflow-web", "serverflow-signer", "serverflow-fleet", "serverflow-compose"],
        reason: "the agent's binary runs on every host and holds no control-plane code; what it lacks cannot be abused there",
    },
    ReachRule {
        who: &["serverflow-web"],
        never: &["serverflow-signer"],
        reason: "the pages and the API face people; they propose, and never hold or reach a private key",
    },
    ReachRule {
        who: &["serverflow-load"],
        never: &["serverflow-store", "serverflow-web", "serverflow-signer", "serverflow-fleet", "serverflow-journal"],
        reason: "the load measures a control plane from outside, as its agents and its people see it; what it took from \
                 the inside it would not measure",
    },
    ReachRule {
        who: &["serverflow-agent", "serverflow-control-plane", "serverflow"],
        never: &["serverflow-crash-points"],
        reason: "what ends a program at a chosen door is for tests; no program has it unless a test build asks for it",
    },
];

/// A dependency that only some packages may name directly.
struct DirectRule {
    dependency: &'static str,
    only: &'static [&'static str],
    reason: &'static str,
}

const DIRECT: &[DirectRule] = &[
    DirectRule {
        dependency: "bollard",
        only: &["serverflow-host"],
        reason: "`host` is the one door to the Docker engine, so that a review of effects is a review of one crate",
    },
    DirectRule {
        dependency: "sqlx",
        only: &["serverflow-store", "serverflow-journal"],
        reason: "SQL lives behind the control plane's store and the agent's journal; every other room sees their ports",
    },
    DirectRule {
        dependency: "axum",
        only: &["serverflow-web"],
        reason: "`web` is the one place that answers HTTP to people (tonic uses axum below itself, which is not our code)",
    },
];

/// Does `who`, which is built from `reach`, keep `rule`?
pub(crate) fn check_reach(rule: &ReachRule, who: &str, reach: &Reach) -> Vec<Finding> {
    let mut findings = Vec::new();
    for never in rule.never {
        let matches = |name: &str| name == *never || name.strip_prefix(never).is_some_and(|rest| rest.starts_with('-'));
        if let Some(way) = reach.way(who, matches) {
            findings.push(Finding {
                rule: "room-reach",
                place: who.to_owned(),
                message: format!("must not reach `{never}`, but does: {}. Why: {}.", way.join(" → "), rule.reason),
            });
        }
    }
    findings
}

/// A rule about a package that is not there (renamed, perhaps) would hold for ever without checking anything.
pub(crate) fn check_known(packages: &[Package]) -> Vec<Finding> {
    let named = RULES.iter().flat_map(|rule| rule.who).chain(DIRECT.iter().flat_map(|rule| rule.only));
    let mut missing: Vec<&str> = named.copied().filter(|name| packages.iter().all(|p| p.name != *name)).collect();
    missing.sort_unstable();
    missing.dedup();
    let finding = |name: &str| Finding {
        rule: "room-unknown",
        place: name.to_owned(),
        message:
            "a rule in crates/xtask/src/tidy/rooms.rs names this package, and the workspace has none of that name. \
                  Correct the rule."
                .to_owned(),
    };
    missing.into_iter().map(finding).collect()
}

/// Are the guarded dependencies named only by those who may?
pub(crate) fn check_direct(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        for rule in DIRECT.iter().filter(|rule| !rule.only.contains(&package.name.as_str())) {
            if package.dependencies.iter().any(|d| d.name == rule.dependency && d.kind != Kind::Dev) {
                findings.push(Finding {
                    rule: "room-direct",
                    place: package.name.clone(),
                    message: format!(
                        "depends on `{}`, which is for {} alone. Why: {}.",
                        rule.dependency,
                        rule.only.join(" and "),
                        rule.reason
                    ),
                });
            }
        }
    }
    findings
}

/// Does nothing depend on a program?
pub(crate) fn check_binaries(packages: &[Package]) -> Vec<Finding> {
    let programs: Vec<&str> = packages.iter().filter(|p| p.has_binary).map(|p| p.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in packages {
        for dependency in package.dependencies.iter().filter(|d| !d.external && programs.contains(&d.name.as_str())) {
            findings.push(Finding {
                rule: "room-binary",
                place: package.name.clone(),
                message: format!(
                    "depends on the program `{}`. Why not: programs only wire rooms together; what two need belongs \
                     into a room of its own. Tests start programs, they do not link them.",
                    dependency.name
                ),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn reach(edges: &[(&str, &str)]) -> Reach {
        let mut reach = Reach::default();
        for (from, to) in edges {
            reach.uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        reach
    }

    fn package(name: &str, dependencies: &[(&str, Kind)]) -> Package {
        let dependency = |(name, kind): &(&str, Kind)| Dependency {
            name: (*name).to_owned(),
            kind: *kind,
            external: !name.starts_with("serverflow"),
        };
        Package {
            name: name.to_owned(),
            has_binary: false,
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn a_pure_room_that_reaches_only_data_passes() {
        let graph = reach(&[("serverflow-fleet", "serverflow-ids"), ("serverflow-ids", "sha2"), ("sha2", "rand_core")]);
        assert_eq!(check_reach(&RULES[0], "serverflow-fleet", &graph), []);
    }

    #[test]
    fn a_pure_room_that_reaches_a_runtime_through_another_is_found_with_its_way() {
        let graph = reach(&[("serverflow-fleet", "middle"), ("middle", "tokio-util"), ("middle", "sqlx-core")]);
        let findings = check_reach(&RULES[0], "serverflow-fleet", &graph);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].message.contains("serverflow-fleet → middle → tokio-util"), "{}", findings[0]);
        assert!(findings[0].message.contains("clock"), "the reason is told: {}", findings[0]);
    }

    #[test]
    fn the_agent_and_the_web_are_kept_apart_from_what_they_must_not_hold() {
        let clean = reach(&[("serverflow-agent", "serverflow-session"), ("serverflow-web", "serverflow-fleet")]);
        assert_eq!(check_reach(&RULES[1], "serverflow-agent", &clean), []);
        assert_eq!(check_reach(&RULES[2], "serverflow-web", &clean), []);
        let leaky =
            reach(&[("serverflow-agent", "serverflow-fleet"), ("serverflow-web", "x"), ("x", "serverflow-signer")]);
        assert_eq!(check_reach(&RULES[1], "serverflow-agent", &leaky).len(), 1);
        assert_eq!(check_reach(&RULES[2], "serverflow-web", &leaky).len(), 1);
        let for_tests =
            reach(&[("serverflow-agent", "serverflow-host"), ("serverflow-host", "serverflow-crash-points")]);
        assert_eq!(check_reach(&RULES[4], "serverflow-agent", &for_tests).len(), 1);
    }

    #[test]
    fn guarded_dependencies_are_for_their_rooms() {
        let allowed = [
            package("serverflow-host", &[("bollard", Kind::Normal)]),
            package("serverflow-store", &[("sqlx", Kind::Normal)]),
            package("serverflow-sim", &[("sqlx", Kind::Dev)]),
        ];
        assert_eq!(check_direct(&allowed), []);
        let refused = [package("serverflow-web", &[("bollard", Kind::Normal), ("sqlx", Kind::Build)])];
        assert_eq!(check_direct(&refused).len(), 2);
    }

    #[test]
    fn nothing_depends_on_a_program() {
        let mut program = package("serverflow", &[]);
        program.has_binary = true;
        let user = |kind| [program.clone(), package("serverflow-x", &[("serverflow", kind)])];
        assert_eq!(check_binaries(&[program.clone(), package("serverflow-x", &[])]), []);
        assert_eq!(check_binaries(&user(Kind::Normal)).len(), 1);
        assert_eq!(check_binaries(&user(Kind::Dev)).len(), 1);
    }

    #[test]
    fn a_rule_about_nobody_is_found() {
        let names = RULES.iter().flat_map(|rule| rule.who).chain(DIRECT.iter().flat_map(|rule| rule.only));
        let mut everyone: Vec<Package> = names.map(|name| package(name, &[])).collect();
        assert_eq!(check_known(&everyone), []);
        everyone.retain(|package| package.name != "serverflow-web");
        assert_eq!(check_known(&everyone)[0].place, "serverflow-web");
    }
}
