//! HTTPS against a real TLS server: what is trusted, what is refused, and in which words.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;

use crate::{
    program::{Home, Ran},
    server::{Answer, Server},
};

/// A private authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(parameters, key) }
    }

    /// A server's TLS with a certificate for these names, good until a year's end.
    fn server(&self, names: &[&str], last_year: i32) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = parameters(names);
        parameters.not_after = date_time_ymd(last_year, 12, 31);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        config(certificate.der().clone(), &key)
    }
}

fn parameters(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("parameters")
}

fn config(certificate: rustls::pki_types::CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a usable certificate");
    Arc::new(config)
}

fn answers() -> [(&'static str, Vec<Answer>); 4] {
    let user = json!({"name": "admin", "role": "admin", "expires_at": "2099-01-01T00:00:00.000Z"});
    let signed_in = json!({"token": "sfs_kept", "expires_at": "2099-01-01T00:00:00.000Z", "user": user});
    [
        ("POST /api/v1/session", vec![Answer::Json(201, signed_in)]),
        ("GET /api/v1/fleet/root", vec![Answer::Json(200, crate::fleet_root::chain(1))]),
        ("GET /api/v1/session", vec![Answer::Json(200, user)]),
        ("DELETE /api/v1/session", vec![Answer::Json(204, json!(null))]),
    ]
}

fn login(home: &Home, url: &str, more: &[&str]) -> Ran {
    home.write("password", "correct horse");
    let words = ["login", url, "--user", "admin", "--password-file", "password"];
    home.run(&[&words[..], more].concat())
}

#[test]
fn an_authority_given_at_sign_in_is_remembered_by_name_and_by_bare_address() {
    let authority = Authority::new();
    for host in ["localhost", "127.0.0.1"] {
        let server = Server::secure(answers(), authority.server(&["localhost", "127.0.0.1"], 2099));
        let url = format!("https://{host}:{}", server.port());
        let home = Home::new();
        home.write("ca.pem", &authority.pem);
        login(&home, &url, &["--ca", "ca.pem"]).code(0);
        std::fs::remove_file(home.path().join("ca.pem")).expect("removed");
        home.run(&["whoami"]).code(0);
        home.run(&["logout"]).code(0);
        assert_eq!(server.heard_of("DELETE")[0].authorization.as_deref(), Some("Bearer sfs_kept"), "{host}");
    }
}

#[test]
fn a_self_signed_certificate_is_trusted_when_it_is_given_and_only_then() {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = parameters(&["localhost"]);
    parameters.is_ca = IsCa::ExplicitNoCa;
    let certificate = parameters.self_signed(&key).expect("a certificate");
    let server = Server::secure(answers(), config(certificate.der().clone(), &key));
    let home = Home::new().with("SERVERFLOW_CA", "own.pem");
    home.write("own.pem", &certificate.pem());
    login(&home, &server.url, &[]).code(0);

    let stranger = Home::new();
    let refused = login(&stranger, &server.url, &[]).code(4);
    assert!(refused.stderr.contains("an authority that this machine does not know"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--ca FILE"), "it says what to do: {}", refused.stderr);
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_and_nothing_is_sent() {
    let authority = Authority::new();
    for (tls, ca, words) in [
        (authority.server(&["localhost"], 2020), &authority, "its certificate has expired"),
        (authority.server(&["other.example"], 2099), &authority, "its certificate is for another name"),
        (authority.server(&["127.0.0.1"], 2099), &authority, "its certificate is for another name"),
        (authority.server(&["localhost"], 2099), &Authority::new(), "not from the authority in the --ca file"),
    ] {
        let server = Server::secure(answers(), tls);
        let home = Home::new();
        home.write("ca.pem", &ca.pem);
        let refused = login(&home, &server.url, &["--ca", "ca.pem"]).code(4);
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
        assert!(refused.stderr.lines().count() >= 2, "what to do: {}", refused.stderr);
        assert!(server.heard().is_empty(), "{words}: the password was sent");
    }
    let plain = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let url = format!("https://localhost:{}", plain.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().expect("a connection");
        let _ = stream.read(&mut [0; 16]);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").expect("an answer");
    });
    let refused = login(&Home::new(), &url, &[]).code(4);
    assert!(refused.stderr.contains("it does not speak TLS"), "{}", refused.stderr);
}

#[test]
fn plain_http_to_a_tls_port_is_said_to_be_that() {
    let server = Server::secure(answers(), Authority::new().server(&["localhost"], 2099));
    let home = Home::signed_in(&format!("http://127.0.0.1:{}", server.port()));
    let refused = home.run(&["whoami"]).code(4);
    assert!(refused.stderr.contains("does not speak plain HTTP\n  if it speaks TLS"), "{}", refused.stderr);
}

#[test]
fn a_file_that_is_no_certificate_is_refused_before_anything_is_asked() {
    let home = Home::new();
    home.write("ca.pem", "nothing");
    let refused = login(&home, "https://localhost:1", &["--ca", "ca.pem"]).code(2);
    assert!(refused.stderr.contains("ca.pem holds no certificate"), "{}", refused.stderr);
    login(&home, "https://localhost:1", &["--ca", "none.pem"]).code(2);
}
