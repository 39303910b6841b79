//! What the tests of this room share: bundles from texts and from folders.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::disallowed_methods, reason = "the room itself has no disk; its tests read their corpus")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use compose::{Bundle, Composed, Options, Refused, dotenv, read};

/// One file as an app called `sampleapp`.
pub(crate) fn read_with(file: &str, yaml: &[u8], variables: &BTreeMap<String, String>) -> Result<Composed, Refused> {
    let bundle =
        Bundle { files: BTreeMap::from([(file.to_owned(), Some(yaml))]), order: vec![file.to_owned()], complete: true };
    read(&bundle, &Options { variables, app_name: None, fallback_name: Some("Sample App"), profiles: &[] })
}

/// Some files, of which the first ones up to `order` are the Compose files.
pub(crate) fn read_files(
    files: &[(&str, &str)],
    order: usize,
    variables: &[(&str, &str)],
    profiles: &[&str],
) -> Result<Composed, Refused> {
    let bundle = Bundle {
        files: files.iter().map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes()))).collect(),
        order: files[..order].iter().map(|(path, _)| (*path).to_owned()).collect(),
        complete: true,
    };
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let profiles: Vec<String> = profiles.iter().map(|name| (*name).to_owned()).collect();
    read(&bundle, &Options { variables: &variables, app_name: None, fallback_name: Some("app"), profiles: &profiles })
}

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// The projects of a corpus, by name.
pub(crate) fn projects(corpus: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder(corpus))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// A project on disk: every file but the golden ones, and how it is read (`case.json`).
pub(crate) struct Project {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) order: Vec<String>,
    pub(crate) profiles: Vec<String>,
    pub(crate) variables: BTreeMap<String, String>,
}

impl Project {
    pub(crate) fn open(path: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(path, "", &mut files);
        let case: serde_json::Value =
            files.remove("case.json").map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default();
        let list = |key: &str| -> Vec<String> {
            case[key].as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut order = list("order");
        if order.is_empty() {
            order.push("compose.yaml".to_owned());
        }
        let mut variables: BTreeMap<String, String> =
            files.get(".env").map(|bytes| dotenv(core::str::from_utf8(bytes).unwrap()).unwrap()).unwrap_or_default();
        for (name, value) in case["variables"].as_object().into_iter().flatten() {
            variables.insert(name.clone(), value.as_str().unwrap().to_owned());
        }
        Self { files, order, profiles: list("profiles"), variables }
    }

    pub(crate) fn read(&self) -> Result<Composed, Refused> {
        let bundle = Bundle {
            files: self.files.iter().map(|(path, bytes)| (path.clone(), Some(bytes.as_slice()))).collect(),
            order: self.order.clone(),
            complete: true,
        };
        let options = Options {
            variables: &self.variables,
            app_name: None,
            fallback_name: Some("Sample App"),
            profiles: &self.profiles,
        };
        read(&bundle, &options)
    }
}

fn collect(root: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if entry.path().is_dir() {
            collect(root, &path, files);
        } else if !name.starts_with("golden.") {
            files.insert(path, std::fs::read(entry.path()).unwrap());
        }
    }
}
