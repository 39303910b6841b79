//! What was planted is looked for: in every file of the control plane but those that keep keys, in every log, and in
//! what a crash leaves behind.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use e2e::{
    cli::run,
    fleet::{Fleet, text_of},
    http,
    program::signal,
};
use envelope::token::JoinToken;
use serde_json::json;

const APP_SECRET: &str = "plantedAppSecret-4471-kumquat";
const BUNDLE_SECRET: &str = "plantedBundleSecret-9902-medlar";
const PASSWORD: &str = "planted-password-7713-quince";

/// Something that must not be found, in each form it may be written in.
struct Planted {
    what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Planted {
    fn text(what: &'static str, text: &str) -> Self {
        Self::bytes(what, text.as_bytes())
    }

    fn bytes(what: &'static str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "{what} is too short to be looked for");
        // Whole groups of three, so that base64 of a longer text has them where they stand first.
        let whole = &bytes[..bytes.len() / 3 * 3];
        let forms = vec![
            bytes.to_vec(),
            HEXLOWER.encode(bytes).into_bytes(),
            BASE64.encode(whole).into_bytes(),
            BASE64URL_NOPAD.encode(whole).into_bytes(),
        ];
        Self { what, forms }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| contains(bytes, form))
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Every file below a folder but those that keep what they are for: keys, and the sign-in that `init` wrote down.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
        if entry.is_dir() && name != "keys" {
            found.extend(files(&entry));
        } else if entry.is_file() && !name.contains("token") && !name.ends_with(".key.pem") {
            found.push(entry);
        }
    }
    found
}

/// The secret bytes of a join token.
fn join_secret(token: &str) -> Vec<u8> {
    JoinToken::parse(token).expect("a join token").secret.to_vec()
}

/// Uses everything that has a secret, and says what they were.
fn plant(fleet: &Fleet) -> Vec<Planted> {
    let used = fleet.join_token("local", &[]);
    let unused = fleet.join_token("never", &[]);
    let mut planted: Vec<Planted> = [("a used join secret", &used), ("a join secret", &unused)]
        .map(|(what, file)| Planted::bytes(what, &join_secret(&fs::read_to_string(file).expect("a token"))))
        .into();
    let mut host = e2e::fleet::Host::unborn(fleet, "local");
    host.enrol(&used).ok();
    host.start();
    fleet.wait_host("local", "connected");

    let app = fleet.app("planted");
    let file = |secret: &str| {
        format!(
            "services:\n  web:\n    image: serverflow-sample:1\n    network_mode: none\n    environment: {{KEY: \"{secret}\"}}\n"
        )
    };
    fleet.deploy(&app, "local", &file(APP_SECRET)).ok();
    // By REST, the plaintext itself comes to the control plane.
    let body = json!({ "kind": "deploy_bundle", "operation_id": "018bcfe5-6800-7fff-bfff-ffffffffffff", "hosts": ["local"],
        "files": { "compose.yaml": file(BUNDLE_SECRET) }, "order": ["compose.yaml"], "name": app });
    let headers = [("authorization", &*format!("Bearer {}", fleet.token())), ("content-type", "application/json")];
    let answer = http::request(fleet.http_port, "POST", "/api/v1/operations", &headers, &body.to_string());
    assert_eq!(answer.expect("an answer").status, 202);
    fleet.cli(&["operation", "watch", "018bcfe5-6800-7fff-bfff-ffffffffffff"]).ok();

    fs::write(fleet.path("password"), PASSWORD).expect("written");
    fleet.cli(&["user", "create", "ada", "--role", "operator", "--password-file", "password"]).ok();
    let url = format!("http://127.0.0.1:{}", fleet.http_port);
    let login = ["login", &url, "--user", "ada", "--password-file", "password"];
    run(fleet.cli_stranger(&login)).ok();
    let wrong = json!({ "name": "ada", "password": "planted-wrong-password-5150" }).to_string();
    let refused = http::request(fleet.http_port, "POST", "/api/v1/session", &headers[1..], &wrong);
    assert_eq!(refused.expect("an answer").status, 401, "the password was looked at");
    let api = fleet.cli(&["token", "create", "--name", "ci", "--role", "viewer", "--ttl", "1d", "--json"]).ok().json();
    fleet.cli(&["app", "logs", &app]).ok();
    fleet.cli(&["app", "remove", &app]).ok();
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();

    let identity = keyfile::read_seed(&host.state("identity.key.pem"), keyfile::KeyKind::Ed25519).expect("a key");
    planted.extend([
        Planted::text("an app's secret", APP_SECRET),
        Planted::text("a secret sealed by the control plane", BUNDLE_SECRET),
        Planted::text("a password", PASSWORD),
        Planted::text("a wrong password", "planted-wrong-password-5150"),
        Planted::text("a bearer token", fleet.token()),
        Planted::text("an API token", &text_of(&api, "token")),
        Planted::text("the root key's passphrase", &text_of(&fleet.init, "root_passphrase")),
        Planted::bytes("the command key", &fleet.command_seed()),
        Planted::bytes("a host's identity key", &*identity),
    ]);
    for name in ["session", "audit"] {
        let path = fleet.data(&format!("keys/{name}.key.pem"));
        let seed = keyfile::read_seed(&path, keyfile::KeyKind::Ed25519).expect("a key");
        planted.push(Planted::bytes("a key of the control plane", &*seed));
    }
    planted
}

#[test]
fn nothing_secret_is_in_the_database_the_logs_or_the_remains_of_a_crash() {
    let mut fleet = Fleet::start();
    let planted = plant(&fleet);
    let mut places = files(&fleet.path("control-plane"));
    places.extend([fleet.path("control-plane.log"), fleet.path("host-local.log")]);
    let contents: Vec<(PathBuf, Vec<u8>)> =
        places.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a file"))).collect();
    // The search finds what is there.
    for (name, words) in [("serverflow.db", "local"), ("control-plane.log", "session"), ("log.jsonl", "granted")] {
        let has = |(path, bytes): &(PathBuf, Vec<u8>)| {
            path.to_string_lossy().contains(name) && contains(bytes, words.as_bytes())
        };
        assert!(contents.iter().any(has), "{words:?} is not found in {name}");
    }
    for (path, bytes) in &contents {
        for planted in &planted {
            assert!(!planted.is_in(bytes), "{} is in {}", planted.what, path.display());
        }
    }
    crashed(&mut fleet);
}

/// A crash leaves no core file, whatever the limits say; that of another program in its place has what was planted.
fn crashed(fleet: &mut Fleet) {
    let folder = fleet.path("crash");
    fs::create_dir(&folder).expect("a folder");
    let mut other = Command::new("sleep");
    other.arg("600").env("PLANTED", APP_SECRET).current_dir(&folder);
    let mut other = other.spawn().expect("sleep");
    unlimited(other.id());
    signal(other.id(), "ABRT");
    assert_eq!(other.wait().expect("its end").signal(), Some(6));
    let is_core = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"));
    let cores = |folder: &Path| files(folder).into_iter().filter(is_core).collect::<Vec<_>>();
    let [core] = &cores(&folder)[..] else {
        eprintln!("SKIPPED in part: this machine writes no core files into a program's folder");
        return;
    };
    assert!(
        contains(&fs::read(core).expect("a core file"), APP_SECRET.as_bytes()),
        "a core file holds what a program knew"
    );

    let control_plane = fleet.control_plane().pid();
    let folder = fs::read_link(format!("/proc/{control_plane}/cwd")).expect("its folder");
    let before = fs::read_dir(&folder).expect("a folder").count();
    unlimited(control_plane);
    signal(control_plane, "ABRT");
    assert_eq!(fleet.control_plane().wait_ended().signal(), Some(6));
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), before, "something was left in {}", folder.display());
    assert!(cores(&fleet.path("control-plane")).is_empty());
}

fn unlimited(pid: u32) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), "--core=unlimited"]);
    run(prlimit).ok();
}
