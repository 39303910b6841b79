//! `root …`: how root metadata changes, from what a person wants to what is in force. All but asking and
//! telling the control plane works on a machine with nothing but this program.

mod document;
mod edits;
mod files;
mod init;
mod sign;

pub(crate) use self::files::with_sources;

use std::path::Path;

use api::{FleetRoot, FleetRootRequest};
use data_encoding::BASE64;
use envelope::root::{RootFile, TrustedRoot, next_version};

use self::document::{Present, Shown};
pub(crate) use self::init::{failed as key_failed, reveal};
use crate::{
    arguments::{Propose, Root},
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    output::Output,
    prompt, recovery, roots,
    session_file::Place,
};

pub(crate) async fn run(output: &Output, place: Place<'_>, verb: Root) -> Result<Ended, Failure> {
    match verb {
        Root::Init(asked) => init::run(output, &asked),
        Root::Show { file: Some(file) } => show(output, &file),
        Root::Show { file: None } => present(output, &Client::signed_in(place)?).await,
        Root::Propose(asked) => propose(output, place, &asked).await,
        Root::Sign(asked) => sign::run(output, &asked),
        Root::Apply { file, yes } => apply(output, place, &file, yes).await,
        Root::Export { file } => export(output, &Client::signed_in(place)?, &file).await,
    }
}

fn show(output: &Output, file: &Path) -> Result<Ended, Failure> {
    let read = files::read(file)?;
    output.result(&Shown::of(&read), |shown, paint| shown.words(paint))?;
    Ok(Ended::Well)
}

async fn present(output: &Output, client: &Client) -> Result<Ended, Failure> {
    let root = roots::trusted(client, output).await?;
    output.result(&Present::of(&root, clock::now()), |shown, paint| shown.words(clock::now(), paint))?;
    Ok(Ended::Well)
}

async fn export(output: &Output, client: &Client, file: &Path) -> Result<Ended, Failure> {
    let root = roots::trusted(client, output).await?;
    let made = RootFile::of_chain(&root).map_err(|error| files::broken(&error))?;
    files::write_new(file, &made)?;
    let version = root.version();
    output.result(&Shown::of(&made).in_file(file), |_, _| {
        format!("{} holds root metadata up to version {version}\n", file.display())
    })?;
    Ok(Ended::Well)
}

async fn propose(output: &Output, place: Place<'_>, asked: &Propose) -> Result<Ended, Failure> {
    let mut edits = edits::of(asked)?;
    let restored = asked.recovery.restored;
    if edits.is_empty() && !asked.renew && !restored {
        return Err(Failure::invalid("nothing would change")
            .hint("say what shall be different (see `serverflow root propose --help`), or --renew to last longer"));
    }
    let client = if asked.from.is_none() { Some(Client::signed_in(place)?) } else { None };
    let current = match (&client, &asked.from) {
        (Some(client), _) => roots::trusted(client, output).await?,
        (None, Some(file)) => files::newest(file)?,
        (None, None) => return Err(Failure::invalid("there is nothing to begin with")),
    };
    let mut issued = clock::now();
    if let (true, Some(client)) = (restored, &client) {
        let (more, earliest) = recovery::edits(output, client, current.current(), asked.yes).await?;
        edits.extend(more);
        issued = issued.max(earliest);
    }
    let next = next_version(current.current(), &edits, issued)
        .map_err(|error| Failure::invalid(files::with_sources(&error)))?;
    let proposed = envelope::root::Proposal::new(&next).map_err(|error| files::broken(&error))?;
    let mut made = RootFile { chain: Some(current), proposed };
    if let Some(key) = &asked.key {
        let key = sign::open(key, asked.passphrase_file.as_deref())?;
        sign::ask(output, &made, asked.yes, "Sign this")?;
        sign::add(&mut made, &key)?;
    }
    let is_complete = made.proposed.progress(made.chain.as_ref()).is_complete();
    if let (true, true, Some(client)) = (asked.apply, is_complete, &client) {
        put(client, &made).await?;
        output.result(&Shown::of(&made).applied(), |shown, paint| shown.words(paint) + &in_force(&made))?;
        return Ok(Ended::Well);
    }
    let file = asked.out.clone().unwrap_or_else(|| format!("root-v{}.json", next.version).into());
    files::write_new(&file, &made)?;
    output.result(&Shown::of(&made).in_file(&file), |shown, paint| {
        let file = file.display();
        let then = if is_complete { "serverflow root apply" } else { "serverflow root sign --key KEYFILE" };
        format!("{}\nWritten to {file}. Next:\n  {then} {file}\n", shown.words(paint))
    })?;
    // It was to be in force by now, and is not.
    Ok(Ended::well_if(!asked.apply))
}

fn in_force(file: &RootFile) -> String {
    let version = file.proposed.metadata().version;
    format!("\nVersion {version} is in force. Hosts that are connected take it now, others when they come.\n")
}

async fn apply(output: &Output, place: Place<'_>, path: &Path, yes: bool) -> Result<Ended, Failure> {
    let file = files::read(path)?;
    if !file.proposed.progress(file.chain.as_ref()).is_complete() {
        let missing = Shown::of(&file).missing();
        return Err(Failure::invalid(format!("{} is not signed by enough root keys: {missing}", path.display()))
            .hint(format!("sign it with `serverflow root sign {} --key KEYFILE`", path.display())));
    }
    if file.chain.is_none() {
        return Err(Failure::invalid("this is the first root metadata of a fleet that does not run yet").hint(
            format!("on the control plane's machine: serverflow-control-plane init --finish {}", path.display()),
        ));
    }
    let client = Client::signed_in(place)?;
    sign::ask(output, &file, yes, "Put this in force")?;
    put(&client, &file).await?;
    output.result(&Shown::of(&file).applied(), |_, _| in_force(&file).trim_start().to_owned())?;
    Ok(Ended::Well)
}

/// Sends it, and sees that it is what is in force then.
async fn put(client: &Client, file: &RootFile) -> Result<(), Failure> {
    let request = FleetRootRequest { envelope: BASE64.encode(&file.proposed.envelope()) };
    let answer: FleetRoot = client.put(&["fleet", "root"], &request).await?;
    let last = answer.root_chain.last().and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let taken = last.and_then(|envelope| envelope::root::Proposal::parse(&envelope).ok());
    if taken.is_some_and(|taken| taken.payload_sha256() == file.proposed.payload_sha256()) {
        return Ok(());
    }
    let why = format!("{} answered with other root metadata than was sent", client.address());
    Err(Failure::new(Kind::NotWell, why).hint("look at `serverflow root show`"))
}

/// A yes at the terminal.
fn confirmed(question: &str) -> Result<bool, Failure> {
    let answer = prompt::line(&format!("{question}? Type yes: "), "repeat the command with --yes")?;
    Ok(answer.eq_ignore_ascii_case("yes"))
}

/// The version that a file would be applied to, for those who read it.
fn before(file: &RootFile) -> Option<&TrustedRoot> {
    file.chain.as_ref()
}
