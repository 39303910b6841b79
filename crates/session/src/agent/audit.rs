//! What this host has seen of the audit log, and whether the control plane still shows the same one.
//!
//! A head is taken only when it continues the last one: in a session of protocol version 2 with a proof
//! (RFC 6962 section 2.1.2), and there no order is taken before the log was shown to continue. Another log
//! is taken only when root metadata says where the one before it stood, at or beyond what was seen here.
//! What does not continue ends the session and is said; what was seen before stays, is named in every hello
//! and every report, and so is there for whoever compares.

use envelope::{
    merkle::verify_consistency,
    messages::{AuditHead, LogPosition},
    verify,
};
use ids::Sha256;

use super::{AgentLoop, handshake::Connection, handshake::Phase, io::*, writes::After};
use crate::limits;

/// The heads of this host.
#[derive(Default)]
pub(super) struct AuditSeen {
    /// The last one that would survive a power cut.
    pub(super) durable: Option<LogPosition>,
    /// A verified one beyond that.
    next: Option<LogPosition>,
    is_writing: bool,
    /// A proof has been given once, so no session without proofs is good enough any more.
    pub(super) proved: bool,
    /// That it has is to be stored with the next write.
    is_proof_new: bool,
}

impl AuditSeen {
    pub(super) fn stored(durable: Option<LogPosition>, proved: bool) -> Self {
        Self { durable, proved, ..Self::default() }
    }

    fn newest(&self) -> Option<LogPosition> {
        self.next.or(self.durable)
    }
}

impl AgentLoop {
    /// A head alone, as protocol version 1 has it.
    pub(super) fn audit_head(&mut self, bytes: &[u8]) {
        let Some(position) = self.audit_position(bytes) else { return };
        match self.audit.newest() {
            Some(known) if known.log == position.log => {
                if known.size == position.size && known.root != position.root {
                    return self.audit_refused(format!("the log was forked at size {}", known.size));
                }
                // Two replicas may send heads in either order; an older one says nothing new.
                if position.size <= known.size {
                    return;
                }
            }
            Some(known) => {
                if let Err(why) = self.log_continues(known) {
                    return self.audit_refused(why);
                }
            }
            None => {}
        }
        self.event(AgentEvent::AuditContinues { size: position.size });
        self.audit.next = Some(position);
        self.write_audit_head();
    }

    /// A head and what shows that it continues the last one here.
    pub(super) fn audit_consistency(&mut self, bytes: &[u8], from_size: u64, hashes: &[Sha256]) {
        let Some(position) = self.audit_position(bytes) else { return };
        let known = self.audit.newest();
        if let Err(why) = self.continues(known, position, from_size, hashes) {
            return self.audit_refused(why);
        }
        if let Some(Connection { phase: Phase::Live(live), .. }) = &mut self.connection {
            live.audit_shown = true;
        }
        self.event(AgentEvent::AuditContinues { size: position.size });
        self.audit.is_proof_new |= !core::mem::replace(&mut self.audit.proved, true);
        if self.audit.is_proof_new || known != Some(position) {
            self.audit.next = Some(position);
            self.write_audit_head();
        }
    }

    /// Whether orders may be taken: this host has seen nothing of the log, or was shown in this session that what it
    /// has seen still stands. Ends the session if not.
    pub(super) fn audit_stands(&mut self) -> bool {
        let Some(Connection { phase: Phase::Live(live), .. }) = &self.connection else { return false };
        let stands = live.protocol < limits::PROTOCOL_AUDIT_PROOFS || live.audit_shown || self.audit.newest().is_none();
        if !stands {
            self.audit_refused("an order came before any proof that the log continues".to_owned());
        }
        stands
    }

    /// The position of a head that verifies and is of this fleet's log. Ends the session if it does not.
    fn audit_position(&mut self, bytes: &[u8]) -> Option<LogPosition> {
        let head = match verify::<AuditHead>(bytes, &self.roots.audit_keys()) {
            Ok(head) => head,
            Err(error) => {
                self.reject("audit head", crate::checks::words(&error));
                return None;
            }
        };
        let log = self.roots.current().map(|root| root.audit_log);
        if head.fleet != self.identity.fleet || Some(head.position.log) != log {
            self.reject("audit head", "it is of another fleet or log".to_owned());
            return None;
        }
        Some(head.position)
    }

    fn continues(
        &self,
        known: Option<LogPosition>,
        position: LogPosition,
        from_size: u64,
        hashes: &[Sha256],
    ) -> Result<(), String> {
        let from_nothing = || {
            let is_so = from_size == 0 && hashes.is_empty();
            if is_so { Ok(()) } else { Err("the proof begins at a size that this host has not seen".to_owned()) }
        };
        match known {
            None => from_nothing(),
            Some(known) if known.log != position.log => self.log_continues(known).and_then(|()| from_nothing()),
            Some(known) if position.size < known.size => Err(format!(
                "the log has {} entries, and this host has seen {}: it was cut, or the control plane was restored from an \
                 old backup",
                position.size, known.size
            )),
            Some(known) if from_size != known.size => {
                Err(format!("the proof begins at size {from_size}, and this host has seen {}", known.size))
            }
            Some(known) => {
                if verify_consistency(known.size, known.root, position.size, position.root, hashes) {
                    return Ok(());
                }
                Err(format!(
                    "its first {} entries are not those that this host has seen: it was rewritten or forked",
                    known.size
                ))
            }
        }
    }

    /// Whether root metadata names the log that this host has seen as one before the present one, at or beyond there.
    fn log_continues(&self, known: LogPosition) -> Result<(), String> {
        match self.roots.log_before(known.log) {
            None => Err(format!(
                "another log took the place of {}, and no root metadata says where that one stood",
                known.log
            )),
            Some(stood) if stood.size < known.size || (stood.size == known.size && stood.root != known.root) => {
                Err(format!(
                    "root metadata says that the log before this one stood at size {}, and this host has seen {} entries of \
                 it, or others: root metadata must name the farthest position that any host has seen",
                    stood.size, known.size
                ))
            }
            Some(_) => Ok(()),
        }
    }

    fn audit_refused(&mut self, why: String) {
        self.event(AgentEvent::AuditRefused { why: why.clone() });
        self.reject("audit log", why);
    }

    /// One write of a head at a time: those that come meanwhile fold into the next.
    fn write_audit_head(&mut self) {
        if self.audit.is_writing {
            return;
        }
        let Some(position) = self.audit.next else { return };
        self.audit.is_writing = true;
        let proved = core::mem::take(&mut self.audit.is_proof_new);
        self.persist(JournalWrite::AuditHead { position, proved }, After::AuditHead(position));
    }

    pub(super) fn audit_head_durable(&mut self, position: LogPosition) {
        self.audit.durable = Some(position);
        self.audit.is_writing = false;
        if self.audit.next == Some(position) {
            self.audit.next = None;
        }
        self.write_audit_head();
    }
}
