//! A Compose project as people have them: several files, folders, and things of the host.

use std::{fs, path::PathBuf};

use crate::{
    cli::{Ran, run},
    docker::{Docker, SAMPLE},
    fleet::{Fleet, Host},
};

/// What is put in from the deploying side's environment.
pub const TOKEN: &str = "token-of-the-environment-5521";
/// The lines of the key file.
pub const KEY_LINES: [&str; 3] = ["-----BEGIN A KEY-----", "c2VjcmV0LWxpbmUtb2Yta2V5", "-----END A KEY-----"];

const COMPOSE: &str = r#"
include: [parts/compose.yaml]
services:
  web:
    extends: {file: base/common.yaml, service: base}
    env_file: [web.env]
    environment: {GREETING: "${GREETING:-hello}", TOKEN: , FAIL: "${FAIL:-}"}
    ports: ["127.0.0.1:${PORT}:8080"]
    configs:
      - {source: site, target: /etc/app/site.conf, uid: "65534", gid: "65534", mode: 0440}
    secrets:
      - {source: key, uid: "65534", mode: 0400}
      - token
    volumes:
      - ./html:/html:ro
      - {type: bind, source: "${ROOT}/${COMPOSE_PROJECT_NAME}/data", target: /data}
      - shared:/shared
    networks: [default, front]
    links: ["helper:assistant"]
  debug:
    profiles: [debug]
    image: SAMPLE
networks: {front: {external: true, name: "${COMPOSE_PROJECT_NAME}-front"}}
volumes: {shared: {external: true, name: "${COMPOSE_PROJECT_NAME}-shared"}}
configs: {site: {file: conf/site.conf}}
secrets: {key: {file: conf/key.pem}, token: {environment: TOKEN}}
"#;

const COMMON: &str = r#"
services:
  base:
    image: SAMPLE
    user: "65534:65534"
    read_only: true
    init: true
    cap_drop: [ALL]
    stop_signal: SIGINT
    stop_grace_period: 2s
    tmpfs: ["/run/app:size=1m,mode=1777"]
    env_file: [base.env]
    healthcheck: {test: ["CMD", "/sample", "check"], interval: 300ms, timeout: 5s, retries: 3}
"#;

const PARTS: &str = r#"
services:
  helper:
    image: SAMPLE
    env_file: [helper.env]
    expose: ["9000/udp"]
"#;

const PRODUCTION: &str = r#"
services:
  web:
    hostname: box
    domainname: example
    dns: [10.0.0.53]
    dns_search: [example]
    extra_hosts: ["db=10.0.0.1"]
    expose: ["9100"]
    ulimits: {nofile: {soft: 512, hard: 1024}}
    sysctls: {net.core.somaxconn: 1024}
    deploy:
      resources:
        limits: {cpus: "0.5", memory: 64M, pids: 50}
        reservations: {memory: 16M}
"#;

/// The project's folder, its app, and what it needs of the host. To be made before the fleet's host is used and
/// dropped after its containers are gone: hold it before the fleet.
pub struct Project {
    folder: tempfile::TempDir,
    docker: Docker,
    pub app: String,
    pub port: u16,
}

impl Project {
    /// Writes the files, and makes the network and the volume that the app does not make.
    ///
    /// # Panics
    /// When the disk or Docker does not take it.
    #[must_use]
    pub fn new(app: String, port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("sf-project").tempdir().expect("a folder");
        let project = Self { folder, docker: Docker::default(), app, port };
        for (path, text) in [
            ("compose.yaml", COMPOSE),
            ("production.yaml", PRODUCTION),
            ("base/common.yaml", COMMON),
            ("base/base.env", "FROM_BASE=base\nBOTH=base\n"),
            ("web.env", "FROM_WEB=web\nBOTH=web\n"),
            ("parts/compose.yaml", PARTS),
            ("parts/helper.env", "HELPS=${GREETING:-nobody}\n"),
            ("conf/site.conf", "listen 80;\n"),
            ("conf/key.pem", &format!("{}\n", KEY_LINES.join("\n"))),
        ] {
            project.write(path, &text.replace("SAMPLE", SAMPLE));
        }
        fs::create_dir_all(project.html()).expect("a folder of the host");
        fs::write(project.html().join("page"), "from the host").expect("a file of the host");
        project.docker.run(&["network", "create", &project.front()]).ok();
        project.docker.run(&["volume", "create", &project.shared()]).ok();
        project
    }

    /// A file of the project.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("project").join(name)
    }

    /// Writes one of its files.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file of the project");
    }

    /// The network that the app did not make.
    #[must_use]
    pub fn front(&self) -> String {
        format!("{}-front", self.app)
    }

    /// The volume that the app did not make.
    #[must_use]
    pub fn shared(&self) -> String {
        format!("{}-shared", self.app)
    }

    /// The root of binds on the host.
    ///
    /// # Panics
    /// When its path is not text.
    #[must_use]
    pub fn root(&self) -> String {
        let base = fs::canonicalize(self.folder.path()).expect("a path");
        base.join("roots").to_str().expect("a path in UTF-8").to_owned()
    }

    /// What `./html` means on the host.
    #[must_use]
    pub fn html(&self) -> PathBuf {
        self.data().with_file_name("html")
    }

    /// The other directory of the host.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        PathBuf::from(self.root()).join(&self.app).join("data")
    }

    /// A command of `app` with the project's files and variables. `more` are flags and further variables (`A=b`).
    #[must_use]
    pub fn cli(&self, fleet: &Fleet, verb: &str, more: &[&str]) -> Ran {
        let (first, second) = (self.path("compose.yaml"), self.path("production.yaml"));
        let mut command = fleet.cli_command(&["app", verb, "--json", "--name", &self.app]);
        command.arg("-f").arg(first).arg("-f").arg(second);
        command.envs([("TOKEN", TOKEN), ("PORT", &self.port.to_string()), ("ROOT", &self.root())]);
        for word in more {
            match word.split_once('=') {
                Some((name, value)) => command.env(name, value),
                None => command.arg(word),
            };
        }
        run(command)
    }

    /// `app deploy` to the host `local`.
    #[must_use]
    pub fn deploy(&self, fleet: &Fleet, more: &[&str]) -> Ran {
        self.cli(fleet, "deploy", &[&["--host", "local"], more].concat())
    }

    /// Lets the host's policy allow what the project asks for.
    pub fn allow(&self, host: &Host) {
        allow(host, "binds", "roots", &self.root());
        allow(host, "networks", "external", &self.front());
        allow(host, "volumes", "external", &self.shared());
    }
}

/// Puts one name into an empty list of a host's policy.
///
/// # Panics
/// When there is no such list, or it is not empty.
pub fn allow(host: &Host, table: &str, key: &str, name: &str) {
    let path = host.state("policy.toml");
    let text = fs::read_to_string(&path).expect("a policy");
    let (before, after) = text.split_once(&format!("[{table}]")).expect("the table");
    let (empty, full) = (format!("\n{key} = []"), format!("\n{key} = [\"{name}\"]"));
    let (_, rest) = after.split_once(&empty).expect("an empty list");
    let comments = &after[..after.len() - rest.len() - empty.len()];
    assert!(!comments.contains("\n["), "{key} is not in {table}");
    fs::write(&path, format!("{before}[{table}]{comments}{full}{rest}")).expect("a policy");
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.docker.run(&["network", "rm", &self.front()]);
        let _ = self.docker.run(&["volume", "rm", "--force", &self.shared()]);
    }
}
