//! What a host says beside its reports: what its agent is, how far a command is, output for whoever
//! watches, and newer root metadata.

use std::sync::Arc;

use envelope::{audit::AuditKind, root::TrustedRoot};
use ids::{CommandId, Sequence, UnixMs};
use session::{
    control::{Authenticated, boots_after},
    frames::{ControlFrame, RefusalCode, Stage},
};

use super::{Effect, HostSession, Note, Phase, lane::After};
use crate::{
    command::CommandEvent,
    limits,
    model::CommandStatus,
    operation::{FOLLOW, streams},
    ports::{Event, StreamLease, StreamPiece, Write},
    record,
};

impl HostSession {
    /// The host says how far its clock is off. Only what makes a difference to a reader is stored.
    pub(super) fn clock(&mut self, skew_ms: i64) {
        let id = self.host_id();
        let Some(host) = &mut self.host else { return };
        let is_news = host.clock_skew_ms.is_none_or(|known| known.abs_diff(skew_ms) > limits::CLOCK_SKEW_NEWS.0);
        if self.phase == Phase::Open && is_news {
            host.clock_skew_ms = Some(skew_ms);
            self.write_first(Write::HostClock { host: id, skew_ms }, After::Noted);
        }
    }

    /// Stores what the agent is, when anything about it is new.
    pub(super) fn seen(&mut self) {
        let Some(host) = &self.host else { return };
        let Authenticated { hello, actions, .. } = &self.peer.authenticated;
        let boots = boots_after(&host.boots, hello.boot, limits::BOOTS_KEPT);
        let agent_version = hello.agent_version.clone();
        // It proved itself to a hello that names this version, and does so only once it has stored it.
        let root_version = hello.root_version.max(self.peer.root.version());
        let same = (&host.actions, &host.agent_version, &host.boots, host.root_version)
            == (actions, &agent_version, &boots, root_version);
        if same {
            return;
        }
        let actions = actions.clone();
        let write = Write::HostSeen {
            host: host.id,
            actions: actions.clone(),
            agent_version: agent_version.clone(),
            boots: boots.clone(),
            root_version,
        };
        self.write_first(write, After::Seen { actions, agent_version, boots, root_version });
    }

    /// The host has a command durably, and says how far it is. Late and repeated words change nothing.
    pub(super) fn accepted(&mut self, command: CommandId, sequence: Sequence, stage: Stage) {
        let Some(slot) = self.slot_mut(command) else {
            return self
                .note(Note::Dropped(format!("how far command {command} is, which has ended or is not this host's")));
        };
        if !slot.has_sequence(sequence) {
            let why = format!("command {command} was never sealed as {sequence}");
            return self.note(Note::Dropped(why));
        }
        slot.acknowledged = true;
        let later = self.stages.get(&command).is_some_and(|(_, known)| *known >= stage);
        if !later {
            self.stages.insert(command, (sequence, stage));
        }
    }

    /// Stores how far one command is. False when there is nothing to store.
    pub(super) fn stage_next(&mut self, now: UnixMs) -> bool {
        while let Some((&command, &(sequence, stage))) = self.stages.first_key_value() {
            let acknowledged = self.host.as_ref().map(|host| host.acknowledged);
            let Some(slot) = self.slots.iter().find(|slot| slot.id() == command) else {
                self.stages.remove(&command);
                continue;
            };
            let before = slot.command.status;
            match before.after(CommandEvent::from(stage)) {
                // Nothing that is not stored already.
                Ok(status) if status == before && acknowledged >= Some(sequence) => {
                    self.stages.remove(&command);
                }
                Ok(status) => {
                    let write = Write::CommandStage { command, host: self.host_id(), sequence, stage, at: now };
                    self.write(write, After::Staged { command, status, sequence });
                    return true;
                }
                Err(error) => {
                    self.stages.remove(&command);
                    self.note(Note::Dropped(error.to_string()));
                }
            }
        }
        false
    }

    pub(super) fn staged(&mut self, command: CommandId, status: CommandStatus, sequence: Sequence) {
        if let Some(host) = &mut self.host {
            host.acknowledged = host.acknowledged.max(sequence);
        }
        let Some(slot) = self.slot_mut(command) else { return };
        let changed = slot.command.status != status;
        slot.command.status = status;
        if changed {
            let stored = slot.command.clone();
            self.publish_command(&stored, status, stored.message.clone());
        }
    }

    /// Output of a command under way: passed on, within a rate and a size; lost when nobody watches.
    pub(super) fn progress(&mut self, command: CommandId, mut text: String, now: UnixMs) {
        let second = now.0 / 1_000;
        if second != self.progress_second {
            (self.progress_second, self.progress_count) = (second, 0);
        }
        self.progress_count = self.progress_count.saturating_add(1);
        if self.progress_count > limits::PROGRESS_PER_SECOND_MAX {
            return;
        }
        let Some(slot) = self.slot_mut(command) else { return };
        let order = &slot.command.order;
        let (operation, host) = (order.operation, order.host);
        if text.len() > limits::PROGRESS_BYTES_MAX {
            text.truncate(text.floor_char_boundary(limits::PROGRESS_BYTES_MAX));
            text.push('…');
        }
        self.out.push(Effect::Publish(Event::Progress { command, operation, host, text }));
    }

    /// A piece of a command's stream: passed on as it is. What it may bring at once is bounded by the lease.
    pub(super) fn output(&mut self, command: CommandId, offset: u64, text: String) {
        let host = self.host_id();
        let streams = self.slot_mut(command).is_some_and(|slot| streams(&slot.command));
        if streams {
            self.out.push(Effect::Output(StreamPiece { host, command, offset, text }));
        }
    }

    /// Somebody watches: the host is told, if the command is under way there. Agents that do not have
    /// the action never hear of leases.
    pub(super) fn stream_lease(&mut self, lease: StreamLease) {
        let StreamLease { command, until, over } = lease;
        let knows_leases = self.peer.authenticated.actions.iter().any(|action| action.name.as_str() == FOLLOW);
        let streams = self.slot_mut(command).is_some_and(|slot| streams(&slot.command));
        if self.phase == Phase::Open && knows_leases && streams {
            self.send(ControlFrame::OutputLease { command, until, over });
        }
    }

    /// The agent has newer root metadata than this control plane: a restored or lagging one. It is
    /// taken when it verifies as the chain's next, stored before it is used, and recorded; what
    /// does not verify is an alarm, because an honest agent has verified it.
    pub(super) fn root_chain(&mut self, chain: &[Vec<u8>], now: UnixMs) {
        self.chain_taken += chain.len();
        if self.chain_taken > session::limits::ROOT_CHAIN_FROM_AGENT_MAX {
            return self.close(RefusalCode::LimitExceeded, "more root metadata than one session may bring");
        }
        let Some(host) = &self.host else { return };
        let (id, name) = (host.id, host.name.clone());
        let mut root = TrustedRoot::clone(&self.peer.root);
        let mut writes = Vec::new();
        for envelope in chain {
            match root.advance(envelope) {
                Ok(version) => {
                    let audit = record::root_change(version, root.payload_sha256(), &name, now);
                    writes.push(Write::RootAdvance { version, envelope: envelope.clone(), audit });
                }
                // What is held already comes first when an agent offers a whole chain.
                Err(_) if self.peer.root.holds(envelope) => {}
                Err(error) => {
                    let why = format!("root metadata from host {name} does not verify: {error}");
                    let audit = record::host_event(AuditKind::Alarm, id, &name, &why, now);
                    return self
                        .write_first(Write::Audit(audit), After::Alarmed { why, close: RefusalCode::NotAuthentic });
                }
            }
        }
        let last = writes.len().saturating_sub(1);
        let root = Arc::new(root);
        for (at, write) in writes.into_iter().enumerate() {
            self.write_first(write, After::Rooted((at == last).then(|| Arc::clone(&root))));
        }
    }
}
