//! Pulling from a real, if very small, registry: this test serves the sample image itself over the
//! registry's HTTP API (OCI distribution specification, pull part). The engine speaks plain HTTP to
//! 127.0.0.0/8, so nothing has to be configured.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

use actions::effect::{Effect, EffectErrorKind, Observation};
use data_encoding::BASE64;
use ids::sha256;
use serde_json::{Value, json};

use crate::support::{Agent, docker, image, refused};

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const USER_AND_PASSWORD: &[u8] = b"ann:s3cret";

/// Answers by path: media type and content.
type Answers = BTreeMap<String, (&'static str, Vec<u8>)>;

/// Serves `public/app:1` to everyone and `private/app:1` to [`USER_AND_PASSWORD`]; its `host:port`.
fn registry() -> String {
    let answers = Arc::new(answers());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            thread::spawn(move || answer(connection, &answers));
        }
    });
    address
}

/// The sample image as a registry has it, under both names.
fn answers() -> Answers {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = dir.path().join("image.tar");
    docker(&["save", "-o", &archive.display().to_string(), image()]);
    let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(dir.path()).status();
    assert!(unpacked.expect("tar starts").success());
    let read = |name: &str| fs::read(dir.path().join(Path::new(name))).expect("a part of the image");
    let saved: Value = serde_json::from_slice(&read("manifest.json")).expect("JSON");
    let config = read(saved[0]["Config"].as_str().expect("a name"));
    let layer = read(saved[0]["Layers"][0].as_str().expect("a name"));
    let digest = |content: &[u8]| format!("sha256:{}", sha256(content));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(),
            "digest": digest(&config),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size": layer.len(),
            "digest": digest(&layer),
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut answers = Answers::new();
    for name in ["public/app", "private/app"] {
        for tag in ["1", &digest(&manifest)] {
            answers.insert(format!("/v2/{name}/manifests/{tag}"), (MANIFEST_TYPE, manifest.clone()));
        }
        for blob in [&config, &layer] {
            answers.insert(format!("/v2/{name}/blobs/{}", digest(blob)), ("application/octet-stream", blob.clone()));
        }
    }
    answers
}

fn answer(mut connection: TcpStream, answers: &Answers) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if connection.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        // The engine tries TLS first (its records begin with 0x16) and waits long for an answer.
        if head.is_empty() && byte[0] == 0x16 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let login = format!("authorization: basic {}", BASE64.encode(USER_AND_PASSWORD)).to_ascii_lowercase();
    let is_known = head.to_ascii_lowercase().contains(&login);
    let (status, headers, body) = if !is_known && (path == "/v2/" || path.starts_with("/v2/private/")) {
        // `/v2/` asks too, because the engine learns there how to log in.
        ("401 Unauthorized", "www-authenticate: Basic realm=\"test\"\r\n".to_owned(), Vec::new())
    } else if path == "/v2/" {
        ("200 OK", String::new(), Vec::new())
    } else if let Some((kind, content)) = answers.get(path) {
        let digest = format!("content-type: {kind}\r\ndocker-content-digest: sha256:{}\r\n", sha256(content));
        ("200 OK", digest, content.clone())
    } else {
        let body = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]});
        ("404 Not Found", "content-type: application/json\r\n".to_owned(), body.to_string().into_bytes())
    };
    let length = body.len();
    let _ = write!(connection, "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    if method != "HEAD" {
        let _ = connection.write_all(&body);
    }
}

fn config_file(dir: &Path, registry: &str) -> std::path::PathBuf {
    let path = dir.join("config.json");
    let config = json!({"auths": {registry: {"auth": BASE64.encode(USER_AND_PASSWORD)}}});
    fs::write(&path, config.to_string()).expect("written");
    path
}

#[tokio::test]
async fn an_image_is_pulled_with_the_hosts_credentials() {
    let agent = Agent::new();
    let registry = registry();
    let dir = tempfile::tempdir().expect("a directory");
    let engine = agent.engine.with_credentials(config_file(dir.path(), &registry));
    for repository in ["public/app", "private/app"] {
        let reference = format!("{registry}/{repository}:1");
        for last in [format!("Pulled {reference}"), format!("{reference} is up to date")] {
            let mut lines = Vec::new();
            let pull = Effect::ImagePull { reference: reference.clone(), platform: None };
            let pulled = engine.perform(pull, &mut |line| lines.push(line)).await;
            assert!(matches!(pulled, Ok(Observation::Done)), "{pulled:?}");
            assert_eq!(lines.last(), Some(&last));
        }
        let Ok(Observation::Image(Some(found))) = agent.perform(Effect::ImageInspect { image: reference }).await else {
            panic!("not there after the pull");
        };
        let pinned = found.repo_digests.iter().find(|it| it.starts_with(&format!("{registry}/{repository}@sha256:")));
        let pinned = pinned.unwrap_or_else(|| panic!("{found:?}")).clone();
        let pulled = engine.perform(Effect::ImagePull { reference: pinned.clone(), platform: None }, &mut |_| ()).await;
        assert!(matches!(pulled, Ok(Observation::Done)), "{pulled:?}");
        // The digest goes with the last tag of its repository.
        docker(&["rmi", &format!("{registry}/{repository}:1")]);
    }
}

#[tokio::test]
async fn a_private_or_absent_image_is_explained() {
    let agent = Agent::new();
    let registry = registry();
    let dir = tempfile::tempdir().expect("a directory");
    let anonymous = agent.engine.with_credentials(dir.path().join("none.json"));
    let pull = |repository: &str| Effect::ImagePull { reference: format!("{registry}/{repository}"), platform: None };
    let result = anonymous.perform(pull("private/app:1"), &mut |_| ()).await;
    refused(result, EffectErrorKind::ImageNotFound, &["private/app:1", "docker login"]);
    let known = agent.engine.with_credentials(config_file(dir.path(), &registry));
    let result = known.perform(pull("public/app:2"), &mut |_| ()).await;
    refused(result, EffectErrorKind::ImageNotFound, &["public/app:2", "name and tag"]);
}
