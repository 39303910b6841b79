//! Types of the REST API under `/api/v1`, shared by its two ends. JSON, snake_case, times as
//! RFC 3339 in UTC, ids as UUID text, bytes as base64 (RFC 4648 section 4).
//!
//! Scripts rely on these shapes: fields may be added, never renamed or removed.
//!
//! Every path but `POST /api/v1/session` and `GET /api/v1/openapi.json`, which describes them all, needs
//! `Authorization: Bearer TOKEN`. Errors of any kind are `application/problem+json` ([`Problem`]). Status
//! codes: 200 and 204 done; 201 made (join token, sign-in, account, API token); 202 taken up and going on
//! (a new operation, an ordered cancellation); 400 cannot be read; 401 not signed in; 403 not allowed;
//! 404 no such thing; 409 it stands in the way of what is there; 422 read, but wrong; 429 too often; 503
//! not now.

mod approval;
mod audit;
mod command;
mod host;
mod keys;
mod list;
mod operation;
mod people;
mod problem;
mod recovery;
mod session;
mod standing;
mod time;

pub use approval::{ApprovalEvidence, ApprovalRequest, ApprovalShown, ApproverRequest, ApproverSummary, DenialRequest};
pub use audit::{AuditEntry, AuditExport, AuditExportEntry};
pub use command::{
    CancelRequest, CancelResponse, CommandDetail, CommandStatus, CommandSummary, SignedOrder, SignedReport,
};
pub use host::{
    AgentProgram, AgentRelease, HostDetail, HostLabelRequest, HostQuarantine, HostReleaseRequest, HostReleaseResponse,
    HostRenameRequest, HostStatus, HostSummary, JoinTokenRequest, JoinTokenResponse, QuarantinedAgent,
};
pub use keys::{KeyChangeState, KeyChangeSummary, KeyList, KeyRevocationRequest, KeyRole, KeyState, KeySummary};
pub use list::Page;
pub use operation::{
    ActionSummary, AppDetail, AppInstance, AppSummary, BundleBytes, BundleFile, DeployBundleRequest, DeployRequest,
    Event, OperationCommand, OperationRequest, OperationResponse, OperationState, OperationSummary, RecoveryCopy,
    RecoveryRewrapRequest, ReleaseDetail, SealedValue, SingleRequest, WrappedKey,
};
pub use people::{
    SessionSummary, TokenRequest, TokenResponse, TokenStatus, TokenSummary, UserCreateRequest, UserPasswordRequest,
    UserRoleRequest, UserStatus, UserSummary,
};
pub use problem::{FieldError, FileProblem, Problem};
pub use recovery::{
    LogPosition, RecoveryClaim, RecoveryClaimRef, RecoveryClaimsRequest, RecoveryConfirmRequest, RecoveryHost,
    RecoveryStatus, RevokedHost,
};
pub use session::{FleetInfo, FleetRoot, FleetRootRequest, Health, SignInRequest, SignInResponse, WhoAmI};
pub use standing::{StandingDropRequest, StandingOrderRequest, StandingOrderState, StandingOrderSummary};
pub use time::Timestamp;
