//! The signer's end of its socket. Requests of a connection are answered as they are decided, in any order; those that come
//! together are decided together, and one write to disk covers them. What a connection has asked and not yet been answered
//! is bounded in bytes: above that it is not read, and a peer that takes no answers stands still alone.

use std::{io, sync::Arc};

use envelope::signer_port::{SignError, Signer};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    codec::{Answered, Asked},
    limits,
    socket::{Peers, read_frame},
};

/// Answers until dropped.
pub async fn serve(listener: UnixListener, signer: Arc<dyn Signer>, peers: Peers) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if !peers.admits(&stream) => {}
            Ok(_) if connections.len() >= limits::CONNECTIONS_MAX => {
                tracing::warn!("more connections to the signer's socket than it takes; one was closed");
            }
            Ok((stream, _)) => {
                connections.spawn(connection(stream, signer.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the signer's socket accepts nobody now");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// An answer, and the room that its request took.
type Waiting = (Vec<u8>, OwnedSemaphorePermit);

async fn connection(stream: UnixStream, signer: Arc<dyn Signer>) {
    let (read, write) = stream.into_split();
    let (answers, waiting) = mpsc::channel(limits::QUEUE_MAX);
    let mut writing = tokio::spawn(write_answers(write, waiting));
    let reading = read_requests(BufReader::new(read), &signer, answers);
    let ended = tokio::select! {
        ended = reading => ended,
        ended = &mut writing => ended.unwrap_or_else(|error| Err(io::Error::other(error))),
    };
    writing.abort();
    if let Err(error) = ended {
        tracing::warn!(%error, "a connection to the signer's socket was cut");
    }
}

async fn read_requests(
    mut stream: BufReader<tokio::net::unix::OwnedReadHalf>,
    signer: &Arc<dyn Signer>,
    answers: mpsc::Sender<Waiting>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(limits::UNANSWERED_BYTES_MAX));
    // Dropped with the connection: what nobody waits for is not worked on further.
    let mut asking = JoinSet::new();
    while let Some(frame) = read_frame(&mut stream).await? {
        while asking.try_join_next().is_some() {}
        let (number, asked) = Asked::from_frame(&frame).map_err(io::Error::other)?;
        let cost = u32::try_from(frame.len().max(limits::FRAME_BYTES_MIN)).unwrap_or(u32::MAX);
        drop(frame);
        let permit = room.clone().acquire_many_owned(cost).await.map_err(io::Error::other)?;
        let (signer, answers) = (signer.clone(), answers.clone());
        asking.spawn(async move {
            let answered = perform(&*signer, asked).await;
            if let Ok(frame) = answered.to_frame(number) {
                // The connection may have ended.
                let _ = answers.send((frame, permit)).await;
            }
        });
    }
    Ok(())
}

async fn write_answers(mut stream: OwnedWriteHalf, mut waiting: mpsc::Receiver<Waiting>) -> io::Result<()> {
    let mut bytes = Vec::new();
    while let Some((frame, permit)) = waiting.recv().await {
        bytes.clear();
        bytes.extend_from_slice(&frame);
        let mut permits = vec![permit];
        // Those that are there too go in the same write.
        while bytes.len() < limits::FRAME_BYTES_MAX
            && let Ok((frame, permit)) = waiting.try_recv()
        {
            bytes.extend_from_slice(&frame);
            permits.push(permit);
        }
        let written = timeout(limits::FRAME_TIMEOUT, stream.write_all(&bytes)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    }
    Ok(())
}

async fn perform(signer: &dyn Signer, asked: Asked) -> Answered {
    let answered: Result<Answered, SignError> = match asked {
        Asked::Command(command, approvals) => signer.sign_command(*command, approvals).await.map(Answered::Signed),
        Asked::Open(open) => signer.sign_open(*open).await.map(Answered::Envelope),
        Asked::Reset(reset) => signer.sign_reset(*reset).await.map(Answered::Envelope),
        Asked::Standing(order) => signer.sign_standing(*order).await.map(Answered::Envelope),
        Asked::AdvanceRoot(chain) => signer.advance_root(chain).await.map(Answered::Version),
        Asked::Keys => signer.keys().await.map(Answered::Keys),
        Asked::PrepareKey => signer.prepare_key().await.map(Answered::Public),
        Asked::ActivateKey(key) => signer.activate_key(key).await.map(|()| Answered::Done),
        Asked::DropKey(key) => signer.drop_key(key).await.map(|()| Answered::Done),
    };
    answered.unwrap_or_else(Answered::Not)
}
