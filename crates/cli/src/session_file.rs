//! Where the control plane is and who asks: from flags and the environment, else from what
//! `serverflow login` kept in `$XDG_CONFIG_HOME/serverflow/session.json`.
//!
//! The kept token belongs to the address it came from and is never sent to another one.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use envelope::messages::PublicKeyBytes;
use ids::UserName;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    exit::{Failure, Kind, SIGN_IN_HINT, io_words},
    limits,
    trust::Trust,
};

/// What a sign-in leaves behind. No `Debug`: it holds the token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionFile {
    /// The control plane's address.
    pub(crate) url: String,
    /// Who signed in.
    pub(crate) user: UserName,
    /// The bearer token.
    pub(crate) token: String,
    /// When it ends.
    pub(crate) expires_at: api::Timestamp,
    /// The certificates trusted there (PEM), when they were not the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    /// The fleet's root key, hexadecimal: as it was given, or as it was at the first sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
}

impl Drop for SessionFile {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// What flags or the environment say of where the control plane is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) url: Option<&'a str>,
    /// A file with the certificates to trust.
    pub(crate) ca: Option<&'a Path>,
}

/// A control plane and the right to ask it.
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) token: Zeroizing<String>,
    /// The certificates to trust; the system's when absent.
    pub(crate) trust: Option<Trust>,
    /// The root key that was kept with that address.
    pub(crate) root: Option<PublicKeyBytes>,
}

/// The value of an environment variable, unless it is empty or no text.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the session is kept.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    let home = || env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(".config"));
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    let config = config.ok_or_else(|| {
        Failure::invalid("there is no place to keep a session: neither XDG_CONFIG_HOME nor HOME is set")
            .hint("set one of them, or use SERVERFLOW_URL and SERVERFLOW_TOKEN")
    })?;
    Ok(config.join("serverflow/session.json"))
}

impl SessionFile {
    /// The root key that was kept.
    pub(crate) fn root_key(&self) -> Result<Option<PublicKeyBytes>, Failure> {
        let read = |text: &String| {
            text.parse().map_err(|_| {
                Failure::new(Kind::NotAllowed, "the kept session holds a root key that is none").hint(SIGN_IN_HINT)
            })
        };
        self.root.as_ref().map(read).transpose()
    }

    /// The session that was kept, if there is one.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, Failure> {
        let file = match OpenOptions::new().read(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", path, &error)),
        };
        let mode = file.metadata().map_err(|e| Failure::file("read", path, &e))?.mode();
        if mode & 0o077 != 0 {
            let why = format!(
                "{} may be read or written by others (mode {:04o}), so it is not used",
                path.display(),
                mode & 0o7777
            );
            return Err(Failure::new(Kind::NotAllowed, why).hint("sign in again with `serverflow login URL`"));
        }
        let mut text = Zeroizing::new(Vec::new());
        let limit = u64::try_from(limits::SESSION_FILE_BYTES_MAX).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut text).map_err(|e| Failure::file("read", path, &e))?;
        let session = serde_json::from_slice(&text).map_err(|_| {
            let why = format!("{} is no session file of this program", path.display());
            Failure::new(Kind::NotAllowed, why).hint("sign in again with `serverflow login URL`")
        })?;
        Ok(Some(session))
    }

    /// Keeps the session, readable by this user alone.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let wrong = |error: io::Error| {
            Failure::new(Kind::NotWell, format!("cannot write {}: {}", path.display(), io_words(&error)))
        };
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
        }
        let text = Zeroizing::new(serde_json::to_vec_pretty(self).map_err(|e| wrong(e.into()))?);
        // Another name first, so that a crash leaves the old file or the new one.
        let fresh = path.with_extension(format!("json.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&fresh, path));
        written.map_err(|error| {
            // What is left of it is of no use, and whether that goes matters less than the error.
            let _ = fs::remove_file(&fresh);
            wrong(error)
        })
    }

    /// Forgets the session.
    pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file("remove", path, &error)),
            _ => Ok(()),
        }
    }
}

/// Finds the control plane, the token, and what to trust. A file of certificates that is named wins
/// over those that were kept, and those hold for the address they were kept with alone.
pub(crate) fn target(place: Place<'_>) -> Result<Target, Failure> {
    let url = place.url.filter(|url| !url.is_empty()).map(address).transpose()?;
    let trust = place.ca.filter(|path| !path.as_os_str().is_empty()).map(Trust::read).transpose()?;
    let token = variable("SERVERFLOW_TOKEN").map(|token| Zeroizing::new(token.trim().to_owned()));
    if let (Some(url), Some(token)) = (&url, &token) {
        return Ok(Target { url: url.clone(), token: token.clone(), trust, root: None });
    }
    let not_signed_in = |detail: String| Failure::new(Kind::NotAllowed, detail).hint(SIGN_IN_HINT);
    let Some(session) = SessionFile::load(&path()?)? else {
        return Err(match url {
            None if token.is_some() => {
                Failure::invalid("SERVERFLOW_TOKEN is set, and where the control plane is is not known")
                    .hint("set SERVERFLOW_URL to its address, or give --url")
            }
            None => not_signed_in("no control plane is known and nobody is signed in".to_owned()),
            Some(url) => not_signed_in(format!("nobody is signed in at {url}")),
        });
    };
    let kept = address(&session.url)?;
    let trust = match (trust, &session.ca) {
        (None, Some(pem)) => Some(Trust::parse(pem, "the kept session")?),
        (trust, _) => trust,
    };
    let root = session.root_key()?;
    match (url, token) {
        (None, Some(token)) => Ok(Target { url: kept, token, trust, root }),
        (Some(url), None) if url != kept => {
            Err(not_signed_in(format!("nobody is signed in at {url}; the session that is kept is for {kept}")))
        }
        _ => Ok(Target { url: kept, token: Zeroizing::new(session.token.clone()), trust, root }),
    }
}

/// Reads the address of a control plane: https, or http to this machine.
pub(crate) fn address(text: &str) -> Result<Url, Failure> {
    let wrong = |why: String| {
        Failure::invalid(why).hint("an address looks like https://fleet.example.org or http://127.0.0.1:8080")
    };
    let mut url = Url::parse(text).map_err(|e| wrong(format!("{text:?} is not an address: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong(format!("{text:?} is not an address with http or https")));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        // Not repeated: it may hold a password.
        return Err(wrong("the address may hold no user, password, query or fragment".to_owned()));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(Failure::invalid(format!("{text} would send passwords and tokens unencrypted over the network"))
            .hint("use https, or reach the control plane's loopback address through a tunnel such as `ssh -L 8080:127.0.0.1:8080 HOST`"));
    }
    // Paths are appended to it.
    let folder = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&folder);
    Ok(url)
}

/// Whether the address names this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn addresses_are_https_or_this_machine() {
        for (text, read) in [
            ("https://fleet.example.org", "https://fleet.example.org/"),
            ("https://fleet.example.org:8443/sub/", "https://fleet.example.org:8443/sub/"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("http://[::1]:8080/", "http://[::1]:8080/"),
            ("http://localhost/x", "http://localhost/x/"),
        ] {
            assert_eq!(address(text).map(|url| url.to_string()).as_deref(), Ok(read), "{text}");
        }
        for wrong in [
            "",
            "fleet.example.org",
            "localhost:8080",
            "ftp://x",
            "http://10.0.0.1",
            "http://127.0.0.1.example.org",
            "http://localhost.example.org",
            "https://user@x",
            "https://x/?a=b",
            "https://x/#f",
        ] {
            assert_eq!(address(wrong).map_err(|e| e.kind), Err(Kind::Invalid), "{wrong}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_repeating_it() {
        let failure = address("https://admin:hunter2@x").expect_err("refused");
        assert!(!failure.lines().contains("hunter2"));
    }

    #[test]
    fn a_session_is_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/session.json");
        assert!(SessionFile::load(&path).unwrap().is_none());
        let session = || SessionFile {
            url: "http://127.0.0.1:1/".to_owned(),
            user: "admin".parse().unwrap(),
            token: "sfs_x".to_owned(),
            expires_at: ids::UnixMs(5).into(),
            ca: None,
            root: None,
        };
        session().save(&path).unwrap();
        session().save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
        assert_eq!(SessionFile::load(&path).unwrap().unwrap().token, "sfs_x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(SessionFile::load(&path).map(drop).map_err(|e| e.kind), Err(Kind::NotAllowed));
        SessionFile::remove(&path).unwrap();
        SessionFile::remove(&path).unwrap();
        assert!(SessionFile::load(&path).unwrap().is_none());
    }
}
