//! The agent's program: which are served, and one of them, byte by byte.

use std::{fs::File, io, io::Read as _, sync::Arc};

use api::AgentProgram;
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use ids::Sha256;
use tokio::{
    sync::OwnedSemaphorePermit,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    edge::Peer,
    input::PathParameter,
    limits,
    problem::{ApiError, Kind},
    state::Shared,
};

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Vec<AgentProgram>>, ApiError> {
    let programs = shared.agent_programs.clone();
    Ok(Json(spawn_blocking(move || programs.list()).await.map_err(|error| unreadable(&error))?))
}

fn unreadable(error: &dyn std::error::Error) -> ApiError {
    tracing::error!(%error, "an agent's program could not be read");
    ApiError::new(Kind::Internal, "the agent's program could not be read; the control plane's log says why")
}

/// Open to anyone: what it answers is public, and checked by whoever asked.
pub(super) async fn program(
    State(shared): State<Arc<Shared>>,
    Extension(Peer(peer)): Extension<Peer>,
    PathParameter(sha256): PathParameter<Sha256>,
) -> Result<Response, ApiError> {
    shared.download_rate.take(peer.ip(), shared.now()).map_err(|wait| {
        let detail = "too many downloads from this address; wait and repeat the lines";
        ApiError::new(Kind::TooManyDownloads, detail).retry_after(wait.0.div_ceil(1000))
    })?;
    let Ok(place) = shared.downloads.clone().try_acquire_owned() else {
        let detail = "many machines fetch the agent at the moment; wait a little and repeat the lines";
        return Err(ApiError::new(Kind::Busy, detail).retry_after(limits::DOWNLOAD_REFILL.0.div_ceil(1000)));
    };
    let programs = shared.agent_programs.clone();
    let opened = spawn_blocking(move || programs.open(sha256)).await.map_err(|error| unreadable(&error))?;
    let (file, length) = opened.map_err(|error| unreadable(&error))?.ok_or_else(|| {
        let detail = "no agent with this SHA-256 is served (any more); print new lines with `serverflow host enroll NAME`, or for a host that is enrolled with `serverflow host upgrade NAME`";
        ApiError::new(Kind::AgentNotFound, detail)
    })?;
    let pieces = Pieces { file, left: length, until: Instant::now() + limits::DOWNLOAD_TIME_MAX, _place: place };
    let mut response = Body::from_stream(stream::try_unfold(pieces, Pieces::next)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// A file on its way out. The client's own pace is bounded by the time for the whole, and each write by
/// [`limits::WRITE_TIME_MAX`].
struct Pieces {
    file: File,
    left: u64,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

impl Pieces {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let read = spawn_blocking(move || {
            let mut piece = Vec::new();
            self.file.by_ref().take(self.left.min(limits::DOWNLOAD_PIECE_BYTES)).read_to_end(&mut piece)?;
            io::Result::Ok((piece, self))
        });
        let until = Instant::now() + limits::RESPONSE_TIME_MAX;
        let (piece, mut pieces) = timeout_at(until, read).await?.map_err(io::Error::other)??;
        if piece.is_empty() || Instant::now() > pieces.until {
            // Cut short, and the client sees that: the length was announced.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pieces.left -= piece.len() as u64;
        Ok(Some((Bytes::from(piece), pieces)))
    }
}
