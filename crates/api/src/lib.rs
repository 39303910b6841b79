//! Types of the REST API under `/api/v1`, shared by its two ends. JSON, snake_case, times as
//! RFC 3339 in UTC, ids as UUID text, bytes as base64 (RFC 4648 section 4).
//!
//! Scripts rely on these shapes: fields may be added, never renamed or removed.

mod audit;
mod command;
mod host;
mod operation;
mod problem;
mod session;
mod time;

pub use audit::{AuditEntry, AuditExport, AuditExportEntry};
pub use command::{CommandDetail, CommandStatus, CommandSummary, SignedOrder, SignedReport};
pub use host::{HostDetail, HostStatus, HostSummary, JoinTokenRequest, JoinTokenResponse};
pub use operation::{
    ActionSummary, AppDetail, AppInstance, AppSummary, DeployRequest, Event, OperationCommand, OperationRequest,
    OperationResponse, OperationState, SealedValue, SingleRequest,
};
pub use problem::{FieldError, Problem};
pub use session::{FleetInfo, SignInRequest, SignInResponse, WhoAmI};
pub use time::Timestamp;
