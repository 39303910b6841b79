//! What the policy allows and refuses, as a table.

use ids::ServiceName;
use proptest::prelude::*;

use super::{Demand, ImageOrigin, NamespaceKind, Policy};
use crate::{registry::Class, spec::PortProtocol};

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn publish(address: &str, port: Option<u16>) -> Demand {
    Demand::Publish {
        service: web(),
        host_ip: address.parse().unwrap(),
        host_port: port,
        container_port: 80,
        protocol: PortProtocol::Tcp,
    }
}

fn image(reference: &str) -> Demand {
    Demand::Image { service: web(), reference: reference.to_owned() }
}

fn resolved(origin: ImageOrigin) -> Demand {
    Demand::ResolvedImage { service: web(), reference: "x".to_owned(), origin }
}

fn bind(source: &str) -> Demand {
    Demand::Bind { owner: "volume data".to_owned(), app: "shop".to_owned(), source: source.to_owned() }
}

fn namespace(kind: NamespaceKind) -> Demand {
    Demand::Namespace { service: web(), kind, value: "host".to_owned() }
}

fn check(policy: &str, demand: &Demand, allowed: bool) {
    let policy = Policy::parse(policy).unwrap();
    let answer = policy.judge_demands(core::slice::from_ref(demand));
    assert_eq!(answer.is_ok(), allowed, "{demand:?}: {answer:?}");
    // Nothing beyond a plain container is allowed by an empty policy.
    assert!(Policy::refuse_all().judge_demands(core::slice::from_ref(demand)).is_err(), "{demand:?}");
}

#[test]
fn demands_against_the_default_policy() {
    let default = Policy::default_text();
    for (demand, allowed) in [
        (image("nginx"), true),
        (image("ghcr.io/a/b:1"), true),
        (image("evil.example/a"), false),
        (image("localhost/a"), false),
        (resolved(ImageOrigin::Local), true),
        (resolved(ImageOrigin::Registry("quay.io".to_owned())), true),
        (resolved(ImageOrigin::Registry("evil.example".to_owned())), false),
        (publish("127.0.0.1", Some(80)), true),
        (publish("127.0.0.1", None), true),
        (publish("::1", Some(80)), true),
        (publish("0.0.0.0", Some(80)), false),
        (publish("::", Some(80)), false),
        (publish("192.168.1.5", Some(80)), false),
        (bind("/srv/shop/x"), false),
        (Demand::Privileged { service: web() }, false),
        (namespace(NamespaceKind::Network), false),
        (namespace(NamespaceKind::Pid), false),
        (namespace(NamespaceKind::Ipc), false),
        (Demand::DockerSocket { owner: "volume data".to_owned() }, false),
        (Demand::Capability { service: web(), name: "NET_ADMIN".to_owned() }, false),
        (Demand::Device { service: web(), device: "/dev/kvm".to_owned() }, false),
        (Demand::LogDriver { service: web(), driver: "syslog".to_owned() }, false),
        (Demand::DriverOpts { volume: web(), options: vec!["o=bind".to_owned()] }, false),
    ] {
        check(default, &demand, allowed);
    }
}

#[test]
fn each_line_allows_what_it_says_and_no_more() {
    for (policy, demand, allowed) in [
        ("[ports]\npublish = [\"0.0.0.0:443\"]", publish("0.0.0.0", Some(443)), true),
        ("[ports]\npublish = [\"0.0.0.0:443\"]", publish("10.0.0.1", Some(443)), true),
        ("[ports]\npublish = [\"0.0.0.0:443\"]", publish("::", Some(443)), false),
        ("[ports]\npublish = [\"0.0.0.0:443\"]", publish("0.0.0.0", Some(444)), false),
        ("[ports]\npublish = [\"0.0.0.0:443\"]", publish("0.0.0.0", None), false),
        ("[ports]\npublish = [\"127.0.0.1:8000-9000\"]", publish("127.0.0.1", Some(9000)), true),
        ("[ports]\npublish = [\"127.0.0.1:8000-9000\"]", publish("127.0.0.1", Some(9001)), false),
        ("[ports]\npublish = [\"127.0.0.1:8000-9000\"]", publish("127.0.0.1", None), false),
        ("[ports]\npublish = [\"[::1]:*\"]", publish("::1", None), true),
        ("[images]\nregistries = [\"local\"]", image("bare:1"), true),
        ("[images]\nregistries = [\"local\"]", image("ghcr.io/a/b"), false),
        ("[images]\nregistries = [\"docker.io\"]", resolved(ImageOrigin::Local), false),
        ("[binds]\nroots = [\"/srv\"]", bind("/srv/shop"), true),
        ("[binds]\nroots = [\"/srv/\"]", bind("/srv/shop/data"), true),
        ("[binds]\nroots = [\"/srv\"]", bind("/srv/other"), false),
        ("[binds]\nroots = [\"/srv\"]", bind("/srv/shop/../../etc"), false),
        ("[binds]\nroots = [\"/srv\"]", bind("/srv/shopping"), false),
        ("[binds]\nroots = [\"/srv\"]", bind("/"), false),
        ("[containers]\nprivileged = true", Demand::Privileged { service: web() }, true),
        ("[containers]\nhost_network = true", namespace(NamespaceKind::Network), true),
        ("[containers]\nhost_network = true", namespace(NamespaceKind::Pid), false),
        (
            "[containers]\nlog_drivers = [\"journald\"]",
            Demand::LogDriver { service: web(), driver: "journald".to_owned() },
            true,
        ),
        (
            "[containers]\nlog_drivers = [\"journald\"]",
            Demand::LogDriver { service: web(), driver: "syslog".to_owned() },
            false,
        ),
        (
            "[containers]\ncapabilities = [\"CAP_NET_ADMIN\"]",
            Demand::Capability { service: web(), name: "net_admin".to_owned() },
            true,
        ),
        (
            "[containers]\ncapabilities = [\"NET_ADMIN\"]",
            Demand::Capability { service: web(), name: "ALL".to_owned() },
            false,
        ),
        (
            "[containers]\ndevices = [\"/dev/kvm\"]",
            Demand::Device { service: web(), device: "/dev/kvm:/dev/kvm:rw".to_owned() },
            true,
        ),
        (
            "[containers]\ndevices = [\"/dev/kvm\"]",
            Demand::Device { service: web(), device: "/dev/sda:/dev/kvm".to_owned() },
            false,
        ),
        ("[volumes]\ndriver_opts = true", Demand::DriverOpts { volume: web(), options: Vec::new() }, true),
    ] {
        check(policy, &demand, allowed);
    }
}

#[test]
fn actions_are_named_or_below_a_word() {
    let policy = Policy::parse("actions = [\"host.facts\", \"app.*\"]").unwrap();
    for (name, allowed) in [
        ("host.facts", true),
        ("host.retire", false),
        ("app.deploy", true),
        ("application.deploy", false),
        ("command.cancel", true),
        ("host.keys.rotate", true),
        ("standing.renew", true),
        ("standing.drop", true),
        ("standing.install", false),
    ] {
        let name = name.parse().unwrap();
        assert_eq!(policy.judge(&name, Class::Change, &[]).is_ok(), allowed, "{name}");
        let always = super::ALWAYS_ALLOWED.contains(&name.as_str());
        assert_eq!(Policy::refuse_all().judge(&name, Class::Change, &[]).is_ok(), always, "{name}");
    }
}

/// The line that a refusal offers does allow what was refused.
#[test]
fn the_offered_line_is_the_right_one() {
    for demand in [
        image("evil.example/a"),
        resolved(ImageOrigin::Local),
        publish("0.0.0.0", Some(80)),
        publish("::", None),
        Demand::Privileged { service: web() },
        namespace(NamespaceKind::Ipc),
        Demand::DockerSocket { owner: "volume data".to_owned() },
        Demand::Capability { service: web(), name: "cap_sys_admin".to_owned() },
        Demand::Device { service: web(), device: "/dev/kvm:/dev/kvm".to_owned() },
        Demand::DriverOpts { volume: web(), options: Vec::new() },
    ] {
        let refusal = Policy::refuse_all().judge_demands(core::slice::from_ref(&demand)).unwrap_err();
        let line = refusal.line.replacen("] ", "]\n", 1);
        check(&line, &demand, true);
    }
}

#[test]
fn refusals_say_what_and_what_to_do() {
    let policy = Policy::parse(Policy::default_text()).unwrap();
    let words = |demand: &Demand| policy.judge_demands(core::slice::from_ref(demand)).unwrap_err().to_string();
    expect_test::expect![[r#"this host's policy refuses: service web publishes port 8080 on every address of this host (0.0.0.0). Write "127.0.0.1:8080:80" to publish on this host's loopback only. To allow it, the host's owner adds to policy.toml: [ports] publish = ["0.0.0.0:8080"]"#]].assert_eq(&words(&publish("0.0.0.0", Some(8080))));
    expect_test::expect!["this host's policy refuses: service web runs privileged. To allow it, the host's owner adds to policy.toml: [containers] privileged = true"].assert_eq(&words(&Demand::Privileged { service: web() }));
    expect_test::expect![[r#"this host's policy refuses: service web uses the image evil.example/a:1, from the registry evil.example. To allow it, the host's owner adds to policy.toml: [images] registries = ["evil.example"]"#]].assert_eq(&words(&image("evil.example/a:1")));
}

#[test]
fn what_cannot_be_understood_is_refused_by_line() {
    let error = |text: &str| Policy::parse(text).unwrap_err().to_string();
    expect_test::expect!["policy.toml, line 3: unknown field `prots`, expected one of `actions`, `images`, `ports`, `binds`, `containers`, `networks`, `volumes`, `approvals`"].assert_eq(&error("actions = []\n\n[prots]\npublish = []\n"));
    expect_test::expect![[r#"policy.toml, line 2: invalid type: string "yes", expected a boolean"#]]
        .assert_eq(&error("[containers]\nprivileged = \"yes\"\n"));
    expect_test::expect![[r#"policy.toml, line 3: "80" is not a port to publish: write "127.0.0.1:8080", "127.0.0.1:8000-9000", "127.0.0.1:*" or "[::1]:443""#]].assert_eq(&error("actions = []\n[ports]\npublish = [\"80\"]\n"));
    expect_test::expect![[r#"policy.toml, line 1: "*" is not an action: write an exact name such as "app.deploy", or "app.*" for all below app"#]].assert_eq(&error("actions = [\n  \"*\",\n]\n"));
    expect_test::expect![[
        r#"policy.toml, line 2: "/" is not a root for binds: write an absolute path below /, without . or .."#
    ]]
    .assert_eq(&error("[binds]\nroots = [\"/\"]\n"));
    for text in
        ["actions = \"app.*\"", "[ports]\npublish = [\"127.0.0.1:9-8\"]", "[ports]\npublish = [\"*:80\"]", "x", "\0"]
    {
        assert!(Policy::parse(text).is_err(), "{text:?}");
    }
}

/// `docs/POLICY.md` shows the file that enrolment writes. Blessed with `UPDATE_EXPECT=1`.
#[test]
fn the_default_file_in_the_document() {
    let document = include_str!("../../../../docs/POLICY.md");
    let (head, rest) = document.split_once("<!-- default-policy -->\n").expect("the block begins with its marker");
    let (_, tail) = rest.split_once("<!-- /default-policy -->\n").expect("the block ends with its marker");
    let text = Policy::default_text();
    let expected = format!("{head}<!-- default-policy -->\n```toml\n{text}```\n<!-- /default-policy -->\n{tail}");
    expect_test::expect_file!["../../../../docs/POLICY.md"].assert_eq(&expected);
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,200}") {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn pieces_of_a_policy_never_panic(cut in 0..Policy::default_text().len(), junk in "\\PC{0,5}") {
        let text = Policy::default_text();
        if let (Some(head), Some(tail)) = (text.get(..cut), text.get(cut..)) {
            let _ = Policy::parse(&format!("{head}{junk}{tail}"));
        }
    }

    #[test]
    fn an_image_reference_reads_back_as_itself(text in "[a-z0-9./:@_-]{1,60}") {
        if let Ok(reference) = text.parse::<super::image::ImageReference>() {
            let again: super::image::ImageReference = reference.to_string().parse().unwrap();
            prop_assert_eq!(again.to_string(), reference.to_string());
            prop_assert_eq!(again.registry, reference.registry);
        }
    }
}

#[test]
fn approvals_are_asked_for_by_class_and_reading_never_needs_any() {
    let policy = Policy::parse("[approvals]\nchange = 1\ndestructive = 3\n").unwrap();
    let asked = [Class::Read, Class::Change, Class::Destructive].map(|class| policy.approvals_min(class));
    assert_eq!(asked, [0, 1, 3]);
    let default = Policy::parse(Policy::default_text()).unwrap();
    assert_eq!(default.approvals_min(Class::Destructive), 0, "root metadata decides");
    assert!(Policy::parse("[approvals]\nread = 1\n").is_err(), "there is no such key");
    assert!(Policy::parse("[approvals]\nchange = -1\n").is_err());
}
