//! From a queued command to its signed bytes on the stream: number, signature, transaction, sending.

use std::collections::VecDeque;

use envelope::{
    messages::Command as CommandMessage,
    root::TrustedRoot,
    signer_port::{SignError, SignedCommand},
    verify,
};
use ids::{CommandId, Nonce, Sequence, UnixMs};
use session::{
    frames::ControlFrame,
    limits::{PROTOCOL_APPROVALS, PROTOCOL_VOID_ANSWERED},
};

use super::{Effect, Entropy, HostSession, Note, lane::After, slot::Slot};
use crate::{
    command::CommandEvent,
    limits,
    model::{Command, CommandStatus, Seal},
    ports::Write,
    record,
};

/// Numbers given out, and what is between the signer and the store.
#[derive(Default)]
pub(super) struct Sealing {
    /// Highest number given out, stored or burned.
    highest: Sequence,
    /// With the signer.
    signing: Option<Signing>,
    /// Signed, and waiting for its transaction; ascending.
    waiting: VecDeque<Waiting>,
    /// Stored, and not sent yet; ascending.
    held: VecDeque<CommandId>,
    /// No number is left.
    exhausted: bool,
}

struct Signing {
    command: CommandId,
    sequence: Sequence,
    expires: UnixMs,
    /// What was signed before it was burned: so is this.
    burned: bool,
}

struct Waiting {
    command: CommandId,
    seal: Seal,
}

impl Sealing {
    /// The store has given out numbers up to this one.
    pub(super) fn allocated(&mut self, stored: Sequence) {
        self.highest = self.highest.max(stored);
    }

    /// Nothing signed so far will be stored.
    pub(super) fn burn_waiting(&mut self) {
        self.waiting.clear();
        if let Some(signing) = &mut self.signing {
            signing.burned = true;
        }
    }
}

impl HostSession {
    /// Asks the host where it stands with the commands it got in earlier sessions, by sending their
    /// stored bytes again.
    pub(super) fn ask_status(&mut self, now: UnixMs) {
        if !self.takes_orders() {
            return;
        }
        let high = self.high();
        let answers_void = self.peer.authenticated.protocol >= PROTOCOL_VOID_ANSWERED;
        let (mut room, with_approvals) = (self.room(), self.takes_approvals());
        let mut frames = Vec::new();
        for slot in &mut self.slots {
            if room == 0 {
                break;
            }
            let Some(seal) = slot.seal_to_ask(high, now) else { continue };
            let seal = if is_in_force(&seal.envelope, &self.peer.root) {
                seal
            } else {
                // Under a key or an epoch that is void by now. A host says what became of it when the number is used up
                // there; any other would only end the session, and an agent of protocol 1 in either case.
                let Some(seal) = slot.seal_passed(high).filter(|_| answers_void) else { continue };
                seal
            };
            let (sequence, command) = (seal.sequence, seal.envelope.clone());
            frames.push(deliver(command, &slot.command, with_approvals));
            slot.sent = Some(sequence);
            room -= 1;
        }
        if !frames.is_empty() {
            self.send_audit_head();
        }
        frames.into_iter().for_each(|frame| self.send(frame));
    }

    /// How many more commands may be sent before the host has acknowledged some.
    fn room(&self) -> usize {
        let under_way = self.slots.iter().filter(|slot| slot.is_unacknowledged() || slot.sealing).count();
        limits::UNACKNOWLEDGED_MAX.saturating_sub(under_way)
    }

    /// Gives the signer the next command, if there is one and nothing must be waited for.
    pub(super) fn sign_next(&mut self, now: UnixMs, entropy: &mut dyn Entropy) {
        let blocked = self.sealing.signing.is_some()
            || self.sealing.waiting.len() >= limits::SIGNED_WAITING_MAX
            || self.sealing.exhausted
            // What failed is read again first; see the module's third rule.
            || self.lane.retry.at().is_some()
            || self.sign_retry.is_waiting(now);
        if blocked || !self.takes_orders() {
            return;
        }
        let Some(command) = self.next_to_seal(now) else { return };
        let Some(sequence) = self.sealing.highest.next() else {
            self.sealing.exhausted = true;
            return self.note(Note::Alarm("no sequence is left for this host; revoke it and enrol it anew".to_owned()));
        };
        let Some(host) = &self.host else { return };
        let (host_epoch, epoch) = (host.host_epoch, self.peer.root.current().epoch);
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        let Some(slot) = self.slot_mut(command) else { return };
        slot.sealing = true;
        let (order, approvals) = (slot.command.order.clone(), slot.command.approvals.clone());
        let expires = now.plus(limits::SEAL_LIFETIME);
        self.sealing.highest = sequence;
        self.sealing.signing = Some(Signing { command, sequence, expires, burned: false });
        let message = CommandMessage {
            order,
            host_epoch,
            epoch,
            sequence,
            nonce: Nonce(nonce),
            issued: now,
            not_before: now,
            expires,
        };
        self.out.push(Effect::SignCommand { command: Box::new(message), approvals });
    }

    /// Whether the agent knows what to do with approvals.
    pub(super) fn takes_approvals(&self) -> bool {
        self.peer.authenticated.protocol >= PROTOCOL_APPROVALS
    }

    /// What to do about an agent that does not.
    pub(super) fn approvals_missing(&self) -> String {
        let (protocol, name) = (self.peer.authenticated.protocol, self.host.as_ref().map(|host| host.name.as_str()));
        let name = name.unwrap_or("?");
        format!(
            "it needs approvals, and the agent of host {name} speaks protocol {protocol}, which cannot carry them; upgrade \
             it with the lines of `serverflow host upgrade {name}`, then order it again"
        )
    }

    /// Nothing that was approved goes to an agent that would only refuse it.
    pub(super) fn refuse_unapprovable(&mut self) {
        if self.takes_approvals() {
            return;
        }
        let why = self.approvals_missing();
        for slot in self.slots.iter_mut().filter(|slot| !slot.command.approvals.is_empty()) {
            slot.refused.get_or_insert_with(|| why.clone());
        }
    }

    /// First what was sealed before and never arrived, because everything else waits for it; then first in, first out. When the window is full a cancellation may still go, unless what it
    /// stops has itself not been sent: it must not arrive before it.
    fn next_to_seal(&self, now: UnixMs) -> Option<CommandId> {
        let high = self.high();
        let is_due = |slot: &&Slot| slot.is_unsent(high) && !slot.sealing && self.may_be_sealed(slot, now);
        if self.room() > 0 {
            let is_behind = |slot: &&Slot| slot.command.status == CommandStatus::Delivered;
            let mut due = self.slots.iter().filter(is_due);
            return due.clone().find(is_behind).or_else(|| due.next()).map(Slot::id);
        }
        let cancels = self.slots.iter().filter(|slot| slot.is_cancel() && (slot.is_unacknowledged() || slot.sealing));
        if cancels.count() >= limits::UNACKNOWLEDGED_CANCELS_MAX {
            return None;
        }
        let sent_before = |slot: &&Slot| {
            let target = slot.cancels();
            self.slots.iter().all(|other| Some(other.id()) != target || !other.is_unsent(high))
        };
        self.slots.iter().filter(is_due).filter(|slot| slot.is_cancel()).find(sent_before).map(Slot::id)
    }

    pub(super) fn command_signed(&mut self, answer: Result<SignedCommand, SignError>, now: UnixMs) {
        let Some(Signing { command, sequence, expires, burned }) = self.sealing.signing.take() else { return };
        match answer {
            Ok(_) if burned => {}
            Ok(SignedCommand { envelope, payload_sha256 }) => {
                self.sign_retry.succeeded();
                let seal = Seal { sequence, expires, payload_sha256, envelope };
                self.sealing.waiting.push_back(Waiting { command, seal });
                return;
            }
            // Asking again would be refused again, and hold back what waits behind it.
            Err(SignError::Refused(why)) => {
                let error = SignError::Refused(why.clone());
                self.note(Note::SignFailed { command, error });
                self.sign_retry.succeeded();
                if let Some(slot) = self.slot_mut(command) {
                    slot.refused = Some(why);
                }
            }
            Err(error) => {
                // What an earlier session burned is stored nowhere but with the signer. Found out one
                // number at a time, each after a longer wait, it would keep the host from its orders
                // for hours.
                let taken = if let SignError::SequenceTaken { high } = error { Some(high) } else { None };
                self.sealing.highest = self.sealing.highest.max(taken.unwrap_or_default());
                self.note(Note::SignFailed { command, error });
                self.sign_retry.failed(now, taken.is_some());
            }
        }
        if let Some(slot) = self.slot_mut(command) {
            slot.sealing = false;
        }
    }

    /// Stores the first signed command that may still be sent. False when there is none.
    pub(super) fn seal_next(&mut self, now: UnixMs) -> bool {
        while let Some(Waiting { command, seal }) = self.sealing.waiting.pop_front() {
            let (takes_orders, high) = (self.takes_orders(), self.high());
            let Some(slot) = self.slots.iter_mut().find(|slot| slot.id() == command) else { continue };
            let is_late = now > slot.command.order.deliver_by || now > seal.expires;
            if !takes_orders || is_late || !slot.is_unsent(high) {
                slot.sealing = false;
                continue;
            }
            let Some(host) = &self.host else { return false };
            let order = &slot.command.order;
            let audit = record::command(order, &host.name, seal.envelope.clone(), now);
            let (host, allocated_before) = (host.id, host.allocated);
            let write = Write::CommandSeal { command, host, allocated_before, seal: seal.clone(), at: now, audit };
            self.write(write, After::Sealed { command, seal });
            return true;
        }
        false
    }

    /// Number, bytes and audit leaf are durable: now it may be sent.
    pub(super) fn sealed(&mut self, command: CommandId, seal: Seal, now: UnixMs) {
        if let Some(host) = &mut self.host {
            host.allocated = seal.sequence;
        }
        let takes_orders = self.takes_orders();
        let Some(slot) = self.slot_mut(command) else { return };
        let event =
            if slot.command.status == CommandStatus::Queued { CommandEvent::Sealed } else { CommandEvent::Resealed };
        slot.sealing = false;
        slot.command.status = slot.command.status.after(event).unwrap_or(slot.command.status);
        slot.command.delivered_at.get_or_insert(now);
        let sequence = seal.sequence;
        slot.command.seals.push(seal);
        if !takes_orders {
            return;
        }
        slot.sent = Some(sequence);
        let stored = slot.command.clone();
        self.sealing.held.push_back(command);
        self.publish_command(&stored, stored.status, stored.message.clone());
    }

    /// Sends what is stored, once every command that the host never got has a new number too. The first number to arrive
    /// is above all the earlier ones: a session that ended then would leave the next one in doubt whether these arrived.
    pub(super) fn deliver_held(&mut self, now: UnixMs) {
        let high = self.high();
        let is_behind = |slot: &Slot| {
            slot.command.status == CommandStatus::Delivered && slot.is_unsent(high) && self.may_be_sealed(slot, now)
        };
        if self.slots.iter().any(is_behind) {
            return;
        }
        for command in core::mem::take(&mut self.sealing.held) {
            let takes_orders = self.takes_orders();
            let Some(slot) = self.slot_mut(command).filter(|_| takes_orders) else { continue };
            let Some(seal) = slot.command.seals.last() else { continue };
            let (envelope, stored) = (seal.envelope.clone(), slot.command.clone());
            self.send_audit_head();
            self.send(deliver(envelope, &stored, self.takes_approvals()));
        }
    }

    fn may_be_sealed(&self, slot: &Slot, now: UnixMs) -> bool {
        slot.refused.is_none() && !self.is_void(&slot.command.order) && now <= slot.command.order.deliver_by
    }
}

fn is_in_force(envelope: &[u8], root: &TrustedRoot) -> bool {
    let epoch = root.current().epoch;
    verify::<CommandMessage>(envelope, root.command_keys()).is_ok_and(|command| command.epoch == epoch)
}

fn deliver(command: Vec<u8>, stored: &Command, with_approvals: bool) -> ControlFrame {
    let approvals = if with_approvals { stored.approvals.clone() } else { Vec::new() };
    ControlFrame::Deliver { command, sealed: stored.sealed.clone(), approvals }
}
