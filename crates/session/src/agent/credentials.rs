//! A control plane that was restored from a backup does not know this host, or knows older keys of it: it asks for what
//! shows who this host is.

use ids::HostEpoch;

use super::{
    AgentLoop,
    handshake::{Connection, Phase},
    io::{CloseReason, Effect},
};
use crate::frames::{AgentFrame, KeyRecord, RefusalCode};

impl AgentLoop {
    pub(super) fn credentials_wanted(&mut self, above: HostEpoch) {
        let up_to = self.identity.host_epoch;
        let Some(Connection { with_next, credentials_wanted, .. }) = &mut self.connection else { return };
        if *with_next {
            // The keys that were offered are not on record. Those in force may be, and if they are not, it is they that show
            // who this host is.
            let message = "the new keys are not on record; dialling with those in force".to_owned();
            self.note_refusal(RefusalCode::NotAuthentic);
            return self.close(true, CloseReason::Refused { reason: RefusalCode::NotAuthentic, message });
        }
        if core::mem::replace(credentials_wanted, true) {
            return self.reject("request for credentials", "it came twice".to_owned());
        }
        self.out.push(Effect::ReadCredentials { above, up_to });
    }

    pub(super) fn credentials_read(&mut self, receipt: Vec<u8>, changes: Vec<KeyRecord>) {
        if let Some(Connection { phase: Phase::AwaitOpen { .. }, credentials_wanted: true, .. }) = &self.connection {
            self.send(AgentFrame::Credentials { receipt, changes });
        }
    }
}
