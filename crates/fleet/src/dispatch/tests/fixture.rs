//! One fleet, one host, its keys, and who asks.

use envelope::{
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;

use super::agent::actions_here;
use crate::model::*;

pub(crate) const START: UnixMs = UnixMs(1_700_000_000_000);
pub(crate) const FLEET: FleetId = FleetId::from_bytes([0xf1; 16]);
pub(crate) const HOST: HostId = HostId::from_bytes([0xa1; 16]);
pub(crate) const AGENT_SEED: [u8; 32] = [5; 32];
pub(crate) const AUDIT_SEED: [u8; 32] = [4; 32];

pub(crate) struct Keys {
    pub(crate) root: SigningKey<role::Root>,
    pub(crate) session: SigningKey<role::Session>,
    pub(crate) command: SigningKey<role::Command>,
}

pub(crate) fn keys() -> Keys {
    Keys {
        root: SigningKey::from_seed(&[1; 32]),
        session: SigningKey::from_seed(&[2; 32]),
        command: SigningKey::from_seed(&[3; 32]),
    }
}

pub(crate) fn metadata(keys: &Keys) -> RootMetadata {
    RootMetadata {
        version: RootVersion(1),
        issued: START.minus(DurationMs::from_days(1)),
        expires: START.plus(DurationMs::from_days(300)),
        fleet: FLEET,
        root_keys: vec![keys.root.public()],
        root_threshold: 1,
        addresses: vec!["control.example:7443".to_owned()],
        recovery_keys: Vec::new(),
        session_keys: vec![keys.session.public()],
        command_keys: vec![keys.command.public()],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: SigningKey::<role::Audit>::from_seed(&AUDIT_SEED).public(),
        audit_log: AuditLogId::from_bytes([0x10; 16]),
        restored_log: None,
        tls_pins: vec![Sha256([1; 32]), Sha256([2; 32])],
        protocol_min: 1,
        epoch: Epoch(1),
    }
}

pub(crate) fn host_record() -> Host {
    Host {
        id: HOST,
        name: "web-1".parse().expect("a host name"),
        roles: Vec::new(),
        labels: Default::default(),
        identity_key: SigningKey::<role::Agent>::from_seed(&AGENT_SEED).public(),
        sealing_key: SealingKeyBytes([9; 32]),
        host_epoch: HostEpoch(1),
        standing: HostStanding::Active,
        quarantine: Default::default(),
        clock_skew_ms: None,
        allocated: Sequence(0),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
        audit_head: None,
        boots: Vec::new(),
        actions: actions_here(),
        agent_version: String::new(),
        root_version: RootVersion(1),
        enrolled_at: START,
        last_seen: None,
        receipt: Vec::new(),
    }
}

pub(crate) fn session_of(role: UserRole) -> Principal {
    Principal {
        user: UserId::from_bytes([7; 16]),
        user_name: "ada".parse().expect("a user name"),
        role,
        credential: Credential::Token(ApiTokenId::from_bytes([6; 16])),
        expires: START.plus(DurationMs::from_days(1)),
    }
}
