//! `deploy_bundle`: Compose files that a client sends are read here, as the CLI reads them on its side.
//!
//! Nothing but the request is read: no file and no variable of this machine, whatever the files name. What
//! must be sealed is sealed to each host before anything is stored; plaintext stays in memory, and is
//! wiped when the request is over. Nothing of it is logged.

use std::collections::{BTreeMap, BTreeSet};

use ::actions::Class;
use api::{BundleBytes, BundleFile, DeployBundleRequest, FileProblem};
use compose::{Bundle, Composed, Options, Problem, Problems, Refused};
use data_encoding::BASE64;
use envelope::{
    messages::SealedValue,
    seal::{SealContext, seal},
};
use fleet::{
    model::{Host, Principal},
    operation::{Work, authorise},
    selector::Selector,
};
use ids::{FleetId, HostId, HostName, OperationId};
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use tokio::{task::spawn_blocking, time::timeout};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    operations::{Wanted, named_hosts, selected_hosts, selector, span, timing},
    recovery,
};
use crate::{
    limits,
    problem::{ApiError, Kind},
    state::Shared,
    view,
};

/// What the request asks for, read and sealed.
pub(super) async fn wanted(
    shared: &Shared,
    actor: &Principal,
    request: DeployBundleRequest,
) -> Result<Wanted, ApiError> {
    // Before any work is done for who may not have it anyway.
    let deploy = "app.deploy".parse().map_err(|_| ApiError::new(Kind::Internal, "the action has no name"))?;
    authorise(actor, Class::Change, &deploy)?;
    let selector = selector(&request.hosts, request.selector.as_deref())?;
    let hosts = match &selector {
        None => named(shared, &request.hosts).await?,
        Some(selector) => selected(shared, request.operation_id, selector).await?,
    };
    let root = shared.root();
    let fleet = root.current().fleet;
    let (id, dry_run, queue) = (request.operation_id, request.dry_run, span(request.queue_for_seconds));
    let timing = timing(request.healthy_within_seconds, request.min_healthy_seconds);
    let names = hosts.iter().map(|host| host.name.clone()).collect();
    // Reading and sealing take a core for a while, which others need to answer.
    let Ok(Ok(turn)) = timeout(limits::BUNDLE_WAIT_MAX, shared.bundle_readers.clone().acquire_owned()).await else {
        return Err(ApiError::new(Kind::Busy, "others' files are being read; try again in a moment").retry_after(5));
    };
    let read = spawn_blocking(move || {
        // Also when nobody waits for it any more: it takes its core to the end.
        let _turn = turn;
        let composed = composed(&request)?;
        let sealed = sealed(fleet, id, &composed, &hosts)?;
        let recovery = if request.dry_run { None } else { recovery::made(root.current(), id, &composed)? };
        Ok::<_, ApiError>((view::value(&composed.spec), composed.notes, sealed, recovery))
    });
    let (spec, notes, sealed, recovery) =
        read.await.map_err(|_| ApiError::new(Kind::Internal, "reading the files failed; the log says why"))??;
    Ok(Wanted {
        id,
        work: Work::Deploy { spec: spec.to_string().into_bytes(), timing },
        hosts: names,
        selector,
        sealed,
        sealed_here: true,
        dry_run,
        queue_for: queue,
        recovery,
        notes: notes.into_iter().map(file_problem).collect(),
    })
}

async fn named(shared: &Shared, names: &[HostName]) -> Result<Vec<Host>, ApiError> {
    if names.is_empty() || names.len() > limits::BUNDLE_HOSTS_MAX {
        let most = limits::BUNDLE_HOSTS_MAX;
        return Err(ApiError::field("hosts", format!("name between 1 and {most} hosts, or give a selector")));
    }
    named_hosts(shared, names).await
}

/// The hosts that are selected now; for a request that comes again, those of the operation it made, so
/// that it stays the same request whatever has happened to its hosts.
async fn selected(shared: &Shared, id: OperationId, selector: &Selector) -> Result<Vec<Host>, ApiError> {
    if shared.store.operation(id).await?.is_some() {
        let commands = view::operation_commands(&*shared.store, id).await?;
        let ids: BTreeSet<HostId> = commands.iter().map(|command| command.order.host).collect();
        let mut hosts = Vec::with_capacity(ids.len());
        for id in ids {
            hosts.extend(shared.store.host(id).await?);
        }
        return Ok(hosts);
    }
    let hosts = selected_hosts(shared, None, selector).await?;
    let most = limits::BUNDLE_HOSTS_MAX;
    if hosts.len() > most {
        let message = format!("{selector} selects {} hosts; at most {most} at once are possible here", hosts.len());
        return Err(ApiError::field("selector", message));
    }
    Ok(hosts)
}

fn composed(request: &DeployBundleRequest) -> Result<Composed, ApiError> {
    let mut contents: BTreeMap<&str, Zeroizing<Vec<u8>>> = BTreeMap::new();
    for (path, file) in &request.files {
        check_path(&format!("files.{path}"), path)?;
        contents.insert(path, content(path, file)?);
    }
    let Some(first) = request.order.first() else {
        return Err(ApiError::field("order", "name at least one Compose file"));
    };
    for (index, path) in request.order.iter().enumerate() {
        check_path(&format!("order[{index}]"), path)?;
    }
    let mut variables = variables(request, &contents, first)?;
    let folder = first.rsplit_once('/').and_then(|(folder, _)| folder.rsplit('/').next());
    let bundle = Bundle {
        files: contents.iter().map(|(path, bytes)| ((*path).to_owned(), Some(bytes.as_slice()))).collect(),
        order: request.order.clone(),
        complete: true,
    };
    let options = Options {
        variables: &variables,
        app_name: request.name.clone(),
        fallback_name: folder,
        profiles: &request.profiles,
    };
    let read = compose::read(&bundle, &options);
    variables.values_mut().for_each(|value| value.zeroize());
    read.map_err(|refused| match refused {
        Refused::Problems(problems) => problems_error(problems),
        // Not of a bundle that is complete.
        Refused::Needs(needed) => {
            let paths: Vec<&str> = needed.iter().map(|file| file.path.as_str()).collect();
            ApiError::field("files", format!("these are needed as well: {}", paths.join(", ")))
        }
    })
}

/// Paths are keys, and never opened; one that points elsewhere is a mistake that is told.
fn check_path(field: &str, path: &str) -> Result<(), ApiError> {
    let plain = !path.is_empty() && path == compose::plain_path(path);
    if plain && !path.starts_with('/') && path != ".." && !path.starts_with("../") {
        return Ok(());
    }
    Err(ApiError::field(
        field,
        "write a relative path without `.` and `..`, such as `compose.yaml` or `db/compose.yaml`",
    ))
}

fn content(path: &str, file: &BundleFile) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    match file {
        BundleFile::Text(text) => Ok(Zeroizing::new(text.clone().into_bytes())),
        BundleFile::Bytes(BundleBytes { base64 }) => match BASE64.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(Zeroizing::new(bytes)),
            Err(error) => {
                let message = format!("not base64 (RFC 4648 section 4): {error}");
                Err(ApiError::field(format!("files.{path}.base64"), message))
            }
        },
    }
}

/// The request's variables over those of `.env` beside the first Compose file.
fn variables(
    request: &DeployBundleRequest,
    contents: &BTreeMap<&str, Zeroizing<Vec<u8>>>,
    first: &str,
) -> Result<BTreeMap<String, String>, ApiError> {
    let beside = first.rsplit_once('/').map_or_else(|| ".env".to_owned(), |(folder, _)| format!("{folder}/.env"));
    let mut variables = match contents.get(beside.as_str()) {
        None => BTreeMap::new(),
        Some(bytes) => {
            let text = core::str::from_utf8(bytes)
                .map_err(|_| ApiError::field(format!("files.{beside}"), "the file is not UTF-8 text"))?;
            compose::dotenv_over(text, &request.variables).map_err(|mut problem| {
                problem.file.clone_from(&beside);
                problems_error(problem.into())
            })?
        }
    };
    for (name, value) in &request.variables {
        if let Some(mut old) = variables.insert(name.clone(), value.clone()) {
            old.zeroize();
        }
    }
    Ok(variables)
}

fn problems_error(Problems { list, omitted }: Problems) -> ApiError {
    let count = list.len() + omitted;
    let things = if count == 1 { "1 problem".to_owned() } else { format!("{count} problems") };
    let detail = format!("the files have {things}; nothing was deployed");
    ApiError::files(detail, list.into_iter().map(file_problem).collect(), omitted)
}

fn file_problem(Problem { file, line, column, key, message, hint }: Problem) -> FileProblem {
    FileProblem { file, line, column, key, message, hint }
}

/// Every secret sealed to every host, by host.
fn sealed(
    fleet: FleetId,
    version: OperationId,
    composed: &Composed,
    hosts: &[Host],
) -> Result<BTreeMap<HostName, Vec<SealedValue>>, ApiError> {
    let mut all = BTreeMap::new();
    if composed.secrets.is_empty() {
        return Ok(all);
    }
    for host in hosts {
        let mut values = Vec::with_capacity(composed.secrets.len());
        for (name, text) in &composed.secrets {
            let app = composed.spec.app.as_str();
            let context = SealContext { fleet, host: host.id, app, name: &name.0, version };
            // Without randomness nothing may be sealed, and `UnwrapErr` then ends this request.
            let bytes =
                seal(&host.sealing_key, &context, text.as_bytes(), &mut UnwrapErr(SysRng)).map_err(|error| {
                    ApiError::field(format!("sealed.{}", name.0), format!("for host {}: {error}", host.name))
                })?;
            values.push(SealedValue { name: name.0.clone(), bytes });
        }
        all.insert(host.name.clone(), values);
    }
    Ok(all)
}
