//! Releases that meet: how an agent's stands to this control plane's, and what a person is told of one that does not
//! go with it.
//!
//! Minor versions are releases. An agent of this release or of the one before goes with this control plane. Any other
//! may work, because what both know is asked for and nothing else; it is not tested, and a person should know.

/// This control plane's release.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// An agent that does not go with this control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentRelease {
    /// Of a later release.
    Newer,
    /// Of an earlier release than the one before this.
    TooOld,
}

impl AgentRelease {
    /// Judges an agent's version, as it says it in its hello. `None` when it goes with this control plane, or says
    /// nothing that could be judged.
    #[must_use]
    pub fn of(agent: &str) -> Option<Self> {
        judge(agent, OURS)
    }

    /// What it is, and what to do, for the log.
    pub(crate) fn words(self, agent: &str) -> String {
        match self {
            Self::Newer => format!(
                "its agent {agent} is of a later release than this control plane {OURS}: it is asked for what both know. \
                 Upgrade the control plane"
            ),
            Self::TooOld => format!(
                "its agent {agent} is more than one release behind this control plane {OURS}, which is not supported: \
                 orders that it cannot carry out are refused. Upgrade it, release by release, with the lines of \
                 `serverflow host upgrade`"
            ),
        }
    }
}

fn judge(agent: &str, ours: &str) -> Option<AgentRelease> {
    let ((major, minor), (our_major, our_minor)) = (release(agent)?, release(ours)?);
    if (major, minor) > (our_major, our_minor) {
        Some(AgentRelease::Newer)
    } else if major < our_major || minor + 1 < our_minor {
        Some(AgentRelease::TooOld)
    } else {
        None
    }
}

/// Major and minor of `major.minor.patch`, whatever follows.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().map(|_| (major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_this_release_or_the_one_before_goes_with_a_control_plane() {
        for agent in ["0.4.0", "0.4.99", "0.4.1-rc.1", "0.3.9", "", "?", "4", "0.x.1"] {
            assert_eq!(judge(agent, "0.4.2"), None, "{agent}");
        }
        for agent in ["0.5.0", "0.10.0", "1.0.0"] {
            assert_eq!(judge(agent, "0.4.2"), Some(AgentRelease::Newer), "{agent}");
        }
        for agent in ["0.2.9", "0.1.0"] {
            assert_eq!(judge(agent, "0.4.2"), Some(AgentRelease::TooOld), "{agent}");
        }
        assert_eq!(judge("0.9.0", "1.0.0"), Some(AgentRelease::TooOld));
        assert_eq!(AgentRelease::of(OURS), None);
    }

    #[test]
    fn the_words_say_which_side_to_upgrade() {
        assert!(AgentRelease::Newer.words("9.9.0").ends_with("Upgrade the control plane"));
        assert!(AgentRelease::TooOld.words("0.0.1").contains("`serverflow host upgrade`"));
    }
}
