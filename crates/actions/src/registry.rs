//! The list of actions. Everything outside this crate sees an action as (name, version, bytes) and
//! learns the rest here: its class, its time limit, its frozen schema, what it demands of the host.
//!
//! Adding an action: a folder `src/<name>/{mod.rs, README.md, schema.v1.json, golden/}`, its line in
//! `lib.rs`, and one word in the list at the end of this file.
//!
//! Changing an action's parameters: the type grows by optional fields only, its `INFO` gets the next
//! version and schema file, the file before goes into `EARLIER` untouched, and `field_beyond` names
//! what an order of the older version must not carry. One type serves all versions, so whoever
//! orders can take the newest version that the host has and that the content allows.

use std::{collections::BTreeSet, sync::LazyLock};

use ids::{ActionName, AppName, DurationMs, Sha256};
pub use ids::{Class, OnRestart};
use serde::de::DeserializeOwned;

use crate::{
    limits,
    outcome::Outcome,
    policy::{CANCEL_ACTION, Demand, RENEW_ACTION},
    port::{ActionContext, ActionPort},
    spec::SecretName,
    standing_install::StandingInstall,
};

/// What must not run at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lock {
    /// Waits for nobody.
    None,
    /// One change per app.
    App(AppName),
}

/// What is known of an action without running it.
#[derive(Clone, Copy, Debug)]
pub struct ActionInfo {
    /// Name, such as `app.deploy`; obeys [`ActionName`]'s rule.
    pub name: &'static str,
    /// Version of the parameter schema, from 1.
    pub version: u32,
    /// A few words for lists and forms.
    pub title: &'static str,
    /// How much it may change.
    pub class: Class,
    /// What happens to it across an agent's restart.
    pub on_restart: OnRestart,
    /// Within this span the action ends by itself, from its start or its resumption.
    pub timeout: DurationMs,
    /// JSON Schema (2020-12) of the parameters, as frozen in the action's folder.
    pub schema: &'static str,
}

impl ActionInfo {
    /// Hash of the frozen schema file; orders carry it, and hosts announce it.
    #[must_use]
    pub fn schema_sha256(&self) -> Sha256 {
        ids::sha256(self.schema.as_bytes())
    }
}

/// Why parameters are no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No such action, or not in this version.
    #[error(
        "this program has no action {name} version {version}; see `serverflow action list` for those it has, or upgrade it"
    )]
    Unknown {
        /// The name asked for.
        name: ActionName,
        /// The version asked for.
        version: u32,
    },
    /// More bytes than an order may carry.
    #[error("parameters of {name}: {bytes} bytes, more than the {} an order may carry", limits::PARAMETERS_BYTES_MAX)]
    TooLarge {
        /// The action.
        name: ActionName,
        /// Size of what was given.
        bytes: usize,
    },
    /// Not the JSON the schema asks for.
    #[error("parameters of {name}: {path}: {message}")]
    Parameter {
        /// The action.
        name: ActionName,
        /// Where, such as `spec.services.web.ports[0].host_ip`; `.` is the whole.
        path: String,
        /// What is wrong there, and what would be right.
        message: String,
    },
}

/// A rule beyond the schema that parameters break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where, as in [`DecodeError::Parameter`].
    pub(crate) path: String,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// What each action's folder provides. The type that implements it is its parameter set.
pub(crate) trait Action: DeserializeOwned {
    /// Everything known without parameters, in the newest version.
    const INFO: ActionInfo;
    /// Versions before it that are carried out as well, ascending, each with its frozen schema.
    const EARLIER: &'static [(u32, &'static str)] = &[];

    /// Path of a field in use that this earlier version does not have.
    fn field_beyond(&self, _version: u32) -> Option<String> {
        None
    }

    /// Rules that the schema cannot say.
    fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
    fn lock(&self) -> Lock {
        Lock::None
    }
    fn app(&self) -> Option<&AppName> {
        None
    }
    fn demands(&self) -> Vec<Demand> {
        Vec::new()
    }
    fn secret_names(&self) -> BTreeSet<SecretName> {
        BTreeSet::new()
    }
    fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> impl Future<Output = Outcome> + Send;
}

/// Every version of one action, ascending.
fn versions<A: Action>() -> impl Iterator<Item = ActionInfo> {
    let earlier = A::EARLIER.iter().map(|(version, schema)| ActionInfo { version: *version, schema, ..A::INFO });
    earlier.chain(core::iter::once(A::INFO))
}

fn has_version<A: Action>(name: &ActionName, version: u32) -> bool {
    name.as_str() == A::INFO.name && versions::<A>().any(|info| info.version == version)
}

/// The least version that has every field these parameters use.
fn version_needed<A: Action>(parameters: &A) -> u32 {
    let mut fitting = A::EARLIER.iter().map(|(version, _)| *version);
    fitting.find(|version| parameters.field_beyond(*version).is_none()).unwrap_or(A::INFO.version)
}

fn decode_as<A: Action>(name: &ActionName, version: u32, json: &[u8]) -> Result<A, DecodeError> {
    let fault = |path: String, message: String| DecodeError::Parameter { name: name.clone(), path, message };
    let text = core::str::from_utf8(json)
        .map_err(|e| fault(".".to_owned(), format!("not UTF-8 at byte {}", e.valid_up_to())))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parameters: A = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|e| fault(e.path().to_string(), words(e.inner())))?;
    deserializer.end().map_err(|e| fault(".".to_owned(), e.to_string()))?;
    if version < A::INFO.version
        && let Some(path) = parameters.field_beyond(version)
    {
        let needed = version_needed(&parameters);
        return Err(fault(
            path,
            format!("{name} version {version} has no such field; order version {needed}, or leave it out"),
        ));
    }
    parameters.check().map_err(|e| fault(e.path, e.message))?;
    Ok(parameters)
}

/// What is wrong, without the place in the text where the path says it better.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    if error.is_data() { text.strip_suffix(&place).unwrap_or(&text).to_owned() } else { text }
}

macro_rules! registry {
    ($($action:ident in $module:ident),* $(,)?) => {
        static ACTIONS: LazyLock<Vec<ActionInfo>> = LazyLock::new(|| {
            let mut all = Vec::new();
            $(all.extend(versions::<crate::$module::$action>());)*
            all
        });

        /// The decoded parameters of one order.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $(
                #[doc = concat!("See the folder `", stringify!($module), "`.")]
                $action(crate::$module::$action),
            )*
        }

        impl Request {
            /// Reads the parameters of an order: UTF-8 JSON of at most
            /// [`limits::PARAMETERS_BYTES_MAX`] bytes, unknown fields refused.
            ///
            /// # Errors
            /// Names the action and the field.
            pub fn decode(name: &ActionName, version: u32, json: &[u8]) -> Result<Self, DecodeError> {
                if json.len() > limits::PARAMETERS_BYTES_MAX {
                    return Err(DecodeError::TooLarge { name: name.clone(), bytes: json.len() });
                }
                $(
                    if has_version::<crate::$module::$action>(name, version) {
                        return decode_as(name, version, json).map(Self::$action);
                    }
                )*
                Err(DecodeError::Unknown { name: name.clone(), version })
            }

            /// What is known of the action, in its newest version. Class, time limit and the like
            /// are the same in all of them; for the schema of an order ask [`find`].
            #[must_use]
            pub fn info(&self) -> &'static ActionInfo {
                let (name, version) = match self {
                    $(Self::$action(_) => {
                        let info = <crate::$module::$action as Action>::INFO;
                        (info.name, info.version)
                    })*
                };
                ACTIONS
                    .iter()
                    .find(|info| info.name == name && info.version == version)
                    .expect("invariant: the list above makes both the table and this enumeration")
            }

            /// The least version of the action that can carry these parameters.
            #[must_use]
            pub fn version_needed(&self) -> u32 {
                match self { $(Self::$action(parameters) => version_needed(parameters),)* }
            }

            /// The first field in use that this version of the action does not have.
            #[must_use]
            pub fn field_beyond(&self, version: u32) -> Option<String> {
                match self { $(Self::$action(parameters) => Action::field_beyond(parameters, version),)* }
            }

            /// What must not run at the same time.
            #[must_use]
            pub fn lock(&self) -> Lock {
                match self { $(Self::$action(parameters) => Action::lock(parameters),)* }
            }

            /// The app it is about, if any.
            #[must_use]
            pub fn app(&self) -> Option<&AppName> {
                match self { $(Self::$action(parameters) => Action::app(parameters),)* }
            }

            /// What it asks of the host beyond a plain container, for the policy to judge.
            #[must_use]
            pub fn demands(&self) -> Vec<Demand> {
                match self { $(Self::$action(parameters) => Action::demands(parameters),)* }
            }

            /// Names of the sealed values the parameters refer to.
            #[must_use]
            pub fn secret_names(&self) -> BTreeSet<SecretName> {
                match self { $(Self::$action(parameters) => Action::secret_names(parameters),)* }
            }

            /// Carries it out, or with [`ActionContext::dry_run`] says what it would do. Dropping
            /// the future is the same as a crash: what is recorded is resumed.
            pub fn run<P: ActionPort>(
                &self,
                context: &ActionContext,
                port: &mut P,
            ) -> impl Future<Output = Outcome> + Send {
                async move {
                    match self { $(Self::$action(parameters) => Action::run(parameters, context, port).await,)* }
                }
            }
        }
    };
}

/// Every action and version this program has; the versions of one stand together, ascending.
#[must_use]
pub fn actions() -> &'static [ActionInfo] {
    &ACTIONS
}

/// The action of that name and version.
#[must_use]
pub fn find(name: &ActionName, version: u32) -> Option<&'static ActionInfo> {
    ACTIONS.iter().find(|info| info.name == name.as_str() && info.version == version)
}

/// The newest version of that action.
#[must_use]
pub fn latest(name: &ActionName) -> Option<&'static ActionInfo> {
    ACTIONS.iter().filter(|info| info.name == name.as_str()).max_by_key(|info| info.version)
}

/// How much an order may change, for those who ask how many people must stand behind it. What only puts back, and what
/// leaves all as people approved it, needs nobody and counts as reading; installing a standing order is as much as what it
/// has run. None when it is not known here, which is to count as destructive.
#[must_use]
pub fn class_for_people(name: &ActionName, version: u32, parameters: &[u8]) -> Option<Class> {
    let class = find(name, version)?.class;
    match name.as_str() {
        CANCEL_ACTION | RENEW_ACTION => Some(Class::Read),
        StandingInstall::NAME => match Request::decode(name, version, parameters) {
            Ok(Request::StandingInstall(install)) => install.class(),
            _ => None,
        },
        _ => Some(class),
    }
}

registry! {
    AppDeploy in app_deploy,
    AppLogs in app_logs,
    AppLogsFollow in app_logs_follow,
    AppPlan in app_plan,
    AppRemove in app_remove,
    AppRestart in app_restart,
    AppSecretsRewrap in app_secrets_rewrap,
    AppStart in app_start,
    AppStop in app_stop,
    CommandCancel in command_cancel,
    DockerContainers in docker_containers,
    HostFacts in host_facts,
    HostKeysRotate in host_keys_rotate,
    HostRetire in host_retire,
    StandingDrop in standing_drop,
    StandingInstall in standing_install,
    StandingRenew in standing_renew,
}
