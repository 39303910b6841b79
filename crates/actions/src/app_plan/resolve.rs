//! Looks at the host for everything a plan rests on, and pins images.

use std::collections::BTreeMap;

use ids::ServiceName;

use super::{PlanResult, decide};
use crate::{
    container::{container, fingerprint},
    effect::{ContainerSpec, Effect, EffectErrorKind, ImageState},
    engine::Engine,
    foreign,
    policy::image::ImageReference,
    port::{ActionContext, ActionPort},
    release::{Before, Book, release_of},
    spec::{AppSpec, PinnedImage, PullPolicy, SecretName, ServiceSpec},
    spec_read,
    stop::Stop,
};

/// Images by service, pinned and as the engine knows them.
pub(crate) type Images = (BTreeMap<ServiceName, PinnedImage>, BTreeMap<ServiceName, ImageState>);

/// The plan of a specification whose images are not pinned yet.
pub(super) async fn plan<P: ActionPort>(
    spec: &AppSpec,
    context: &ActionContext,
    engine: &mut Engine<'_, P>,
) -> Result<PlanResult, Stop> {
    let mut pinned = BTreeMap::new();
    let mut states = BTreeMap::new();
    for (name, service) in &spec.services {
        if engine.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        if let Some((image, state)) = resolve(name, service, context, engine).await? {
            context.policy.judge_demands(&[spec_read::image_demand(name, &image)])?;
            pinned.insert(name.clone(), image);
            states.insert(name.clone(), state);
        }
    }
    plan_pinned(spec, (pinned, states), context, engine).await
}

/// The plan of a specification with these images.
pub(crate) async fn plan_pinned<P: ActionPort>(
    spec: &AppSpec,
    images: Images,
    context: &ActionContext,
    engine: &mut Engine<'_, P>,
) -> Result<PlanResult, Stop> {
    let book = Book::open(engine, &spec.app).await?;
    let from_record = book.release(engine, book.record.current).await?;
    let state = engine.observe(&spec.app).await?;
    let before: Vec<Before> = state.containers.iter().map(Before::of).collect();
    let (pinned, image_states) = images;
    foreign::check(spec, &context.policy, engine).await?;
    let decision = decide::decide(&decide::Known {
        spec,
        images: &pinned,
        image_states: &image_states,
        desired: &desired(spec, &pinned, context)?,
        before: &before,
        networks: &state.networks,
        volumes: &state.volumes,
        from: book.record.current,
        from_record: from_record.as_ref(),
        fingerprints: &fingerprints(context),
        stopped: &book.record.stopped,
    })
    .map_err(Stop::fault)?;
    Ok(decision.plan)
}

/// Every service's container as it shall be, as far as its image is known.
pub(crate) fn desired(
    spec: &AppSpec,
    images: &BTreeMap<ServiceName, PinnedImage>,
    context: &ActionContext,
) -> Result<BTreeMap<ServiceName, ContainerSpec>, Stop> {
    let release = release_of(context.operation);
    let mut desired = BTreeMap::new();
    for (name, service) in &spec.services {
        if let Some(image) = images.get(name) {
            desired.insert(name.clone(), container(spec, name, service, &image.pinned, release, context)?);
        }
    }
    Ok(desired)
}

/// Fingerprints of all values that came with the order.
pub(crate) fn fingerprints(context: &ActionContext) -> BTreeMap<SecretName, String> {
    let of = |(name, value): (&SecretName, &zeroize::Zeroizing<String>)| {
        (name.clone(), fingerprint(&context.fingerprint_key, value))
    };
    context.secrets.iter().map(of).collect()
}

/// Pins one image; pulls it if it is not here. `None` only in a dry run, which does not pull.
async fn resolve<P: ActionPort>(
    service: &ServiceName,
    spec: &ServiceSpec,
    context: &ActionContext,
    engine: &mut Engine<'_, P>,
) -> Result<Option<(PinnedImage, ImageState)>, Stop> {
    let reference = spec.image.as_str();
    let parsed: ImageReference = reference.parse().map_err(|e| Stop::fault(format!("service {service}: {e}")))?;
    let here = engine.image(reference).await?.filter(|state| is_platform(spec.platform.as_deref(), state));
    let always = spec.pull_policy == Some(PullPolicy::Always) && !context.dry_run;
    match here {
        Some(state) if !always => return Ok(Some((pin(reference, &parsed, &state), state))),
        None if spec.pull_policy == Some(PullPolicy::Never) => {
            let platform = spec.platform.as_ref().map(|platform| format!(" for {platform}")).unwrap_or_default();
            return Err(Stop::fault(format!(
                "image {reference} of service {service} is not on this host{platform}, and its pull_policy is never; build or load it there, or leave pull_policy out"
            )));
        }
        _ => {}
    }
    if context.dry_run {
        return Ok(None);
    }
    let from_registry = PinnedImage { reference: reference.to_owned(), pinned: parsed.to_string(), local: false };
    context.policy.judge_demands(&[spec_read::image_demand(service, &from_registry)])?;
    engine.progress(format!("{service}: pulling {reference}"));
    pull(service, reference, spec.platform.as_deref(), engine).await?;
    match engine.image(reference).await? {
        Some(state) if !is_platform(spec.platform.as_deref(), &state) => Err(Stop::fault(format!(
            "image {reference} of service {service} is for {}, not for {}; name another image, or leave platform out",
            state.platform,
            spec.platform.as_deref().unwrap_or_default()
        ))),
        Some(state) => Ok(Some((pin(reference, &parsed, &state), state))),
        None => Err(Stop::fault(format!(
            "image {reference} of service {service} is gone right after it was pulled; plan again"
        ))),
    }
}

/// Pulls an image, with words for the usual mishap.
pub(crate) async fn pull<P: ActionPort>(
    service: &ServiceName,
    reference: &str,
    platform: Option<&str>,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let platform = platform.map(str::to_owned);
    match engine.done(Effect::ImagePull { reference: reference.to_owned(), platform }).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind == EffectErrorKind::ImageNotFound => Err(Stop::fault(format!(
            "image {reference} of service {service} does not exist, or this host may not read it: {}. Check its name and tag; for a private registry run `docker login` on the host",
            error.message.trim_end_matches('.')
        ))),
        Err(error) => Err(Stop::from(error).context(&format!("image {reference} of service {service} was not pulled"))),
    }
}

/// Whether an image is for that platform: system and processor; its variant is the registry's to choose.
fn is_platform(wanted: Option<&str>, state: &ImageState) -> bool {
    let of = |text: &str| text.split('/').take(2).map(str::to_owned).collect::<Vec<String>>();
    wanted.is_none_or(|wanted| of(wanted) == of(&state.platform))
}

/// The digest under which the reference's own repository knows the image; otherwise its local id.
fn pin(reference: &str, parsed: &ImageReference, state: &ImageState) -> PinnedImage {
    let repository = parsed.repository();
    let digest = state.repo_digests.iter().filter_map(|text| text.parse::<ImageReference>().ok()).find(|candidate| {
        candidate.repository() == repository
            && candidate.digest.is_some()
            && parsed.digest.as_ref().is_none_or(|wanted| candidate.digest.as_ref() == Some(wanted))
    });
    match digest {
        Some(digest) => {
            // Without the tag: engines refuse a reference with both where only one is known to them.
            let pinned = ImageReference { tag: None, ..digest };
            PinnedImage { reference: reference.to_owned(), pinned: pinned.to_string(), local: false }
        }
        None => PinnedImage { reference: reference.to_owned(), pinned: state.id.clone(), local: true },
    }
}
