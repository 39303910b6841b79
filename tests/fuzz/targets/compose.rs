//! A Compose file from somebody who may send one: it is read before anything is signed.
#![no_main]

use std::collections::BTreeMap;

use compose::{Bundle, Options};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let variables = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
    let options = Options { variables: &variables, app_name: None, fallback_name: Some("shop"), profiles: &[] };
    let files = BTreeMap::from([("compose.yaml".to_owned(), Some(text.as_bytes()))]);
    let bundle = Bundle { files, order: vec!["compose.yaml".to_owned()], complete: true };
    let first = compose::read(&bundle, &options);
    let second = compose::read(&bundle, &options);
    assert_eq!(format!("{first:?}"), format!("{second:?}"), "the same file always means the same");
});
