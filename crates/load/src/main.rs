//! `serverflow-load`: many agents in one process against a real control plane, and what that costs.
//!
//! The agents are the real machines of `session` over the real `link`: TLS 1.3 with pinned key and
//! exporter, real join tokens, each order verified, each report signed, chained and durable before it
//! is sent (see `journal.rs` for what stands in for a thousand journals). The control plane is its own
//! program, started, killed and started again by this one. Nothing here passes or fails by a clock; a
//! report that does not come, an order refused, a quarantine do fail it.

mod figures;
mod journal;
mod member;
mod plane;
mod rotation;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use clap::Parser;
use envelope::token::JoinToken;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    figures::{Figure, load_average, percentile, sync_probe},
    journal::Journal,
    member::{Member, World},
    plane::{Plane, own_cpu},
};

/// Enrolments under way at once.
const ENROLMENTS_MAX: usize = 32;
/// Pause after a request that was one too many.
const AFTER_TOO_MANY: Duration = Duration::from_secs(1);
/// How long anything awaited may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Rest between two measurements, so that one does not pay for the other (audit heads, checkpoints).
const REST: Duration = Duration::from_secs(2);

/// Measure a control plane under many agents
///
/// Example: serverflow-load --agents 1000 --bin-dir target/release
#[derive(Parser)]
#[command(name = "serverflow-load", version)]
struct Arguments {
    /// Agents, besides the one whose single commands are timed
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    agents: u32,
    /// Directory with the program serverflow-control-plane
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Rounds; each gives one value to every figure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Single commands timed in each round, one after the other
    #[arg(long, default_value_t = 200)]
    singles: u32,
    /// Seconds over which the idle control plane is watched in each round
    #[arg(long, default_value_t = 15)]
    idle_seconds: u64,
    /// Where the fleet's files are made; they are removed at the end [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("unexpected JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Key(#[from] keyfile::KeyFileError),
    #[error("{0}")]
    Token(#[from] envelope::token::TokenError),
    #[error("{0}")]
    Root(#[from] envelope::root::RootError),
    #[error("{0}")]
    Dial(#[from] link::DialError),
    #[error("{0}")]
    Link(#[from] link::LinkError),
    #[error("an enrolment failed: {0}")]
    Enrol(#[from] session::agent::EnrolError),
    #[error("an agent does not start: {0}")]
    Load(#[from] session::agent::LoadError),
    #[error("the control plane: {0}")]
    Plane(String),
    #[error("{what}: only {reached} of {wanted} after {} s", PATIENCE.as_secs())]
    Missing { what: &'static str, reached: usize, wanted: usize },
    #[error("{0} orders were refused, or messages dropped, or hosts quarantined")]
    Troubles(usize),
    #[error("the kernel's files under /proc do not look as expected")]
    Proc,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Fault::Io(error)),
    };
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => failed(&fault),
    }
}

fn failed(fault: &Fault) -> ExitCode {
    eprintln!("load: {fault}");
    ExitCode::FAILURE
}

async fn run(arguments: &Arguments) -> Result<(), Fault> {
    let folder = match &arguments.dir {
        Some(dir) => tempfile::Builder::new().prefix("serverflow-load").tempdir_in(dir)?,
        None => tempfile::Builder::new().prefix("serverflow-load").tempdir()?,
    };
    let mut plane = Plane::init(&arguments.bin_dir.join("serverflow-control-plane"), folder.path())?;
    plane.start().await?;
    let world = World::new(Journal::create(&folder.path().join("agents.journal"))?)?;
    let agents = arguments.agents as usize;

    let began = Instant::now();
    let members = enrol_all(&plane, &world, agents + 1).await?;
    eprintln!("load: {} hosts enrolled in {:.1} s", members.len(), began.elapsed().as_secs_f64());
    plane.kill()?;
    plane.start().await?;
    let (resident_before, own_before) = plane.memory()?;
    let mut tasks = JoinSet::new();
    for member in members {
        tasks.spawn(member.run(world.clone()));
    }
    until(&world.open, |open| open > agents, agents + 1, "sessions open").await?;

    let mut measured = Measured::new(resident_before, own_before);
    for round in 1..=arguments.rounds {
        eprintln!("load: round {round} of {}", arguments.rounds);
        let (load, (sync, sync_worst)) = (load_average()?, sync_probe(folder.path())?);
        measured.add("load average before", "", load);
        measured.add("fdatasync of 4 KiB, p50", "ms", sync);
        measured.add("fdatasync of 4 KiB, p99", "ms", sync_worst);
        let mut bench = Bench { plane: &mut plane, world: &world, agents, measured: &mut measured };
        bench.idle(Duration::from_secs(arguments.idle_seconds)).await?;
        bench.singles(arguments.singles).await?;
        bench.fan_out().await?;
        bench.fan_out_with_singles().await?;
        bench.kill_and_return().await?;
        bench.rotate_command_key().await?;
        bench.revoke_command_key().await?;
        let troubles = world.troubles.load(Ordering::Relaxed);
        if troubles > 0 {
            return Err(Fault::Troubles(troubles));
        }
    }
    // An agent runs until the program ends; one that ended by itself did so with a fault.
    if let Some(ended) = tasks.try_join_next() {
        return ended.map_err(|error| Fault::Plane(error.to_string())).flatten();
    }
    measured.print(agents);
    Ok(())
}

/// A host's join token. The control plane takes only so many requests of one account in a second, and says when it had
/// too many.
async fn join_token(plane: &Plane, number: usize) -> Result<JoinToken, Fault> {
    let body = json!({ "name": host_name(number), "roles": [] }).to_string();
    loop {
        let (status, answer) = plane.ask("POST", "/api/v1/hosts", &body).await?;
        match status {
            200 | 201 => {
                let answer: Value = serde_json::from_str(&answer)?;
                return Ok(JoinToken::parse(answer["token"].as_str().unwrap_or_default())?);
            }
            429 => sleep(AFTER_TOO_MANY).await,
            _ => return Err(Fault::Plane(format!("no join token ({status}): {answer}"))),
        }
    }
}

/// Makes `count` hosts; the first is the one for single commands.
async fn enrol_all(plane: &Plane, world: &Arc<World>, count: usize) -> Result<Vec<Member>, Fault> {
    let mut members = Vec::with_capacity(count);
    let mut enrolling: JoinSet<Result<Member, Fault>> = JoinSet::new();
    let room = Arc::new(Semaphore::new(ENROLMENTS_MAX));
    for number in 0..count {
        let place = room.clone().acquire_owned().await.map_err(|_| Fault::Proc)?;
        let token = join_token(plane, number).await?;
        let world = world.clone();
        enrolling.spawn(async move {
            let member = Member::enrol(&world, number, &token).await;
            drop(place);
            member
        });
        while let Some(done) = enrolling.try_join_next() {
            members.push(done.map_err(|error| Fault::Plane(error.to_string()))??);
        }
    }
    while let Some(done) = enrolling.join_next().await {
        members.push(done.map_err(|error| Fault::Plane(error.to_string()))??);
    }
    Ok(members)
}

fn host_name(number: usize) -> String {
    format!("load-{number}")
}

/// Waits until a count is as it should be. Whoever holds on to what `wait_for` answers stops all who count.
async fn until(
    count: &watch::Sender<usize>,
    is_reached: impl Fn(usize) -> bool,
    wanted: usize,
    what: &'static str,
) -> Result<(), Fault> {
    let mut seen = count.subscribe();
    let is_there = matches!(timeout(PATIENCE, seen.wait_for(|count| is_reached(*count))).await, Ok(Ok(_)));
    if is_there { Ok(()) } else { Err(Fault::Missing { what, reached: *count.borrow(), wanted }) }
}

/// Figures by name, in the order in which they came.
struct Measured {
    figures: Vec<Figure>,
    resident_before: u64,
    own_before: u64,
}

impl Measured {
    fn new(resident_before: u64, own_before: u64) -> Self {
        Self { figures: Vec::new(), resident_before, own_before }
    }

    fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure { name, unit, values: vec![value] }),
        }
    }

    fn print(&self, agents: usize) {
        println!("| {agents} agents | median (range) |\n|---|---|");
        for figure in &self.figures {
            println!("{}", figure.line());
        }
    }
}

/// One round's measurements.
struct Bench<'a> {
    plane: &'a mut Plane,
    world: &'a Arc<World>,
    agents: usize,
    measured: &'a mut Measured,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few thousand are exact in a double")]
impl Bench<'_> {
    async fn idle(&mut self, span: Duration) -> Result<(), Fault> {
        sleep(REST).await;
        let (before, began) = (self.plane.cpu()?, Instant::now());
        sleep(span).await;
        let share = (self.plane.cpu()? - before) / began.elapsed().as_secs_f64();
        self.measured.add("control plane, idle, of a core", "%", share * 100.0);
        let (resident, own) = self.plane.memory()?;
        let sessions = (self.agents + 1) as f64;
        let grown = own.saturating_sub(self.measured.own_before) as f64;
        self.measured.add("control plane, resident", "MiB", resident as f64 / 1024.0);
        self.measured.add("of that without sessions", "MiB", self.measured.resident_before as f64 / 1024.0);
        self.measured.add("memory per idle session", "KiB", grown / sessions);
        Ok(())
    }

    async fn singles(&mut self, count: u32) -> Result<(), Fault> {
        let before = self.plane.cpu()?;
        let mut spans = Vec::new();
        for _ in 0..count {
            spans.push(single(self.plane).await?);
        }
        let each = (self.plane.cpu()? - before) * 1000.0 / f64::from(count.max(1));
        self.measured.add("one command, control plane's CPU", "ms", each);
        self.latencies(&spans, ["one command to durable report, p50", "one command to durable report, p99"]);
        Ok(())
    }

    fn latencies(&mut self, spans: &[Duration], [half, most]: [&'static str; 2]) {
        for (name, share) in [(half, 50), (most, 99)] {
            if let Some(value) = percentile(spans, share) {
                self.measured.add(name, "ms", value);
            }
        }
    }

    /// One order to all but the host of the single commands.
    async fn order_all(&self) -> Result<(String, Duration), Fault> {
        let hosts: Vec<String> = (1..=self.agents).map(host_name).collect();
        let wanted = *self.world.acknowledged.borrow() + self.agents;
        let began = Instant::now();
        let operation = propose(self.plane, &hosts).await?;
        until(&self.world.acknowledged, |count| count >= wanted, wanted, "reports acknowledged").await?;
        Ok((operation, began.elapsed()))
    }

    async fn fan_out(&mut self) -> Result<(), Fault> {
        sleep(REST).await;
        let (before, own_before) = (self.plane.cpu()?, own_cpu()?);
        let (operation, span) = self.order_all().await?;
        // What still follows a report (announcements, the next audit head) is part of its price.
        sleep(REST).await;
        let agents = self.agents as f64;
        let cpu = (self.plane.cpu()? - before) * 1000.0 / agents;
        let own = (own_cpu()? - own_before) * 1000.0 / agents;
        self.measured.add("one order to all, every report durable", "s", span.as_secs_f64());
        self.measured.add("control plane's CPU per command and report", "ms", cpu);
        self.measured.add("the agents' CPU per command and report", "ms", own);
        self.settled(&operation).await
    }

    async fn fan_out_with_singles(&mut self) -> Result<(), Fault> {
        let (ordered, spans) = {
            let order = self.order_all();
            let mut order = std::pin::pin!(order);
            let mut spans = Vec::new();
            let ordered = loop {
                let mut one = std::pin::pin!(single(self.plane));
                tokio::select! {
                    ordered = &mut order => {
                        spans.push(one.await?);
                        break ordered?;
                    }
                    span = &mut one => spans.push(span?),
                }
            };
            (ordered, spans)
        };
        self.latencies(&spans, ["one command during an order to all, p50", "one command during an order to all, p99"]);
        self.settled(&ordered.0).await
    }

    /// The operation ended well, by the control plane's own account.
    async fn settled(&self, operation: &str) -> Result<(), Fault> {
        match timeout(PATIENCE, self.plane.follow(operation)).await {
            Ok(Ok(state)) if state == "succeeded" => Ok(()),
            Ok(Ok(state)) => Err(Fault::Plane(format!("the order to all ended {state}"))),
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(Fault::Missing { what: "orders ended", reached: 0, wanted: 1 }),
        }
    }

    async fn kill_and_return(&mut self) -> Result<(), Fault> {
        sleep(REST).await;
        let began = Instant::now();
        self.plane.kill()?;
        // All notice within moments, because the kernel closes what a killed program held; only then is it
        // certain that an open session is a new one.
        until(&self.world.open, |open| open == 0, 0, "sessions cut").await?;
        let ready = self.plane.start().await?;
        let sessions = self.agents + 1;
        until(&self.world.open, |open| open >= sessions, sessions, "sessions open again").await?;
        self.measured.add("killed and restarted: answers people after", "s", ready.as_secs_f64());
        self.measured.add("killed and restarted: all authenticated again", "s", began.elapsed().as_secs_f64());
        self.measured.add("database and its log", "MiB", self.plane.database_bytes() as f64 / 1024.0 / 1024.0);
        Ok(())
    }
}

/// One command to the first host, from the request until the event that it ended.
async fn single(plane: &Plane) -> Result<Duration, Fault> {
    let began = Instant::now();
    let operation = propose(plane, &[host_name(0)]).await?;
    let state = plane.follow(&operation).await?;
    if state == "succeeded" {
        Ok(began.elapsed())
    } else {
        Err(Fault::Plane(format!("a single command ended {state}")))
    }
}

async fn propose(plane: &Plane, hosts: &[String]) -> Result<String, Fault> {
    let operation = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
    let body = json!({
        "kind": "single",
        "operation_id": operation,
        "action": "host.facts",
        "hosts": hosts,
        "parameters": {},
        "dry_run": true,
    });
    let (status, answer) = plane.ask("POST", "/api/v1/operations", &body.to_string()).await?;
    if status == 202 { Ok(operation) } else { Err(Fault::Plane(format!("{status}: {answer}"))) }
}
