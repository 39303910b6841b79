//! Whether a standing order counts on a host: when it is installed, each time it is loaded, and each time it falls due.
//! One judgement for everybody who makes it.
//!
//! What it says is fixed when it is installed and renewed ([`Standing`], byte for byte); what makes it count is a signature
//! in force over the host's present epoch and the fleet's. When either is gone the order stays where it is and does not
//! run, until the same content comes signed anew.

mod schedule;

pub use self::schedule::{ScheduleError, check_schedule};

use ids::{DurationMs, Epoch, FleetId, HostEpoch, HostId, KeyId, Revision, UnixMs};

use crate::{
    VerifyError,
    envelope::{Verified, read_unproved, verify},
    keys::{VerifyingKey, role},
    limits,
    messages::{Standing, StandingOrder},
};

/// What a standing order is judged by on its host.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    pub fleet: FleetId,
    pub host: HostId,
    /// The host's present epoch.
    pub host_epoch: HostEpoch,
    /// Of the root metadata in force; none while there is none, which admits nothing.
    pub epoch: Option<Epoch>,
    /// Command keys in force.
    pub keys: &'a [VerifyingKey<role::Command>],
}

/// Why a standing order does not count. The order of the variants is the order of the checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandingError {
    /// Not what a command key in force signed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Another fleet's.
    #[error("ids: it is for another fleet")]
    OtherFleet,
    /// Another host's.
    #[error("ids: it is for another host")]
    OtherHost,
    /// Signed before the host's keys changed, or for keys it does not have.
    #[error("epochs: it was signed for host epoch {signed}, and this host is in {host}")]
    OtherHostEpoch { signed: HostEpoch, host: HostEpoch },
    /// Root metadata voided everything of before.
    #[error("epochs: it was signed in epoch {signed}, which root metadata has voided")]
    OtherEpoch { signed: Epoch },
    /// An old one, or one that was dropped since.
    #[error("revision: {revision} is not above {highest}, the highest that this host has taken")]
    OldRevision { revision: Revision, highest: Revision },
    /// No honest control plane leaps so far; taking it would use up the numbers between.
    #[error("revision: {revision} is too far above {highest}")]
    FarRevision { revision: Revision, highest: Revision },
    /// Its time is over before it begins.
    #[error("time: it was valid until {late} ago")]
    Over { late: DurationMs },
    /// Nobody could say when it is due.
    #[error("schedule: {0}")]
    Schedule(ScheduleError),
}

/// Judges an order that is to be installed or renewed. `highest` is the highest revision that the host ever took, of
/// whichever order; `now` the latest that it can be.
///
/// # Errors
/// The first check that fails.
pub fn install(
    envelope: &[u8],
    ground: Ground<'_>,
    highest: Revision,
    now: UnixMs,
) -> Result<Verified<StandingOrder>, StandingError> {
    let order = load(envelope, ground)?;
    let revision = order.revision;
    if revision <= highest {
        return Err(StandingError::OldRevision { revision, highest });
    }
    in_reach(revision, highest)?;
    if now > order.standing.valid_until {
        return Err(StandingError::Over { late: now.since(order.standing.valid_until) });
    }
    check_schedule(&order.standing.schedule, &order.standing.zone).map_err(StandingError::Schedule)?;
    Ok(order)
}

/// Whether a revision may be taken up on a host that has taken that one.
///
/// # Errors
/// When it is so far above that no honest control plane has got there.
pub const fn in_reach(revision: Revision, highest: Revision) -> Result<(), StandingError> {
    if revision.0.saturating_sub(highest.0) > limits::REVISION_JUMP_MAX {
        return Err(StandingError::FarRevision { revision, highest });
    }
    Ok(())
}

/// Judges an order that was installed: at the agent's start, when root metadata changes, when the host has new keys.
///
/// # Errors
/// The first check that fails.
pub fn load(envelope: &[u8], ground: Ground<'_>) -> Result<Verified<StandingOrder>, StandingError> {
    let order = verify::<StandingOrder>(envelope, ground.keys)?;
    stands(&order, ground)?;
    Ok(order)
}

fn stands(order: &StandingOrder, ground: Ground<'_>) -> Result<(), StandingError> {
    if order.standing.fleet != ground.fleet {
        return Err(StandingError::OtherFleet);
    }
    if order.standing.host != ground.host {
        return Err(StandingError::OtherHost);
    }
    if order.host_epoch != ground.host_epoch {
        return Err(StandingError::OtherHostEpoch { signed: order.host_epoch, host: ground.host_epoch });
    }
    if Some(order.epoch) != ground.epoch {
        return Err(StandingError::OtherEpoch { signed: order.epoch });
    }
    Ok(())
}

/// What a run is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The host's clock, which may have been set.
    pub wall: UnixMs,
    /// The latest time that root keys signed: it cannot be earlier.
    pub floor: UnixMs,
    /// When the host last opened a session, by the signer's clock; none when it never did.
    pub contact: Option<UnixMs>,
}

/// Why an order that counts does not run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// Its time is over.
    #[error("it was valid until {late} ago; install it anew")]
    Over { late: DurationMs },
    /// Nobody has been heard of for too long.
    #[error("this host has had no session for {since}, and the order goes on for {alone_for} without one")]
    Alone { since: DurationMs, alone_for: DurationMs },
    /// There has been no session at all.
    #[error("this host has had no session yet")]
    NeverMet,
}

/// Whether an order that counts may run. A clock that was set back brings none to life: the latest of all times at hand
/// is the time.
///
/// # Errors
/// Why not.
pub fn may_run(standing: &Standing, times: Times) -> Result<(), NotNow> {
    let contact = times.contact.ok_or(NotNow::NeverMet)?;
    let now = times.wall.max(times.floor).max(contact);
    if now > standing.valid_until {
        return Err(NotNow::Over { late: now.since(standing.valid_until) });
    }
    let (since, alone_for) = (now.since(contact), standing.alone_for);
    if since > alone_for { Err(NotNow::Alone { since, alone_for }) } else { Ok(()) }
}

/// What an envelope says, and whose signature it claims, proved by nothing: to show it, to look up the class of what it
/// orders, to read one's own record. What is to count is judged by [`install`] and [`load`].
///
/// # Errors
/// When it is no envelope of a standing order.
pub fn shown(envelope: &[u8]) -> Result<(KeyId, StandingOrder), VerifyError> {
    read_unproved::<StandingOrder>(envelope)
}
