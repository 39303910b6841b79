//! The running agent: which process it is, its end, and its session.

use std::{
    fs::{OpenOptions, TryLockError},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use crate::{
    failure::{Failure, FailureKind},
    limits,
    state_dir::StateDir,
    status::{ConnectionStatus, Status, process_start},
};

/// One process, by its number and its start: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pid: u32,
    start: u64,
}

impl Running {
    /// The agent of this state, if one runs.
    pub(super) fn find(state: &StateDir) -> Option<Self> {
        let status = Status::read(state).ok().flatten()?;
        let running = Self { pid: status.pid, start: status.process_start? };
        running.is_there().then_some(running)
    }

    pub(super) const fn pid(self) -> u32 {
        self.pid
    }

    fn is_there(self) -> bool {
        process_start(self.pid) == Some(self.start)
    }

    /// Ends it: asks, waits, and kills what does not end.
    pub(super) async fn end(self) -> Result<(), Failure> {
        let fail = |error: rustix::io::Errno| {
            let why = format!("the running agent (pid {}) cannot be ended: {error}", self.pid);
            Failure::new(FailureKind::Failed, why)
        };
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        for (signal, patience) in [(Signal::TERM, limits::STOP_GRACE), (Signal::KILL, limits::KILL_GRACE)] {
            // The number may have become another's before the process was held; what is held stays the same.
            if !self.is_there() {
                return Ok(());
            }
            match pidfd_send_signal(&process, signal) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                sent => sent.map_err(fail)?,
            }
            let deadline = Instant::now() + patience;
            while self.is_there() && Instant::now() < deadline {
                sleep(limits::LOOK_INTERVAL).await;
            }
        }
        if self.is_there() { Err(fail(rustix::io::Errno::BUSY)) } else { Ok(()) }
    }
}

/// Whether some process holds the journal of this state, known or not.
pub(super) fn is_in_use(state: &StateDir) -> bool {
    let lock = state.journal().with_extension("lock");
    let Ok(file) = OpenOptions::new().write(true).open(lock) else { return false };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Waits until an agent other than `before` has an open session.
///
/// # Errors
/// What it said last, when it takes longer than that.
pub(super) async fn wait_for_session(
    state: &StateDir,
    before: Option<Running>,
    patience: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    let mut last = "it did not start".to_owned();
    loop {
        let status = Status::read(state).ok().flatten();
        let running = Running::find(state).filter(|running| Some(*running) != before);
        if let (Some(status), Some(_)) = (status, running) {
            last = match status.connection {
                ConnectionStatus::Connected { .. } => return Ok(()),
                ConnectionStatus::Disconnected { error, .. } => error,
                ConnectionStatus::Stopped { .. } => "it ended".to_owned(),
                ConnectionStatus::Retired { .. } => {
                    "this host has left its fleet; uninstall the agent first".to_owned()
                }
                ConnectionStatus::Connecting | ConnectionStatus::Authenticating { .. } => {
                    "no session came about yet".to_owned()
                }
            };
        }
        if Instant::now() >= deadline {
            return Err(last);
        }
        sleep(limits::LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_another_process_by_now_is_not_ours() {
        let pid = std::process::id();
        let start = process_start(pid).expect("this process");
        assert!(Running { pid, start }.is_there());
        assert!(!Running { pid, start: start + 1 }.is_there());
    }

    #[tokio::test]
    async fn what_is_gone_need_not_be_ended() {
        let pid = std::process::id();
        // This process's number with another start: it must not be signalled.
        Running { pid, start: 1 }.end().await.expect("nothing to do");
        assert!(!is_in_use(&StateDir::new(std::env::temp_dir().join("no-such-state"))));
    }
}
