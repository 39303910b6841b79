//! The agent's program: which are served, and one of them, byte by byte.

use core::time::Duration;
use std::{fs::File, io, io::Read as _, sync::Arc};

use api::AgentProgram;
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{Stream, stream};
use ids::Sha256;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    edge::Peer,
    input::PathParameter,
    limits,
    peer_places::PeerPlace,
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
    let Some(peer_place) = shared.download_places.take(peer) else {
        let most = limits::DOWNLOADS_AT_ONCE_PER_PEER_MAX;
        let detail =
            format!("this address fetches {most} programs at the moment; wait until one is done and repeat the lines");
        return Err(ApiError::new(Kind::TooManyDownloads, detail).retry_after(limits::DOWNLOAD_REFILL.0.div_ceil(1000)));
    };
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
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(hand_over(file, length, sender, (place, peer_place)));
    let mut response = Body::from_stream(body(receiver, length)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// Reads a file and hands it over piece by piece, as long as whoever fetches it keeps the least pace. The places are
/// free again when it ends, also while a client that has stopped taking is still connected.
async fn hand_over(file: File, length: u64, pieces: mpsc::Sender<Bytes>, _places: (OwnedSemaphorePermit, PeerPlace)) {
    let begun = Instant::now();
    let (until, mut due) = (begun + limits::DOWNLOAD_TIME_MAX, begun + limits::DOWNLOAD_LAG_MAX);
    let (mut file, mut left) = (file, length);
    while left > 0 {
        let read = spawn_blocking(move || {
            let mut piece = Vec::new();
            file.by_ref().take(left.min(limits::DOWNLOAD_PIECE_BYTES)).read_to_end(&mut piece)?;
            io::Result::Ok((piece, file))
        });
        // Whatever is wrong, the download is cut short, and the client sees that: the length was announced.
        let Ok(Ok(Ok((piece, rest)))) = timeout(limits::RESPONSE_TIME_MAX, read).await else { return };
        let Ok(Ok(room)) = timeout_at(due.min(until), pieces.reserve()).await else { return };
        let bytes = piece.len() as u64;
        if bytes == 0 {
            return;
        }
        room.send(Bytes::from(piece));
        (file, left) = (rest, left - bytes);
        let time = Duration::from_millis(bytes * 1000 / limits::DOWNLOAD_BYTES_PER_SECOND_MIN);
        // Whoever was fast has no more time in hand for it than at the beginning.
        due = (due + time).min(Instant::now() + limits::DOWNLOAD_LAG_MAX);
    }
}

/// The pieces as a body; an error when they end too early.
fn body(pieces: mpsc::Receiver<Bytes>, length: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((pieces, length), |(mut pieces, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let piece = pieces.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let left = left - piece.len() as u64;
        Ok::<_, io::Error>(Some((piece, (pieces, left))))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::StreamExt as _;
    use tokio::{sync::Semaphore, time::sleep};

    use super::*;
    use crate::peer_places::PeerPlaces;

    const LENGTH: u64 = 4 * 1024 * 1024;

    /// Fetches a file, one piece after each pause: the bytes that came, and when the place was free again.
    async fn fetched(pause: Option<Duration>) -> (u64, bool, Duration) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; LENGTH as usize]).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let places = Arc::new(Semaphore::new(1));
        let peers = PeerPlaces::new(1);
        let place = (places.clone().try_acquire_owned().unwrap(), peers.take(([192, 0, 2, 1], 1).into()).unwrap());
        let begun = Instant::now();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(hand_over(file, LENGTH, sender, place));
        let mut body = Box::pin(body(receiver, LENGTH));
        let (mut bytes, mut cut) = (0, false);
        while let Some(pause) = pause {
            sleep(pause).await;
            match body.next().await {
                None => break,
                Some(Ok(piece)) => bytes += piece.len() as u64,
                Some(Err(_)) => {
                    cut = true;
                    break;
                }
            }
        }
        let _free = places.acquire().await.unwrap();
        (bytes, cut, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_at_the_least_pace_comes_whole() {
        let pace = limits::DOWNLOAD_PIECE_BYTES * 1000 / limits::DOWNLOAD_BYTES_PER_SECOND_MIN;
        let (bytes, cut, _) = fetched(Some(Duration::from_millis(pace))).await;
        assert_eq!((bytes, cut), (LENGTH, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slower_one_is_cut_and_gives_its_place_back() {
        let (bytes, cut, time) = fetched(Some(Duration::from_secs(12))).await;
        assert!(cut && bytes < LENGTH && time < Duration::from_secs(120), "{bytes} {time:?}");
        // Nothing is taken at all, and nobody hangs up.
        let (_, _, time) = fetched(None).await;
        assert!(time <= 2 * limits::DOWNLOAD_LAG_MAX, "{time:?}");
    }
}
