//! Two agents on one machine: with an engine each, and with one engine between them, of one fleet and of two.
//! Neither touches what is the other's, even when both have an app of the same name.

use e2e::{
    cli::Ran,
    crash::Picture,
    docker::{Docker, PrivateEngine, SAMPLE},
    fleet::{Fleet, Host, text_of},
    wait::wait_until,
};

/// A service with a volume and no port, so that nothing but names can collide.
fn compose(version: &str, network: &str) -> String {
    format!(
        "services:\n  web:\n    image: {SAMPLE}\n{network}    stop_grace_period: 1s\n    volumes: [\"data:/data\"]\n    \
         environment: {{VERSION: \"{version}\"}}\n    healthcheck:\n      test: [\"CMD\", \"/sample\", \"check\"]\n      \
         interval: 1s\n      timeout: 5s\n      retries: 3\nvolumes: {{data: {{}}}}\n"
    )
}

fn deploy(fleet: &Fleet, host: &Host, app: &str, version: &str) -> Ran {
    fleet.deploy(app, &host.name, &compose(version, ""))
}

/// Name, whether it runs, and version.
fn seen(picture: &Picture) -> Vec<(String, bool, String)> {
    picture.containers.iter().map(|it| (it.name.clone(), it.is_running, it.version.clone())).collect()
}

/// Container ids too: what was stopped and started again, or made anew, is not untouched.
fn ids(docker: &Docker, app: &str) -> Vec<(String, String)> {
    docker.containers(app).into_iter().map(|it| (it.id, it.started_at)).collect()
}

/// `second` may have nothing under a name that `first` has on the same engine, and is told so; `first` keeps all.
fn collide((one, first): (&Fleet, &Host), (other, second): (&Fleet, &Host), app: &str) {
    let docker = Docker::default();
    deploy(one, first, app, "first").ok();
    let (picture, untouched) = (Picture::take(&docker, app), ids(&docker, app));
    assert_eq!(seen(&picture), [(format!("{app}-web-1"), true, "first".to_owned())]);

    let refused = deploy(other, second, app, "second").expect(1).json();
    let last = refused["commands"].as_array().and_then(|all| all.last()).expect("a command").clone();
    let message = text_of(&last, "message");
    assert!(message.contains("this agent did not create") && message.contains("another name"), "{last:#}");
    assert_eq!(Picture::take(&docker, app), picture, "{last:#}");
    assert_eq!(ids(&docker, app), untouched, "{last:#}");

    // Nothing of the second is there to be removed, stopped or started.
    for verb in ["remove", "stop", "start", "restart"] {
        let ran = other.cli(&["app", verb, app, "--host", &second.name, "--json"]);
        assert_eq!(ids(&docker, app), untouched, "{verb}: {ran:#?}");
    }
    assert_eq!(Picture::take(&docker, app), picture);

    // The first goes on as if it were alone, and the second takes another name.
    deploy(one, first, app, "next").ok();
    let another = format!("{app}b");
    deploy(other, second, &another, "second").ok();
    let kept = ids(&docker, &another);
    one.cli(&["app", "remove", app, "--host", &first.name, "--json"]).ok();
    assert!(docker.containers(app).is_empty() && docker.tags(app).is_empty());
    assert_eq!(ids(&docker, &another), kept);
    other.cli(&["app", "remove", &another, "--host", &second.name, "--json"]).ok();
}

#[test]
fn two_agents_of_one_fleet_share_an_engine_and_leave_each_other_alone() {
    let fleet = Fleet::start();
    let (first, second) = (fleet.host("first"), fleet.host("second"));
    collide((&fleet, &first), (&fleet, &second), &fleet.app("shop"));
}

#[test]
fn two_agents_of_two_fleets_share_an_engine_and_leave_each_other_alone() {
    let (one, other) = (Fleet::start(), Fleet::start());
    let (first, second) = (one.host("local"), other.host("local"));
    collide((&one, &first), (&other, &second), &one.app("shop"));
}

#[test]
fn two_agents_with_an_engine_each_have_the_same_app_each() {
    let fleet = Fleet::start();
    let app = fleet.app("shop");
    // Such an engine has no networks.
    let text = |version: &str| compose(version, "    network_mode: none\n");
    let mut sites = Vec::new();
    for name in ["first", "second"] {
        let engine = PrivateEngine::start();
        let mut host = fleet.host_enrolled(name);
        host.use_docker(&engine.docker);
        host.start();
        fleet.wait_host(name, "connected");
        fleet.deploy(&app, name, &text(name)).ok();
        sites.push((host, engine));
    }
    let picture = |at: usize| Picture::take(&sites[at].1.docker, &app);
    for (at, name) in ["first", "second"].into_iter().enumerate() {
        assert_eq!(seen(&picture(at)), [(format!("{app}-web-1"), true, name.to_owned())]);
        assert_eq!((picture(at).volumes.len(), picture(at).tags.len()), (1, 1));
    }
    assert!(Docker::default().containers(&app).is_empty(), "and the machine's own engine has nothing of it");
    let second = ids(&sites[1].1.docker, &app);
    fleet.deploy(&app, "first", &text("third")).ok();
    fleet.cli(&["app", "remove", &app, "--host", "first", "--json"]).ok();
    assert!(picture(0).containers.is_empty());
    assert_eq!(ids(&sites[1].1.docker, &app), second);
    wait_until("the second still has it", || sites[1].1.docker.containers(&app).iter().all(|it| it.running));
}
