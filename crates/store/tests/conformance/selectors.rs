//! Selectors as the store reads them: as `Selector::selects` says, whatever hosts and selectors there are.

use std::collections::BTreeSet;

use envelope::audit::AuditKind;
use fleet::{
    limits::LIST_MAX,
    list::{HostFilter, HostSort, ListPage},
    model::Host,
    ports::{HostEdit, Store, Write},
    selector::Selector,
};
use ids::Role;
use proptest::prelude::*;

use super::fixtures::*;

/// Few words, so that they meet; each the beginning or the end of another.
const KEYS: [&str; 4] = ["a", "ab", "b", "app"];
const VALUES: [&str; 3] = ["x", "xx", "app"];
const ROLES: [Role; 4] = [Role::App, Role::Backup, Role::Dns, Role::Proxy];

/// Roles (one at least) and labels of one host, by their places above.
pub(crate) type Shape = (BTreeSet<usize>, Vec<Option<usize>>);

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let roles = prop::collection::btree_set(0..ROLES.len(), 1..=ROLES.len());
    (roles, prop::collection::vec(prop::option::of(0..VALUES.len()), KEYS.len()))
}

/// A selector of up to four parts, as somebody writes it.
pub(crate) fn selector() -> impl Strategy<Value = Selector> {
    let is = prop::sample::select(vec!["=", "!="]);
    let role = (is.clone(), prop::sample::select(ROLES.to_vec())).prop_map(|(is, role)| format!("role{is}{role}"));
    let value = (prop::sample::select(KEYS.to_vec()), is, prop::sample::select(VALUES.to_vec()))
        .prop_map(|(key, is, value)| format!("{key}{is}{value}"));
    let has = (prop::sample::select(vec!["", "!"]), prop::sample::select(KEYS.to_vec()))
        .prop_map(|(not, key)| format!("{not}{key}"));
    prop::collection::vec(prop_oneof![role, value, has], 1..=4).prop_map(|parts| parts.join(",").parse().unwrap())
}

async fn host_of(store: &dyn Store, number: usize, (roles, labels): &Shape) -> Host {
    let name = format!("host-{number}");
    let roles: Vec<Role> = roles.iter().map(|place| ROLES[*place]).collect();
    let token = fleet::model::JoinTokenRecord { roles: roles.clone(), ..token(&name, b"secret") };
    let host = Host { roles, ..host(&name) };
    done(store, Write::TokenCreate { token: token.clone(), audit: entry(AuditKind::TokenIssued, &name) }).await;
    done(store, enrol_write(&token, b"secret", &host)).await;
    let labels = KEYS.iter().zip(labels);
    let labels =
        labels.filter_map(|(key, value)| Some((key.parse().unwrap(), Some(VALUES[(*value)?].parse().unwrap()))));
    let audit = vec![entry(AuditKind::HostLabelled, &name)];
    let (was, labels) = (host.name.clone(), labels.collect());
    let edit = HostEdit { host: host.id, was, name: None, labels, at: NOW, audit };
    done(store, Write::HostEdit(Box::new(edit))).await;
    host_now(store, &host).await
}

/// The store lists, for each selector, the hosts that it selects and no others.
pub(crate) async fn compare(store: &dyn Store, shapes: &[Shape], selectors: &[Selector]) {
    let mut hosts = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        hosts.push(host_of(store, number, shape).await);
    }
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    for selector in selectors {
        let filter = HostFilter { selector: Some(selector.clone()), ..HostFilter::default() };
        let page = ListPage { descending: false, after: None, limit: LIST_MAX };
        let listed = store.hosts_list(filter, HostSort::Name, page).await.unwrap();
        let found: Vec<Host> = listed.items.into_iter().map(|(_, host)| host).collect();
        let selected = hosts.iter().filter(|host| selector.selects(&host.roles, &host.labels));
        assert_eq!(found, selected.cloned().collect::<Vec<_>>(), "{selector}");
    }
}
