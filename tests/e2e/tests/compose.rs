//! Compose projects as people write them, from the command line or the REST API through the control plane and the
//! agent to Docker, and looked at from inside of the container.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::PathBuf,
};

use e2e::{
    cli,
    docker::{Docker, SAMPLE},
    fleet::{Fleet, Host, free_port, text_of},
    http,
    project::{KEY_LINES, Project, TOKEN, allow},
    sample::{web, web_service, web_that_hangs},
};
use serde_json::{Value, json};

/// A fleet with one host, and a project for it.
fn scene() -> (Project, Fleet, Host) {
    let fleet = Fleet::start();
    let host = fleet.host("local");
    (Project::new(fleet.app("shop"), free_port()), fleet, host)
}

fn last_command(deployed: &Value) -> Value {
    deployed["commands"].as_array().and_then(|all| all.last()).unwrap_or_else(|| panic!("{deployed:#}")).clone()
}

/// Pid of a container's first process.
fn pid(docker: &Docker, name: &str) -> u64 {
    docker.inspect(name)["State"]["Pid"].as_u64().expect("a pid")
}

/// A path as the container's processes see it.
fn inside(docker: &Docker, name: &str, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", pid(docker, name)))
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Directories of the app's files in the agent's state directory.
fn file_directories(host: &Host, app: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(host.state("files").join(app)) else { return Vec::new() };
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_project_is_deployed_as_written_changed_and_removed() {
    let (project, fleet, host) = scene();
    let (docker, web) = (&fleet.docker, format!("{}-web-1", project.app));
    project.allow(&host);
    let deployed = project.deploy(&fleet, &[]).ok().json();
    let command = last_command(&deployed);
    assert_eq!(command["status"], "succeeded", "{deployed:#}");
    assert_eq!(docker.names(&project.app), [format!("{}-helper-1", project.app), web.clone()], "debug is left out");
    settings_as_written(&project, docker, &web);
    environment_as_written(&project, docker, &web);
    files_as_written(&project, docker, &web);
    process_as_written(docker, &web);
    assert_eq!(file_directories(&host, &project.app).len(), 1);

    let before = docker.containers(&project.app);
    let again = project.deploy(&fleet, &[]).ok().json();
    assert!(text_of(&last_command(&again), "message").contains("nothing to change"), "{again:#}");
    assert_eq!(docker.containers(&project.app), before);

    // A changed file replaces the one container that has it.
    project.write("conf/site.conf", "listen 8080;\n");
    let changed = project.deploy(&fleet, &[]).ok().json();
    assert_eq!(last_command(&changed)["status"], "succeeded", "{changed:#}");
    let after = docker.containers(&project.app);
    assert_eq!(after[0], before[0], "helper stays");
    assert_ne!(after[1].id, before[1].id);
    assert_eq!(read(inside(docker, &web, "/etc/app/site.conf")), "listen 8080;\n");
    assert_eq!(file_directories(&host, &project.app).len(), 1, "those of the old container are gone");

    // A profile brings its service, and without it the service goes.
    project.deploy(&fleet, &["--profile", "debug"]).ok();
    assert_eq!(docker.names(&project.app).len(), 3);
    project.deploy(&fleet, &[]).ok();
    assert_eq!(docker.names(&project.app).len(), 2);

    fleet.cli(&["app", "remove", &project.app, "--json"]).ok();
    assert!(docker.containers(&project.app).is_empty());
    assert!(!host.state("files").join(&project.app).exists(), "its files went with it");
    assert_eq!(docker.inspect(&project.front())["Name"], project.front(), "what others made stays");
    assert_eq!(docker.inspect(&project.shared())["Name"], project.shared());
    assert_eq!(read(project.html().join("page")), "from the host");
    assert!(project.data().is_dir(), "data stays");
}

fn settings_as_written(project: &Project, docker: &Docker, web: &str) {
    let found = docker.inspect(web);
    let (config, host) = (&found["Config"], &found["HostConfig"]);
    for (field, wanted) in [
        ("ReadonlyRootfs", json!(true)),
        ("Init", json!(true)),
        ("Privileged", json!(false)),
        ("CapDrop", json!(["ALL"])),
        ("Sysctls", json!({ "net.core.somaxconn": "1024" })),
        ("Ulimits", json!([{ "Name": "nofile", "Soft": 512, "Hard": 1024 }])),
        ("PidsLimit", json!(50)),
        ("Memory", json!(64 << 20)),
        ("MemoryReservation", json!(16 << 20)),
        ("NanoCpus", json!(500_000_000)),
        ("ExtraHosts", json!(["db:10.0.0.1"])),
        ("Dns", json!(["10.0.0.53"])),
        ("DnsSearch", json!(["example"])),
        ("SecurityOpt", json!(["no-new-privileges:true"])),
    ] {
        assert_eq!(host[field], wanted, "{field}");
    }
    for (field, wanted) in [
        ("Hostname", json!("box")),
        ("Domainname", json!("example")),
        ("User", json!("65534:65534")),
        ("StopSignal", json!("SIGINT")),
        ("StopTimeout", json!(2)),
    ] {
        assert_eq!(config[field], wanted, "{field}");
    }
    assert!(config["ExposedPorts"]["9100/tcp"].is_object(), "{config}");
    let helper = docker.inspect(&format!("{}-helper-1", project.app));
    assert!(helper["Config"]["ExposedPorts"]["9000/udp"].is_object(), "{helper}");
    let networks = found["NetworkSettings"]["Networks"].as_object().expect("networks");
    let own = format!("{}_default", project.app);
    assert_eq!(networks.keys().cloned().collect::<BTreeSet<_>>(), BTreeSet::from([own.clone(), project.front()]));
    let links = &networks[&own]["Links"];
    assert_eq!(*links, json!([format!("{}-helper-1:assistant", project.app)]));
}

fn environment_as_written(project: &Project, docker: &Docker, web: &str) {
    let of = |name: &str| docker.variable(web, name);
    for (name, value) in
        [("FROM_BASE", "base"), ("FROM_WEB", "web"), ("BOTH", "web"), ("GREETING", "hello"), ("TOKEN", TOKEN)]
    {
        assert_eq!(of(name).as_deref(), Some(value), "{name}");
    }
    let helps = docker.variable(&format!("{}-helper-1", project.app), "HELPS");
    assert_eq!(helps.as_deref(), Some("nobody"), "variables of an included file stand where it is included");
}

fn files_as_written(project: &Project, docker: &Docker, web: &str) {
    let key = format!("{}\n", KEY_LINES.join("\n"));
    for (path, content, uid, mode) in [
        ("/etc/app/site.conf", "listen 80;\n", 65_534, 0o440),
        ("/run/secrets/key", key.as_str(), 65_534, 0o400),
        ("/run/secrets/token", TOKEN, 0, 0o444),
    ] {
        let seen = inside(docker, web, path);
        assert_eq!(read(seen.clone()), content, "{path}");
        let found = fs::metadata(&seen).expect("there");
        assert_eq!((found.uid(), found.mode() & 0o7777), (uid, mode), "{path}");
        let written = fs::write(&seen, "x").expect_err("read-only, for root as well");
        assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{path}");
    }
    let said = docker.run(&["inspect", web]).ok().stdout;
    assert!(KEY_LINES.iter().all(|line| !said.contains(line)), "a file's content is in no configuration");
    assert_eq!(read(inside(docker, web, "/html/page")), "from the host");
    let denied = |path: &str| fs::write(inside(docker, web, path), "x").expect_err("read-only").kind();
    assert_eq!(denied("/html/page"), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(denied("/anywhere"), std::io::ErrorKind::ReadOnlyFilesystem);
    for (path, outside) in
        [("/data/seen", Some(project.data().join("seen"))), ("/run/app/x", None), ("/shared/x", None)]
    {
        fs::write(inside(docker, web, path), "inside").unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(outside.is_none_or(|outside| read(outside) == "inside"), "{path}");
    }
}

fn process_as_written(docker: &Docker, web: &str) {
    let pid = pid(docker, web);
    let status = read(PathBuf::from(format!("/proc/{pid}/status")));
    for line in ["Uid:\t65534\t65534", "Gid:\t65534\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
    assert!(status.contains("docker-init") || status.contains("Name:\ttini"), "init is the first process: {status}");
    let limits = read(PathBuf::from(format!("/proc/{pid}/limits")));
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
    assert!(files.contains(" 512 ") && files.contains(" 1024 "), "{files}");
    let hosts = read(inside(docker, web, "/etc/hosts"));
    assert!(hosts.contains("10.0.0.1\tdb") && hosts.contains("box"), "{hosts}");
    let mounts = read(PathBuf::from(format!("/proc/{pid}/mounts")));
    let memory = mounts.lines().find(|line| line.contains(" /run/app ")).expect("memory at /run/app");
    assert!(memory.starts_with("tmpfs") && memory.contains("size=1024k"), "{memory}");
}

#[test]
fn what_the_default_policy_refuses_is_named_before_and_allowed_line_by_line() {
    let (project, fleet, host) = scene();
    let checked = project.cli(&fleet, "check", &[]).ok().json();
    let named: Vec<String> =
        checked["policy"].as_array().expect("lines").iter().map(|line| text_of(line, "line")).collect();
    assert_eq!(named.len(), 4, "two directories, a volume and a network: {named:?}");
    // Each refusal has one of these lines, and the next one another.
    let mut refused = Vec::new();
    for (table, key, name) in [
        ("binds", "roots", project.root()),
        ("volumes", "external", project.shared()),
        ("networks", "external", project.front()),
    ] {
        let ran = project.deploy(&fleet, &[]).expect(1).json();
        let command = last_command(&ran);
        assert_eq!(command["status"], "rejected", "{ran:#}");
        let message = text_of(&command, "message");
        let line = named.iter().find(|line| message.contains(*line)).unwrap_or_else(|| panic!("{message}\n{named:?}"));
        assert!(line.starts_with(&format!("[{table}] {key}")) && !refused.contains(&line), "{line}");
        refused.push(line);
        assert!(fleet.docker.containers(&project.app).is_empty());
        allow(&host, table, key, &name);
    }
    project.deploy(&fleet, &[]).ok();
    assert_eq!(fleet.docker.names(&project.app).len(), 2);
}

#[test]
fn a_link_on_the_way_to_a_directory_of_the_host_is_refused() {
    let (project, fleet, host) = scene();
    project.allow(&host);
    let elsewhere = project.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let (html, aside) = (project.html(), project.html().with_file_name("aside"));
    fs::rename(&html, &aside).expect("put aside");
    symlink(&elsewhere, &html).expect("a link");
    let ran = project.deploy(&fleet, &[]).expect(1).json();
    let message = text_of(&last_command(&ran), "message");
    assert!(message.contains(&format!("{} is a symbolic link", html.display())), "{ran:#}");
    assert!(fleet.docker.containers(&project.app).is_empty());

    // The same planted below a deployed app: the next release is refused, and the one that runs goes on.
    fs::remove_file(&html).expect("the link");
    fs::rename(&aside, &html).expect("put back");
    project.deploy(&fleet, &[]).ok();
    let before = fleet.docker.containers(&project.app);
    fs::rename(&html, &aside).expect("put aside");
    symlink(&elsewhere, &html).expect("a link");
    let ran = project.deploy(&fleet, &["GREETING=again"]).expect(1).json();
    assert!(text_of(&last_command(&ran), "message").contains("is a symbolic link"), "{ran:#}");
    assert_eq!(fleet.docker.containers(&project.app), before);
}

#[test]
fn a_second_release_that_fails_leaves_the_first_with_its_files() {
    let (project, fleet, host) = scene();
    project.allow(&host);
    project.deploy(&fleet, &[]).ok();
    let (docker, web) = (&fleet.docker, format!("{}-web-1", project.app));
    let (before, directories) = (docker.inspect(&web)["Id"].clone(), file_directories(&host, &project.app));

    project.write("conf/site.conf", "listen 9999;\n");
    let other_key = "another-line-of-the-key\n";
    project.write("conf/key.pem", other_key);
    let ran = project.deploy(&fleet, &["FAIL=unhealthy"]).expect(1);
    let command = last_command(&ran.json());
    assert_eq!(command["status"], "rolled_back", "{command:#}");
    assert!(!ran.all().contains(other_key.trim()) && !ran.all().contains(KEY_LINES[1]), "{}", ran.all());
    assert_eq!(docker.inspect(&web)["Id"], before);
    assert_eq!(file_directories(&host, &project.app), directories, "those of the second are gone");
    files_as_written(&project, docker, &web);

    project.deploy(&fleet, &[]).ok();
    assert_eq!(read(inside(docker, &web, "/run/secrets/key")), other_key);
    assert_eq!(file_directories(&host, &project.app).len(), 1);
}

#[test]
fn a_deploy_waits_for_health_as_long_as_it_was_told() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, port) = (fleet.app("slow"), free_port());
    let deploy = |text: &str, more: &[&str]| {
        let path = fleet.compose(text);
        fleet.cli(&[&["app", "deploy", "--json", "--name", &app, "--host", "local", "-f", &path], more].concat())
    };
    let ran = deploy(&web_that_hangs(port), &["--healthy-within", "3s"]).expect(1).json();
    let command = last_command(&ran);
    assert_eq!(command["status"], "rolled_back", "{ran:#}");
    assert!(text_of(&command, "message").contains("not healthy within 3 s"), "{ran:#}");
    assert!(fleet.docker.containers(&app).is_empty());
    deploy(&web(port, &[]), &["--healthy-within", "1m", "--min-healthy", "1s"]).ok();
    let deployed = fleet.command(&text_of(&fleet.commands("app.deploy")[0], "command_id"));
    let parameters = &deployed["parameters"];
    assert_eq!((&parameters["timeout_ms"], &parameters["min_healthy_ms"]), (&json!(60_000), &json!(1_000)));
}

#[test]
fn lines_of_a_secret_file_are_masked_wherever_the_app_says_them() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let app = fleet.app("leak");
    let (first, second) = ("first-line-of-a-secret", "second-line-of-a-secret");
    // It prints one line of its secret file, as it is and within others, and fails.
    let text = format!(
        "services:\n  web:\n    image: {SAMPLE}\n    command: [\"once\", \"9\", \"it is {second}.\"]\n    restart: \"no\"\n    \
         healthcheck: {{disable: true}}\n    secrets: [key]\nsecrets: {{key: {{file: key.pem}}}}\n"
    );
    let path = fleet.compose(&text);
    fs::write(PathBuf::from(&path).with_file_name("key.pem"), format!("{first}\n{second}\n\u{7}end")).expect("a file");
    let deploy = ["app", "deploy", "--json", "--name", &app, "--host", "local", "-f", &path];
    let ran = fleet.cli(&deploy).expect(1);
    let id = text_of(&last_command(&ran.json()), "command_id");
    let report = fleet.command(&id)["report"].clone();
    assert!(text_of(&report["result"]["failing"][0], "logs").contains("it is ***."), "{report:#}");
    assert!(!ran.all().contains(second), "{}", ran.all());
}

/// `deploy_bundle` with these parts.
fn bundle(fleet: &Fleet, app: &str, number: u8, files: &Value, variables: &Value) -> http::Answer {
    let id = format!("018bcfe5-6800-7fff-bfff-0000000000{number:02x}");
    let body = json!({
        "kind": "deploy_bundle", "operation_id": id, "hosts": ["local"], "files": files, "order": ["compose.yaml"],
        "variables": variables, "name": app, "healthy_within_seconds": 60,
    });
    let headers = [("authorization", &*format!("Bearer {}", fleet.token())), ("content-type", "application/json")];
    let answer = http::request(fleet.http_port, "POST", "/api/v1/operations", &headers, &body.to_string());
    answer.expect("an answer")
}

#[test]
fn a_bundle_is_read_by_the_control_plane_and_deployed() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, port, docker) = (fleet.app("bundle"), free_port(), &fleet.docker);
    let compose = format!(
        "services:\n{}    env_file: web.env\n    secrets: [key]\nsecrets: {{key: {{file: tls/key.der}}}}\n",
        web_service(port, &[("GREETING", "${GREETING}")], "")
    );
    // Bytes that are no text, and a variable of the request before the one of `.env`.
    let files = json!({ "compose.yaml": compose, "web.env": "FROM_FILE=yes\n", ".env": "GREETING=not this\n",
        "tls/key.der": { "base64": "AP9rZXk=" } });
    let answer = bundle(&fleet, &app, 1, &files, &json!({ "GREETING": "from the bundle" }));
    assert_eq!(answer.status, 202, "{answer:?}");
    let deploy = fleet.wait_command("app.deploy", &[]);
    assert_eq!(fleet.wait_settled(&deploy)["status"], "succeeded");
    let web = docker.containers(&app).pop().expect("a container");
    assert_eq!(docker.variable(&web.id, "GREETING").as_deref(), Some("from the bundle"));
    assert_eq!(docker.variable(&web.id, "FROM_FILE").as_deref(), Some("yes"));
    assert_eq!(fs::read(inside(docker, &web.id, "/run/secrets/key")).expect("readable"), b"\0\xffkey");

    // Files and variables of the control plane's machine are out of reach, also where they are there.
    let planted = fleet.path("planted.env");
    fs::write(&planted, "PLANTED=read-from-the-server\n").expect("a file");
    for (number, more) in [
        (2, format!("env_file: {}", planted.display())),
        (3, "env_file: ../planted.env".to_owned()),
        (4, "env_file: planted.env".to_owned()),
        (5, "environment: {A: \"${PATH:?is not set}\"}".to_owned()),
    ] {
        let files = json!({ "compose.yaml": format!("services: {{web: {{image: {SAMPLE}, {more}}}}}") });
        let answer = bundle(&fleet, &app, number, &files, &json!({}));
        assert_eq!(answer.status, 422, "{more}: {answer:?}");
        assert!(answer.body.contains("compose.yaml") && !answer.body.contains("read-from-the-server"), "{answer:?}");
    }
    assert_eq!(docker.containers(&app), [web]);
}

/// Projects of the reader's corpus, with the sample app in place of their images.
#[test]
fn projects_of_the_corpus_are_deployed() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../crates/compose/tests/corpus");
    for (name, services) in [("configs-and-secrets", 1), ("merged-defaults", 3), ("unicode-and-yaml", 1)] {
        let app = fleet.app(name);
        let folder = fleet.path(name);
        let copied = std::process::Command::new("cp").arg("-r").arg(corpus.join(name)).arg(&folder).status();
        assert!(copied.expect("cp").success());
        let path = folder.join("compose.yaml");
        let text: String = read(path.clone()).lines().map(|line| with_sample(line) + "\n").collect();
        fs::write(&path, text).expect("a Compose file");
        let mut command = fleet.cli_command(&["app", "deploy", "--json", "--name", &app, "--host", "local", "-f"]);
        command.arg(&path).env("API_TOKEN", "hunter2-token").env("URL", "http://a");
        let ran = cli::run(command);
        assert_eq!(last_command(&ran.json())["status"], "succeeded", "{name}: {}", ran.all());
        assert_eq!(fleet.docker.names(&app).len(), services, "{name}");
        fleet.cli(&["app", "remove", &app]).ok();
    }
}

/// A line of a Compose file with the sample app as its image.
fn with_sample(line: &str) -> String {
    match line.split_once("image:") {
        Some((before, _)) if before.trim().is_empty() => format!("{before}image: {SAMPLE}"),
        _ => line.to_owned(),
    }
}
