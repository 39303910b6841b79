//! One connection: two queues of frames and a channel binding. In order, as TLS gives it, unless a
//! fault meddles; what is in flight when the connection is cut is lost.

use std::collections::VecDeque;

use ids::{HostId, TlsExporter};
use session::frames::{AgentFrame, ControlFrame};

/// Number of a connection, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

pub(crate) struct Link {
    pub(crate) host: HostId,
    /// What each end reads from TLS. They differ when somebody sits in between.
    pub(crate) agent_exporter: TlsExporter,
    pub(crate) control_exporter: TlsExporter,
    pub(crate) up: VecDeque<AgentFrame>,
    pub(crate) down: VecDeque<ControlFrame>,
    /// The control plane has closed its end: what is in `down` still arrives, then the end.
    pub(crate) is_closing: bool,
}

impl Link {
    pub(crate) fn new(host: HostId, exporter: TlsExporter) -> Self {
        Self {
            host,
            agent_exporter: exporter,
            control_exporter: exporter,
            up: VecDeque::new(),
            down: VecDeque::new(),
            is_closing: false,
        }
    }
}
