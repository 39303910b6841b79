//! `approval …`: what waits for a second person, shown as the hosts signed it, approved or refused.

mod evidence;
mod words;

use api::{
    ApprovalEvidence, ApprovalRequest, CommandStatus, CommandSummary, DenialRequest, OperationCommand,
    OperationResponse,
};
use data_encoding::BASE64;
use envelope::limits::APPROVAL_LIFETIME_MAX;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ids::{CommandId, DurationMs, HostName, OperationId, UnixMs};
use serde::Serialize;

use self::evidence::Checked;
use crate::{
    approver,
    arguments::{Approval, Approve},
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    limits, list, operation,
    output::Output,
    prompt,
    roots::{self, Roots},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: Approval) -> Result<Ended, Failure> {
    match verb {
        Approval::List { extent } => {
            let status = Some(("status", CommandStatus::Held.as_str().to_owned()));
            let query: Vec<_> = [status, extent.sort()].into_iter().flatten().collect();
            let held: Vec<CommandSummary> = list::items(client, &["commands"], &query, extent.most()).await?;
            output.result(&held, |held, paint| words::list(held, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Approval::Show { id } => {
            let waiting = Waiting::read(client, id).await?;
            output.result(&waiting.document(), |_, paint| words::show(&waiting, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Approval::Approve(asked) => approve(output, client, &asked).await,
        Approval::Deny { id, because, yes } => deny(output, client, id, because, yes).await,
    }
}

/// What waits of an operation, verified.
struct Waiting {
    id: OperationId,
    roots: Roots,
    hosts: Vec<Checked>,
}

impl Waiting {
    async fn read(client: &Client, id: OperationId) -> Result<Self, Failure> {
        let roots = roots::vouched(client).await?;
        let operation: OperationResponse = client.get(&["operations", &id.to_string()]).await?;
        let held: Vec<&OperationCommand> =
            operation.commands.iter().filter(|command| command.status == CommandStatus::Held).collect();
        if held.is_empty() {
            let why = format!("nothing of operation {id} waits for approval");
            return Err(Failure::new(Kind::NotWell, why)
                .hint(format!("see how it stands with `serverflow operation show {id}`")));
        }
        let hosts = stream::iter(held)
            .map(|command| evidence_of(client, id, command, &roots))
            .buffered(limits::HOSTS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self { id, roots, hosts })
    }

    fn document(&self) -> WaitingDocument<'_> {
        let hosts = self.hosts.iter().map(|checked| HostDocument {
            host: &checked.host,
            enrolled_as: &checked.enrolled_as,
            command_id: checked.shown.command_id,
            action: format!("{}@{}", checked.order.action, checked.order.action_version),
            needed: checked.shown.needed,
            approvals: &checked.shown.approvals,
            message: &checked.plan.message,
            plan: &checked.plan.result,
            plan_sha256: checked.plan_sha256.to_string(),
            planned_at: checked.planned_at.into(),
            deliver_by: checked.order.deliver_by.into(),
            parameters: serde_json::from_slice(&checked.order.parameters).unwrap_or_default(),
            sealed_values: checked.order.sealed.iter().map(|sealed| sealed.name.as_str()).collect(),
            requester_key_id: checked.order.requester.map(|key| key.to_string()),
        });
        WaitingDocument {
            operation_id: self.id,
            requested_by: self.hosts[0].shown.requested_by.as_str(),
            hosts: hosts.collect(),
        }
    }
}

async fn evidence_of(
    client: &Client,
    id: OperationId,
    command: &OperationCommand,
    roots: &Roots,
) -> Result<Checked, Failure> {
    let path = ["commands", &command.command_id.to_string(), "approval"];
    let shown: ApprovalEvidence = client.get(&path).await?;
    let host = shown.host.clone();
    evidence::check(id, shown, roots).map_err(|why| {
        Failure::new(Kind::NotWell, format!("what {} shows of host {host} is not proved: {why}", client.address()))
            .hint("approve nothing; ask whoever runs the control plane, by another way than through it")
    })
}

/// What `approval show --json` prints.
#[derive(Serialize)]
struct WaitingDocument<'a> {
    operation_id: OperationId,
    /// As the control plane says; the order names a key only.
    requested_by: &'a str,
    hosts: Vec<HostDocument<'a>>,
}

#[derive(Serialize)]
struct HostDocument<'a> {
    host: &'a HostName,
    enrolled_as: &'a HostName,
    command_id: CommandId,
    action: String,
    needed: u32,
    approvals: &'a [api::ApprovalShown],
    message: &'a str,
    plan: &'a serde_json::Value,
    plan_sha256: String,
    planned_at: api::Timestamp,
    deliver_by: api::Timestamp,
    parameters: serde_json::Value,
    sealed_values: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requester_key_id: Option<String>,
}

/// What `approval approve --json` prints.
#[derive(Serialize)]
struct Approved<'a> {
    operation_id: OperationId,
    approved: Vec<ApprovedHost<'a>>,
}

#[derive(Serialize)]
struct ApprovedHost<'a> {
    host: &'a HostName,
    command_id: CommandId,
    plan_sha256: String,
    bind_plan: bool,
    expires_at: api::Timestamp,
    status: CommandStatus,
    message: &'a str,
}

async fn approve(output: &Output, client: &Client, asked: &Approve) -> Result<Ended, Failure> {
    let waiting = Waiting::read(client, asked.id).await?;
    if !asked.yes {
        // For people, whether or not the result is a document: they are being asked.
        eprint!("{}", words::show(&waiting, clock::now(), output.progress_paint()));
    }
    let key = approver::open(asked.key.as_deref(), asked.passphrase_file.as_deref())?;
    let id = key.key_id();
    if !waiting.roots.root.approver_keys().contains(&key.verifying()) {
        return Err(Failure::new(Kind::NotAllowed, format!("approver key {id} is not in the fleet's root metadata"))
            .hint(format!(
                "whoever keeps the root key adds it: serverflow root propose --add-approver {}",
                key.public()
            )));
    }
    if waiting.hosts.iter().any(|checked| checked.order.requester == Some(id)) {
        return Err(Failure::new(Kind::NotAllowed, "you asked for this, and whoever asks cannot approve it")
            .hint("ask another approver"));
    }
    let open: Vec<&Checked> = waiting.hosts.iter().filter(|checked| !checked.is_approved_by(id)).collect();
    if open.is_empty() {
        let why = format!("you have approved all that waits of operation {}", asked.id);
        return Err(Failure::new(Kind::NotWell, why).hint("another approver has to, too"));
    }
    if !asked.yes && prompt::line("Approve this? Type yes: ", "repeat the command with --yes")? != "yes" {
        return Err(Failure::invalid("that is not yes; nothing was approved"));
    }
    let now = clock::now();
    let signed: Vec<(&Checked, UnixMs, String)> = open
        .into_iter()
        .map(|checked| {
            let expires = expires(checked, asked.expires, now);
            let approval = checked.approval(!asked.unbound, now, expires);
            (checked, expires, BASE64.encode(key.sign(&approval).envelope()))
        })
        .collect();
    let mut operation = None;
    for some in signed.chunks(limits::APPROVALS_PER_REQUEST_MAX) {
        let approvals = some.iter().map(|(_, _, envelope)| envelope.clone()).collect();
        let path = ["operations", &asked.id.to_string(), "approvals"];
        operation = Some(client.post::<_, OperationResponse>(&path, &ApprovalRequest { approvals }).await?);
    }
    let Some(operation) = operation else { return Ok(Ended::Well) };
    let document = Approved {
        operation_id: asked.id,
        approved: signed
            .iter()
            .filter_map(|(checked, expires, _)| told(checked, *expires, asked, &operation))
            .collect(),
    };
    output.result(&document, |_, paint| operation::words(&operation, paint))?;
    Ok(Ended::Well)
}

fn told<'a>(
    checked: &'a Checked,
    expires: UnixMs,
    asked: &Approve,
    operation: &'a OperationResponse,
) -> Option<ApprovedHost<'a>> {
    let command = operation.commands.iter().find(|command| command.command_id == checked.shown.command_id)?;
    Some(ApprovedHost {
        host: &checked.host,
        command_id: command.command_id,
        plan_sha256: checked.plan_sha256.to_string(),
        bind_plan: !asked.unbound,
        expires_at: expires.into(),
        status: command.status,
        message: &command.message,
    })
}

fn expires(checked: &Checked, asked: Option<u64>, now: UnixMs) -> UnixMs {
    let asked = asked.map(|seconds| now.plus(DurationMs::from_secs(seconds)));
    asked.unwrap_or_else(|| checked.of_use_until()).min(now.plus(APPROVAL_LIFETIME_MAX)).max(now.plus(DurationMs(1)))
}

async fn deny(output: &Output, client: &Client, id: OperationId, because: String, yes: bool) -> Result<Ended, Failure> {
    if !yes {
        let question = format!("Everything that waits of operation {id} will end. Type yes: ");
        if prompt::line(&question, "repeat the command with --yes")? != "yes" {
            return Err(Failure::invalid("that is not yes; nothing was refused"));
        }
    }
    let path = ["operations", &id.to_string(), "denial"];
    let operation: OperationResponse = client.post(&path, &DenialRequest { because }).await?;
    let document = operation::OperationDocument::new(&operation, &[]);
    output.result(&document, |_, paint| operation::words(&operation, paint))?;
    Ok(Ended::Well)
}
