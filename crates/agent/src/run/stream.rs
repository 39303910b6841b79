//! A command's stream to whoever watches it: bounded, leased, hashed as it is sent.
//!
//! Records wait here as lines of JSON. As many bytes go out as the lease allows; what waits beyond a
//! bound is left out from its oldest end, whole records at a time, and a record says how many. The
//! hash is over what went out, so whoever received everything can check it against the report.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use actions::{limits::STREAM_LEASE, mask::Masker, port::StreamRecord};
use host::clock;
use ids::{BootMs, CommandId, Sha256};
use serde_json::json;
use sha2::{Digest as _, Sha256 as Hasher};
use tokio::sync::{Notify, mpsc, watch};

use crate::limits;

/// Who watches, and how far the stream may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Boot-time clock at which it runs out.
    pub(super) ends_at: BootMs,
    /// Offset up to which may be sent.
    pub(super) until: u64,
    /// Counts renewals.
    pub(super) renewals: u64,
}

impl Lease {
    /// For whoever ordered the stream and has yet to open it.
    pub(super) fn first() -> Self {
        Self { ends_at: clock::boot_now().plus(STREAM_LEASE), until: 0, renewals: 0 }
    }

    pub(super) fn renewed(self, until: u64, over: bool) -> Self {
        let now = clock::boot_now();
        let ends_at = if over { now } else { now.plus(STREAM_LEASE) };
        Self { ends_at, until: until.max(self.until), renewals: self.renewals + 1 }
    }
}

/// A piece of a stream on its way out.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) command: CommandId,
    pub(super) offset: u64,
    pub(super) text: String,
}

/// What was put on a stream.
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) sha256: Sha256,
    pub(super) lost: u64,
}

/// The stream of one running command.
#[derive(Default)]
pub(super) struct Stream {
    buffer: Mutex<Buffer>,
    arrived: Notify,
}

#[derive(Default)]
struct Buffer {
    /// Taken from the records and not sent yet: the rest of a record that was cut in two.
    rest: String,
    records: VecDeque<String>,
    bytes: usize,
    /// Left out and not said yet.
    lost: u64,
    lost_in_all: u64,
    sent: u64,
    hasher: Hasher,
}

impl Stream {
    /// A panic while it is held leaves whole records behind at worst.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record on the stream, masked. Answers whether others had to be left out for it.
    pub(super) fn push(&self, record: StreamRecord, masker: &Masker) -> bool {
        let has_lost = self.lock().push(text_of(record, masker));
        self.arrived.notify_one();
        has_lost
    }

    pub(super) fn sent(&self) -> Sent {
        let buffer = self.lock();
        let sha256 = Sha256(buffer.hasher.clone().finalize().into());
        Sent { bytes: buffer.sent, sha256, lost: buffer.lost_in_all + buffer.records.len() as u64 }
    }

    fn is_empty(&self) -> bool {
        let buffer = self.lock();
        buffer.rest.is_empty() && buffer.records.is_empty()
    }

    /// Hands pieces on as far as the lease allows, for as long as it is polled.
    pub(super) async fn pump(&self, command: CommandId, lease: watch::Receiver<Lease>, out: &mpsc::Sender<Piece>) {
        self.pump_until(command, lease, out, false).await;
    }

    /// Hands on what is left, as far as somebody takes it.
    pub(super) async fn drain(&self, command: CommandId, lease: watch::Receiver<Lease>, out: &mpsc::Sender<Piece>) {
        let pump = self.pump_until(command, lease, out, true);
        // What is not taken by then is counted as left out.
        let _ = tokio::time::timeout(limits::STREAM_DRAIN, pump).await;
    }

    async fn pump_until(
        &self,
        command: CommandId,
        mut lease: watch::Receiver<Lease>,
        out: &mpsc::Sender<Piece>,
        ends_when_empty: bool,
    ) {
        let mut answered = lease.borrow().renewals;
        loop {
            let now = *lease.borrow_and_update();
            // Room first, then the piece: dropped between the two, nothing is lost. Room also means that
            // the piece before was taken.
            let Ok(permit) = out.reserve().await else { return };
            if ends_when_empty && (self.is_empty() || now.ends_at <= clock::boot_now()) {
                return;
            }
            let piece = self.lock().take(now.until);
            match piece {
                Some((offset, text)) => permit.send(Piece { command, offset, text }),
                None if now.renewals != answered && now.renewals > 0 => {
                    // Says how far the stream is: pieces lost on the way would hold it up for ever.
                    let offset = self.lock().sent;
                    permit.send(Piece { command, offset, text: String::new() });
                }
                None => {
                    drop(permit);
                    tokio::select! {
                        () = self.arrived.notified() => {}
                        renewed = lease.changed() => if renewed.is_err() { return },
                    }
                    continue;
                }
            }
            answered = now.renewals;
        }
    }
}

impl Buffer {
    fn push(&mut self, text: String) -> bool {
        self.bytes += text.len();
        self.records.push_back(text);
        let before = self.lost;
        while self.bytes > limits::STREAM_PENDING_BYTES_MAX {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.len();
            self.lost += 1;
            self.lost_in_all += 1;
        }
        self.lost > before
    }

    /// The next piece within the lease: its offset and text.
    fn take(&mut self, until: u64) -> Option<(u64, String)> {
        let room = usize::try_from(until.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        let most = room.min(session::limits::OUTPUT_BYTES_MAX);
        if self.rest.is_empty() && self.lost > 0 {
            self.rest = json!({ "lost_lines": self.lost }).to_string() + "\n";
            self.lost = 0;
        }
        while self.rest.len() < most {
            let Some(record) = self.records.pop_front() else { break };
            self.bytes -= record.len();
            self.rest.push_str(&record);
        }
        let end = self.rest.floor_char_boundary(most);
        if end == 0 {
            return None;
        }
        let rest = self.rest.split_off(end);
        let text = core::mem::replace(&mut self.rest, rest);
        let offset = self.sent;
        self.hasher.update(text.as_bytes());
        self.sent += text.len() as u64;
        Some((offset, text))
    }
}

/// A record as a line of JSON. Masked before it is escaped.
fn text_of(record: StreamRecord, masker: &Masker) -> String {
    let value = match record {
        StreamRecord::Line { service, container, time, text, cut } => {
            let mut masked = masker.mask(&text);
            if cut {
                // A secret may have been cut in two: its first half must not stand at the end.
                masked.truncate(masked.floor_char_boundary(masked.len().saturating_sub(masker.longest())));
            }
            let mut value = json!({ "service": service, "container": container, "time": time, "line": masked });
            if cut {
                value["cut"] = json!(true);
            }
            value
        }
        StreamRecord::Note(note) => json!({ "note": masker.mask(&note) }),
    };
    value.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use ids::sha256;

    use super::*;

    fn line(text: &str) -> StreamRecord {
        let (service, container, time) = ("web".to_owned(), "shop-web-1".to_owned(), "t".to_owned());
        StreamRecord::Line { service, container, time, text: text.to_owned(), cut: false }
    }

    #[test]
    fn pieces_keep_to_the_lease_and_are_what_is_hashed() {
        let (stream, masker) = (Stream::default(), Masker::new(["hunter22"]));
        for text in ["one", "pw=hunter22", "drei ä"] {
            assert!(!stream.push(line(text), &masker));
        }
        assert_eq!(stream.lock().take(0), None);
        let mut all = String::new();
        for until in (7..1_000).step_by(7) {
            while let Some((offset, text)) = stream.lock().take(until) {
                assert_eq!(offset, all.len() as u64);
                all.push_str(&text);
                assert!(all.len() as u64 <= until);
            }
        }
        assert_eq!(all.lines().count(), 3, "{all}");
        assert!(all.contains("pw=***") && all.contains("drei ä") && !all.contains("hunter22"), "{all}");
        let sent = stream.sent();
        assert_eq!((sent.bytes, sent.sha256, sent.lost), (all.len() as u64, sha256(all.as_bytes()), 0));
    }

    #[test]
    fn whoever_is_too_slow_loses_the_oldest_and_is_told_how_many() {
        let (stream, masker) = (Stream::default(), Masker::default());
        let text = "x".repeat(1_000);
        let count = 2 * limits::STREAM_PENDING_BYTES_MAX / text.len();
        let lost = (0..count).filter(|_| stream.push(line(&text), &masker)).count();
        assert!(lost > count / 3, "{lost} of {count}");
        stream.push(line("the last"), &masker);
        let mut all = String::new();
        while let Some((_, text)) = stream.lock().take(u64::MAX) {
            all.push_str(&text);
        }
        let told: serde_json::Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
        let kept = all.lines().count() - 1;
        assert_eq!(told["lost_lines"].as_u64().unwrap() as usize + kept, count + 1);
        assert!(
            all.ends_with("\"line\":\"the last\",\"service\":\"web\",\"time\":\"t\"}\n"),
            "{}",
            &all[all.len() - 200..]
        );
        assert_eq!(stream.sent().lost, told["lost_lines"].as_u64().unwrap());
    }

    #[test]
    fn half_a_secret_does_not_stand_where_a_line_was_cut() {
        let masker = Masker::new(["hunter22-is-long"]);
        let mut record = line(&format!("{}hunter22-is", "x".repeat(100)));
        if let StreamRecord::Line { cut, .. } = &mut record {
            *cut = true;
        }
        let text = text_of(record, &masker);
        assert!(!text.contains("hunter") && text.contains("\"cut\":true"), "{text}");
    }

    #[tokio::test]
    async fn a_renewal_that_finds_nothing_to_send_is_answered_with_how_far_the_stream_is() {
        let (stream, masker) = (Stream::default(), Masker::default());
        let (renew, lease) = watch::channel(Lease::first());
        let (out, mut pieces) = mpsc::channel::<Piece>(1);
        let command = CommandId::from_bytes([1; 16]);
        stream.push(StreamRecord::Note("hello".to_owned()), &masker);
        let told = async {
            renew.send_modify(|lease| *lease = lease.renewed(10, false));
            let first = pieces.recv().await.unwrap();
            assert_eq!((first.offset, first.text.len()), (0, 10));
            renew.send_modify(|lease| *lease = lease.renewed(10, false));
            let second = pieces.recv().await.unwrap();
            assert_eq!((second.offset, second.text.as_str()), (10, ""));
            renew.send_modify(|lease| *lease = lease.renewed(1_000, true));
            pieces.recv().await.unwrap()
        };
        let third = tokio::select! {
            third = told => third,
            () = stream.pump(command, lease.clone(), &out) => unreachable!("it does not end by itself"),
        };
        assert_eq!((third.offset, third.command), (10, command));
        assert!(lease.borrow().ends_at <= clock::boot_now());
        // Nobody watches: there is nothing to wait for.
        stream.push(StreamRecord::Note("too late".to_owned()), &masker);
        stream.drain(command, lease, &out).await;
        assert_eq!(stream.sent().lost, 1);
    }
}
