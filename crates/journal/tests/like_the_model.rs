//! The journal on disk means what `JournalState::apply` says, whatever is written in whatever order,
//! and comes back the same when it is opened again.

use envelope::messages::{LogPosition, ReportPosition, SealedValue};
use ids::{
    AuditLogId, BootId, BootMs, CommandId, HostEpoch, OperationId, QuarantineId, ReportSequence, Revision, RootVersion,
    Sequence, Sha256, StandingOrderId, UnixMs,
};
use journal::{Journal, JournalError};
use proptest::prelude::*;
use session::{
    agent::io::{
        Burn, Burned, JournalState, JournalWrite, ResetTaken, Retirement, RingEntry, StandingChange, StoredClock,
        StoredReport, StoredStanding,
    },
    frames::Stage,
};

fn command(n: u8) -> CommandId {
    CommandId::from_bytes([n; 16])
}

/// Turns arbitrary choices into writes that an agent could make: numbers rise, commands are known
/// before they start and open before they end.
#[derive(Default)]
struct Script {
    sequence: u64,
    report: u64,
    root: u64,
    fresh: u8,
    open: Vec<(u8, bool)>,
    known: Vec<u8>,
    /// Of the keys offered last, and of those in force.
    epochs: (u64, u64),
}

impl Script {
    fn report(&mut self, command_number: u8) -> StoredReport {
        self.report += 1;
        let sha256 = Sha256([self.report.to_be_bytes()[7]; 32]);
        let envelope = vec![command_number; 40];
        StoredReport { command: command(command_number), sequence: ReportSequence(self.report), sha256, envelope }
    }

    fn entry(&mut self, stage: Stage, late: bool) -> RingEntry {
        self.fresh += 1;
        self.sequence += 3;
        // A late one is refused as unknown: its number is below the highest.
        let sequence = Sequence(match (late, self.fresh % 4) {
            (false, _) => self.sequence,
            // Or it jumps too far, at times beyond what SQLite can count.
            (true, 0) => self.sequence + (1 << 33),
            (true, 1) => u64::MAX,
            (true, _) => self.sequence.saturating_sub(4),
        });
        let entry = RingEntry { command: command(self.fresh), sequence, order_sha256: Sha256([self.fresh; 32]), stage };
        self.known.push(self.fresh);
        entry
    }

    fn evict(&mut self, choice: u8) -> Option<CommandId> {
        let open: Vec<u8> = self.open.iter().map(|(number, _)| *number).collect();
        let victim = self.known.iter().position(|number| choice.is_multiple_of(3) && !open.contains(number))?;
        Some(command(self.known.remove(victim)))
    }

    /// Sometimes what was burned before is forgotten with it. The model's order is that of the operations.
    fn burn(&self, command: CommandId, choice: u8) -> Burn {
        let burned = Burned {
            operation: OperationId::from_bytes(*command.as_bytes()),
            action: if choice.is_multiple_of(2) { "app.remove" } else { "app.deploy" }.parse().unwrap(),
            command,
            until: UnixMs(u64::from(choice)),
        };
        Burn { burned, forget_before: UnixMs(u64::from(choice / 2)) }
    }

    /// A change of keys gets on.
    fn keys(&mut self, kind: u8, choice: u8) -> Option<JournalWrite> {
        Some(match kind {
            11 => {
                self.epochs.0 = self.epochs.1 + 1;
                let reset = choice.is_multiple_of(2).then(|| vec![choice; 20]);
                let host_epoch = HostEpoch(self.epochs.0);
                JournalWrite::KeyOffer { host_epoch, rotation: vec![choice; 40], reset }
            }
            12 if self.epochs.0 > 0 => {
                let host_epoch = HostEpoch(self.epochs.0);
                JournalWrite::KeyReceipt { host_epoch, receipt: vec![choice; 40] }
            }
            13 if self.epochs.0 > self.epochs.1 => self.keys_taken(choice),
            _ => return None,
        })
    }

    /// Sometimes with the end of a quarantine: the chain of reports goes on elsewhere, and what waits is in it anew.
    fn keys_taken(&mut self, choice: u8) -> JournalWrite {
        self.epochs.1 = self.epochs.0;
        let reset = choice.is_multiple_of(2).then(|| {
            self.report = self.report.saturating_add(u64::from(choice % 5)).saturating_sub(2);
            let sha256 = if self.report == 0 { Sha256([0; 32]) } else { Sha256([choice; 32]) };
            let last_report = ReportPosition { sequence: ReportSequence(self.report), sha256 };
            self.sequence += 3;
            let outbox = (0..choice % 3).map(|number| self.report(number)).collect();
            ResetTaken { high: Sequence(self.sequence), last_report, outbox }
        });
        let host_epoch = HostEpoch(self.epochs.1);
        JournalWrite::KeysTaken { host_epoch, since: UnixMs(u64::from(choice)), reset, done: Vec::new() }
    }

    /// The host leaves its fleet: begun, perhaps once more, and reported.
    fn retirement(&mut self, choice: u8) -> Option<JournalWrite> {
        let at = self.open.iter().position(|(_, started)| *started)?;
        let number = self.open[at].0;
        if choice.is_multiple_of(2) {
            return Some(JournalWrite::Retire { command: command(number) });
        }
        self.open.remove(at);
        Some(JournalWrite::Retired { command: command(number), report: self.report(number) })
    }

    /// Standing orders come, change and go, a few of them, with the end of the command that asked for it.
    fn standing(&mut self, choice: u8) -> Option<JournalWrite> {
        let started = self.open.iter().position(|(_, started)| *started)?;
        let (number, _) = self.open.remove(started);
        let order = StandingOrderId::from_bytes([choice % 4; 16]);
        let change = if choice.is_multiple_of(3) {
            StandingChange::Drop { order, revision: Revision(u64::from(choice / 2)) }
        } else {
            let value = |n: u8| SealedValue { name: format!("web/environment/{n}"), bytes: vec![n; 50] };
            let sealed = (0..choice % 3).map(value).collect();
            let standing = StoredStanding { order, envelope: vec![choice; 40], sealed };
            StandingChange::Put { standing, revision: Revision(u64::from(choice)) }
        };
        Some(JournalWrite::Standing { command: command(number), change, report: self.report(number) })
    }

    fn write(&mut self, kind: u8, choice: u8) -> Option<JournalWrite> {
        Some(match kind % 16 {
            0 | 1 => {
                let evict = self.evict(choice);
                let entry = self.entry(Stage::Accepted, false);
                self.open.push((self.fresh, false));
                let value = |n: u8| SealedValue { name: format!("web/environment/{n}"), bytes: vec![n; 50] };
                let sealed = (0..choice % 3).map(value).collect();
                let approvals = (0..choice % 4).map(|n| vec![n; 40]).collect();
                let burn = (!choice.is_multiple_of(4)).then(|| self.burn(entry.command, choice));
                JournalWrite::Accept { entry, command: vec![choice; 60], sealed, approvals, burn, evict }
            }
            2 => {
                let evict = self.evict(choice);
                let entry = self.entry(Stage::Done, choice.is_multiple_of(2));
                let report = self.report(self.fresh);
                JournalWrite::Refuse { entry, report, evict }
            }
            3 => {
                let waiting = self.open.iter_mut().find(|(_, started)| !started)?;
                waiting.1 = true;
                JournalWrite::Start { command: command(waiting.0) }
            }
            4 => {
                let index = usize::from(choice) % self.open.len().max(1);
                let number = self.open.get(index)?.0;
                self.open.remove(index);
                JournalWrite::Done { command: command(number), report: self.report(number) }
            }
            5 => JournalWrite::Acknowledge {
                sequence: ReportSequence(self.report.saturating_sub(u64::from(choice % 3))),
            },
            6 => {
                self.root += 1;
                JournalWrite::Root { version: RootVersion(self.root), envelope: vec![choice; 30] }
            }
            7 => {
                let started = self.open.iter().find(|(_, started)| *started)?;
                JournalWrite::Resume { command: command(started.0) }
            }
            8 => {
                let log = AuditLogId::from_bytes([choice; 16]);
                JournalWrite::AuditHead {
                    position: LogPosition { log, size: u64::from(choice), root: Sha256([choice; 32]) },
                    proved: choice.is_multiple_of(2),
                }
            }
            9 => {
                // A cancel that has started, and what it stops: something that has no end yet.
                let cancel = self.open.iter().position(|(_, started)| *started)?;
                if self.open.len() < 2 {
                    return None;
                }
                let (number, _) = self.open.remove(cancel);
                let target = command(self.open[usize::from(choice) % self.open.len()].0);
                JournalWrite::Cancel { command: command(number), target, report: self.report(number) }
            }
            11..=13 => self.keys(kind % 16, choice)?,
            14 => self.retirement(choice)?,
            15 => self.standing(choice)?,
            _ if choice < 16 => JournalWrite::Quarantine { id: QuarantineId::from_bytes([choice; 16]) },
            _ => {
                let boot = BootId::from_bytes([choice; 16]);
                let (time, at) = (UnixMs(u64::from(choice)), BootMs(u64::from(choice) + 1));
                JournalWrite::Clock { clock: StoredClock { boot, time, at } }
            }
        })
    }
}

async fn check(choices: Vec<(u8, u8)>) -> Result<(), JournalError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.db");
    let mut model = JournalState::default();
    let mut script = Script::default();
    let writes: Vec<_> = choices.into_iter().filter_map(|(kind, choice)| script.write(kind, choice)).collect();
    for (round, part) in writes.chunks(8).enumerate() {
        let opened = Journal::open(&path).await?;
        assert_eq!(opened.created, round == 0);
        assert_eq!(opened.state, model, "round {round}");
        let mut pending = Vec::new();
        for write in part {
            model.apply(write);
            pending.push(opened.journal.queue(write.clone()).await?);
        }
        for write in pending {
            write.durable().await?;
        }
        opened.journal.close().await;
    }
    assert_eq!(Journal::open(&path).await?.state, model);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn what_is_written_comes_back_as_the_model_says(choices in proptest::collection::vec(any::<(u8, u8)>(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(check(choices)).expect("the journal works");
    }
}

#[tokio::test]
async fn records_are_kept_until_removed() -> Result<(), JournalError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.db");
    let opened = Journal::open(&path).await?;
    opened.journal.record_write("app/web", Some(b"one".to_vec())).await?;
    opened.journal.record_write("app/web", Some(b"two".to_vec())).await?;
    assert_eq!(opened.journal.record_read("app/web").await?, Some(b"two".to_vec()));
    opened.journal.close().await;
    let opened = Journal::open(&path).await?;
    assert_eq!(opened.journal.record_read("app/web").await?, Some(b"two".to_vec()));
    opened.journal.record_write("app/web", None).await?;
    assert_eq!(opened.journal.record_read("app/web").await?, None);
    Ok(())
}

#[tokio::test]
async fn acknowledged_reports_are_kept_for_whoever_lost_them() -> Result<(), JournalError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(&directory.path().join("journal.db")).await?.journal;
    let mut script = Script::default();
    for n in 1..=40 {
        let (report, entry) = (script.report(n), script.entry(Stage::Done, false));
        journal.write(JournalWrite::Refuse { entry, report, evict: None }).await?;
    }
    let read = async |first: u64, last: u64| {
        let reports = journal.reports_acknowledged(ReportSequence(first), ReportSequence(last)).await?;
        Ok::<_, JournalError>(reports.iter().map(|report| report.sequence.0).collect::<Vec<_>>())
    };
    assert_eq!(read(1, 40).await?, [0; 0], "none was acknowledged");
    journal.write(JournalWrite::Acknowledge { sequence: ReportSequence(38) }).await?;
    assert_eq!(read(3, 5).await?, [3, 4, 5]);
    assert_eq!(read(37, 40).await?, [37, 38], "the rest is sent by itself");
    assert_eq!(read(1, 40).await?, (1..=32).collect::<Vec<_>>(), "some at a time");
    Ok(())
}

#[tokio::test]
async fn a_second_agent_is_held_off() -> Result<(), JournalError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.db");
    let opened = Journal::open(&path).await?;
    assert!(matches!(Journal::open(&path).await, Err(JournalError::InUse { .. })));
    opened.journal.close().await;
    assert!(Journal::open(&path).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_is_refused_in_words() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.db");
    std::fs::write(&path, vec![0x5a; 8192]).expect("written");
    let error = Journal::open(&path).await.expect_err("no journal").to_string();
    assert!(error.contains("journal.db"), "{error}");
}

/// What a host leaves behind in its journal when it leaves the fleet: nothing of its apps.
#[tokio::test]
async fn a_retirement_drops_what_was_kept_of_apps() -> Result<(), JournalError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.db");
    let opened = Journal::open(&path).await?;
    opened.journal.record_write("app/web", Some(b"releases".to_vec())).await?;
    assert_eq!(opened.journal.record_read("app/web").await?, Some(b"releases".to_vec()), "the control");
    opened.journal.write(JournalWrite::Retire { command: command(1) }).await?;
    assert_eq!(opened.journal.record_read("app/web").await?, None);
    opened.journal.close().await;
    let opened = Journal::open(&path).await?;
    assert_eq!(opened.journal.record_read("app/web").await?, None);
    assert_eq!(opened.state.retirement, Some(Retirement::Begun));
    Ok(())
}
