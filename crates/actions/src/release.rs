//! What the agent's journal keeps about an app: which release runs, which it could go back to, and
//! whether a change is half-way.
//!
//! One record per app (`app/<app>`) is replaced as a whole at each turning point, so a crash leaves
//! either the old or the new. Each release has a second record (`app/<app>/release/<id>`) with its
//! specification and its sealed values. Nothing in either is a secret in the open.

use std::collections::{BTreeMap, BTreeSet};

use ids::{AppName, CommandId, OperationId, ReleaseId, ServiceName, UnixMs};
use serde::{Deserialize, Serialize};

use crate::{
    effect::{ContainerState, EffectError, EffectErrorKind, Health, RunState},
    engine::Engine,
    lifecycle::{RunChange, Verb},
    limits,
    outcome::{Outcome, OutcomeStatus},
    port::ActionPort,
    spec::{AppSpec, PinnedImage, SecretName},
};

const RECORD_VERSION: u32 = 1;
/// What a container of the release before is called while the next one proves itself.
const PARKED_SUFFIX: &str = ".previous";

/// Key of an app's record.
#[must_use]
pub fn app_key(app: &AppName) -> String {
    format!("app/{app}")
}

/// Key of one release's record.
#[must_use]
pub fn release_key(app: &AppName, release: ReleaseId) -> String {
    format!("app/{app}/release/{release}")
}

/// The release that an operation makes.
#[must_use]
pub fn release_of(operation: OperationId) -> ReleaseId {
    ReleaseId::from_bytes(*operation.as_bytes())
}

/// The releases in an app's record whose containers may be on the host: the current one, and those of a
/// change that is half-way. For the agent: their records hold the sealed values that are to be masked in
/// whatever the app writes. A record that does not read has none.
#[must_use]
pub fn live_releases(app_record: &[u8]) -> Vec<ReleaseId> {
    serde_json::from_slice::<AppRecord>(app_record).map(|record| record.live()).unwrap_or_default()
}

impl AppRecord {
    /// As [`live_releases`].
    pub(crate) fn live(&self) -> Vec<ReleaseId> {
        let mut live: Vec<ReleaseId> = self.current.into_iter().collect();
        if let Some(Pending::Deploy(pending)) = &self.pending {
            live.extend(pending.from);
            live.push(pending.to);
        }
        live.sort_unstable();
        live.dedup();
        live
    }
}

/// Whether an app's record has a change that is half-way. A record that does not read has none.
pub(crate) fn has_pending(app_record: &[u8]) -> bool {
    serde_json::from_slice::<AppRecord>(app_record).is_ok_and(|record| record.pending.is_some())
}

/// The sealed values in a release's record, and the operation they were sealed for.
#[must_use]
pub fn sealed_values(release_record: &[u8]) -> Option<(OperationId, BTreeMap<SecretName, Vec<u8>>)> {
    let record: ReleaseRecord = serde_json::from_slice(release_record).ok()?;
    let mut values = BTreeMap::new();
    for (name, text) in record.sealed {
        values.insert(name, data_encoding::BASE64.decode(text.as_bytes()).ok()?);
    }
    Some((OperationId::from_bytes(*record.release.as_bytes()), values))
}

/// Whether that is the name of a container which waits to be put back or removed.
pub(crate) fn is_parked(name: &str) -> bool {
    name.ends_with(PARKED_SUFFIX)
}

/// Whether that is what a container's name has after it was put aside, any number of times.
#[must_use]
pub fn is_parked_suffix(mut rest: &str) -> bool {
    while let Some(before) = rest.strip_suffix(PARKED_SUFFIX) {
        rest = before;
    }
    rest.is_empty()
}

/// The name under which a container waits; another suffix follows where that name is taken.
pub(crate) fn parked_name(name: &str, taken: &[&str]) -> String {
    let mut parked = format!("{name}{PARKED_SUFFIX}");
    while taken.contains(&parked.as_str()) {
        parked.push_str(PARKED_SUFFIX);
    }
    parked
}

/// Short form of a release's id for image tags: its last twelve digits, which are random.
pub(crate) fn release_short(release: ReleaseId) -> String {
    ids::hex(&release.as_bytes()[10..])
}

/// Everything that must be known of an app between two runs of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AppRecord {
    pub(crate) version: u32,
    pub(crate) app: AppName,
    /// The release that runs. Absent before the first has proved itself.
    pub(crate) current: Option<ReleaseId>,
    /// Kept releases, oldest first, the current one last.
    pub(crate) releases: Vec<ReleaseEntry>,
    /// Services that were stopped by an order, and stay so until they are started or deployed. Their
    /// containers have lost their restart policy; the release's specification says what it was.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) stopped: BTreeSet<ServiceName>,
    /// A change that is half-way.
    pub(crate) pending: Option<Pending>,
    /// How the last change ended: a resumed order that had ended already answers with it.
    pub(crate) last_end: Option<RecordedEnd>,
}

/// One kept release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReleaseEntry {
    pub(crate) release: ReleaseId,
    pub(crate) tags: Vec<ImageTag>,
}

/// A tag of ours that keeps an image from being pruned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ImageTag {
    pub(crate) repository: String,
    pub(crate) tag: String,
}

/// A change that is half-way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pending {
    /// A deploy.
    Deploy(Box<PendingDeploy>),
    /// A removal.
    Remove {
        /// The order.
        command: CommandId,
        /// Names of the containers that ran before it.
        ran: Vec<String>,
    },
    /// A stop, a start or a restart.
    Run(Box<PendingRun>),
}

/// A stop, start or restart that is half-way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PendingRun {
    pub(crate) command: CommandId,
    pub(crate) verb: Verb,
    /// What happens to each service concerned; decided once.
    pub(crate) changes: BTreeMap<ServiceName, RunChange>,
    pub(crate) phase: RunPhase,
    /// The containers concerned, before the first was touched.
    pub(crate) before: Vec<Before>,
}

/// Where a stop, start or restart stands, and so how it goes on after a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunPhase {
    /// Containers are being stopped.
    Stopping,
    /// Containers are being started.
    Starting,
    /// Back to how it was; the end that will be reported if that succeeds.
    Back(RecordedEnd),
}

/// A deploy that is half-way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PendingDeploy {
    pub(crate) command: CommandId,
    pub(crate) from: Option<ReleaseId>,
    pub(crate) to: ReleaseId,
    pub(crate) phase: Phase,
    /// The app's containers before the first was touched. Whatever else the app has is new.
    pub(crate) before: Vec<Before>,
    pub(crate) networks_before: Vec<String>,
    pub(crate) volumes_before: Vec<String>,
    /// Tags that the new release's images get.
    pub(crate) tags: Vec<ImageTag>,
}

/// Where a deploy stands, and so which way it goes on after a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Towards the new release.
    Forward,
    /// Back to the old one; the end that will be reported if that succeeds.
    Back(RecordedEnd),
    /// The new one is current; what is left over goes away.
    Clean(RecordedEnd),
}

/// A container as it was before a deploy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Before {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) config: String,
    pub(crate) run: RunState,
    pub(crate) health: Health,
    /// Which start of it that was; absent from records of 0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) started_at: String,
}

impl Before {
    pub(crate) fn of(state: &ContainerState) -> Self {
        Self {
            id: state.id.clone(),
            name: state.name.clone(),
            service: state.service.clone(),
            config: state.config.clone(),
            run: state.run,
            health: state.health,
            started_at: state.started_at.clone(),
        }
    }

    /// Whether it was up, so that putting it back means starting it.
    pub(crate) fn ran(&self) -> bool {
        matches!(self.run, RunState::Running | RunState::Restarting | RunState::Paused)
    }
}

/// How an order ended, as it will be reported. Masked before it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordedEnd {
    pub(crate) command: CommandId,
    pub(crate) status: OutcomeStatus,
    pub(crate) message: String,
    pub(crate) result: serde_json::Value,
}

impl RecordedEnd {
    pub(crate) fn into_outcome(self) -> Outcome {
        Outcome { status: self.status, message: self.message, result: self.result }
    }
}

/// One release: all that is needed to make it again, or to tell what another would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReleaseRecord {
    pub(crate) version: u32,
    pub(crate) release: ReleaseId,
    pub(crate) command: CommandId,
    pub(crate) created_at: UnixMs,
    pub(crate) spec: AppSpec,
    pub(crate) images: BTreeMap<ServiceName, PinnedImage>,
    /// HMAC of each opened value under the host's own key: equal means unchanged.
    pub(crate) fingerprints: BTreeMap<SecretName, String>,
    /// The sealed values in base64.
    pub(crate) sealed: BTreeMap<SecretName, String>,
}

impl ReleaseRecord {
    pub(crate) const VERSION: u32 = RECORD_VERSION;
}

/// An app's record in memory, written as a whole.
pub(crate) struct Book {
    pub(crate) record: AppRecord,
    /// Whether the journal has anything of this app.
    pub(crate) known: bool,
}

impl Book {
    /// Reads an app's record; an app without one gets an empty record in memory.
    pub(crate) async fn open<P: ActionPort>(engine: &mut Engine<'_, P>, app: &AppName) -> Result<Self, EffectError> {
        let Some(bytes) = engine.record_read(&app_key(app)).await? else {
            let record = AppRecord {
                version: RECORD_VERSION,
                app: app.clone(),
                current: None,
                releases: Vec::new(),
                stopped: BTreeSet::new(),
                pending: None,
                last_end: None,
            };
            return Ok(Self { record, known: false });
        };
        let record: AppRecord = read_record(&bytes, &format!("the record of app {app}"))?;
        Ok(Self { record, known: true })
    }

    /// Writes the record; returns once it is durable.
    pub(crate) async fn write<P: ActionPort>(&mut self, engine: &mut Engine<'_, P>) -> Result<(), EffectError> {
        let bytes = to_bytes(&self.record, "the record of the app")?;
        engine.record_write(&app_key(&self.record.app), Some(bytes)).await?;
        self.known = true;
        Ok(())
    }

    /// How the order ended, if it was the last to end.
    pub(crate) fn end_of(&self, command: CommandId) -> Option<RecordedEnd> {
        self.record.last_end.clone().filter(|end| end.command == command)
    }

    /// Whether a release is among those kept.
    pub(crate) fn keeps(&self, release: ReleaseId) -> bool {
        self.record.releases.iter().any(|entry| entry.release == release)
    }

    /// The record of a kept release.
    pub(crate) async fn release<P: ActionPort>(
        &self,
        engine: &mut Engine<'_, P>,
        release: Option<ReleaseId>,
    ) -> Result<Option<ReleaseRecord>, EffectError> {
        let Some(release) = release else { return Ok(None) };
        let Some(bytes) = engine.record_read(&release_key(&self.record.app, release)).await? else {
            return Ok(None);
        };
        read_record(&bytes, &format!("the record of release {release}")).map(Some)
    }

    /// Writes a release's record.
    pub(crate) async fn release_write<P: ActionPort>(
        &self,
        engine: &mut Engine<'_, P>,
        release: &ReleaseRecord,
    ) -> Result<(), EffectError> {
        let bytes = to_bytes(release, "the record of the release")?;
        engine.record_write(&release_key(&self.record.app, release.release), Some(bytes)).await
    }

    /// Forgets a release's record.
    pub(crate) async fn release_forget<P: ActionPort>(
        &self,
        engine: &mut Engine<'_, P>,
        release: ReleaseId,
    ) -> Result<(), EffectError> {
        engine.record_write(&release_key(&self.record.app, release), None).await
    }
}

fn read_record<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, EffectError> {
    let damaged = |why: String| EffectError {
        kind: EffectErrorKind::Journal,
        message: format!("{what} in the agent's journal cannot be read ({why}); run `serverflow-agent doctor`"),
    };
    if bytes.len() > limits::RECORD_BYTES_MAX {
        return Err(damaged(format!("{} bytes", bytes.len())));
    }
    serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))
}

fn to_bytes<T: Serialize>(record: &T, what: &str) -> Result<Vec<u8>, EffectError> {
    let refused = |why: String| EffectError {
        kind: EffectErrorKind::Journal,
        message: format!("{what} could not be written down: {why}"),
    };
    let bytes = serde_json::to_vec(record).map_err(|e| refused(e.to_string()))?;
    if bytes.len() > limits::RECORD_BYTES_MAX {
        return Err(refused(format!("{} bytes; {} are allowed", bytes.len(), limits::RECORD_BYTES_MAX)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let largest = "x".repeat(limits::RECORD_BYTES_MAX - 2);
        let bytes = to_bytes(&largest, "a record").expect("it fits");
        assert_eq!(read_record::<String>(&bytes, "a record").expect("read back"), largest);
        let error = to_bytes(&format!("{largest}x"), "a record").expect_err("too large");
        assert_eq!(error.kind, EffectErrorKind::Journal);
    }
}
