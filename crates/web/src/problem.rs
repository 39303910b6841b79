//! Every error that leaves this room: problem+json (RFC 9457), one stable kind with one status and
//! one title each. The detail says what happened, to what, and what to do next; causes that only
//! the owner of the machine can mend go to the log, never to the answer.

use actions::DecodeError;
use api::{FieldError, FileProblem, Problem};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fleet::{
    approval::ApproveError,
    operation::{AppTargetError, CancelError, ProposeError},
    people::PeopleError,
    ports::StoreError,
};

use crate::credentials::CredentialError;

macro_rules! kinds {
    ($($kind:ident $status:ident $urn:literal $title:literal;)*) => {
        /// Kinds of problem. Names and statuses are stable: scripts tell them apart by them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind,)*
        }

        impl Kind {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind,)*];

            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }

            pub(crate) const fn urn(self) -> &'static str {
                match self { $(Self::$kind => concat!("urn:serverflow:", $urn),)* }
            }

            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }
        }
    };
}

kinds! {
    RequestUnreadable BAD_REQUEST "request-unreadable" "The request cannot be read";
    NotSignedIn UNAUTHORIZED "not-signed-in" "Not signed in";
    SignInRefused UNAUTHORIZED "sign-in-refused" "Sign-in refused";
    NotAllowed FORBIDDEN "not-allowed" "Not allowed";
    NotFound NOT_FOUND "not-found" "No such path";
    HostNotFound NOT_FOUND "host-not-found" "No such host";
    AppNotFound NOT_FOUND "app-not-found" "No such app";
    ActionNotFound NOT_FOUND "action-not-found" "No such action";
    AgentNotFound NOT_FOUND "agent-not-found" "No such agent program";
    CommandNotFound NOT_FOUND "command-not-found" "No such command";
    OperationNotFound NOT_FOUND "operation-not-found" "No such operation";
    UserNotFound NOT_FOUND "user-not-found" "No such account";
    SessionNotFound NOT_FOUND "session-not-found" "No such session";
    TokenNotFound NOT_FOUND "token-not-found" "No such API token";
    MethodNotAllowed METHOD_NOT_ALLOWED "method-not-allowed" "No such method";
    TooSlow SERVICE_UNAVAILABLE "too-slow" "Took too long";
    BodyTooSlow REQUEST_TIMEOUT "body-too-slow" "The request took too long to arrive";
    KeyTaken CONFLICT "key-taken" "The key is another account's";
    NothingHeld CONFLICT "nothing-held" "Nothing waits for approval";
    ApprovedAlready CONFLICT "approved-already" "It was approved already";
    UserExists CONFLICT "user-exists" "The account cannot be made";
    OwnAccount CONFLICT "own-account" "Not with the own account";
    LastOwner CONFLICT "last-owner" "A fleet needs an owner";
    LimitReached CONFLICT "limit-reached" "There are too many";
    HostExists CONFLICT "host-exists" "The host exists";
    HostNotActive CONFLICT "host-not-active" "The host gets no orders";
    ActionMissing CONFLICT "action-missing" "The host lacks the action";
    OperationConflict CONFLICT "operation-conflict" "The operation exists";
    CommandEnded CONFLICT "command-ended" "The command has ended";
    RootNotNext CONFLICT "root-not-next" "Not the next version of root metadata";
    RootKeyInUse CONFLICT "root-key-in-use" "Root metadata drops a key in use";
    Recovering CONFLICT "recovering" "Restored from a backup, and not confirmed";
    Changed CONFLICT "changed-meanwhile" "Something changed meanwhile";
    TooLarge PAYLOAD_TOO_LARGE "too-large" "The request is too large";
    NotJson UNSUPPORTED_MEDIA_TYPE "not-json" "The body is not JSON";
    WrongHost MISDIRECTED_REQUEST "wrong-host" "Not the name of this server";
    RootRefused UNPROCESSABLE_ENTITY "root-refused" "Root metadata does not verify";
    Invalid UNPROCESSABLE_ENTITY "invalid" "The request is wrong";
    TooManySignIns TOO_MANY_REQUESTS "too-many-sign-ins" "Too many sign-ins";
    TooManyDownloads TOO_MANY_REQUESTS "too-many-downloads" "Too many downloads";
    TooManyRequests TOO_MANY_REQUESTS "too-many-requests" "Too many requests";
    Internal INTERNAL_SERVER_ERROR "internal" "The control plane failed";
    Busy SERVICE_UNAVAILABLE "busy" "The control plane is busy";
    StoreUnavailable SERVICE_UNAVAILABLE "store-unavailable" "The database cannot be used";
}

/// A problem on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    problems: Vec<FileProblem>,
    problems_omitted: usize,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            problems: Vec::new(),
            problems_omitted: 0,
            retry_after_seconds: None,
        }
    }

    /// One field of the request's content is wrong.
    pub(crate) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, String::new()).and_field(field, message)
    }

    pub(crate) fn and_field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        if self.detail.is_empty() {
            self.detail = format!("{field}: {message}");
        }
        self.errors.push(FieldError { field, message });
        self
    }

    /// Places in an app's files that are wrong.
    pub(crate) fn files(detail: impl Into<String>, problems: Vec<FileProblem>, omitted: usize) -> Self {
        Self { problems, problems_omitted: omitted, ..Self::new(Kind::Invalid, detail) }
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The document.
    pub(crate) fn problem(&self) -> Problem {
        Problem {
            kind: self.kind.urn().to_owned(),
            title: self.kind.title().to_owned(),
            status: self.kind.status().as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
            problems: self.problems.clone(),
            problems_omitted: self.problems_omitted,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.kind.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(why) => Self::new(Kind::Changed, format!("{why}; look at it again and repeat")),
            StoreError::TokenRefused => Self::new(Kind::Changed, StoreError::TokenRefused.to_string()),
            StoreError::Recovering => Self::new(Kind::Recovering, StoreError::Recovering.to_string()),
            StoreError::LastOwner => Self::new(Kind::LastOwner, StoreError::LastOwner.to_string()),
            StoreError::CredentialEnded => Self::new(Kind::NotSignedIn, StoreError::CredentialEnded.to_string()),
            StoreError::RoleLowered => Self::new(Kind::NotAllowed, StoreError::RoleLowered.to_string()),
            StoreError::Unavailable(_) => {
                tracing::error!(%error, "the store did not answer");
                Self::new(
                    Kind::StoreUnavailable,
                    "the control plane's database cannot be used now; its log says why. Nothing was changed that was not answered: repeat the request later",
                )
                .retry_after(5)
            }
            StoreError::Corrupt(_) => {
                tracing::error!(%error, "the store holds something that does not verify");
                Self::new(Kind::Internal, "the control plane's database is damaged; its log says where and what to do")
            }
        }
    }
}

impl From<CredentialError> for ApiError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Randomness => {
                tracing::error!("the operating system gave no randomness");
                Self::new(Kind::Internal, "the control plane's machine gave no randomness; look at its system log")
            }
            CredentialError::Password | CredentialError::PasswordRule => Self::field("password", error.to_string()),
        }
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let detail = error.to_string();
        match error {
            DecodeError::Unknown { .. } => Self::new(Kind::ActionNotFound, detail),
            DecodeError::TooLarge { .. } => Self::new(Kind::Invalid, detail.clone()).and_field("parameters", detail),
            DecodeError::Parameter { path, message, .. } => {
                let field = if path == "." { "parameters".to_owned() } else { format!("parameters.{path}") };
                Self::new(Kind::Invalid, detail).and_field(field, message)
            }
        }
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        let detail = error.to_string();
        match error {
            ProposeError::NotAllowed { .. } => Self::new(Kind::NotAllowed, detail),
            ProposeError::Invalid { field, message } => Self::new(Kind::Invalid, detail).and_field(field, message),
            ProposeError::Parameters(error) => error.into(),
            ProposeError::HostNotFound(_) => Self::new(Kind::HostNotFound, detail),
            ProposeError::HostNotActive { .. } => Self::new(Kind::HostNotActive, detail),
            ProposeError::ActionMissing { .. } | ProposeError::SchemaDiffers { .. } => {
                Self::new(Kind::ActionMissing, detail)
            }
        }
    }
}

impl From<PeopleError> for ApiError {
    fn from(error: PeopleError) -> Self {
        let detail = error.to_string();
        match error {
            PeopleError::NotAllowed { .. } | PeopleError::NotOwn { .. } => Self::new(Kind::NotAllowed, detail),
            PeopleError::Own { .. } => Self::new(Kind::OwnAccount, detail),
            PeopleError::Invalid { field, message } => Self::new(Kind::Invalid, detail).and_field(field, message),
        }
    }
}

impl From<ApproveError> for ApiError {
    fn from(error: ApproveError) -> Self {
        let detail = error.to_string();
        match error {
            ApproveError::NoKey(_) | ApproveError::NotListed { .. } | ApproveError::Own { .. } => {
                Self::new(Kind::NotAllowed, detail)
            }
            ApproveError::NothingHeld(_) => Self::new(Kind::NothingHeld, detail),
            ApproveError::Already(_) => Self::new(Kind::ApprovedAlready, detail),
            ApproveError::Because => Self::new(Kind::Invalid, detail.clone()).and_field("because", detail),
            ApproveError::NotHeld { .. }
            | ApproveError::HostTwice { .. }
            | ApproveError::Signature { .. }
            | ApproveError::NotCounted { .. }
            | ApproveError::Spoils { .. }
            | ApproveError::TooLarge { .. } => Self::new(Kind::Invalid, detail.clone()).and_field("approvals", detail),
        }
    }
}

impl From<AppTargetError> for ApiError {
    fn from(error: AppTargetError) -> Self {
        Self::new(Kind::AppNotFound, error.to_string())
    }
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        let detail = error.to_string();
        match error {
            CancelError::Ended { .. } => Self::new(Kind::CommandEnded, detail),
            CancelError::IsCancel(_) => Self::new(Kind::Invalid, detail),
            CancelError::Refused(error) => error.into(),
        }
    }
}
