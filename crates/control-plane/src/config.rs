//! Configuration: file, then environment, then flags, each over the one before. An unknown key is
//! an error that names it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rustls::pki_types::ServerName;
use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::next::{Given, shown};

/// Prefix of environment variables; the rest is the key in capitals.
const ENVIRONMENT_PREFIX: &str = "SERVERFLOW_CONTROL_PLANE_";
/// Largest configuration file read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const DATA_DIR_DEFAULT: &str = "/var/lib/serverflow";
pub(crate) const AGENT_LISTEN_DEFAULT: &str = "127.0.0.1:7443";
pub(crate) const HTTP_LISTEN_DEFAULT: &str = "127.0.0.1:8080";

/// The keys of the file, the environment and the flags; all optional.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where keys and database lie [default: /var/lib/serverflow]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port on which agents dial in (gRPC over TLS 1.3) [default: 127.0.0.1:7443]
    #[arg(long, global = true, value_name = "IP:PORT")]
    agent_listen: Option<SocketAddr>,
    /// Address and port of the people's listener (REST, events, metrics); beyond loopback only with a certificate [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "IP:PORT")]
    http_listen: Option<SocketAddr>,
    /// Certificate of the people's listener, with its chain (PEM): HTTPS instead of HTTP. Read again when it changes, and on SIGHUP
    #[arg(long, global = true, value_name = "FILE")]
    http_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    http_key: Option<PathBuf>,
    /// Further name under which people reach the people's listener, such as a proxy's; may be given more than once
    #[arg(long = "host-name", global = true, value_name = "NAME")]
    host_names: Option<Vec<String>>,
    /// Directory with the agent's programs for new machines, as DIR/x86_64/serverflow-agent [default: /usr/share/serverflow/agents, and beside this program]
    #[arg(long, global = true, value_name = "DIR")]
    agent_dir: Option<PathBuf>,
    /// Socket of a signer that runs as a service of its own; without it `serve` starts one, over the directory signer in the data directory
    #[arg(long, global = true, value_name = "PATH")]
    signer_socket: Option<PathBuf>,
    /// How much to log: error, warn, info, debug, trace, or a tracing filter [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How to log: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) agent_listen: SocketAddr,
    pub(crate) http_listen: SocketAddr,
    /// Certificate and key of the people's listener.
    pub(crate) https: Option<(PathBuf, PathBuf)>,
    pub(crate) host_names: Vec<String>,
    pub(crate) agent_dir: Option<PathBuf>,
    /// Where a signer answers that somebody else starts.
    pub(crate) signer_socket: Option<PathBuf>,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
}

impl Config {
    /// What would be the same on another machine, as a configuration file would have it.
    pub(crate) fn anywhere(&self) -> String {
        let all = self.to_string();
        let keys = ["host_names", "log_level", "log_format"];
        let lines = all.lines().filter(|line| keys.iter().any(|key| line.starts_with(key)));
        lines.map(|line| format!("{line}\n")).collect()
    }
}

impl std::fmt::Display for Config {
    /// As a configuration file would have it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        writeln!(f, "data_dir = {:?}", self.data_dir)?;
        writeln!(f, "agent_listen = \"{}\"", self.agent_listen)?;
        writeln!(f, "http_listen = \"{}\"", self.http_listen)?;
        if let Some((cert, key)) = &self.https {
            writeln!(f, "http_cert = {cert:?}\nhttp_key = {key:?}")?;
        }
        if let Some(directory) = &self.agent_dir {
            writeln!(f, "agent_dir = {directory:?}")?;
        }
        if let Some(socket) = &self.signer_socket {
            writeln!(f, "signer_socket = {socket:?}")?;
        }
        writeln!(f, "host_names = {:?}", self.host_names)?;
        writeln!(f, "log_level = {:?}", self.log_level)?;
        writeln!(f, "log_format = \"{format}\"")
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    /// The message of the TOML reader names line, column and key.
    #[error("the configuration file {path} is wrong:\n{message}")]
    File { path: PathBuf, message: String },
    #[error("the environment variable {name} is not known; known are {known}")]
    UnknownVariable { name: String, known: String },
    #[error("the environment variable {name} is wrong: {message}")]
    Variable { name: String, message: String },
    #[error(
        "http_listen is {address}: plain HTTP is served on loopback only, because it would carry passwords and tokens in the clear. Give http_cert and http_key (`serverflow-control-plane certificate` makes a self-signed pair), or use 127.0.0.1 or [::1] and put a TLS proxy in front"
    )]
    NotLoopback { address: SocketAddr },
    #[error("{given} is set and {missing} is not: HTTPS needs both the certificate and its private key")]
    HalfOfHttps { given: &'static str, missing: &'static str },
    #[error(
        "host_names holds {name:?}, which is neither a host name nor an IP address: write it without https:// and without a port"
    )]
    HostName { name: String },
    #[error(
        "log_level is {value:?}, which is neither error, warn, info, debug, trace or off nor a tracing filter{why}"
    )]
    LogLevel { value: String, why: String },
}

const VARIABLES: [&str; 10] = [
    "DATA_DIR",
    "AGENT_DIR",
    "AGENT_LISTEN",
    "HTTP_LISTEN",
    "HTTP_CERT",
    "HTTP_KEY",
    "HOST_NAMES",
    "SIGNER_SOCKET",
    "LOG_LEVEL",
    "LOG_FORMAT",
];

impl Settings {
    /// The flags that were given, as a further command needs them to work on the same.
    pub(crate) fn given(&self, config: Option<&Path>) -> Given {
        let address = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let written = |flags: &[(&str, Option<String>)]| -> String {
            flags.iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", value.as_ref()?))).collect()
        };
        let flags = written(&[
            ("--config", config.map(shown)),
            ("--data-dir", self.data_dir.as_deref().map(shown)),
            ("--agent-listen", address(self.agent_listen)),
            ("--agent-dir", self.agent_dir.as_deref().map(shown)),
            ("--signer-socket", self.signer_socket.as_deref().map(shown)),
        ]);
        let people = written(&[
            ("--http-listen", address(self.http_listen)),
            ("--http-cert", self.http_cert.as_deref().map(shown)),
            ("--http-key", self.http_key.as_deref().map(shown)),
        ]);
        Given { flags, people }
    }

    fn or(self, below: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(below.data_dir),
            agent_listen: self.agent_listen.or(below.agent_listen),
            http_listen: self.http_listen.or(below.http_listen),
            http_cert: self.http_cert.or(below.http_cert),
            http_key: self.http_key.or(below.http_key),
            host_names: self.host_names.or(below.host_names),
            agent_dir: self.agent_dir.or(below.agent_dir),
            signer_socket: self.signer_socket.or(below.signer_socket),
            log_level: self.log_level.or(below.log_level),
            log_format: self.log_format.or(below.log_format),
        }
    }

    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        toml::from_str(&text).map_err(|error| ConfigError::File {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for (name, value) in variables {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let wrong = |message: String| ConfigError::Variable { name: name.clone(), message };
            let address = |value: &str| value.parse().map(Some).map_err(|_| wrong("expected IP:PORT".to_owned()));
            match key {
                "DATA_DIR" => settings.data_dir = Some(value.into()),
                "AGENT_LISTEN" => settings.agent_listen = address(&value)?,
                "HTTP_LISTEN" => settings.http_listen = address(&value)?,
                "AGENT_DIR" => settings.agent_dir = Some(value.into()),
                "SIGNER_SOCKET" => settings.signer_socket = Some(value.into()),
                "HTTP_CERT" => settings.http_cert = Some(value.into()),
                "HTTP_KEY" => settings.http_key = Some(value.into()),
                "HOST_NAMES" => {
                    let names = value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
                    settings.host_names = Some(names.collect());
                }
                "LOG_LEVEL" => settings.log_level = Some(value),
                "LOG_FORMAT" => settings.log_format = Some(clap::ValueEnum::from_str(&value, false).map_err(wrong)?),
                _ => {
                    let known: Vec<_> = VARIABLES.iter().map(|key| format!("{ENVIRONMENT_PREFIX}{key}")).collect();
                    return Err(ConfigError::UnknownVariable { name, known: known.join(", ") });
                }
            }
        }
        Ok(settings)
    }
}

/// A lone word would be taken for the name of a part of the program, and nothing else would be logged.
fn log_level_check(value: &str) -> Result<(), ConfigError> {
    let wrong = |why: String| ConfigError::LogLevel { value: value.to_owned(), why };
    if !value.contains(['=', ',', '[']) {
        let level = value.parse::<LevelFilter>().ok().filter(|_| !value.is_empty());
        return level.map(drop).ok_or_else(|| wrong(String::new()));
    }
    EnvFilter::try_new(value).map(drop).map_err(|error| wrong(format!(": {error}")))
}

/// Puts file, environment and flags together and checks the whole.
///
/// # Errors
/// See [`ConfigError`]; each names the key and the place.
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: Settings,
) -> Result<Config, ConfigError> {
    let file = file.map(Settings::from_file).transpose()?.unwrap_or_default();
    let settings = flags.or(Settings::from_environment(environment)?).or(file);
    let default = |text: &str| text.parse().expect("invariant: the default addresses parse");
    let http_listen = settings.http_listen.unwrap_or_else(|| default(HTTP_LISTEN_DEFAULT));
    let https = match (settings.http_cert, settings.http_key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) if !http_listen.ip().is_loopback() => {
            return Err(ConfigError::NotLoopback { address: http_listen });
        }
        (None, None) => None,
        (Some(_), None) => return Err(ConfigError::HalfOfHttps { given: "http_cert", missing: "http_key" }),
        (None, Some(_)) => return Err(ConfigError::HalfOfHttps { given: "http_key", missing: "http_cert" }),
    };
    let host_names = settings.host_names.unwrap_or_default();
    if let Some(name) = host_names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
        return Err(ConfigError::HostName { name: name.clone() });
    }
    let log_level = settings.log_level.unwrap_or_else(|| "info".to_owned());
    log_level_check(&log_level)?;
    Ok(Config {
        data_dir: settings.data_dir.unwrap_or_else(|| DATA_DIR_DEFAULT.into()),
        agent_listen: settings.agent_listen.unwrap_or_else(|| default(AGENT_LISTEN_DEFAULT)),
        http_listen,
        https,
        host_names,
        agent_dir: settings.agent_dir,
        signer_socket: settings.signer_socket,
        log_level,
        log_format: settings.log_format.unwrap_or(LogFormat::Text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).expect("valid settings")
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "log_level = 'warn'\nhttp_listen = '127.0.0.1:1'\nagent_listen = '127.0.0.1:2'")
            .expect("written");
        let environment = [
            ("SERVERFLOW_CONTROL_PLANE_LOG_LEVEL".to_owned(), "debug".to_owned()),
            ("SERVERFLOW_CONTROL_PLANE_HTTP_LISTEN".to_owned(), "127.0.0.1:3".to_owned()),
            ("OTHER".to_owned(), "ignored".to_owned()),
        ];
        let config = load(Some(&path), environment.into_iter(), settings("log_level = 'trace'")).expect("valid");
        assert_eq!(config.log_level, "trace");
        assert_eq!(config.http_listen.port(), 3);
        assert_eq!(config.agent_listen.port(), 2);
        assert_eq!(config.data_dir, Path::new(DATA_DIR_DEFAULT));
    }

    #[test]
    fn unknown_keys_are_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "log_level = 'info'\nhttp_lisen = '127.0.0.1:1'").expect("written");
        let error = load(Some(&path), std::iter::empty(), Settings::default()).expect_err("an unknown key").to_string();
        assert!(error.contains("http_lisen") && error.contains("line 2"), "{error}");

        let variable = ("SERVERFLOW_CONTROL_PLANE_HTTP_LISEN".to_owned(), String::new());
        let error =
            load(None, [variable].into_iter(), Settings::default()).expect_err("an unknown variable").to_string();
        assert!(error.contains("SERVERFLOW_CONTROL_PLANE_HTTP_LISEN is not known"), "{error}");
    }

    #[test]
    fn a_log_level_is_a_level_or_a_filter() {
        let level = |text: &str| load(None, std::iter::empty(), settings(&format!("log_level = '{text}'"))).map(drop);
        for fine in ["error", "INFO", "off", "info,web=debug", "web=trace", "[span]=debug"] {
            assert!(level(fine).is_ok(), "{fine}");
        }
        for wrong in ["bogus", "", "inf o", "web=loud", "info,web=x"] {
            let error = level(wrong).expect_err(wrong).to_string();
            assert!(error.contains("neither error, warn, info"), "{error}");
        }
    }

    #[test]
    fn the_flags_of_one_command_go_on_to_the_next() {
        let flags = settings("data_dir = '/srv/my fleet'\nagent_listen = '0.0.0.0:7443'\nhttp_listen = '127.0.0.1:1'");
        let given = flags.given(Some(Path::new("/etc/it's.toml")));
        assert_eq!(
            given.flags,
            r" --config '/etc/it'\''s.toml' --data-dir '/srv/my fleet' --agent-listen 0.0.0.0:7443"
        );
        assert_eq!(given.people, " --http-listen 127.0.0.1:1");
        assert_eq!(Settings::default().given(None).flags, "");
    }

    #[test]
    fn plain_http_beyond_loopback_is_refused() {
        let error = load(None, std::iter::empty(), settings("http_listen = '0.0.0.0:8080'")).expect_err("refused");
        assert!(error.to_string().contains("loopback"), "{error}");
        let half = load(None, std::iter::empty(), settings("http_listen = '0.0.0.0:8443'\nhttp_cert = 'c'"));
        assert!(half.expect_err("refused").to_string().contains("http_key is not"), "one of two");
        let half = load(None, std::iter::empty(), settings("http_key = 'k'"));
        assert!(half.expect_err("refused").to_string().contains("http_cert is not"), "on loopback too");
        let both =
            load(None, std::iter::empty(), settings("http_listen = '0.0.0.0:8443'\nhttp_cert = 'c'\nhttp_key = 'k'"));
        assert_eq!(both.expect("HTTPS").https, Some(("c".into(), "k".into())));
    }

    #[test]
    fn host_names_are_names_or_addresses() {
        let names = |text: &str| load(None, std::iter::empty(), settings(text)).map(|config| config.host_names);
        let read = names("host_names = ['fleet.example.org', '192.0.2.7', '::1']").expect("names");
        assert_eq!(read, ["fleet.example.org", "192.0.2.7", "::1"]);
        for wrong in ["https://x", "x:8443", "", "*.example.org"] {
            assert!(names(&format!("host_names = ['{wrong}']")).is_err(), "{wrong}");
        }
        let variable = ("SERVERFLOW_CONTROL_PLANE_HOST_NAMES".to_owned(), "a.example, b.example".to_owned());
        let config = load(None, [variable].into_iter(), Settings::default()).expect("valid");
        assert_eq!(config.host_names, ["a.example", "b.example"]);
    }

    #[test]
    fn the_shipped_example_is_valid_and_shows_the_defaults() {
        let example = include_str!("../../../deploy/control-plane.example.toml");
        assert!(toml::from_str::<Settings>(example).is_ok());
        let uncommented: String =
            example.lines().filter_map(|line| line.strip_prefix("#= ")).map(|line| format!("{line}\n")).collect();
        let shown = load(None, std::iter::empty(), settings(&uncommented)).expect("valid");
        let defaults = load(None, std::iter::empty(), Settings::default()).expect("valid");
        assert_eq!(shown, defaults);
        for key in VARIABLES {
            assert!(example.contains(&format!("{} =", key.to_lowercase())), "{key} is shown");
        }
    }
}
