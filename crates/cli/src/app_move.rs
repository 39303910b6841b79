//! `app move`: the release that runs is deployed to another host, with the secrets that the owner's key opens here;
//! when it is healthy there, it is removed where it was.

use actions::spec::{AppSpec, MountSpec};
use api::{
    AppDetail, AppInstance, DeployRequest, HostDetail, HostStatus, OperationRequest, OperationResponse, OperationState,
    ReleaseDetail,
};
use ids::{AppName, HostName};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::{
    app,
    arguments::{Move, SomeHosts},
    client::Client,
    clock, deploy,
    exit::{Ended, Failure, Kind},
    operation::{self, OperationDocument, Wait},
    output::Output,
    owner, roots,
    sealing::Sealing,
};

/// What `app move --json` prints.
#[derive(Serialize)]
struct Moved<'a> {
    app: &'a AppName,
    from: &'a HostName,
    to: &'a HostName,
    deploy: OperationDocument<'a>,
    /// Absent with `--keep`, when the deploy did not succeed, and when the old host cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    remove: Option<OperationDocument<'a>>,
}

pub(crate) async fn run(output: &Output, client: &Client, asked: Move) -> Result<Ended, Failure> {
    let app: AppDetail = client.get(&["apps", asked.app.as_str()]).await?;
    let instance = instance(&app, &asked)?;
    let release: ReleaseDetail = client.get(&["operations", &instance.release.to_string(), "release"]).await?;
    let spec = pinned(&release, &app.results[&instance.host])?;
    if !asked.leave_data {
        data_stays(&spec, &instance.host)?;
    }
    let to: HostDetail = client.get(&["hosts", asked.to.as_str()]).await?;
    let from: Option<HostDetail> = match client.get(&["hosts", instance.host.as_str()]).await {
        Ok(host) => Some(host),
        Err(failure) if failure.is_not_found() => None,
        Err(failure) => return Err(failure),
    };
    let request = request(output, client, &asked, &release, &spec, to).await?;
    let sent = operation::send(client, output, &OperationRequest::Deploy(request)).await?;
    let verb = if asked.dry_run { "planning" } else { "deploying" };
    output.progress(format_args!("{verb} {} on {} (operation {})", asked.app, asked.to, sent.operation_id));
    let deployed = operation::finish(client, output, sent, Wait::ToEnd).await?;
    if asked.dry_run {
        return deploy::show_plan(output, &deployed, &[]);
    }
    let removed = match deployed.state {
        OperationState::Succeeded if !asked.keep => remove(output, client, &asked, instance, from.as_ref()).await?,
        _ => None,
    };
    show(output, &asked, instance, &deployed, removed.as_ref())
}

/// Where it is taken from.
fn instance<'a>(app: &'a AppDetail, asked: &Move) -> Result<&'a AppInstance, Failure> {
    let instances = &app.summary.instances;
    if instances.iter().any(|instance| instance.host == asked.to) {
        return Err(Failure::invalid(format!("{} is on {} already", asked.app, asked.to))
            .hint("deploy it there from its Compose files, or remove it elsewhere with `serverflow app remove`"));
    }
    let names: Vec<&str> = instances.iter().map(|instance| instance.host.as_str()).collect();
    match (&asked.from, instances.as_slice()) {
        (Some(from), _) => instances
            .iter()
            .find(|instance| instance.host == *from)
            .ok_or_else(|| Failure::invalid(format!("{} is not on {from}; it is on {}", asked.app, names.join(", ")))),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::invalid(format!("{} is on {}", asked.app, names.join(", ")))
            .hint("say with --from HOST which of them it is moved from")),
    }
}

/// The specification with the images that run, where a registry knows them by their digest.
fn pinned(release: &ReleaseDetail, result: &Value) -> Result<AppSpec, Failure> {
    let mut spec: AppSpec = serde_json::from_value(release.spec.clone()).map_err(|error| {
        Failure::new(Kind::NotWell, format!("the control plane gave a specification that cannot be read: {error}"))
            .hint("use the `serverflow` of the control plane's release")
    })?;
    for (name, service) in &mut spec.services {
        let image = result["services"][name.as_str()]["image"].as_str();
        if let Some(image) = image.filter(|image| image.contains("@sha256:")) {
            image.clone_into(&mut service.image);
        }
    }
    Ok(spec)
}

/// What an app keeps on its host does not come along, and must not be forgotten by accident.
fn data_stays(spec: &AppSpec, host: &HostName) -> Result<(), Failure> {
    let mut kept: Vec<String> = spec.volumes.keys().map(|name| format!("volume {name}")).collect();
    for mount in spec.services.values().flat_map(|service| &service.mounts) {
        if let MountSpec::Bind { source, .. } = mount {
            kept.push(format!("directory {source}"));
        }
    }
    if kept.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(format!("{} has data on {host} that does not come along: {}", spec.app, kept.join(", ")))
        .hint("bring the data over yourself, then move it with --leave-data; volumes stay on the old host"))
}

async fn request(
    output: &Output,
    client: &Client,
    asked: &Move,
    release: &ReleaseDetail,
    spec: &AppSpec,
    to: HostDetail,
) -> Result<DeployRequest, Failure> {
    if to.summary.status == HostStatus::Revoked {
        let why = format!("host {} is revoked and gets no orders; nothing was sent", asked.to);
        return Err(Failure::new(Kind::NotWell, why));
    }
    let roots = roots::known(client, output).await?;
    let secrets = match owner::copy_of(release)? {
        Some(copy) => owner::secrets(&copy, &owner::key(&asked.owner)?, &owner::context(roots.fleet, release))?,
        None if owner::has_secrets(&release.spec) => {
            let why = format!("the secrets of {} were not sealed to a recovery key when it was deployed", asked.app);
            return Err(Failure::invalid(why).hint(format!(
                "deploy it from its Compose files: serverflow app deploy -f compose.yaml --host {}",
                asked.to
            )));
        }
        None => BTreeMap::new(),
    };
    let operation_id = clock::operation_id()?;
    let sealing = Sealing { roots: &roots, app: &asked.app, operation: operation_id, secrets: &secrets };
    Ok(DeployRequest {
        operation_id,
        sealed: sealing.to_hosts(std::slice::from_ref(&to))?,
        recovery: if asked.dry_run { None } else { sealing.to_owner()? },
        hosts: vec![asked.to.clone()],
        selector: None,
        spec: json!(spec),
        dry_run: asked.dry_run,
        queue_for_seconds: None,
        healthy_within_seconds: release.healthy_within_seconds,
        min_healthy_seconds: release.min_healthy_seconds,
    })
}

/// Takes it away where it was; a host that is gone has nothing that could be taken away now.
async fn remove(
    output: &Output,
    client: &Client,
    asked: &Move,
    instance: &AppInstance,
    from: Option<&HostDetail>,
) -> Result<Option<OperationResponse>, Failure> {
    let reached = from.is_some_and(|host| host.summary.status == HostStatus::Connected);
    if !reached {
        let (app, host) = (&asked.app, &instance.host);
        output.progress(format_args!(
            "note: {host} is not connected, so {app} was not removed there; when it comes back, run `serverflow app \
             remove {app} --host {host}`"
        ));
        return Ok(None);
    }
    let hosts = SomeHosts { names: vec![instance.host.clone()], selector: None };
    let request = app::request("app.remove", hosts, json!({ "app": asked.app }))?;
    let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
    output.progress(format_args!("removing {} from {} (operation {})", asked.app, instance.host, sent.operation_id));
    operation::finish(client, output, sent, Wait::ToEnd).await.map(Some)
}

fn show(
    output: &Output,
    asked: &Move,
    instance: &AppInstance,
    deployed: &OperationResponse,
    removed: Option<&OperationResponse>,
) -> Result<Ended, Failure> {
    let document = Moved {
        app: &asked.app,
        from: &instance.host,
        to: &asked.to,
        deploy: OperationDocument::new(deployed, &[]),
        remove: removed.map(|removed| OperationDocument::new(removed, &[])),
    };
    let is_there = deployed.state == OperationState::Succeeded;
    output.result(&document, |_, paint| {
        let mut text = operation::words(deployed, paint);
        if let Some(removed) = removed {
            text.push_str(&operation::words(removed, paint));
        }
        if !is_there {
            text.push_str(&format!("{} stays on {}\n", asked.app, instance.host));
        }
        text
    })?;
    Ok(Ended::well_if(is_there && removed.is_none_or(|removed| removed.state != OperationState::Failed)))
}
