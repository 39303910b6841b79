//! Heads of the audit log on their way to a host: each continues what the host has seen, and the first of a
//! session goes out before its first order, so that a host whose log was cut or rewritten runs nothing.

use envelope::messages::LogPosition;
use session::{frames::ControlFrame, limits::PROTOCOL_AUDIT_PROOFS};

use super::{Effect, HeadSeen, HostSession, SignedHead};

/// What a session knows of heads.
pub(super) struct Heads {
    /// The newest signed one.
    newest: Option<SignedHead>,
    /// What the host holds, by its hello and by what was sent since.
    shown: Option<LogPosition>,
    /// Something was shown in this session.
    is_told: bool,
}

impl Heads {
    pub(super) const fn new(hello: Option<LogPosition>) -> Self {
        Self { newest: None, shown: hello, is_told: false }
    }

    pub(super) fn put(&mut self, head: SignedHead) {
        self.newest = Some(head);
    }
}

impl HeadSeen {
    /// Judges the head in a hello. `log` and `before` are of the root metadata in force; `signed` is what
    /// the record of heads holds for that size.
    #[must_use]
    pub fn judge(
        held: Option<LogPosition>,
        log: ids::AuditLogId,
        before: Option<LogPosition>,
        signed: Option<LogPosition>,
    ) -> Self {
        let Some(held) = held else { return Self::Continues };
        let size = held.size;
        if held.log == log {
            return match signed {
                Some(signed) if signed == held => Self::Continues,
                Some(_) => Self::Foreign(format!(
                    "it was shown an audit log of {size} entries that is not this one: the log was rewritten or forked, \
                     or somebody else holds the audit key"
                )),
                None => Self::Foreign(format!(
                    "it was shown a head of the audit log over {size} entries that was never signed here: this control \
                     plane was restored from an old backup, or somebody else holds the audit key"
                )),
            };
        }
        match before {
            None => Self::Foreign(format!("it was shown the audit log {}, which this fleet never had", held.log)),
            Some(before) if before.log == held.log && before.size < size => Self::Foreign(format!(
                "it has seen {size} entries of the audit log before this one, which root metadata says stood at {}: issue \
                 root metadata that names the farthest position of any host",
                before.size
            )),
            // Of a log before that one nothing is held here; the host judges by its own root metadata.
            Some(_) => Self::Continues,
        }
    }
}

impl HostSession {
    /// The newest head goes along with the next thing that is sent, so that it costs an idle host
    /// nothing and its next report names it.
    pub(super) fn send_audit_head(&mut self) {
        let Some(head) = &self.heads.newest else { return };
        let is_known = self.heads.shown == Some(head.position);
        let has_proofs = self.peer.authenticated.protocol >= PROTOCOL_AUDIT_PROOFS;
        if (is_known && (self.heads.is_told || !has_proofs)) || matches!(self.peer.head, HeadSeen::Foreign(_)) {
            return;
        }
        let head = head.clone();
        let from = self.heads.shown.filter(|shown| shown.log == head.position.log);
        self.heads.shown = Some(head.position);
        self.heads.is_told = true;
        self.out.push(if has_proofs {
            Effect::SendAuditProof { head, from_size: from.map_or(0, |shown| shown.size) }
        } else {
            Effect::Send(ControlFrame::AuditHead(head.envelope.to_vec()))
        });
    }
}

#[cfg(test)]
mod tests {
    use ids::{AuditLogId, Sha256};

    use super::*;

    const fn at(log: u8, size: u64, root: u8) -> LogPosition {
        LogPosition { log: AuditLogId::from_bytes([log; 16]), size, root: Sha256([root; 32]) }
    }

    #[track_caller]
    fn check(held: LogPosition, before: Option<LogPosition>, signed: Option<LogPosition>, expected: Option<&str>) {
        let found = HeadSeen::judge(Some(held), AuditLogId::from_bytes([1; 16]), before, signed);
        match (&found, expected) {
            (HeadSeen::Continues, None) => {}
            (HeadSeen::Foreign(why), Some(words)) if why.contains(words) => {}
            _ => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn only_what_was_signed_here_continues() {
        let log = AuditLogId::from_bytes([1; 16]);
        assert_eq!(HeadSeen::judge(None, log, None, None), HeadSeen::Continues);
        check(at(1, 5, 5), None, Some(at(1, 5, 5)), None);
        check(at(1, 5, 5), None, Some(at(1, 5, 6)), Some("rewritten or forked"));
        check(at(1, 5, 5), None, None, Some("never signed here"));
        check(at(2, 5, 5), None, None, Some("which this fleet never had"));
        check(at(2, 5, 5), Some(at(2, 5, 5)), None, None);
        check(at(2, 5, 5), Some(at(2, 4, 4)), None, Some("farthest position of any host"));
        check(at(3, 5, 5), Some(at(2, 4, 4)), None, None);
    }
}
