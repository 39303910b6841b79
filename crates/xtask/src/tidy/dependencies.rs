//! `docs/DEPENDENCIES.md` against the packages: each dependency from outside has a row with its reason and the
//! rooms that use it, no more and no less, and each row has a user.
//!
//! A row reads `` | `name` | rooms | features | reason | ``, the rooms, named by their folders, separated by commas;
//! `any` stands for all. The workspace's table of versions holds nothing that nobody uses.

use std::collections::BTreeMap;

use crate::workspace::{Package, TextFile};

use super::Finding;

const DOCUMENT: &str = "docs/DEPENDENCIES.md";
const MANIFEST: &str = "Cargo.toml";

/// Compares the document's rows with what the packages name.
pub(crate) fn check(packages: &[Package], files: &[TextFile]) -> Vec<Finding> {
    let text = files.iter().find(|file| file.path == DOCUMENT).map_or("", |file| file.text.as_str());
    let rows = rows(text);
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let room = room(&package.name);
        for dependency in package.dependencies.iter().filter(|dependency| dependency.external) {
            users.entry(&dependency.name).or_default().push(room);
        }
    }

    let finding =
        |place: &str, message: String| Finding { rule: "dependency-reason", place: place.to_owned(), message };
    let mut findings = Vec::new();
    for (name, rooms) in &users {
        let Some(allowed) = rows.get(name) else {
            let rooms = rooms.join(", ");
            findings.push(finding(
                name,
                format!("is used by {rooms} and has no row in {DOCUMENT}. Add one, with its reason."),
            ));
            continue;
        };
        for room in rooms.iter().filter(|room| !allowed.contains(room) && !allowed.contains(&"any")) {
            findings.push(finding(
                name,
                format!("is used by {room}, and its row in {DOCUMENT} is for {} alone.", allowed.join(", ")),
            ));
        }
    }
    for (name, allowed) in &rows {
        let Some(rooms) = users.get(name) else { continue };
        for room in allowed.iter().filter(|room| **room != "any" && !rooms.contains(room)) {
            findings
                .push(finding(name, format!("is not used by {room}, which its row in {DOCUMENT} names. Strike it.")));
        }
    }
    for name in rows.keys().filter(|name| !users.contains_key(*name)) {
        findings
            .push(finding(name, format!("has a row in {DOCUMENT} and no user. Remove the row and the dependency.")));
    }
    let manifest = files.iter().find(|file| file.path == MANIFEST).map_or("", |file| file.text.as_str());
    for name in table(manifest).filter(|name| !users.contains_key(name)) {
        findings.push(Finding {
            rule: "dependency-unused",
            place: name.to_owned(),
            message: format!("stands in the workspace's table in {MANIFEST} and no package uses it. Remove the line."),
        });
    }
    findings
}

/// The packages from outside that `[workspace.dependencies]` names, one to a line.
fn table(manifest: &str) -> impl Iterator<Item = &str> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#') && !line.contains("path = "));
    lines.filter_map(|line| Some(line.split_once('=')?.0.trim()))
}

/// A package's room: its folder under `crates/`.
fn room(package: &str) -> &str {
    if package == "serverflow" { "cli" } else { package.strip_prefix("serverflow-").unwrap_or(package) }
}

fn rows(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, rooms, _, reason, _] = cells.as_slice() else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        if !reason.is_empty() {
            rows.insert(name, rooms.split(',').map(str::trim).collect());
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, Kind};

    const DOC: &str = "| crate | used by | features | reason |\n|---|---|---|---|\n\
                       | `serde` | any | derive | data |\n| `sqlx` | store, journal | sqlite | SQL |\n";

    fn check_with(text: &str, uses: &[(&str, &str)]) -> Vec<String> {
        check_manifest("", text, uses)
    }

    fn check_manifest(manifest: &str, text: &str, uses: &[(&str, &str)]) -> Vec<String> {
        let package = |(user, name): &(&str, &str)| Package {
            name: (*user).to_owned(),
            has_binary: false,
            dependencies: vec![Dependency { name: (*name).to_owned(), kind: Kind::Normal, external: true }],
        };
        let packages: Vec<Package> = uses.iter().map(package).collect();
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        check(&packages, &[file(DOCUMENT, text), file(MANIFEST, manifest)])
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn listed_dependencies_with_allowed_users_pass() {
        let uses = [("serverflow-ids", "serde"), ("serverflow-store", "sqlx"), ("serverflow-journal", "sqlx")];
        assert_eq!(check_with(DOC, &uses), Vec::<String>::new());
    }

    #[test]
    fn unlisted_misused_and_unused_dependencies_are_found() {
        let found = check_with(DOC, &[("serverflow-web", "sqlx"), ("serverflow-web", "axum")]);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].starts_with("axum") && found[0].contains("no row"));
        assert!(found[1].starts_with("sqlx") && found[1].contains("store, journal alone"));
        assert!(found[2].starts_with("sqlx") && found[2].contains("not used by store"));
        assert!(found[3].starts_with("sqlx") && found[3].contains("not used by journal"));
        assert!(found[4].starts_with("serde") && found[4].contains("no user"));
    }

    #[test]
    fn the_table_of_versions_holds_only_what_is_used() {
        let manifest =
            "[workspace.dependencies]\n# data\nids = { path = \"x\" }\nserde = \"1\"\n\n[profile.dev]\ndebug = 1\n";
        assert_eq!(
            check_manifest(manifest, "| `serde` | any | - | data |", &[("serverflow-ids", "serde")]),
            Vec::<String>::new()
        );
        let found = check_manifest(manifest, "", &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("serde: dependency-unused"), "{}", found[0]);
    }

    #[test]
    fn a_row_without_a_reason_is_no_row() {
        let found = check_with("| `serde` | any | derive | |\n", &[("serverflow-ids", "serde")]);
        assert_eq!(found.len(), 1);
    }
}
