//! The gRPC service agents call: hands each stream to its task.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use envelope::{root::TrustedRoot, signer_port::Signer};
use fleet::{
    ports::{AuditEntry, Store},
    recovery::{Recovery, RecoveryStage},
};
use ids::{FleetId, TokenId, UnixMs};
use session::frames::{AgentFrame, ControlFrame};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::v1::{self, agent_link_server::AgentLink};

use crate::{
    clock, enrolment, hub::Hub, limits, listener::ConnectionInfo, online_keys::OnlineKeys, refusals::Refusals,
    roots_taken, session_task,
};

/// What every agent's stream needs.
pub(crate) struct Agents {
    pub(crate) fleet: FleetId,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) keys: Arc<OnlineKeys>,
    pub(crate) hub: Arc<Hub>,
    root: watch::Sender<Arc<TrustedRoot>>,
    /// The last restore from a backup, if there ever was one.
    recovery: watch::Sender<Option<Recovery>>,
    refusals: Mutex<Refusals>,
}

impl Agents {
    pub(crate) fn new(
        root: Arc<TrustedRoot>,
        store: Arc<dyn Store>,
        signer: Arc<dyn Signer>,
        keys: Arc<OnlineKeys>,
        hub: Arc<Hub>,
    ) -> Self {
        let fleet = root.current().fleet;
        let (root, recovery) = (watch::Sender::new(root), watch::Sender::new(None));
        Self { fleet, store, signer, keys, hub, root, recovery, refusals: Mutex::default() }
    }

    /// The last restore is this one, or stands like this by now. Sessions begin anew, to be judged by it.
    pub(crate) fn recovery_set(&self, recovery: Option<Recovery>) {
        self.recovery.send_replace(recovery);
        self.hub.begin_anew();
    }

    /// Whether this control plane was ever restored from a backup.
    pub(crate) fn was_restored(&self) -> bool {
        self.recovery.borrow().is_some()
    }

    /// How far it is since its last restore, by that root metadata.
    pub(crate) fn stage(&self, root: &TrustedRoot) -> RecoveryStage {
        self.recovery.borrow().as_ref().map_or(RecoveryStage::Over, |recovery| recovery.stage(root))
    }

    /// Root metadata in force.
    pub(crate) fn root(&self) -> Arc<TrustedRoot> {
        self.root.borrow().clone()
    }

    /// The same, as a channel.
    pub(crate) fn roots(&self) -> watch::Receiver<Arc<TrustedRoot>> {
        self.root.subscribe()
    }

    /// Newer root metadata is durable: from now on everything is judged by it.
    pub(crate) fn root_advance(&self, root: Arc<TrustedRoot>) {
        let version = root.version();
        let is_newer = self.root.send_if_modified(|current| {
            let is_newer = root.version() > current.version();
            if is_newer {
                *current = root;
            }
            is_newer
        });
        if is_newer {
            self.hub.root_changed(version);
        }
    }

    /// Someone who is nobody was refused.
    pub(crate) fn stranger_refused(&self) {
        self.refusals().stranger();
    }

    /// Someone was refused who named this join token, which there is.
    pub(crate) fn enrolment_refused(&self, token: TokenId) {
        self.refusals().enrolment(token);
    }

    /// Who was refused since last asked, as leaves.
    pub(crate) fn refusals_take(&self) -> Vec<AuditEntry> {
        self.refusals().take(self.now())
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> UnixMs {
        clock::now()
    }
}

/// The two directions of one stream.
pub(crate) struct Stream {
    pub(crate) info: ConnectionInfo,
    incoming: Streaming<v1::AgentFrame>,
    outgoing: mpsc::Sender<Result<v1::ControlFrame, Status>>,
}

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the agent closed the stream")]
    Closed,
    #[error("the connection ended: {0}")]
    Cut(String),
    #[error("the agent sent a malformed frame: {0}")]
    Frame(#[from] wire::FrameError),
    #[error("the agent takes nothing any more")]
    Stuck,
    #[error("that the audit log continues could not be shown: {0}")]
    Proof(fleet::ports::StoreError),
}

impl Stream {
    /// Waits for the next frame. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<AgentFrame, StreamError> {
        match self.incoming.message().await {
            Ok(Some(frame)) => Ok(frame.try_into()?),
            Ok(None) => Err(StreamError::Closed),
            Err(status) => Err(StreamError::Cut(status.message().to_owned())),
        }
    }

    /// Sends a frame; an agent that takes nothing for [`limits::SEND_TIMEOUT`] is given up.
    pub(crate) async fn send(&self, frame: ControlFrame) -> Result<(), StreamError> {
        match timeout(limits::SEND_TIMEOUT, self.outgoing.send(Ok(frame.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(StreamError::Closed),
            Err(_) => Err(StreamError::Stuck),
        }
    }
}

/// The service, as tonic wants it.
pub(crate) struct AgentService(pub(crate) Arc<Agents>);

type Frames = ReceiverStream<Result<v1::ControlFrame, Status>>;

fn open(request: Request<Streaming<v1::AgentFrame>>) -> Result<(Stream, Response<Frames>), Status> {
    let info = request.extensions().get::<ConnectionInfo>().cloned();
    let info = info.ok_or_else(|| Status::internal("the connection has no channel binding"))?;
    let (outgoing, frames) = mpsc::channel(limits::SEND_QUEUE_MAX);
    let stream = Stream { info, incoming: request.into_inner(), outgoing };
    Ok((stream, Response::new(ReceiverStream::new(frames))))
}

#[tonic::async_trait]
impl AgentLink for AgentService {
    type EnrolStream = Frames;
    type SessionStream = Frames;

    async fn enrol(&self, request: Request<Streaming<v1::AgentFrame>>) -> Result<Response<Frames>, Status> {
        let (stream, response) = open(request)?;
        tokio::spawn(enrolment::run(self.0.clone(), stream));
        Ok(response)
    }

    async fn roots(&self, request: Request<v1::RootsRequest>) -> Result<Response<v1::RootsAnswer>, Status> {
        roots_taken::exchange(&self.0, request).await
    }

    async fn session(&self, request: Request<Streaming<v1::AgentFrame>>) -> Result<Response<Frames>, Status> {
        let (stream, response) = open(request)?;
        tokio::spawn(session_task::run(self.0.clone(), stream));
        Ok(response)
    }
}
