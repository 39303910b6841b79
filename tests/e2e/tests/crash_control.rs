//! The control plane killed before and after every commit of its database and every write of its signer, through a
//! whole life: sign-in, enrolment, order, report, cancellation, deploy, a rotation of keys, removal, revocation. Afterwards no command
//! is lost, doubled or without an end, no number was given twice, and the audit log verifies from the root key.
//! The signer is a process of its own: at its points it alone ends, the control plane starts it anew, and nobody notices.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::Duration,
};

use e2e::{
    cli::{Ran, Running},
    crash::{Points, ending_at, points_of, tracing_to},
    fleet::{Fleet, Host, free_port, text_of},
    http,
    sample::{web, web_that_hangs},
    wait::{comes_to_hold, wait_for, wait_until, wait_within},
};
use serde_json::Value;

/// Longest time for one command line, with the control plane started again in between.
const RIDE_MAX: Duration = Duration::from_secs(120);

/// A control plane, and what people do with it.
struct Life {
    host: Host,
    /// The host's agent is not to run.
    is_away: bool,
    fleet: Fleet,
    port: u16,
    number: u32,
    /// The control plane ended at its point since it was last looked at.
    died: bool,
}

/// Something people do. `prepare` runs with nothing in its way.
struct Step {
    name: &'static str,
    prepare: fn(&mut Life),
    act: fn(&mut Life),
    /// At most so many commands come of it.
    commands_max: usize,
}

const CANCEL: &str = "cancel what runs";

static STEPS: [Step; 8] = [
    Step { name: "sign in", prepare: |_| {}, act: Life::sign_in, commands_max: 0 },
    Step { name: "enrol and revoke", prepare: |_| {}, act: Life::enrol_and_revoke, commands_max: 0 },
    Step { name: "order", prepare: |_| {}, act: Life::order, commands_max: 1 },
    Step { name: "cancel what waits", prepare: Life::queue_one, act: Life::cancel_open, commands_max: 1 },
    Step { name: CANCEL, prepare: Life::hang, act: Life::cancel_open, commands_max: 1 },
    Step { name: "deploy", prepare: |_| {}, act: Life::deploy, commands_max: 2 },
    Step { name: "rotate", prepare: |_| {}, act: Life::rotate, commands_max: 1 },
    Step { name: "remove", prepare: Life::keep_up, act: Life::remove, commands_max: 1 },
];

impl Life {
    fn begin() -> Self {
        let mut fleet = Fleet::start();
        fleet.control_plane_with_crash_points();
        let host = fleet.host("local");
        Self { host, is_away: false, fleet, port: free_port(), number: 0, died: false }
    }

    /// The control plane again, with these variables; it may end at once.
    fn restart(&mut self, environment: e2e::fleet::Environment) {
        self.fleet.control_plane_kill_9();
        self.fleet.control_environment = environment;
        self.fleet.control_plane_spawn();
        let port = self.fleet.http_port;
        wait_until("the control plane answers, or ends at its point", || {
            self.mourn() || http::get(port, "/health").is_some_and(|answer| answer.status == 200)
        });
        self.redial();
    }

    /// How often a signer ended at its point.
    fn signer_deaths(&self) -> usize {
        let said = fs::read_to_string(self.fleet.path("control-plane.log")).unwrap_or_default();
        said.lines().filter(|line| line.contains("the signer ended") && line.contains("signal: 6")).count()
    }

    /// Starts the control plane again if it has ended. Whether it had.
    fn mourn(&mut self) -> bool {
        let Some(status) = self.fleet.control_plane().ended() else { return false };
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(status.signal(), Some(6), "it should have ended at its point: {status}");
        self.died = true;
        self.fleet.control_environment.clear();
        self.fleet.control_plane_start();
        self.redial();
        true
    }

    /// An agent whose sessions end one after the other waits longer and longer; a new one dials at once.
    fn redial(&mut self) {
        if !self.is_away {
            self.host.kill_9();
            self.host.start();
        }
    }

    /// Runs something to its end, with the control plane started again whenever it ends.
    fn ride(&mut self, mut running: Running) -> Ran {
        wait_within(RIDE_MAX, "a command line's end", || {
            self.mourn();
            running.has_ended().then_some(())
        });
        running.wait()
    }

    /// Does it until it is done. Only a control plane that ended meanwhile is an excuse, and only once.
    fn insist(&mut self, words: &[&str], is_done: impl Fn(&Ran) -> bool) -> Ran {
        let before = self.died;
        let ran = self.ride(self.fleet.cli_start(words));
        if is_done(&ran) {
            return ran;
        }
        self.look_again();
        assert!(self.died && !before, "{words:?} failed although nothing had happened: {ran:#?}");
        let again = self.ride(self.fleet.cli_start(words));
        assert!(is_done(&again), "{words:?} failed again: {again:#?}");
        again
    }

    /// Something failed, and the control plane may be about to be seen to have ended.
    fn look_again(&mut self) {
        // Whether it did, `died` says.
        let _ = self.died || comes_to_hold(Duration::from_secs(5), || self.mourn());
    }

    fn sign_in(&mut self) {
        let file = self.fleet.path("password");
        fs::write(&file, text_of(&self.fleet.init["admin"], "password")).expect("a password file");
        let file = file.to_str().expect("a path in UTF-8").to_owned();
        let url = format!("http://127.0.0.1:{}", self.fleet.http_port);
        self.insist(&["login", &url, "--user", "admin", "--password-file", &file, "--json"], |ran| ran.code == 0);
    }

    fn enrol_and_revoke(&mut self) {
        self.number += 1;
        let name = format!("guest-{}", self.number);
        let ran = self.insist(&["host", "enroll", &name, "--json"], |ran| ran.code == 0);
        let token = self.fleet.path(&format!("{name}.token"));
        fs::write(&token, text_of(&ran.json(), "token")).expect("a token file");
        let guest = Host::unborn(&self.fleet, &name);
        // Cut at any place, an enrolment is finished by running it again.
        let first = self.ride(guest.enrol_start(&token));
        if first.code != 0 {
            self.look_again();
            assert!(self.died, "{first:#?}");
            let again = self.ride(guest.enrol_start(&token));
            assert_eq!(again.code, 0, "{first:#?}\n{again:#?}");
        }
        let gone = |ran: &Ran| ran.code == 0 || ran.all().contains("revoked");
        self.insist(&["host", "revoke", &name, "--yes", "--json"], gone);
        self.fleet.wait_host(&name, "revoked");
    }

    fn order(&mut self) {
        self.given(&["action", "run", "host.facts", "--host", "local", "--json"]);
    }

    fn rotate(&mut self) {
        self.given(&["action", "run", "host.keys.rotate", "--host", "local", "--json"]);
    }

    /// Gives an order. It may fail to be given when the control plane ends; what became of it, [`Self::visit`] sees.
    fn given(&mut self, words: &[&str]) {
        let ran = self.ride(self.fleet.cli_start(words));
        if ran.code != 0 {
            self.look_again();
            assert!(self.died, "{words:?}: {ran:#?}");
        }
    }

    fn queue_one(&mut self) {
        self.is_away = true;
        self.host.kill_9();
        self.fleet.cli(&["action", "run", "host.facts", "--host", "local", "--queue-for", "1h", "--detach"]).ok();
    }

    fn hang(&mut self) {
        let (app, text) = (self.fleet.app("hangs"), self.fleet.compose(&web_that_hangs(self.port)));
        self.fleet.cli(&["app", "deploy", "--name", &app, "--host", "local", "--detach", "-f", &text]).ok();
        wait_until("it runs", || self.fleet.docker.containers(&app).iter().any(|it| it.running));
    }

    /// Cancels the one that is open.
    fn cancel_open(&mut self) {
        let is_open = |command: &Value| is_open(command) && command["action"] != "command.cancel@1";
        let all = self.all();
        let open = all.values().find(|command| is_open(command)).expect("an open command");
        let id = text_of(open, "command_id");
        // From now on the host may have it: what is cancelled does not run, or stops.
        let done = |ran: &Ran| ran.code == 0 || ran.all().contains("ended") || ran.all().contains("cancelled");
        self.insist(&["command", "cancel", &id, "--json"], done);
        self.is_away = false;
        self.redial();
    }

    fn deploy(&mut self) {
        self.number += 1;
        let text = self.fleet.compose(&web(self.port, &[("VERSION", &self.number.to_string())]));
        let app = self.fleet.app("shop");
        self.given(&["app", "deploy", "--json", "--name", &app, "--host", "local", "-f", &text]);
    }

    fn keep_up(&mut self) {
        if self.fleet.docker.containers(&self.fleet.app("shop")).is_empty() {
            self.deploy();
        }
    }

    fn remove(&mut self) {
        let app = self.fleet.app("shop");
        self.given(&["app", "remove", &app, "--json"]);
    }

    /// Every command there is, by id.
    fn all(&mut self) -> BTreeMap<String, Value> {
        let list = wait_for("the list of commands", || {
            self.mourn();
            let ran = self.fleet.cli(&["command", "list", "--json"]);
            (ran.code == 0).then(|| ran.json())
        });
        list.as_array().expect("a list").iter().map(|it| (text_of(it, "command_id"), it.clone())).collect()
    }

    fn count(&mut self, step: &Step) -> Vec<String> {
        (step.prepare)(self);
        let trace = self.fleet.path("trace");
        // What it traced in an earlier step is not this one's.
        let _ = fs::remove_file(&trace);
        self.restart(tracing_to(&trace));
        (step.act)(self);
        self.comes_to_rest(step.name);
        points_of(&trace)
    }

    fn comes_to_rest(&mut self, what: &str) {
        wait_until(&format!("{what}: every command ends"), || {
            self.mourn();
            !self.all().values().any(is_open)
        });
        wait_for(&format!("{what}: the audit log verifies"), || {
            self.mourn();
            (self.fleet.cli(&["audit", "verify", "--json"]).code == 0).then_some(())
        });
    }

    fn visit(&mut self, step: &Step, point: &str) -> bool {
        let what = format!("{}, killed {point}", step.name);
        (step.prepare)(self);
        let (known, signer_deaths) = (self.all(), self.signer_deaths());
        self.died = false;
        self.restart(ending_at(point));
        (step.act)(self);
        self.comes_to_rest(&what);
        let all = self.all();
        let new: Vec<&Value> = all.iter().filter(|(id, _)| !known.contains_key(*id)).map(|(_, it)| it).collect();
        assert!(new.len() <= step.commands_max, "{what}: ordered once: {new:#?}");
        assert!(self.died || new.len() == step.commands_max || step.name == "cancel what waits", "{what}: {new:#?}");
        for id in known.keys() {
            assert!(all.contains_key(id) || known.len() >= 100, "{what}: {id} is lost");
        }
        let signer_deaths = self.signer_deaths() - signer_deaths;
        assert!(signer_deaths <= 1 && (signer_deaths == 0 || point.contains(" signer ")), "{what}: {signer_deaths}");
        let died = self.died || signer_deaths == 1;
        self.restart(Vec::new());
        died
    }

    /// What must hold of the whole life.
    fn ends(&mut self) {
        let all = self.all();
        let mut numbers = BTreeSet::new();
        for (id, command) in &all {
            let shown = self.fleet.command(id);
            for order in shown["orders"].as_array().expect("orders") {
                let number = (text_of(command, "host"), order["sequence"].to_string());
                assert!(numbers.insert(number.clone()), "{number:?} was given twice; again for {shown:#}");
            }
            let started = self.host.said();
            let started = started.lines().filter(|line| line.contains("command started") && line.contains(id.as_str()));
            let fresh = started.filter(|line| line.contains("resumed=false")).count();
            assert!(fresh <= 1, "{id} ran {fresh} times: {shown:#}");
        }
        self.fleet.wait_host("local", "connected");
    }
}

fn is_open(command: &Value) -> bool {
    ["queued", "delivered", "accepted", "running"].iter().any(|open| command["status"] == *open)
}

/// By itself, because what it cancels runs for minutes if anything forgets the cancellation.
#[test]
fn a_control_plane_killed_while_it_cancels_what_runs_loses_and_doubles_nothing() {
    kill_at_every_commit(STEPS.iter().filter(|step| step.name == CANCEL));
}

#[test]
fn a_control_plane_killed_at_every_commit_loses_and_doubles_nothing() {
    kill_at_every_commit(STEPS.iter().filter(|step| step.name != CANCEL));
}

fn kill_at_every_commit(steps: impl Iterator<Item = &'static Step>) {
    thread::scope(|scope| {
        for step in steps {
            scope.spawn(move || {
                let mut life = Life::begin();
                let points = Points::new(life.count(step));
                while let Some((point, tries)) = points.next() {
                    if !life.visit(step, &point) {
                        points.not_reached(point, tries);
                    }
                }
                points.all_visited(step.name);
                life.ends();
            });
        }
    });
}
