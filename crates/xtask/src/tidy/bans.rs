//! The pure rooms' clippy files. Clippy reads the nearest file only, so each of them must be there, say the same, and
//! repeat what the top-level one bans; otherwise a ban would silently not hold in the rooms that need it most.

use crate::workspace::TextFile;

use super::Finding;
use super::rooms::PURE;

const ROOT: &str = ".clippy.toml";

/// Compares every pure room's clippy file with the others and with the root's.
pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let finding = |place: &str, message: String| Finding { rule: "pure-bans", place: place.to_owned(), message };
    let mut findings = Vec::new();
    let path = |package: &str| format!("crates/{}/clippy.toml", package.trim_start_matches("serverflow-"));
    let first = PURE.iter().find_map(|package| text(&path(package)));
    for place in PURE.iter().map(|package| path(package)) {
        let Some(bans) = text(&place) else {
            findings.push(finding(
                &place,
                "is missing: this room is pure, and only this file bans clocks and IO in it.".into(),
            ));
            continue;
        };
        if Some(bans) != first {
            findings.push(finding(&place, "differs from the other pure rooms' file. Make them the same.".into()));
        }
        for ban in text(ROOT).unwrap_or("").lines().filter(|line| line.contains("path = ")) {
            if !bans.contains(ban) {
                findings.push(finding(&place, format!("does not repeat a ban of {ROOT}: {}", ban.trim())));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(root: &str, rooms: &[&str]) -> Vec<TextFile> {
        let file = |path: String, text: &str| TextFile { path, text: text.to_owned() };
        let paths =
            PURE.iter().map(|package| format!("crates/{}/clippy.toml", package.trim_start_matches("serverflow-")));
        let rooms = paths.zip(rooms.iter().cycle()).map(|(path, text)| file(path, text));
        std::iter::once(file(ROOT.to_owned(), root)).chain(rooms).collect()
    }

    #[test]
    fn equal_files_that_repeat_the_root_pass() {
        assert_eq!(check(&files("a = [\n{ path = \"x\" },\n]", &["{ path = \"x\" },\n{ path = \"y\" },"])), []);
    }

    #[test]
    fn missing_different_and_forgetful_files_are_found() {
        let mut lacking = files("", &["same"]);
        lacking.retain(|file| file.path != "crates/fleet/clippy.toml");
        assert_eq!(check(&lacking)[0].place, "crates/fleet/clippy.toml");
        assert_eq!(check(&files("", &["a", "b"])).len(), 3);
        assert_eq!(check(&files("{ path = \"x\" },", &["{ path = \"y\" },"])).len(), PURE.len());
    }
}
