//! The control plane under load: its program, its REST interface, and what the kernel says of it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use envelope::keys::{SigningKey, role};
use keyfile::KeyKind;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::sleep,
};

use crate::Fault;

/// How long a control plane may take until it answers.
const READY_MAX: Duration = Duration::from_secs(60);
/// Pause between two questions whether it answers.
const READY_PAUSE: Duration = Duration::from_millis(5);
/// Ticks per second in `/proc/PID/stat`: 100 wherever Linux runs user programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A control plane of this run's own.
pub(crate) struct Plane {
    program: PathBuf,
    folder: PathBuf,
    agents: SocketAddr,
    people: SocketAddr,
    token: String,
    /// The fleet's one root key.
    pub(crate) root_key: SigningKey<role::Root>,
    child: Option<Child>,
}

impl Plane {
    /// Makes a fleet in `folder`; nothing runs yet.
    pub(crate) fn init(program: &Path, folder: &Path) -> Result<Self, Fault> {
        let agents = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let people = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let data = folder.join("control-plane");
        let made = Command::new(program)
            .args(["init", "--json", "--agent-address", &agents.to_string(), "--data-dir"])
            .arg(&data)
            .stdin(Stdio::null())
            .output()?;
        if !made.status.success() {
            return Err(Fault::Plane(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        let made: Value = serde_json::from_slice(&made.stdout)?;
        let file = made["token_file"].as_str().ok_or_else(|| Fault::Plane("`init` named no token file".to_owned()))?;
        let token = fs::read_to_string(file)?.trim().to_owned();
        let word = |field: &str| made[field].as_str().ok_or_else(|| Fault::Plane(format!("`init` named no {field}")));
        let root_key = Path::new(word("root_key")?);
        let root_key = keyfile::read_seed_encrypted(root_key, KeyKind::Ed25519, word("root_passphrase")?)?;
        let root_key = SigningKey::from_seed(&root_key);
        Ok(Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            agents,
            people,
            token,
            root_key,
            child: None,
        })
    }

    /// Starts it and waits until it answers people; how long that took.
    pub(crate) async fn start(&mut self) -> Result<Duration, Fault> {
        let log = File::options().create(true).append(true).open(self.folder.join("control-plane.log"))?;
        let began = Instant::now();
        let child = Command::new(&self.program)
            .args(["serve", "--agent-listen", &self.agents.to_string(), "--http-listen", &self.people.to_string()])
            .arg("--data-dir")
            .arg(self.folder.join("control-plane"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        while !matches!(self.ask("GET", "/health", "").await, Ok((200, _))) {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || began.elapsed() > READY_MAX {
                let log = fs::read_to_string(self.folder.join("control-plane.log")).unwrap_or_default();
                return Err(Fault::Plane(format!("the control plane does not answer:\n{log}")));
            }
            sleep(READY_PAUSE).await;
        }
        Ok(began.elapsed())
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) -> Result<(), Fault> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn proc(&self, file: &str) -> Result<String, Fault> {
        let pid = self.child.as_ref().map_or(0, Child::id);
        Ok(fs::read_to_string(format!("/proc/{pid}/{file}"))?)
    }

    /// CPU time it has used so far, user and system, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64, Fault> {
        cpu_seconds(&self.proc("stat")?)
    }

    /// Its resident memory and the part that is its own (no file's), in KiB.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Fault> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Ok((field("VmRSS:"), field("RssAnon:")))
    }

    /// Bytes of its database and the log beside it.
    pub(crate) fn database_bytes(&self) -> u64 {
        let data = self.folder.join("control-plane");
        let size = |name: &str| fs::metadata(data.join(name)).map_or(0, |metadata| metadata.len());
        size("serverflow.db") + size("serverflow.db-wal")
    }

    /// One request, whole: status and body.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String), Fault> {
        let (status, mut answer) = self.begin(method, path, body).await?;
        let mut text = String::new();
        answer.read_to_string(&mut text).await?;
        Ok((status, text))
    }

    /// Follows an operation's events to its end; its last state.
    pub(crate) async fn follow(&self, operation: &str) -> Result<String, Fault> {
        let path = format!("/api/v1/operations/{operation}/events");
        let (_, mut answer) = self.begin("GET", &path, "").await?;
        let mut line = String::new();
        while answer.read_line(&mut line).await? > 0 {
            if let Some(state) = ended(&line) {
                return Ok(state);
            }
            line.clear();
        }
        Err(Fault::Plane("the events ended before the operation did".to_owned()))
    }

    /// Status, and the body to be read. One request per connection, as the figures before had it.
    async fn begin(&self, method: &str, path: &str, body: &str) -> Result<(u16, BufReader<TcpStream>), Fault> {
        let mut stream = TcpStream::connect(self.people).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.people,
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| Fault::Plane(format!("no HTTP answer to {method} {path}")))?;
        while !matches!(line.as_str(), "\r\n" | "") {
            line.clear();
            answer.read_line(&mut line).await?;
        }
        Ok((status, answer))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // Nothing more can be done about it here.
        let _ = self.kill();
    }
}

/// CPU time of this program itself, in seconds.
pub(crate) fn own_cpu() -> Result<f64, Fault> {
    cpu_seconds(&fs::read_to_string("/proc/self/stat")?)
}

/// Fields 14 and 15, counted behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Result<f64, Fault> {
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: Vec<f64> = rest.split(' ').skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    if ticks.len() == 2 { Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND) } else { Err(Fault::Proc) }
}

/// The state of an operation, when the line is the data of the event that it ended.
fn ended(line: &str) -> Option<String> {
    let data: Value = serde_json::from_str(line.strip_prefix("data:")?.trim()).ok()?;
    Some(data.get("operation")?.get("state")?.as_str()?.to_owned())
}

fn free_port() -> Result<u16, Fault> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_that_holds_anything() {
        let stat = "7 (a) b (c)) S 1 1 1 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1 1";
        assert!(cpu_seconds(stat).is_ok_and(|seconds| (seconds - 2.0).abs() < 1e-9));
        assert!(cpu_seconds("7 (a").is_err());
    }

    #[test]
    fn only_the_event_of_the_end_ends_an_operation() {
        let end = r#"data: {"event":"operation","operation":{"state":"succeeded","commands":[]}}"#;
        assert_eq!(ended(end).as_deref(), Some("succeeded"));
        assert_eq!(ended(r#"data: {"event":"command","status":"succeeded"}"#), None);
    }
}
