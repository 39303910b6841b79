//! The agent killed before and after every effect on the host and every write of its journal, under real orders
//! against the real engine. Afterwards the engine holds exactly what was there before or what was ordered, and
//! the order's end says which.
//!
//! A line in [`SCENARIOS`] is all that a further action needs.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use e2e::{
    cli::Running,
    crash::{Picture, Points, dies, ending_at, moments, points_of, tracing_to},
    docker::{Docker, PrivateEngine, SAMPLE},
    fleet::{Fleet, Host, free_port, text_of},
    program::{binary, crash_binary},
    wait::{comes_to_hold, wait_for},
};
use serde_json::Value;

/// Hosts at work at the same time. They mostly wait: for probes, for grace periods, for the disk.
const SITES: usize = 4;
/// As many releases as are kept, so that the next deploy drops one.
const RELEASES_KEPT: usize = 5;

/// What tells such a binary where to end.
const AT: &[u8] = b"SERVERFLOW_CRASH_AT";

/// What was killed at a point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killed {
    Agent,
    Engine,
}

/// One host with one app.
struct Site {
    host: Host,
    docker: Docker,
    /// After the host, whose agent must have ended before its things are removed.
    fleet: Arc<Fleet>,
    app: String,
    compose: fn(u16, u32) -> String,
    port: u16,
    version: u32,
    /// A cancellation that was given.
    cancel: Option<Running>,
}

/// An order that is interrupted everywhere.
struct Scenario {
    name: &'static str,
    /// Brings the app to where the order begins.
    prepare: fn(&mut Site),
    order: fn(&mut Site) -> Running,
    /// What is there when it succeeded, given what was there before. Of a new release the tags cannot be known, so they
    /// stay as they were.
    done: fn(&Site, &Picture) -> Picture,
    /// It ends with a release more.
    is_release: bool,
    /// How its command line ends when nothing is in its way.
    code: i32,
    /// The first point to visit; empty: all of them.
    from: &'static str,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "deploy",
        prepare: Site::keep_many,
        order: Site::deploy_next,
        done: Site::next_release,
        is_release: true,
        code: 0,
        from: "",
    },
    Scenario {
        name: "stop",
        prepare: Site::keep_running,
        order: |site| site.app("stop"),
        done: |_, it| is_up(it, false),
        is_release: false,
        code: 0,
        from: "",
    },
    Scenario {
        name: "start",
        prepare: Site::keep_stopped,
        order: |site| site.app("start"),
        done: |_, it| is_up(it, true),
        is_release: false,
        code: 0,
        from: "",
    },
    Scenario {
        name: "restart",
        prepare: Site::keep_running,
        order: |site| site.app("restart"),
        done: |_, it| is_up(it, true),
        is_release: false,
        code: 0,
        from: "",
    },
    Scenario {
        name: "remove",
        prepare: Site::keep_up,
        order: |site| site.app("remove"),
        done: |_, it| it.only_volumes(),
        is_release: false,
        code: 0,
        from: "",
    },
    // The cancellation is the third order that the host takes, after the plan and the deploy.
    Scenario {
        name: "cancel",
        prepare: Site::keep_running,
        order: Site::deploy_and_cancel,
        done: |_, it| it.clone(),
        is_release: false,
        code: 1,
        from: "before journal Accept #3",
    },
];

fn is_up(before: &Picture, is_running: bool) -> Picture {
    let mut after = before.clone();
    for container in &mut after.containers {
        container.is_running = is_running;
        // A stopped app stays so when the engine starts again.
        container.restart = if is_running { "unless-stopped" } else { "no" }.to_owned();
    }
    after
}

/// The picture with the tags from before, if its own are theirs and one release more: one is new, and the oldest went
/// if there were as many as are kept.
fn without_news(mut after: Picture, before: &Picture) -> Picture {
    let new = after.tags.iter().filter(|tag| !before.tags.contains(tag)).count();
    let gone = before.tags.iter().filter(|tag| !after.tags.contains(tag)).count();
    if new == 1 && gone == usize::from(before.tags.len() == RELEASES_KEPT) {
        after.tags.clone_from(&before.tags);
    }
    after
}

impl Site {
    fn new(fleet: &Arc<Fleet>, number: usize) -> Self {
        let name = format!("host-{number}");
        let mut host = fleet.host_enrolled(&name);
        host.with_crash_points();
        host.start();
        // Read as part of the id before it, so that points have the same names at every site.
        let app = fleet.app(&number.to_string());
        Self {
            host,
            docker: fleet.docker.clone(),
            fleet: fleet.clone(),
            app,
            compose,
            port: free_port(),
            version: 0,
            cancel: None,
        }
    }

    fn picture(&self) -> Picture {
        Picture::take(&self.docker, &self.app).with_files(&self.host.state("files").join(&self.app))
    }

    fn deploy_next(&mut self) -> Running {
        self.version += 1;
        self.fleet.deploy_start(&self.app, &self.host.name, &(self.compose)(self.port, self.version))
    }

    /// Deploys what would not be healthy for minutes, and cancels that as soon as it runs. The deploy's command line.
    fn deploy_and_cancel(&mut self) -> Running {
        self.version += 1;
        let version = self.version.to_string();
        let set = format!("VERSION: \"{version}\"");
        let text = (self.compose)(self.port, self.version)
            .replace(&set, &format!("{set}, FAIL: \"slow-health:600000\""))
            .replace("retries: 3", "retries: 3\n      start_period: 10m");
        let deploy = self.fleet.deploy_start(&self.app, &self.host.name, &text);
        wait_for("the new release to run", || {
            self.picture().containers.iter().any(|it| it.is_running && it.version == version).then_some(())
        });
        let is_it = |it: &&Value| it["host"] == self.host.name.as_str() && it["status"] == "running";
        let id = wait_for("the deploy to be seen running", || {
            self.fleet.commands("app.deploy").iter().find(is_it).map(|it| text_of(it, "command_id"))
        });
        self.cancel = Some(self.fleet.cli_start(&["command", "cancel", &id, "--json"]));
        deploy
    }

    /// Of a deploy that was cancelled there is one end, and the cancellation had it: as its own report says.
    fn check_cancel(&mut self, ran: &Value, what: &str) {
        let Some(cancel) = self.cancel.take() else { return };
        assert_eq!(last_of(ran)["status"], "cancelled", "{what}: {ran:#}");
        cancel.wait().ok();
        let is_ours = |it: &&Value| it["host"] == self.host.name.as_str();
        let newest = self.fleet.commands("command.cancel").iter().find(is_ours).map(|it| text_of(it, "command_id"));
        let ended = self.fleet.wait_settled(&newest.expect("the cancellation"));
        assert_eq!(ended["status"], "succeeded", "{what}: {ended:#}");
    }

    fn app(&mut self, verb: &str) -> Running {
        self.fleet.cli_start(&["app", verb, &self.app, "--json"])
    }

    fn keep_up(&mut self) {
        if self.picture().containers.is_empty() {
            self.deploy_next().wait().ok();
        }
    }

    fn keep_running(&mut self) {
        self.keep_up();
        if !self.picture().containers.iter().all(|it| it.is_running) {
            self.app("start").wait().ok();
        }
    }

    fn keep_stopped(&mut self) {
        self.keep_up();
        if self.picture().containers.iter().any(|it| it.is_running) {
            self.app("stop").wait().ok();
        }
    }

    fn keep_many(&mut self) {
        while self.picture().tags.len() < RELEASES_KEPT {
            self.deploy_next().wait().ok();
        }
    }

    fn next_release(&self, before: &Picture) -> Picture {
        let mut after = before.clone();
        for container in &mut after.containers {
            container.version = self.version.to_string();
        }
        after.files = vec![stamp(self.version)];
        after
    }

    /// Runs the order with nothing in its way; the points it passed.
    fn count(&mut self, scenario: &Scenario) -> Vec<String> {
        (scenario.prepare)(self);
        let trace: PathBuf = self.host.state(&format!("{}.trace", scenario.name));
        self.host.restart_with(tracing_to(&trace));
        let before = self.picture();
        let ran = (scenario.order)(self).wait().expect(scenario.code).json();
        self.check_cancel(&ran, scenario.name);
        let seen = if scenario.is_release { without_news(self.picture(), &before) } else { self.picture() };
        assert_eq!(seen, (scenario.done)(self, &before), "{} without a fault", scenario.name);
        let orders = points_of(&trace).iter().filter(|point| point.starts_with("after journal Accept #")).count();
        let last = format!("after journal Acknowledge #{orders}");
        wait_for("the last acknowledgement", || points_of(&trace).contains(&last).then_some(()));
        // One more than there were orders is of an earlier order, whose acknowledgement the agent did not live to store.
        let is_earlier = format!("journal Acknowledge #{}", orders + 1);
        let points = points_of(&trace).into_iter().skip_while(|point| !point.contains(scenario.from));
        points.filter(|point| !point.ends_with(&is_earlier)).collect()
    }

    /// Runs the order with the agent killed at that point. False when it was not passed.
    fn visit(&mut self, scenario: &Scenario, point: &str) -> bool {
        self.host.restart_with(Vec::new());
        (scenario.prepare)(self);
        let before = self.picture();
        self.host.restart_with(ending_at(point));
        let mut running = (scenario.order)(self);
        let what = format!("{}, killed {point}", scenario.name);
        let died = dies(self.host.agent(), &what, || running.has_ended());
        if died {
            self.host.restart_with(Vec::new());
        }
        self.ends_as_it_says(scenario, running, &before, &what, Killed::Agent);
        died
    }

    /// The order's end names what is there: all of the new, or all of the old, and nothing beside it.
    fn ends_as_it_says(&mut self, scenario: &Scenario, running: Running, before: &Picture, what: &str, killed: Killed) {
        let ran = running.wait().json();
        self.check_cancel(&ran, what);
        let last = last_of(&ran);
        let mut expected = match last["status"].as_str() {
            Some("succeeded") => (scenario.done)(self, before),
            Some("rolled_back" | "failed" | "cancelled") => before.clone(),
            other => panic!("{what}: {other:?} is no end a kill may lead to: {ran:#}"),
        };
        let is_new = scenario.is_release && last["status"] == "succeeded";
        // Engine 20.10, killed together with its containerd, ends the containers that lived on and does not start them again,
        // `docker run --restart unless-stopped` no more than ours. After the order's last look at them that is not its affair;
        // what it says it put back must run.
        let whether_it_runs_counts = killed == Killed::Agent || last["status"] != "succeeded";
        let runs_not = |mut picture: Picture| {
            picture.containers.iter_mut().for_each(|it| it.is_running = it.is_running && whether_it_runs_counts);
            picture
        };
        expected = runs_not(expected);
        let mut seen = None;
        let is_as_expected = || {
            let now = runs_not(self.picture());
            let now = if is_new { without_news(now, before) } else { now };
            seen = Some(now.clone());
            now == expected
        };
        // What an engine that was started again does by itself may take it a moment.
        let _ = comes_to_hold(Duration::from_secs(20), is_as_expected);
        assert_eq!(seen, Some(expected), "{what}: {last:#}");
    }
}

/// One service with a health check that says yes at once, a volume, a file of its own, and a network. Checks are a
/// second apart, because each is a process or four for the engine, and many hosts are at work here.
fn compose(port: u16, version: u32) -> String {
    format!(
        "services:\n  web:\n    image: {SAMPLE}\n    ports: [\"127.0.0.1:{port}:8080\"]\n    restart: unless-stopped\n    \
         stop_grace_period: 1s\n    volumes: [\"data:/data\"]\n    configs: [stamp]\n    environment: {{VERSION: \"{version}\"}}\n    \
         healthcheck:\n      test: [\"CMD\", \"/sample\", \"check\"]\n      interval: 1s\n      timeout: 5s\n      retries: 3\n\
         volumes: {{data: {{}}}}\nconfigs: {{stamp: {{content: \"{}\"}}}}\n",
        stamp(version)
    )
}

/// An operation's last command.
fn last_of(ran: &Value) -> &Value {
    ran["commands"].as_array().and_then(|all| all.last()).expect("a command")
}

/// What the file of a version says.
fn stamp(version: u32) -> String {
    format!("this is {version}")
}

fn scenario(name: &str) -> &'static Scenario {
    static ALL: [Scenario; SCENARIOS.len()] = SCENARIOS;
    ALL.iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

/// Kills the agent at every point of the scenario.
fn everywhere(name: &str) {
    let scenario = scenario(name);
    let fleet = Arc::new(Fleet::start());
    let mut sites: Vec<Site> = (0..SITES).map(|number| Site::new(&fleet, number)).collect();
    let points = Points::new(moments(&sites[0].count(scenario)));
    thread::scope(|scope| {
        for site in &mut sites {
            let points = &points;
            scope.spawn(move || {
                while let Some((point, tries)) = points.next() {
                    if !site.visit(scenario, &point) {
                        points.not_reached(point, tries);
                    }
                }
            });
        }
    });
    points.all_visited(name);
    for site in &mut sites {
        site.has_nothing_to_do();
        site.host.agent().terminate();
        let status = site.host.verb(&["status", "--json"]).json();
        assert_eq!(status["last"]["commands"]["open"], 0, "{}: nothing is left open: {status:#}", site.host.name);
    }
    wait_for("the audit log verifies", || (fleet.cli(&["audit", "verify", "--json"]).code == 0).then_some(()));
}

/// What ends a program at its doors is in the binaries of these tests, and in no other.
#[test]
fn only_the_binaries_of_these_tests_can_be_ended_at_their_doors() {
    let has_it = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a program");
        bytes.windows(AT.len()).any(|window| window == AT)
    };
    for name in ["serverflow-agent", "serverflow-control-plane"] {
        assert!(has_it(crash_binary(name)), "{name} of the tests");
        assert!(!has_it(binary(name)), "{name}");
    }
    assert!(!has_it(binary("serverflow")), "serverflow");
}

#[test]
fn an_agent_killed_at_every_point_of_a_deploy_leaves_one_release() {
    everywhere("deploy");
}

#[test]
fn an_agent_killed_at_every_point_of_a_removal_leaves_all_or_nothing() {
    everywhere("remove");
}

#[test]
fn an_agent_killed_at_every_point_of_a_stop_leaves_it_stopped_or_running() {
    everywhere("stop");
}

#[test]
fn an_agent_killed_at_every_point_of_a_start_leaves_it_running_or_stopped() {
    everywhere("start");
}

#[test]
fn an_agent_killed_at_every_point_of_a_restart_leaves_it_running() {
    everywhere("restart");
}

#[test]
fn an_agent_killed_at_every_point_of_a_cancellation_stops_what_it_was_to_stop() {
    everywhere("cancel");
}

/// The same with the engine: killed while the agent stands at the point, and started again behind its back.
#[test]
fn docker_killed_at_every_effect_of_a_deploy_leaves_one_release() {
    docker_everywhere("deploy");
}

#[test]
fn docker_killed_at_every_effect_of_a_removal_leaves_all_or_nothing() {
    docker_everywhere("remove");
}

fn docker_everywhere(name: &str) {
    let scenario = scenario(name);
    let fleet = Arc::new(Fleet::start());
    let mut sites: Vec<(PrivateEngine, Site)> = (0..SITES)
        .map(|number| {
            let engine = PrivateEngine::start();
            let mut site = Site::new(&fleet, number);
            site.use_engine(&engine.docker);
            (engine, site)
        })
        .collect();
    let effects: Vec<String> =
        sites[0].1.count(scenario).into_iter().filter(|point| point.contains(" effect ")).collect();
    // To the engine, after one effect and before the next are the same, whatever the agent wrote in between.
    let points = Points::new(moments(&effects));
    thread::scope(|scope| {
        for (engine, site) in &mut sites {
            let points = &points;
            scope.spawn(move || {
                while let Some((point, tries)) = points.next() {
                    if !site.visit_with_engine(scenario, &point, engine) {
                        points.not_reached(point, tries);
                    }
                }
            });
        }
    });
    points.all_visited(name);
}

impl Site {
    /// Nothing that an earlier order left for the next one to mend: a plan of what runs finds all of it as it should be.
    fn has_nothing_to_do(&mut self) {
        self.host.restart_with(Vec::new());
        self.keep_running();
        let version = self.picture().containers[0].version.parse().expect("a version");
        let text = self.fleet.compose(&(self.compose)(self.port, version));
        let plan =
            ["app", "deploy", "--dry-run", "--json", "--name", &self.app, "--host", &self.host.name, "-f", &text];
        let plan = self.fleet.cli(&plan).ok().json();
        let last = last_of(&plan);
        assert_eq!(last["plan"]["unchanged"], true, "{}: {plan:#}", self.host.name);
    }

    fn use_engine(&mut self, docker: &Docker) {
        self.host.kill_9();
        self.host.use_docker(docker);
        self.docker = docker.clone();
        // An engine without a bridge has no networks, so nothing can be published.
        self.compose = |_, version| {
            let text = compose(0, version);
            let port = "    ports: [\"127.0.0.1:0:8080\"]\n";
            assert!(text.contains(port), "the line to be replaced");
            text.replace(port, "    network_mode: none\n")
        };
        self.host.start();
    }

    fn visit_with_engine(&mut self, scenario: &Scenario, point: &str, engine: &mut PrivateEngine) -> bool {
        self.host.restart_with(Vec::new());
        (scenario.prepare)(self);
        let before = self.picture();
        let hold = e2e::crash::Hold::new(self.host.state("hold"));
        self.host.restart_with(e2e::crash::holding_at(point, &hold));
        let mut running = (scenario.order)(self);
        let what = format!("{}, Docker killed {point}", scenario.name);
        let reached = wait_for(&what, || {
            if hold.is_reached() { Some(true) } else { running.has_ended().then(|| hold.is_reached()) }
        });
        if reached {
            engine.kill_9();
            hold.go();
            engine.up();
        }
        self.ends_as_it_says(scenario, running, &before, &what, Killed::Engine);
        reached
    }
}
