//! What stands in for the agents' journals: one file for all of them, appended to and synced.
//!
//! A thousand SQLite files in one process would measure SQLite, and a disk that no fleet shares. Here
//! every write of every agent is appended with all its bytes, what waits is synced together by one
//! `fdatasync`, and only then is each write acknowledged. So the order "durable, then said" is the
//! real one, and its price is that of one shared disk; what is cheaper than on a real host is the
//! database. Nothing is read back: the agents live as long as the program.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::mpsc,
};

use session::agent::{
    PendingEnrolment,
    io::{JournalWrite, StoredReport, WriteId},
};
use tokio::sync::mpsc::UnboundedSender;

/// Most writes that one sync covers.
const BATCH_MAX: usize = 4096;

/// Handle to the one journal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    requests: mpsc::Sender<Request>,
}

struct Request {
    bytes: Vec<u8>,
    id: WriteId,
    done: UnboundedSender<WriteId>,
}

impl Journal {
    /// Makes the file and the thread that writes it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().create_new(true).append(true).open(path)?;
        let (requests, queue) = mpsc::channel();
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || run(file, &queue))?;
        Ok(Self { requests })
    }

    /// Queues a write of one agent; its number comes back on `done` once it is durable, in order.
    pub(crate) fn write(&self, agent: usize, id: WriteId, write: &JournalWrite, done: &UnboundedSender<WriteId>) {
        self.append(agent, id, &parts(write), done);
    }

    /// The same for a begun enrolment.
    pub(crate) fn pending(&self, agent: usize, pending: &PendingEnrolment, done: &UnboundedSender<WriteId>) {
        let mut parts = vec![vec![b'p'], pending.token.as_bytes().to_vec(), pending.address.clone().into_bytes()];
        parts.extend(pending.root_chain.iter().cloned());
        self.append(agent, WriteId(0), &parts, done);
    }

    fn append(&self, agent: usize, id: WriteId, parts: &[Vec<u8>], done: &UnboundedSender<WriteId>) {
        let mut bytes = (agent as u64).to_be_bytes().to_vec();
        for part in parts {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        // The thread is gone only after an error it has told; then nothing becomes durable any more.
        let _ = self.requests.send(Request { bytes, id, done: done.clone() });
    }
}

/// Everything a journal would have to keep, kind first.
fn parts(write: &JournalWrite) -> Vec<Vec<u8>> {
    let report = |kind: u8, report: &StoredReport| {
        let sequence = report.sequence.0.to_be_bytes().to_vec();
        vec![
            vec![kind],
            report.command.as_bytes().to_vec(),
            sequence,
            report.sha256.0.to_vec(),
            report.envelope.clone(),
        ]
    };
    match write {
        JournalWrite::Accept { entry, command, sealed, .. } => {
            let sequence = entry.sequence.0.to_be_bytes().to_vec();
            let mut parts = vec![vec![b'a'], entry.command.as_bytes().to_vec(), sequence, command.clone()];
            parts.extend(sealed.iter().map(|value| value.bytes.clone()));
            parts
        }
        JournalWrite::Refuse { report: refusal, .. } => report(b'r', refusal),
        JournalWrite::Start { command } => vec![vec![b's'], command.as_bytes().to_vec()],
        JournalWrite::Resume { command } => vec![vec![b'u'], command.as_bytes().to_vec()],
        JournalWrite::Done { report: end, .. } | JournalWrite::Standing { report: end, .. } => report(b'd', end),
        JournalWrite::Cancel { target, report: end, .. } => {
            let mut parts = report(b'x', end);
            parts.push(target.as_bytes().to_vec());
            parts
        }
        JournalWrite::Acknowledge { sequence } => vec![vec![b'k'], sequence.0.to_be_bytes().to_vec()],
        JournalWrite::Root { version, envelope } => {
            vec![vec![b'v'], version.0.to_be_bytes().to_vec(), envelope.clone()]
        }
        JournalWrite::AuditHead { position, .. } => {
            vec![vec![b'h'], position.size.to_be_bytes().to_vec(), position.root.0.to_vec()]
        }
        JournalWrite::KeyOffer { rotation, .. } => vec![vec![b'o'], rotation.clone()],
        JournalWrite::KeyReceipt { receipt, .. } => vec![vec![b'p'], receipt.clone()],
        JournalWrite::KeysTaken { host_epoch, done, .. } => {
            let reports = done.iter().flat_map(|end| report(b'd', end));
            core::iter::once(vec![b't']).chain([host_epoch.0.to_be_bytes().to_vec()]).chain(reports).collect()
        }
        JournalWrite::Retire { command } => vec![vec![b'l'], command.as_bytes().to_vec()],
        JournalWrite::Retired { report: end, .. } => report(b'd', end),
        JournalWrite::Quarantine { id } => vec![vec![b'q'], id.as_bytes().to_vec()],
        JournalWrite::Clock { clock } => vec![vec![b'c'], clock.time.0.to_be_bytes().to_vec()],
    }
}

fn run(mut file: File, queue: &mpsc::Receiver<Request>) {
    let mut bytes = Vec::new();
    while let Ok(first) = queue.recv() {
        let batch: Vec<Request> = std::iter::once(first).chain(queue.try_iter().take(BATCH_MAX - 1)).collect();
        bytes.clear();
        for request in &batch {
            bytes.extend(&request.bytes);
        }
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            eprintln!("load: the agents' journal cannot be written: {error}");
            return;
        }
        for request in batch {
            // An agent that is gone needs no answer.
            let _ = request.done.send(request.id);
        }
    }
}
