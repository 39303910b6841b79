//! Registry credentials, where `docker login` on this host puts them (`config.json`, `auths`). They
//! are read anew at each pull and never leave the host: only the engine gets them.
//!
//! Helpers (`credsStore`, `credHelpers`) are programs of their own and are not run.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use actions::effect::{EffectError, EffectErrorKind};
use bollard::auth::DockerCredentials;
use data_encoding::BASE64;
use serde_json::Value;
use zeroize::Zeroizing;

use super::failure;
use crate::limits;

/// Docker's name for Docker Hub in its configuration.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where `docker login` writes for this user.
pub(super) fn default_path() -> Option<PathBuf> {
    let dir = match env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").filter(|home| !home.is_empty())?).join(".docker"),
    };
    Some(dir.join("config.json"))
}

/// The credentials for `reference`'s registry, if the file has any. No file means no credentials.
pub(super) fn find(path: &Path, reference: &str) -> Result<Option<DockerCredentials>, EffectError> {
    let unreadable = |why: String| {
        failure::error(
            EffectErrorKind::Refused,
            format!(
                "Could not read registry credentials from {}: {why}. Correct it, or run `docker login` again.",
                path.display()
            ),
        )
    };
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    // The parser's own words may quote what it read: keep only where it stopped.
    let config: Value = serde_json::from_str(&text)
        .map_err(|error| unreadable(format!("not JSON at line {}, column {}", error.line(), error.column())))?;
    let key = registry_key(reference);
    let https = format!("https://{key}");
    let Some(entry) = config["auths"].get(key).or_else(|| config["auths"].get(&https)) else { return Ok(None) };
    let field = |name: &str| entry[name].as_str().filter(|value| !value.is_empty()).map(str::to_owned);
    let mut login = DockerCredentials {
        username: field("username"),
        password: field("password"),
        identitytoken: field("identitytoken"),
        registrytoken: field("registrytoken"),
        serveraddress: Some(key.to_owned()),
        ..DockerCredentials::default()
    };
    if let Some(auth) = field("auth") {
        let decoded = Zeroizing::new(BASE64.decode(auth.as_bytes()).unwrap_or_default());
        let pair = core::str::from_utf8(&decoded).ok().and_then(|text| text.split_once(':'));
        let (user, password) =
            pair.ok_or_else(|| unreadable(format!("the entry for {key} is not user and password")))?;
        login.username = Some(user.to_owned());
        login.password = Some(password.trim_end_matches('\0').to_owned());
    }
    let is_empty = login.username.is_none() && login.identitytoken.is_none() && login.registrytoken.is_none();
    Ok((!is_empty).then_some(login))
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(limits::CREDENTIALS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The registry of a reference as Docker's configuration names it: the part before the first `/` if it
/// looks like a host, else Docker Hub.
fn registry_key(reference: &str) -> &str {
    match reference.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) => HUB_KEY,
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host,
        _ => HUB_KEY,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.json");
        fs::write(&path, text).expect("a file");
        (dir, path)
    }

    #[test]
    fn the_registry_of_a_reference_decides() {
        let auth = BASE64.encode(b"ann:s3:cret");
        let (_dir, path) = config(&format!(
            r#"{{"auths":{{"r.example:5000":{{"auth":"{auth}"}},"{HUB_KEY}":{{"identitytoken":"t"}},"kept.example":{{}}}}}}"#
        ));
        let private = find(&path, "r.example:5000/a/b:1").expect("readable").expect("known");
        assert_eq!((private.username.as_deref(), private.password.as_deref()), (Some("ann"), Some("s3:cret")));
        let hub = find(&path, "nginx:1").expect("readable").expect("known");
        assert_eq!(hub.identitytoken.as_deref(), Some("t"));
        assert!(find(&path, "docker.io/library/nginx:1").expect("readable").is_some());
        assert!(find(&path, "other.example/a:1").expect("readable").is_none());
        assert!(find(&path, "kept.example/a:1").expect("readable").is_none());
        assert!(find(Path::new("/nowhere/config.json"), "nginx:1").expect("absent is fine").is_none());
    }

    #[test]
    fn a_broken_file_is_named_without_its_content() {
        for text in [r#"{"auths": s3cret"#, r#"{"auths":{"r.example":{"auth":"s3cret"}}}"#] {
            let (_dir, path) = config(text);
            let failed = find(&path, "r.example/a:1").expect_err("broken");
            assert!(failed.message.contains("config.json") && !failed.message.contains("s3cret"), "{}", failed.message);
        }
    }
}
