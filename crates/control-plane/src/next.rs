//! What to run next, as commands that can be pasted: with the flags of the command that says so.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ids::UserName;

use crate::{
    certificate::Made,
    config::{AGENT_LISTEN_DEFAULT, Config, HTTP_LISTEN_DEFAULT},
};

/// Where HTTPS is offered, unless a listener is configured.
const HTTPS_PORT: u16 = 8443;

/// Flags that were given, each with a space before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// All but those of the people's listener.
    pub(crate) flags: String,
    /// Those of the people's listener.
    pub(crate) people: String,
}

/// The flags of this command, and the configuration that they and the rest came to.
#[derive(Clone, Debug)]
pub(crate) struct Next {
    given: Given,
    agent_listen: SocketAddr,
    http_listen: SocketAddr,
    https: Option<(PathBuf, PathBuf)>,
    host_names: Vec<String>,
}

impl Next {
    pub(crate) fn new(given: Given, config: &Config) -> Self {
        Self {
            given,
            agent_listen: config.agent_listen,
            http_listen: config.http_listen,
            https: config.https.clone(),
            host_names: config.host_names.clone(),
        }
    }

    /// The flags of this command, for another that shall work on the same.
    pub(crate) fn flags(&self) -> &str {
        &self.given.flags
    }

    /// `serve`, so that agents reach it at these addresses, and with a certificate if one was made.
    pub(crate) fn serve(&self, agent_addresses: &[String], made: Option<&Made>) -> String {
        let mut line = format!("serverflow-control-plane serve{}", self.given.flags);
        let is_free =
            self.agent_listen.to_string() == AGENT_LISTEN_DEFAULT && !self.given.flags.contains("--agent-listen");
        let beyond = agent_addresses.iter().filter_map(|it| it.rsplit_once(':')).find(|(host, _)| !is_loopback(host));
        if let Some((_, port)) = beyond.filter(|_| is_free) {
            line.push_str(&format!(" --agent-listen 0.0.0.0:{port}"));
        }
        match made {
            None => line.push_str(&self.given.people),
            Some(Made { cert, key }) => line.push_str(&format!(
                " --http-listen {} --http-cert {} --http-key {}",
                self.https_listen(),
                shown(cert),
                shown(key)
            )),
        }
        line
    }

    /// `login` on the machine of the control plane that this configuration makes.
    pub(crate) fn login(&self, name: &UserName, root: &Path) -> String {
        let listen = self.http_listen;
        let address = match &self.https {
            None => format!("http://{listen}"),
            Some(_) => {
                let bare = (!listen.ip().is_unspecified()).then(|| listen.ip().to_string());
                let host = self.host_names.first().cloned().or(bare).unwrap_or_else(|| "NAME".to_owned());
                format!("https://{}:{}", in_url(&host), listen.port())
            }
        };
        format!("serverflow login {address} --user {name} --root {}", shown(root))
    }

    /// Where HTTPS would be served with a certificate that was made just now.
    pub(crate) fn https_listen(&self) -> SocketAddr {
        if self.http_listen.to_string() == HTTP_LISTEN_DEFAULT {
            (Ipv4Addr::UNSPECIFIED, HTTPS_PORT).into()
        } else {
            self.http_listen
        }
    }
}

/// A host's name or address as it stands in a URL.
pub(crate) fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// A path as a POSIX shell takes it.
pub(crate) fn shown(path: &Path) -> String {
    let word = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, load};

    fn next(settings: &str) -> Next {
        let settings: Settings = toml::from_str(settings).expect("valid settings");
        let given = settings.given(None);
        Next::new(given, &load(None, std::iter::empty(), settings).expect("valid"))
    }

    #[test]
    fn commands_have_the_flags_they_need() {
        let (name, root) = ("ada".parse().expect("a name"), Path::new("/srv/my fleet/root.pub"));
        let plain = next("");
        assert_eq!(plain.serve(&["127.0.0.1:7443".to_owned()], None), "serverflow-control-plane serve");
        assert_eq!(
            plain.login(&name, root),
            "serverflow login http://127.0.0.1:8080 --user ada --root '/srv/my fleet/root.pub'"
        );
        let made = Made { cert: "/d/c.pem".into(), key: "/d/k.pem".into() };
        assert_eq!(
            plain.serve(&["fleet.example.org:9443".to_owned()], Some(&made)),
            "serverflow-control-plane serve --agent-listen 0.0.0.0:9443 --http-listen 0.0.0.0:8443 --http-cert /d/c.pem \
             --http-key /d/k.pem"
        );
        let flags = next("data_dir = '/d'\nagent_listen = '127.0.0.1:1'\nhttp_listen = '[::1]:2'");
        assert_eq!(
            flags.serve(&["fleet.example.org:1".to_owned()], None),
            "serverflow-control-plane serve --data-dir /d --agent-listen 127.0.0.1:1 --http-listen [::1]:2"
        );
        let https = next("http_listen = '0.0.0.0:8443'\nhttp_cert = 'c'\nhttp_key = 'k'\nhost_names = ['a.example']");
        assert!(https.login(&name, root).starts_with("serverflow login https://a.example:8443 --user ada"));
    }
}
