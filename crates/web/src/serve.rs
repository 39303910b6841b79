//! The listener: connections, their limits, and an orderly end.

use core::{future::Future, net::SocketAddr, pin::pin};
use std::{io, sync::Arc};

use axum::{Router, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tower::Service as _;

use crate::{
    edge::Peer,
    events, limits,
    peer_places::{PeerPlace, PeerPlaces},
    routes,
    stall::Stalling,
    state::{Shared, WebState, asked_to_end},
    tls::Connection,
};

/// Answers people on `listener` until `shutdown` is done; then lets open responses end, for at most
/// [`limits::DRAIN_TIME_MAX`]. Event streams end at once: whoever watches comes back.
///
/// # Errors
/// When the operating system gives no randomness at the start. Faults of single connections are
/// logged and end nothing else.
pub async fn serve(
    listener: TcpListener,
    state: WebState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (closing, closed) = watch::channel(false);
    let shared = Shared::new(state, closed).map_err(io::Error::other)?;
    let router = routes::router(&shared);
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let peers = PeerPlaces::new(limits::CONNECTIONS_PER_PEER_MAX);
    let mut connections = JoinSet::new();
    let mut chores = JoinSet::new();
    chores.spawn(events::count(shared.clone()));
    let (tell_rest, rest) = oneshot::channel();
    let teller = tokio::spawn(tell_refusals(shared.clone(), rest));
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(&listener, &places) => {
                let Some((tcp, peer, place)) = accepted else { continue };
                match peers.take(peer) {
                    Some(peer_place) => {
                        connections.spawn(connection(shared.clone(), router.clone(), tcp, peer, (place, peer_place)));
                    }
                    None => tracing::debug!(%peer, "this address holds all the connections that one may have"),
                }
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let drained = timeout(limits::DRAIN_TIME_MAX, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len(), "connections were cut because they did not end in time");
        connections.shutdown().await;
    }
    chores.shutdown().await;
    // Nobody is left to be refused. An error means that it is gone already.
    let _ = tell_rest.send(());
    if let Err(error) = teller.await {
        tracing::error!(%error, "refusals could not be told to the audit log to the end");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((tcp, peer)) => Some((tcp, peer, place)),
        Err(error) => {
            // Out of file descriptors, or a connection gone before it was taken: neither lasts.
            tracing::warn!(%error, "a connection could not be accepted");
            sleep(limits::ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    router: Router,
    tcp: TcpStream,
    peer: SocketAddr,
    place: (OwnedSemaphorePermit, PeerPlace),
) {
    // Small answers go out at once; without it they are only slower.
    let _ = tcp.set_nodelay(true);
    shared.metrics.connections.inc();
    match secured(&shared, tcp, peer).await {
        Some(stream) => answer_on(&shared, router, stream, peer).await,
        None => tracing::debug!(%peer, "no TLS handshake came about"),
    }
    shared.metrics.connections.dec();
    drop(place);
}

/// The connection as HTTP sees it, once its TLS handshake has ended well; as it is without TLS.
async fn secured(shared: &Shared, tcp: TcpStream, peer: SocketAddr) -> Option<Box<dyn Connection>> {
    let Some(tls) = shared.tls.clone() else { return Some(Box::new(tcp)) };
    match timeout(limits::HANDSHAKE_TIME_MAX, tls.accept(tcp)).await.ok()? {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            None
        }
    }
}

async fn answer_on(shared: &Arc<Shared>, router: Router, stream: Box<dyn Connection>, peer: SocketAddr) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.clone().call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIME_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .half_close(false);
    let mut connection = pin!(http.serve_connection(TokioIo::new(Stalling::new(stream)), service));
    let mut closing = shared.closing.clone();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = asked_to_end(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Tells the audit log of refusals, and of the rest when asked to end.
async fn tell_refusals(shared: Arc<Shared>, mut rest: oneshot::Receiver<()>) {
    let mut ticks = interval(core::time::Duration::from_millis(limits::REFUSALS_PER.0));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut rest => break,
            _ = ticks.tick() => {}
            () = shared.refusals.news.notified() => {}
        }
        // Not within the choice above: what was taken out is written before anything ends.
        routes::tell_refusals(&shared, false).await;
    }
    routes::tell_refusals(&shared, true).await;
}
