//! Who is there, what time is it, and is this state an old copy: from a connection to an open session.
//!
//! hello → (root chain, made durable) → control hello under a session key → proof and actions →
//! session-open under a command key. Each step is bound to this connection: both nonces, the TLS
//! exporter, and the hash of the step before.

use std::collections::VecDeque;

use envelope::{
    VerifyError,
    messages::{AgentHello, ControlHello, ReportPosition, SessionOpen, SessionProof},
    verify,
};
use ids::{BootMs, Challenge, DurationMs, Epoch, KeyId, QuarantineId, RootVersion, Sha256, TlsExporter, sha256};

use super::{AgentLoop, QuarantineState, TrustedClock, io::*, reset::Reset, rotation::Offered, writes::After};
use crate::{
    checks::{first_failed, words},
    frames::{AgentFrame, ControlFrame, RefusalCode},
    limits,
};

/// One connection, from TLS to its end.
pub(super) struct Connection {
    pub(super) exporter: TlsExporter,
    nonce: Challenge,
    /// Fresh randomness, used only if quarantine is entered here.
    quarantine: QuarantineId,
    opened_at: BootMs,
    pub(super) phase: Phase,
    /// Frames that wait for a write or a place.
    pub(super) held: VecDeque<ControlFrame>,
    /// Root metadata versions taken before the session was open.
    chain_taken: usize,
    /// This agent speaks with the key that it offered, not with the one in force.
    pub(super) with_next: bool,
    /// This agent was asked to show who it is.
    pub(super) credentials_wanted: bool,
}

pub(super) enum Phase {
    /// Quarantine becomes durable first; then comes the hello, or (when this connection showed the
    /// reason) its end, so that the next hello names the quarantine.
    Entering {
        close: bool,
    },
    /// Reports signed by the old key become durable first: the hello under the new one says where they end.
    Settling,
    AwaitHello {
        hello_sha256: Sha256,
    },
    AwaitOpen {
        control_nonce: Challenge,
        proof_sha256: Sha256,
        session_key: KeyId,
        protocol: u32,
    },
    Live(Live),
}

/// An open session.
pub(super) struct Live {
    /// Clocks when it was opened.
    opened: Clocks,
    session_key: KeyId,
    command_key: KeyId,
    epoch: Epoch,
    /// Version of the protocol that both speak here.
    pub(super) protocol: u32,
    /// The audit log was shown to continue what this host has seen of it.
    pub(super) audit_shown: bool,
    /// The control plane's, which an offer of keys answers.
    pub(super) control_nonce: Challenge,
    /// The new keys were offered in this session.
    pub(super) offered: Option<Offered>,
    /// The end of this host's quarantine, which came in this session.
    pub(super) reset: Option<Box<Reset>>,
}

impl Live {
    /// How far the wall clock has left the boot-time clock since the session was opened.
    pub(super) fn drift(&self, now: Clocks) -> DurationMs {
        let elapsed = now.boot.since(self.opened.boot);
        now.wall.distance(self.opened.wall.plus(elapsed))
    }

    pub(super) const fn renew_at(&self) -> BootMs {
        self.opened.boot.plus(limits::RENEW_AFTER)
    }
}

impl Connection {
    pub(super) const fn authenticate_by(&self) -> BootMs {
        self.opened_at.plus(limits::AUTHENTICATION_MAX)
    }
}

impl AgentLoop {
    pub(super) fn connect(&mut self, now: Clocks, exporter: TlsExporter, nonce: Challenge, spare: QuarantineId) {
        let connection = Connection {
            exporter,
            nonce,
            quarantine: spare,
            opened_at: now.boot,
            phase: Phase::Entering { close: false },
            held: VecDeque::new(),
            chain_taken: 0,
            with_next: self.keys.dials_next(),
            credentials_wanted: false,
        };
        self.connection = Some(connection);
        self.outbox.rewind();
        match self.quarantine {
            QuarantineState::Entering(_) => {}
            QuarantineState::No if self.state_missing => {
                self.enter_quarantine(spare, "the identity key is here, but the journal is missing".to_owned());
            }
            QuarantineState::No | QuarantineState::In(_) => self.say_hello(),
        }
    }

    /// First words. They tell of durable state only: what a crash could take back is not claimed.
    pub(super) fn say_hello(&mut self) {
        let host_epoch = self.speaker().1;
        // What is on its way to the disk counts as seen: the control plane must not conclude that
        // it never arrived. Only an acknowledgement says that it is durable.
        let high = self.guard.memory.high();
        let quarantine = match self.quarantine {
            QuarantineState::In(id) => Some(id),
            QuarantineState::No | QuarantineState::Entering(_) => None,
        };
        // With the keys that a reset asked for this host speaks as it will be once they are taken.
        let (high, last_report, quarantine) = match self.reset_under_way() {
            Some(reset) => (high.max(reset.high), reset.last_report, None),
            None => (high, self.outbox.durable, quarantine),
        };
        let Some(connection) = &mut self.connection else { return };
        if connection.with_next && self.outbox.last != self.outbox.durable {
            connection.phase = Phase::Settling;
            return;
        }
        let hello = AgentHello {
            protocols: limits::PROTOCOLS.to_vec(),
            fleet: self.identity.fleet,
            host: self.identity.host,
            host_epoch,
            nonce: connection.nonce,
            boot: self.identity.boot,
            root_version: self.roots.version(),
            high,
            last_report,
            audit_head: self.audit.durable,
            quarantine,
            agent_version: self.identity.agent_version.clone(),
        }
        .encode();
        connection.phase = Phase::AwaitHello { hello_sha256: sha256(&hello) };
        self.send(AgentFrame::Hello(hello));
    }

    pub(super) fn refused(&mut self, reason: RefusalCode, message: String) {
        self.note_refusal(reason);
        // A host that is unknown or revoked stays so until a person acts; everything else may pass.
        let retry = reason != RefusalCode::HostRefused;
        self.close(retry, CloseReason::Refused { reason, message });
    }

    /// Newer root metadata: verified by the chain's rules, made durable, and only then used.
    pub(super) fn root_chain(&mut self, chain: &[Vec<u8>]) {
        let Some(connection) = &mut self.connection else { return };
        connection.chain_taken += chain.len();
        if connection.chain_taken > limits::ROOT_CHAIN_PER_CONNECTION_MAX {
            let max = limits::ROOT_CHAIN_PER_CONNECTION_MAX;
            return self.reject("root metadata", format!("more than {max} versions in one connection"));
        }
        let mut roots = self.roots.clone();
        for envelope in chain {
            let was_empty = roots.is_empty();
            match roots.advance(envelope) {
                Ok(version) => {
                    let write = JournalWrite::Root { version, envelope: envelope.clone() };
                    self.persist(write, After::Root(version));
                }
                // Without a chain, versions before the pinned one are passed over.
                Err(_) if was_empty => {}
                Err(error) => {
                    self.stage_roots(roots);
                    return self.reject("root metadata", words(&error));
                }
            }
        }
        self.stage_roots(roots);
    }

    /// Root metadata from elsewhere: nothing but the chain's rules says whether it counts, as in a session.
    pub(super) fn root_chain_brought(&mut self, chain: &[Vec<u8>], spare: QuarantineId) {
        if self.state_missing && self.quarantine == QuarantineState::No {
            // On disk before the chain is: a journal that holds one counts as whole at the next start.
            self.enter_quarantine(spare, "the identity key is here, but the journal is missing".to_owned());
        }
        let mut roots = self.roots_next.as_ref().unwrap_or(&self.roots).clone();
        for envelope in chain.iter().filter(|envelope| !roots.holds(envelope)).collect::<Vec<_>>() {
            let was_empty = roots.is_empty();
            match roots.advance(envelope) {
                Ok(version) => {
                    let write = JournalWrite::Root { version, envelope: envelope.clone() };
                    self.persist(write, After::Root(version));
                }
                Err(_) if was_empty => {}
                Err(error) => {
                    self.drop_message(format!("root metadata: {}", words(&error)));
                    break;
                }
            }
        }
        self.stage_roots(roots);
    }

    fn stage_roots(&mut self, roots: super::roots::Roots) {
        if roots.version() > self.roots.version() {
            self.roots_next = Some(roots);
        }
    }

    /// The staged root metadata is durable up to `version`.
    pub(super) fn root_durable(&mut self, version: RootVersion) {
        if self.roots_next.as_ref().is_none_or(|next| next.version() != version) {
            return;
        }
        if let Some(next) = self.roots_next.take() {
            self.roots = next;
        }
        self.judge_standing_again();
        self.event(AgentEvent::RootAdvanced { version });
        let has_session_key = |id: KeyId| self.roots.session_keys().iter().any(|key| key.key_id() == id);
        let stands = match self.connection.as_ref().map(|connection| &connection.phase) {
            Some(Phase::Live(live)) => {
                Some(live.epoch) == self.epoch()
                    && has_session_key(live.session_key)
                    && self.roots.command_keys().iter().any(|key| key.key_id() == live.command_key)
            }
            Some(Phase::AwaitOpen { session_key, .. }) => has_session_key(*session_key),
            Some(Phase::Entering { .. } | Phase::Settling | Phase::AwaitHello { .. }) | None => true,
        };
        if !stands {
            self.close(true, CloseReason::Renewal);
        }
    }

    pub(super) fn control_hello(&mut self, bytes: &[u8]) {
        let Some(Connection { exporter, nonce, phase: Phase::AwaitHello { hello_sha256 }, .. }) = &self.connection
        else {
            return;
        };
        let (exporter, nonce, hello_sha256) = (*exporter, *nonce, *hello_sha256);
        let hello = match verify::<ControlHello>(bytes, self.roots.session_keys()) {
            Ok(hello) => hello,
            Err(error) => {
                if matches!(error, VerifyError::NoKey { .. }) {
                    self.offer_root_chain();
                }
                return self.reject("hello", words(&error));
            }
        };
        let protocol_min = self.roots.current().map_or(u32::MAX, |root| root.protocol_min);
        let failed = first_failed(&[
            (limits::PROTOCOLS.contains(&hello.protocol), "it chose a protocol version this agent did not offer"),
            (hello.protocol >= protocol_min, "it chose a protocol version below the fleet's minimum"),
            (
                hello.protocol >= limits::PROTOCOL_AUDIT_PROOFS || !self.audit.proved,
                "it chose a protocol version without proofs of the audit log, though it has given this host such proofs \
                 before: upgrade the control plane again",
            ),
            (hello.fleet == self.identity.fleet, "it is for another fleet"),
            (hello.host == self.identity.host, "it is for another host"),
            (hello.agent_nonce == nonce, "it does not answer this agent's nonce"),
            (hello.exporter == exporter, "it is bound to another TLS connection (someone may be in between)"),
            (hello.agent_hello_sha256 == hello_sha256, "it answers another hello than the one sent"),
            (hello.root_version <= self.roots.version(), "it names root metadata that was withheld"),
        ]);
        if let Some(why) = failed {
            return self.reject("hello", why.to_owned());
        }
        if hello.root_version < self.roots.version() {
            let chain = self.roots.chain_above(hello.root_version, limits::ROOT_CHAIN_FROM_AGENT_MAX);
            self.send(AgentFrame::RootChain(chain));
        }
        let proof = self.speaker().0.sign(&SessionProof {
            fleet: self.identity.fleet,
            host: self.identity.host,
            exporter,
            control_nonce: hello.control_nonce,
            hello_sha256: hello.payload_sha256(),
        });
        let (session_key, protocol, control_nonce) = (hello.key_id(), hello.protocol, hello.control_nonce);
        if let Some(connection) = &mut self.connection {
            let proof_sha256 = proof.payload_sha256();
            connection.phase = Phase::AwaitOpen { control_nonce, proof_sha256, session_key, protocol };
        }
        self.send(AgentFrame::Proof(proof.into_envelope()));
        self.send(AgentFrame::Actions(self.identity.actions.clone()));
    }

    /// The control plane may be behind: its key was dropped by root metadata it does not have. It
    /// gets the newest versions, and this connection ends.
    fn offer_root_chain(&mut self) {
        let max = limits::ROOT_CHAIN_FROM_AGENT_MAX;
        let first = self.roots.version().0.saturating_sub(max as u64);
        let chain = self.roots.chain_above(RootVersion(first), max);
        if !chain.is_empty() {
            self.send(AgentFrame::RootChain(chain));
        }
    }

    pub(super) fn session_open(&mut self, now: Clocks, bytes: &[u8]) {
        let Some(Connection {
            exporter,
            phase: Phase::AwaitOpen { control_nonce, proof_sha256, session_key, protocol },
            quarantine,
            with_next,
            ..
        }) = &self.connection
        else {
            return;
        };
        let (exporter, proof_sha256, session_key, spare) = (*exporter, *proof_sha256, *session_key, *quarantine);
        let (protocol, control_nonce, with_next) = (*protocol, *control_nonce, *with_next);
        let open = match verify::<SessionOpen>(bytes, self.roots.command_keys()) {
            Ok(open) => open,
            Err(error) => return self.reject("session-open", words(&error)),
        };
        let failed = first_failed(&[
            (open.fleet == self.identity.fleet, "it is for another fleet"),
            (open.host == self.identity.host, "it is for another host"),
            (Some(open.epoch) == self.epoch(), "its epoch is void"),
            (open.exporter == exporter, "it is bound to another TLS connection (someone may be in between)"),
            (open.proof_sha256 == proof_sha256, "it answers another proof than the one sent"),
        ]);
        if let Some(why) = failed {
            return self.reject("session-open", why.to_owned());
        }
        self.clock = Some(TrustedClock { time: open.time, at: now.boot });
        self.standing.met(open.time);
        let clock = StoredClock { boot: self.identity.boot, time: open.time, at: now.boot };
        self.persist(JournalWrite::Clock { clock }, After::Nothing);
        if self.is_known_to_have_left(&open) || self.keys_are_stored(&open) {
            return;
        }
        if self.quarantine == QuarantineState::No
            && let Some(why) = self.disagreement(&open)
        {
            if let Some(connection) = &mut self.connection {
                connection.phase = Phase::Entering { close: true };
            }
            return self.enter_quarantine(spare, why);
        }
        let (command_key, epoch) = (open.key_id(), open.epoch);
        let (audit_shown, offered, reset) = (false, None, None);
        let opened = now;
        let live =
            Live { opened, session_key, command_key, epoch, protocol, audit_shown, control_nonce, offered, reset };
        if let Some(connection) = &mut self.connection {
            connection.phase = Phase::Live(live);
        }
        if self.quarantine == QuarantineState::No {
            self.cleared = true;
            // It acknowledged more than it has: it was restored from a backup since.
            self.outbox.lost_behind(open.last_report.sequence);
            self.read_lost();
        }
        let skew_ms = now.wall.0.cast_signed().saturating_sub(open.time.0.cast_signed());
        if protocol >= limits::PROTOCOL_CLOCK {
            self.send(AgentFrame::Clock { skew_ms });
        }
        if with_next {
            self.take_keys(now, &open);
        } else {
            self.renew_keys(now);
            self.offer_keys(now);
        }
        self.event(AgentEvent::SessionOpen { skew_ms });
    }

    /// Why this state cannot be what the control plane saw last: a restored copy, or a clone.
    fn disagreement(&self, open: &SessionOpen) -> Option<String> {
        let ours = self.outbox.durable;
        let theirs = open.last_report;
        let host_epoch = self.speaker().1;
        if open.host_epoch != host_epoch {
            let (theirs, ours) = (open.host_epoch, host_epoch);
            return Some(format!("the control plane knows this host in epoch {theirs}, this agent is in {ours}"));
        }
        if open.acknowledged > self.guard.durable_high {
            let (theirs, ours) = (open.acknowledged, self.guard.durable_high);
            return Some(format!("command {theirs} was acknowledged by this host, but its highest is {ours}"));
        }
        if theirs.sequence > ours.sequence {
            let (theirs, ours) = (theirs.sequence, ours.sequence);
            return Some(format!("the control plane holds report {theirs} of this host, but its last is {ours}"));
        }
        let held = self.outbox.hash_at(theirs.sequence);
        if theirs != ReportPosition::START && held.is_some_and(|held| held != theirs.sha256) {
            return Some(format!("report {} here is not the one the control plane holds", theirs.sequence));
        }
        None
    }

    fn enter_quarantine(&mut self, id: QuarantineId, why: String) {
        self.quarantine = QuarantineState::Entering(id);
        self.quarantine_why = why;
        self.persist(JournalWrite::Quarantine { id }, After::Quarantine);
    }

    /// Quarantine is durable: the hello may name it, or this connection ends so that the next one does.
    pub(super) fn quarantine_durable(&mut self) {
        if let QuarantineState::Entering(id) = self.quarantine {
            self.quarantine = QuarantineState::In(id);
        }
        let why = self.quarantine_why.clone();
        self.event(AgentEvent::Quarantined { why: why.clone() });
        match &self.connection {
            Some(Connection { phase: Phase::Entering { close: true }, .. }) => {
                self.close(true, CloseReason::Quarantined { why });
            }
            Some(Connection { phase: Phase::Entering { close: false }, .. }) => self.say_hello(),
            _ => {}
        }
    }
}
