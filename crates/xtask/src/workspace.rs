//! What the rules look at: the files that git knows, what cargo says about the packages, and what each package
//! reaches. Reading happens here and nowhere else in this program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One text file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct TextFile {
    /// Path from the top of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// How a package uses another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

/// One line of a package's dependencies.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// `false` for a package of this workspace.
    pub(crate) external: bool,
}

/// One package of this workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) has_binary: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

/// What one package is built from: each package's name with the names it uses directly, over normal dependencies
/// and with only the features that this package asks for. Procedural macros end a branch: they run in the
/// compiler, not in the program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    pub(crate) uses: BTreeMap<String, BTreeSet<String>>,
}

/// The top of the repository: two levels above this package.
pub(crate) fn top() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = here.ancestors().nth(2).ok_or("the package does not lie in <top>/crates/xtask")?;
    Ok(top.to_path_buf())
}

/// Every text file that git tracks or would track (new and not ignored); what is not UTF-8 is left out.
pub(crate) fn text_files(top: &Path) -> Result<Vec<TextFile>, String> {
    let listed = output(top, "git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // A file deleted but not yet committed is listed and absent; a binary file is not text.
        if let Ok(text) = std::fs::read_to_string(top.join(path)) {
            files.push(TextFile { path: path.to_owned(), text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

/// The packages of the workspace, as `cargo metadata` has them.
pub(crate) fn packages(top: &Path) -> Result<Vec<Package>, String> {
    let text = output(top, &cargo(), &["metadata", "--no-deps", "--format-version", "1"])?;
    parse_packages(&text)
}

fn parse_packages(text: &str) -> Result<Vec<Package>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = value["packages"].as_array().ok_or("cargo metadata: no packages")?;
    packages.iter().map(parse_package).collect()
}

fn parse_package(value: &Value) -> Result<Package, String> {
    let name = value["name"].as_str().ok_or("cargo metadata: a package without a name")?.to_owned();
    let is = |wanted: &str| {
        value["targets"].as_array().is_some_and(|targets| {
            targets
                .iter()
                .any(|target| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == wanted)))
        })
    };
    let mut dependencies = Vec::new();
    for dependency in value["dependencies"].as_array().into_iter().flatten() {
        dependencies.push(Dependency {
            name: dependency["name"].as_str().ok_or_else(|| format!("{name}: a dependency without a name"))?.to_owned(),
            kind: match dependency["kind"].as_str() {
                Some("dev") => Kind::Dev,
                Some("build") => Kind::Build,
                _ => Kind::Normal,
            },
            external: dependency["path"].is_null(),
        });
    }
    Ok(Package { has_binary: is("bin"), name, dependencies })
}

/// What `package` is built from, by `cargo tree`.
pub(crate) fn reach(top: &Path, package: &str) -> Result<Reach, String> {
    let arguments = ["tree", "--package", package, "--edges", "normal", "--prefix", "depth", "--format", " {p}"];
    Ok(parse_tree(&output(top, &cargo(), &arguments)?))
}

/// Reads `cargo tree --prefix depth`: each line is `<depth> <name> v<version> …`. A package that was printed
/// before comes again without its children, marked `(*)`, so edges are collected into one graph.
fn parse_tree(text: &str) -> Reach {
    let mut reach = Reach::default();
    let mut path: Vec<(String, bool)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(Ok(depth)), Some(name)) = (words.next().map(str::parse::<usize>), words.next()) else { continue };
        let is_macro = line.contains("(proc-macro)");
        path.truncate(depth);
        match path.last() {
            Some((_, true)) => {}
            Some((parent, false)) => {
                reach.uses.entry(parent.clone()).or_default().insert(name.to_owned());
            }
            None => {
                reach.uses.entry(name.to_owned()).or_default();
            }
        }
        path.push((name.to_owned(), is_macro));
    }
    reach
}

impl Reach {
    /// The shortest way from `from` to a package that `matches`, both ends included.
    pub(crate) fn way(&self, from: &str, matches: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([from]);
        while let Some(name) = queue.pop_front() {
            if name != from && matches(name) {
                let mut way = vec![name.to_owned()];
                let mut at = name;
                while let Some(&parent) = came_from.get(at) {
                    way.push(parent.to_owned());
                    at = parent;
                }
                way.reverse();
                return Some(way);
            }
            for next in self.uses.get(name).into_iter().flatten() {
                if next != from && !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, name);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

/// SHA-256 of files, in hex, by `sha256sum`.
pub(crate) fn sha256(top: &Path, paths: &[&str]) -> Result<BTreeMap<String, String>, String> {
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    let arguments: Vec<&str> = std::iter::once("--").chain(paths.iter().copied()).collect();
    let text = output(top, "sha256sum", &arguments)?;
    let pairs = text.lines().filter_map(|line| line.split_once("  "));
    Ok(pairs.map(|(hash, path)| (path.to_owned(), hash.to_owned())).collect())
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn output(top: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let run = Command::new(program).args(arguments).current_dir(top).output();
    let run = run.map_err(|error| format!("{program} {}: {error}", arguments.join(" ")))?;
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        return Err(format!("{program} {} ended with {}: {}", arguments.join(" "), run.status, said.trim()));
    }
    String::from_utf8(run.stdout).map_err(|_| format!("{program}: its output is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_a_graph_that_ends_at_macros() {
        let reach = parse_tree(
            "0 top v0.1.0 (/x)\n1 serde v1.0.0\n2 serde_derive v1.0.0 (proc-macro)\n3 syn v2.0.0\n\
             1 middle v0.1.0 (/y)\n2 tokio v1.0.0\n2 serde v1.0.0 (*)\n",
        );
        assert_eq!(reach.way("top", |name| name == "tokio").unwrap(), ["top", "middle", "tokio"]);
        assert!(reach.way("top", |name| name == "serde_derive").is_some());
        assert_eq!(reach.way("top", |name| name == "syn"), None);
    }

    #[test]
    fn metadata_tells_kinds_and_targets() {
        let text = r#"{"packages":[{"name":"a","targets":[{"kind":["bin"]}],"dependencies":[
            {"name":"b","kind":null,"path":"/b"},{"name":"c","kind":"dev","source":"registry"}]}]}"#;
        let packages = parse_packages(text).unwrap();
        let package = &packages[0];
        assert!(package.has_binary);
        assert_eq!((package.dependencies[0].kind, package.dependencies[0].external), (Kind::Normal, false));
        assert_eq!((package.dependencies[1].kind, package.dependencies[1].external), (Kind::Dev, true));
    }
}
