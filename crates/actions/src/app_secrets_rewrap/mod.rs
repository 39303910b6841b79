//! `app.secrets.rewrap`: seals an app's stored secrets to the host's newest key.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use ids::{AppName, OperationId, ReleaseId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    effect::{EffectError, EffectErrorKind},
    engine::{Engine, count},
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Lock, OnRestart},
    release::{Book, ReleaseRecord},
    stop::Stop,
};

/// Seals the secrets of an app's kept releases to the host's newest sealing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppSecretsRewrap {
    /// The app.
    #[cfg_attr(test, schemars(with = "String"))]
    pub app: AppName,
}

impl Action for AppSecretsRewrap {
    const INFO: ActionInfo = ActionInfo {
        name: "app.secrets.rewrap",
        version: 1,
        title: "Seal an app's secrets to the host's newest key",
        class: Class::Change,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn lock(&self) -> Lock {
        Lock::App(self.app.clone())
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.app)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        let mut engine = Engine::patient(port, Self::INFO.timeout);
        match rewrap(&self.app, context, &mut engine).await {
            Ok(Some(done)) => done.outcome(&self.app, context.dry_run),
            Ok(None) => Outcome::failed(format!("there is no app named {} on this host", self.app)),
            Err(stop) => stop.untouched(&format!(
                "not every secret of {} was sealed anew; each release is as it was or as it shall be, and all open",
                self.app
            )),
        }
    }
}

/// What was found, and what was done about it.
#[derive(Default)]
struct Done {
    releases: usize,
    values: usize,
    /// Of them, those that were sealed to an earlier key.
    rewrapped: usize,
}

impl Done {
    fn outcome(&self, app: &AppName, dry_run: bool) -> Outcome {
        let Self { releases, values, rewrapped } = *self;
        let what = format!("{} of {app} in {}", count(values, "secret"), count(releases, "release"));
        let message = match (rewrapped, dry_run) {
            (0, _) => format!("{what}: all sealed to the host's newest key already"),
            (some, true) => format!("dry run: {what}: {some} would be sealed to the host's newest key"),
            (some, false) => format!("{what}: {some} sealed to the host's newest key"),
        };
        Outcome::succeeded(
            message,
            json!({ "releases": releases, "values": values, "rewrapped": rewrapped, "dry_run": dry_run }),
        )
    }
}

/// Each release's record is replaced as a whole, so that every value in it opens at any moment.
async fn rewrap<P: ActionPort>(
    app: &AppName,
    context: &ActionContext,
    engine: &mut Engine<'_, P>,
) -> Result<Option<Done>, Stop> {
    let book = Book::open(engine, app).await?;
    if !book.known {
        return Ok(None);
    }
    let mut done = Done::default();
    for id in book.stored_releases() {
        engine.may_go_on()?;
        let Some(mut release) = book.release(engine, Some(id)).await? else { continue };
        let rewrapped = release_rewrap(app, &mut release, engine)?;
        done.releases += 1;
        done.values += release.sealed.len();
        done.rewrapped += rewrapped;
        if rewrapped > 0 && !context.dry_run {
            book.release_write(engine, &release).await?;
        }
    }
    Ok(Some(done))
}

fn release_rewrap<P: ActionPort>(
    app: &AppName,
    release: &mut ReleaseRecord,
    engine: &mut Engine<'_, P>,
) -> Result<usize, EffectError> {
    let version = OperationId::from_bytes(*release.release.as_bytes());
    let mut rewrapped = 0;
    for (name, text) in &mut release.sealed {
        let damaged = |_| EffectError {
            kind: EffectErrorKind::Journal,
            message: format!("{name:?} of a release of {app} is damaged in the agent's journal; deploy the app again"),
        };
        let sealed = BASE64.decode(text.as_bytes()).map_err(damaged)?;
        if let Some(anew) = engine.reseal(app, version, name, &sealed)? {
            *text = BASE64.encode(&anew);
            rewrapped += 1;
        }
    }
    Ok(rewrapped)
}

impl Book {
    /// Every release whose record may be there: those kept, and those of a change that is half-way.
    fn stored_releases(&self) -> BTreeSet<ReleaseId> {
        let kept = self.record.releases.iter().map(|entry| entry.release);
        kept.chain(self.record.live()).collect()
    }
}
