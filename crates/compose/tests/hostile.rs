//! Files that mean harm, or mean nothing: refused quickly and clearly, never a panic.
#![allow(
    clippy::disallowed_methods,
    reason = "the room itself has no disk and no clock; its tests read their corpus and count the work of hostile files"
)]

mod bundles;

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use actions::spec::{AppSpec, Text};
use bundles::{projects, read_with};
use compose::{Refused, limits};
use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

/// The most that one file may cost. It is what the processor does for this thread, so a busy machine makes it no
/// longer; unoptimised, the worst of these files costs a small part of it.
const WORK_MAX: Duration = Duration::from_secs(10);

/// What the processor has done for this thread so far.
fn work() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it counts from zero")
}

/// Refused with these words, for bounded work and with a bounded message.
fn check_hostile(yaml: &[u8], expected: &str) {
    let before = work();
    let problems = read_with("c.yaml", yaml, &BTreeMap::new()).expect_err(expected).to_string();
    let done = work().saturating_sub(before);
    assert!(problems.contains(expected), "{problems}");
    assert!(done < WORK_MAX, "{expected}: cost {done:?} of work");
    assert!(problems.len() < 64 * 1024, "{expected}: a message of {} bytes", problems.len());
}

#[test]
fn hostile_texts_are_refused_quickly_and_clearly() {
    let large = vec![b'a'; 10_000_000];
    check_hostile(&large, "c.yaml: the file has 10000000 bytes, more than the 1048576 that a Compose file may have");
    check_hostile(&b"[".repeat(100_000), "nested deeper than 64 levels");
    check_hostile(&b"{a: ".repeat(100_000), "nested deeper than 64 levels");
    check_hostile(&b"- ".repeat(100_000), "nested deeper than 64 levels");
    let deep: String = (0..600).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    check_hostile(deep.as_bytes(), "nested deeper than 64 levels");

    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..20 {
        let before = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", ")));
    }
    check_hostile(laughs.as_bytes(), "the file grows beyond 100000 values when its aliases are put in");

    let mut merges = String::from("x0: &x0 {a: b}\n");
    for level in 1..40 {
        let before = level - 1;
        merges.push_str(&format!("x{level}: &x{level} {{<<: [*x{before}, *x{before}], k{level}: v}}\n"));
    }
    check_hostile(merges.as_bytes(), "the file grows beyond 100000 values when its aliases are put in");

    let mut nested = String::from("n0: &n0 [x]\n");
    for level in 1..100 {
        nested.push_str(&format!("n{level}: &n{level} [*n{}]\n", level - 1));
    }
    check_hostile(nested.as_bytes(), "nested deeper than 64 levels");

    let text = "y".repeat(100_000);
    let wide = format!("a: &a {text}\nb: [{}]\n", vec!["*a"; 1000].join(", "));
    check_hostile(wide.as_bytes(), "the file grows beyond 4194304 bytes when its aliases are put in");

    check_hostile(format!("a: {}", "x".repeat(200_000)).as_bytes(), "the text has 200000 bytes; 131071 is the most");
    check_hostile(&b"- a\n".repeat(150_000), "the file grows beyond 100000 values");
    let keys: String = (0..60_000).map(|n| format!("k{n}: 1\n")).collect();
    check_hostile(keys.as_bytes(), "the file grows beyond 100000 values");
    check_hostile(&b"a: 1\n".repeat(40_000), "… and ");
    check_hostile(b"services: \xff\xfe", "c.yaml:1:11: the file is not UTF-8 text here");
    check_hostile(b"services:\n  a: b\0c", "c.yaml:2:7: the file has a NUL character here");
    check_hostile(
        format!("services: {{a: {{image: a, user: \"{}\"}}}}", "${A:-".repeat(20_000)).as_bytes(),
        "deeper than 16",
    );
}

/// A long variable in each of very many labels: what is put in is bounded over the whole reading, and told once.
#[test]
fn a_variable_that_stands_everywhere_costs_no_more_than_its_limit() {
    let labels: String = (0..900).map(|n| format!("      l{n}: \"${{A}}\"\n")).collect();
    let services: String = (0..40).map(|n| format!("  s{n}:\n    image: a\n    labels:\n{labels}")).collect();
    let yaml = format!("services:\n{services}");
    assert!(yaml.len() < limits::FILE_BYTES_MAX);
    let variables = BTreeMap::from([("A".to_owned(), "x".repeat(120_000))]);
    let problems = read_with("c.yaml", yaml.as_bytes(), &variables).expect_err("refused").to_string();
    let told = "the variables put in are more than 16777216 bytes together";
    assert_eq!(problems.matches(told).count(), 1, "{problems}");
    assert!(problems.lines().count() < 10, "{problems}");
}

#[test]
fn hostile_services_are_refused_quickly_and_clearly() {
    let many: String = (0..300).map(|n| format!("  s{n}: {{image: a}}\n")).collect();
    check_hostile(format!("services:\n{many}").as_bytes(), "300 entries; 200 is the most");
    let ports: String = (0..3).map(|n| format!("\"{n}0000-{n}0255\",")).collect();
    check_hostile(format!("services: {{a: {{image: a, ports: [{ports}]}}}}").as_bytes(), "1 to 65535");
    let wide = "\"1-256\",".repeat(900);
    check_hostile(
        format!("services: {{a: {{image: a, ports: [{wide}]}}}}").as_bytes(),
        "more than 512 ports in one service",
    );
    let wide = "\"1-256\",".repeat(50_000);
    check_hostile(format!("services: {{a: {{image: a, ports: [{wide}]}}}}").as_bytes(), "1000 is the most");
    let strangers: String = (0..45_000).map(|n| format!("    stranger{n}: 1\n")).collect();
    check_hostile(format!("services:\n  a:\n{strangers}").as_bytes(), "a service has no key `stranger0`");
    let ring: String = (0..200).map(|n| format!("  s{n}: {{image: a, depends_on: [s{}]}}\n", (n + 1) % 200)).collect();
    check_hostile(format!("services:\n{ring}").as_bytes(), "in a circle");
    let all: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let mesh: String =
        all.iter().map(|name| format!("  {name}: {{image: a, depends_on: [{}]}}\n", all.join(", "))).collect();
    check_hostile(format!("services:\n{mesh}").as_bytes(), "in a circle");
    let unknown = "serviceserviceserviceserviceservice-x, ".repeat(400);
    let lost: String = all.iter().map(|name| format!("  {name}: {{image: a, networks: [{unknown}]}}\n")).collect();
    check_hostile(format!("services:\n{}", &lost[..900_000]).as_bytes(), "c.yaml:");
    let mounts = (0..1000).map(|n| format!("{{type: tmpfs, target: /a{n}}}")).collect::<Vec<_>>().join(", ");
    let mounts: String =
        all[..18].iter().map(|name| format!("  {name}: {{image: a, volumes: [{mounts}]}}\n")).collect();
    check_hostile(format!("services:\n{mounts}").as_bytes(), "is the most one order may carry");
}

#[test]
fn a_specification_or_secrets_that_fit_no_order_are_refused() {
    let labels: String = (0..5).map(|n| format!("      l{n}: {}\n", "x".repeat(60_000))).collect();
    check_hostile(
        format!("services:\n  a:\n    image: a\n    labels:\n{labels}").as_bytes(),
        "is the most one order may carry",
    );
    let values: String = (0..10).map(|n| format!("      V{n}: {}\n", "x".repeat(100_000))).collect();
    let yaml =
        format!("services:\n  a:\n    image: a\n    environment: &e\n{values}  b: {{image: a, environment: *e}}\n");
    assert!(yaml.len() < limits::FILE_BYTES_MAX);
    check_hostile(yaml.as_bytes(), "and other sealed texts have 2000000 bytes");
}

/// Files of the corpus as seeds, so that mutations come near to what is understood.
fn seeds() -> Vec<Vec<u8>> {
    let paths = ["corpus", "refused"].map(projects).concat();
    paths.iter().filter_map(|path| std::fs::read(path.join("compose.yaml")).ok()).collect()
}

static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

#[derive(Clone, Debug)]
enum Mutation {
    Replace(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let token = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..4),
        proptest::sample::select(vec![
            "- ",
            ": ",
            "\n",
            "\t",
            "{",
            "}",
            "[",
            "]",
            "&a ",
            "*a",
            "<<: ",
            "!!str ",
            "|\n",
            ">-\n",
            "\"",
            "'",
            "#",
            "? ",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "${",
            "$$",
            "\u{feff}",
            "\0",
            "\\x00",
            "~",
            ",",
        ])
        .prop_map(|token| token.as_bytes().to_vec()),
    ];
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (any::<usize>(), token).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<usize>(), 1usize..20).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<usize>(), 1usize..40).prop_map(|(at, length)| Mutation::Repeat(at, length)),
    ]
}

fn mutated(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let length = bytes.len().max(1);
        match mutation {
            Mutation::Replace(at, byte) => {
                if let Some(place) = bytes.get_mut(at % length) {
                    *place = *byte;
                }
            }
            Mutation::Insert(at, inserted) => {
                let at = (at % length).min(bytes.len());
                bytes.splice(at..at, inserted.iter().copied());
            }
            Mutation::Remove(at, count) => {
                let at = (at % length).min(bytes.len());
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Mutation::Repeat(at, count) => {
                let at = (at % length).min(bytes.len());
                let copy = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

/// Reading ends, and what it accepts holds what the contract promises.
fn check_any(bytes: &[u8]) {
    let variables = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
    match read_with("c.yaml", bytes, &variables) {
        Ok(composed) => {
            assert!(!composed.spec.services.is_empty());
            for service in composed.spec.services.values() {
                assert!(!service.image.is_empty());
                assert!(service.environment.values().all(|text| matches!(text, Text::Sealed(_))));
                assert!(service.networks.keys().all(|name| composed.spec.networks.contains_key(name)));
                assert!(service.depends_on.keys().all(|name| composed.spec.services.contains_key(name)));
            }
            let json = serde_json::to_string(&composed.spec).unwrap();
            assert!(!json.contains("\\u0000"));
            assert_eq!(serde_json::from_str::<AppSpec>(&json).unwrap(), composed.spec);
        }
        Err(Refused::Needs(needed)) => panic!("a complete bundle needs {needed:?}"),
        Err(Refused::Problems(problems)) => {
            assert!(!problems.list.is_empty() && problems.list.len() <= limits::PROBLEMS_MAX);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check_any(&bytes);
    }

    #[test]
    fn any_yaml_like_text_is_read_or_refused(text in "[a-c:{}\\[\\]&*!|>'\"#%@?,~ \n\t<-]{0,200}") {
        check_any(text.as_bytes());
    }

    #[test]
    fn any_mutated_file_is_read_or_refused(
        seed in any::<proptest::sample::Index>(),
        mutations in proptest::collection::vec(mutation(), 1..6),
    ) {
        let seeds = SEEDS.get_or_init(seeds);
        check_any(&mutated(seed.get(seeds).clone(), &mutations));
    }
}
