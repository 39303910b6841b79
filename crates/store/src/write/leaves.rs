//! Which leaf each write carries into the audit log. A new kind of write does not compile before it is
//! listed here, and is not tested green before `docs/PROTOCOL.md` says so.

use envelope::audit::AuditKind;
use fleet::ports::Write;

macro_rules! leaves {
    ($($write:pat => $name:literal, [$($kind:ident),*];)*) => {
        /// The write's name, and the kinds of leaves it may carry. None: what it stores is nobody's decision.
        fn leaves(write: &Write) -> (&'static str, &'static [AuditKind]) {
            match write {
                $($write => ($name, &[$(AuditKind::$kind),*]),)*
            }
        }

        const ALL: &[(&str, &[AuditKind])] = &[$(($name, &[$(AuditKind::$kind),*]),)*];
    };
}

leaves! {
    Write::Initialise { .. } => "Initialise", [FleetCreated];
    Write::TokenCreate { .. } => "TokenCreate", [TokenIssued];
    Write::Enrol { .. } => "Enrol", [Enrolment];
    Write::OperationPropose { .. } => "OperationPropose", [Proposal];
    Write::StandingPropose(_) => "StandingPropose", [StandingOrder, Proposal];
    Write::RecoveryRewrap { .. } => "RecoveryRewrap", [SecretsRewrapped];
    Write::CommandSeal { .. } => "CommandSeal", [Command];
    Write::CommandStage { .. } => "CommandStage", [];
    Write::CommandSettle(_) => "CommandSettle", [Report, ReportGap, Alarm, Proposal];
    Write::ReportKeep(_) => "ReportKeep", [Report, ReportGap, Alarm];
    Write::CommandEnd { .. } => "CommandEnd", [Cancel, CommandSettled];
    Write::CommandsApprove(_) => "CommandsApprove", [Approval];
    Write::CommandsDeny { .. } => "CommandsDeny", [ApprovalDenied];
    Write::HostRevoke { .. } => "HostRevoke", [HostRevoked];
    Write::HostRetire(_) => "HostRetire", [Report, ReportGap, HostRevoked];
    Write::HostEdit(_) => "HostEdit", [HostRenamed, HostLabelled];
    Write::HostKeysRotate(_) => "HostKeysRotate", [HostKeyChange];
    Write::HostKeysRetire { .. } => "HostKeysRetire", [];
    Write::HostQuarantine { .. } => "HostQuarantine", [Quarantine, Alarm, Fork];
    Write::HostQuarantineSeen { .. } => "HostQuarantineSeen", [];
    Write::HostRelease { .. } => "HostRelease", [QuarantineRelease];
    Write::HostSeen { .. } => "HostSeen", [];
    Write::HostClock { .. } => "HostClock", [];
    Write::HostLeft { .. } => "HostLeft", [];
    Write::RootAdvance { .. } => "RootAdvance", [RootChange];
    Write::UserCreate { .. } => "UserCreate", [AccountChange];
    Write::UserChange { .. } => "UserChange", [AccountChange];
    Write::UserSessionCreate { .. } => "UserSessionCreate", [SignIn];
    Write::UserSessionEnd { .. } => "UserSessionEnd", [SignOut];
    Write::UserSessionsEnd { .. } => "UserSessionsEnd", [SignOut];
    Write::ApiTokenCreate { .. } => "ApiTokenCreate", [AccountChange];
    Write::ApiTokenRevoke { .. } => "ApiTokenRevoke", [AccountChange];
    Write::ApiTokenUsed { .. } => "ApiTokenUsed", [];
    Write::AuditHead { .. } => "AuditHead", [];
    Write::Recovery(_) => "Recovery", [FleetRestored, HostKeyChange];
    Write::By { .. } => "By", [];
    Write::KeyChangeBegin { .. } => "KeyChangeBegin", [KeyChange];
    Write::KeyChangeMove(_) => "KeyChangeMove", [KeyChange];
    Write::Audit(_) => "Audit", [Alarm, Fork, Quarantine, GuardReset, RefusalCount, EnrolmentRefused, SignInRefused, AuditExport];
}

#[test]
fn the_documentation_names_the_leaf_of_every_write() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/PROTOCOL.md")).unwrap();
    for (name, kinds) in ALL {
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
        let row = format!("| `{name}` | {} |", if kinds.is_empty() { "–".to_owned() } else { kinds.join(", ") });
        assert!(text.contains(&row), "docs/PROTOCOL.md section 19 lacks this row: {row}");
    }
    let (name, kinds) =
        leaves(&Write::ApiTokenUsed { token: ids::ApiTokenId::from_bytes([1; 16]), at: ids::UnixMs(1) });
    assert_eq!((name, kinds), ("ApiTokenUsed", &[][..]));
}
