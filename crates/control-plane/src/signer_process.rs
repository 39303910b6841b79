//! The signer as a process: the role `signer` of this program, and how `serve` starts one of its own.
//!
//! The process that faces the network never has a command key in its memory. It asks for signatures at a socket, where
//! either a service of its own answers (`--signer-socket`, another user), or a child that `serve` starts from its own program.
//! A child knows by the end of its standard input that its parent is gone, however that ended.

use std::{
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use actions::Class;
use envelope::{
    messages::Order,
    signer_port::{SignError, Signer},
};
use signer::{LocalSigner, Peers, Place, PlaceError, SignerConfig};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    process::{Child, ChildStdin, Command},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    clock,
    config::{Config, LogFormat},
    files::Files,
    limits,
};

/// This very program, also when its file has been replaced since.
const OWN_PROGRAM: &str = "/proc/self/exe";
const NAME: &str = "serverflow-control-plane";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SignerArgs {
    /// Directory of the command keys and of what belongs to them [default: signer in the data directory]
    #[arg(long, value_name = "DIR")]
    signer_dir: Option<PathBuf>,
    /// User, by name or number, that may ask for signatures, besides the signer's own and root; may be given more than once
    #[arg(long, value_name = "USER")]
    signer_allow: Vec<String>,
    /// End when standard input does: `serve` starts its own signer so
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// Why no signer runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignerError {
    #[error("{0}")]
    Place(#[from] PlaceError),
    #[error(
        "the signer cannot listen at {path}: its directory must be there, and this user must be able to write to it"
    )]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{user:?} is no user of this machine (/etc/passwd): give --signer-allow a name or a number that is")]
    User { user: String },
    #[error("the end of the parent cannot be awaited: `--with-parent` is for `serve` alone")]
    Parent(#[source] io::Error),
    #[error("signals cannot be awaited")]
    Signal(#[source] io::Error),
}

/// What a signer of this program takes an order for: as agents do. What only puts back, and what leaves a standing order as
/// people approved it, is taken for a read; to install one is as much as what it has run.
fn class_of(order: &Order) -> Option<Class> {
    actions::class_for_people(&order.action, order.action_version, &order.parameters)
}

/// A signer in this process, over that directory; `data_dir` is where one of before kept its key, if it did.
pub(crate) fn open(place: Place, data_dir: Option<PathBuf>) -> Result<LocalSigner, PlaceError> {
    LocalSigner::open(SignerConfig { place, earlier: data_dir, class_of, clock: Arc::new(clock::now) })
}

/// Signs until it is asked to end.
///
/// # Errors
/// See [`SignerError`]; each says what to do.
pub(crate) async fn run(config: Config, args: SignerArgs) -> Result<(), SignerError> {
    let own = Files::new(&config.data_dir).signer();
    let place = args.signer_dir.as_deref().map_or_else(|| own.clone(), Place::new);
    let allowed = args.signer_allow.iter().map(|user| user_number(user)).collect::<Result<Vec<_>, _>>()?;
    let earlier = (place.directory() == own.directory()).then(|| config.data_dir.clone());
    let socket = config.signer_socket.clone().unwrap_or_else(|| place.socket());
    let signer = open(place, earlier)?;
    if args.with_parent {
        // The parent may want signatures until its own end, however whoever ends it does that.
        let ignored = [tokio::signal::unix::SignalKind::terminate(), tokio::signal::unix::SignalKind::interrupt()];
        let _ignored = ignored.map(tokio::signal::unix::signal);
        run_until(signer, &socket, &allowed, parent_ended()).await
    } else {
        run_until(signer, &socket, &allowed, asked_to_end()).await
    }
}

async fn asked_to_end() -> Result<(), SignerError> {
    crate::serve::asked_to_end().await.map(drop).map_err(SignerError::Signal)
}

async fn parent_ended() -> Result<(), SignerError> {
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(SignerError::Parent)?;
    let mut input = pipe::Receiver::from_owned_fd(input).map_err(SignerError::Parent)?;
    let mut nothing = [0; 1];
    // Nobody writes to it; its end is what it is for.
    while input.read(&mut nothing).await.map_err(SignerError::Parent)? > 0 {}
    Ok(())
}

/// Answers at the socket until then.
pub(crate) async fn run_until(
    signer: LocalSigner,
    socket: &Path,
    allowed: &[u32],
    end: impl Future<Output = Result<(), SignerError>>,
) -> Result<(), SignerError> {
    let listening = signer::listen(socket, !allowed.is_empty());
    let listener = listening.map_err(|source| SignerError::Listen { path: socket.to_owned(), source })?;
    let signer = Arc::new(signer);
    tracing::info!(process = std::process::id(), socket = %socket.display(), "the signer is ready");
    tokio::select! {
        () = signer::serve(listener, signer.clone(), Peers::new(allowed)) => Ok(()),
        () = mend(&signer) => Ok(()),
        ended = end => ended,
    }
}

/// Has it try again to write after a write that failed: what it waits for is the disk, and nobody may ask until then.
async fn mend(signer: &LocalSigner) {
    let mut ticks = interval(signer::limits::MEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if signer.is_impaired() {
            signer.mend();
        }
    }
}

fn user_number(user: &str) -> Result<u32, SignerError> {
    let unknown = || SignerError::User { user: user.to_owned() };
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(|_| unknown())?;
    let line = users.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let is_it = fields.next() == Some(user);
        is_it.then(|| fields.nth(1).and_then(|number| number.parse().ok()))
    });
    line.flatten().ok_or_else(unknown)
}

/// A signer of this program's own, started anew whenever it ends.
pub(crate) struct OwnSigner {
    /// Dropped: it is to end.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl OwnSigner {
    pub(crate) fn start(config: Config) -> Self {
        let (stop, stopping) = oneshot::channel();
        Self { stop, task: tokio::spawn(keep_running(config, stopping)) }
    }

    /// Ends it, in order.
    pub(crate) async fn end(self) {
        drop(self.stop);
        if timeout(limits::SIGNER_END_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("the signer did not end in time; it ends with this process");
        }
    }
}

async fn keep_running(config: Config, mut stop: oneshot::Receiver<()>) {
    let mut pause = limits::SIGNER_RESTART_FIRST;
    let mut is_first = true;
    loop {
        let began = Instant::now();
        match start(&config, is_first) {
            // Its standard input is open for as long as it is to run.
            Ok((mut child, input)) => tokio::select! {
                ended = child.wait() => match ended {
                    Ok(status) => tracing::warn!(%status, "the signer ended; it is started anew, and orders wait for it"),
                    Err(error) => tracing::error!(%error, "the signer cannot be looked after"),
                },
                _ = &mut stop => {
                    drop(input);
                    let _ = child.wait().await;
                    return;
                }
            },
            Err(error) => tracing::error!(%error, "the signer cannot be started; trying again"),
        }
        is_first = false;
        if began.elapsed() > limits::SIGNER_RESTART_MAX {
            pause = limits::SIGNER_RESTART_FIRST;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = &mut stop => return,
        }
        pause = Duration::min(pause * 2, limits::SIGNER_RESTART_MAX);
    }
}

fn start(config: &Config, is_first: bool) -> io::Result<(Child, ChildStdin)> {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(NAME).args(["signer", "--with-parent", "--data-dir"]).arg(&config.data_dir);
    let format = match config.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    command.args(["--log-level", &config.log_level, "--log-format", format]);
    // A test that ends the signer at a point wants it to end there once.
    #[cfg(feature = "crash-points")]
    if !is_first {
        command.env_remove("SERVERFLOW_CRASH_AT");
    }
    let _ = is_first;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, input))
}

/// Where a control plane of this configuration asks for signatures.
pub(crate) fn socket(config: &Config) -> PathBuf {
    config.signer_socket.clone().unwrap_or_else(|| Files::new(&config.data_dir).signer().socket())
}

/// The signer of a fleet that lies there and does not run: the same questions go to the same signer, whether it is a service
/// of its own or only here and for a moment.
pub(crate) fn of(config: &Config, files: &Files) -> Result<Arc<dyn Signer>, PlaceError> {
    match &config.signer_socket {
        Some(socket) => Ok(asked_at(socket)),
        None => Ok(Arc::new(open(files.signer(), None)?)),
    }
}

/// For whoever asks once.
pub(crate) fn asked_at(socket: &Path) -> Arc<dyn Signer> {
    Arc::new(signer::RemoteSigner::dial(socket))
}

/// The answer, if it comes while somebody waits for it: a signer may be reached and stand still.
pub(crate) async fn in_time<T>(asked: impl Future<Output = Result<T, SignError>>) -> Result<T, SignError> {
    let silent = || SignError::Unavailable("it is reached and does not answer; see whether it stands still".to_owned());
    timeout(limits::SIGNER_ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(silent()))
}

#[cfg(test)]
mod tests {
    use ids::{CommandId, FleetId, HostId, OperationId, Sha256, UnixMs};

    use super::*;

    #[test]
    fn users_are_known_by_name_and_number() {
        assert_eq!(user_number("root").expect("there is one"), 0);
        assert_eq!(user_number("4711").expect("a number"), 4711);
        let error = user_number("nobody-of-that-name").expect_err("none").to_string();
        assert!(error.contains("--signer-allow"), "{error}");
    }

    #[test]
    fn an_action_is_known_by_its_class() {
        let class = |name: &str, version| {
            let (action, action_version) = (name.parse().expect("an action's name"), version);
            class_of(&Order { action, action_version, ..order() })
        };
        assert_eq!((class("host.facts", 1), class("command.cancel", 1)), (Some(Class::Read), Some(Class::Read)));
        assert_eq!((class("app.deploy", 1), class("app.remove", 1)), (Some(Class::Change), Some(Class::Destructive)));
        assert_eq!((class("host.facts", 99), class("no.such", 1)), (None, None));
        assert_eq!((class("standing.renew", 1), class("standing.drop", 1)), (Some(Class::Read), Some(Class::Change)));
        // What it would have run cannot be read.
        assert_eq!(class("standing.install", 1), None);
    }

    fn order() -> Order {
        Order {
            fleet: FleetId::from_bytes([1; 16]),
            host: HostId::from_bytes([2; 16]),
            command: CommandId::from_bytes([3; 16]),
            operation: OperationId::from_bytes([4; 16]),
            proposed_at: UnixMs(0),
            deliver_by: UnixMs(1),
            start_within_ms: 1,
            action: "host.facts".parse().expect("an action's name"),
            action_version: 1,
            schema_sha256: Sha256([5; 32]),
            parameters: b"{}".to_vec(),
            sealed: Vec::new(),
            requester: None,
            dry_run: false,
        }
    }
}
