//! Lists of hosts and of apps.

use std::collections::BTreeMap;

use fleet::{
    list::{AppLine, HostFilter, HostSort, ListKey, ListPage, ListValue, Listed, StandingKind},
    model::{AppInstance, Host},
    ports::StoreError,
    selector::{Requirement, Selector},
};
use ids::{AppName, HostId, HostName};
use sqlx::{QueryBuilder, Sqlite};

use super::{
    hosts::{SELECT_HOSTS, host},
    keyset::{Order, limit, listed, number_key},
};
use crate::{
    rows::{Fields, pieces},
    sqlite::Reader,
};

/// `AND …` for each part of a selector. Says the same as `Selector::selects`; a property test in
/// `tests/sqlite.rs` compares them.
fn select_by(select: &mut QueryBuilder<Sqlite>, selector: &Selector) {
    for requirement in selector.requirements() {
        let (is, key, value) = match requirement {
            Requirement::Role { role, is } => {
                let compare = if *is { ">" } else { "=" };
                select.push(" AND instr(',' || h.roles || ',', ").push_bind(format!(",{role},"));
                select.push(format_args!(") {compare} 0"));
                continue;
            }
            Requirement::Label { key, value, is } => (is, key, Some(value)),
            Requirement::Has { key, is } => (is, key, None),
        };
        select.push(if *is { " AND EXISTS (" } else { " AND NOT EXISTS (" });
        select.push("SELECT 1 FROM host_labels l WHERE l.host = h.number AND l.key = ").push_bind(key.to_string());
        if let Some(value) = value {
            select.push(" AND l.value = ").push_bind(value.to_string());
        }
        select.push(")");
    }
}

pub(super) fn hosts(filter: &HostFilter, sort: HostSort, page: &ListPage) -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::new(SELECT_HOSTS);
    select.push("WHERE 1 = 1");
    match filter.standing {
        None => {}
        Some(StandingKind::Active) => {
            select.push(" AND h.revoked_at IS NULL AND h.quarantine_why IS NULL");
        }
        Some(StandingKind::Quarantined) => {
            select.push(" AND h.revoked_at IS NULL AND h.quarantine_why IS NOT NULL");
        }
        Some(StandingKind::Revoked) => {
            select.push(" AND h.revoked_at IS NOT NULL");
        }
    }
    if let Some(selector) = &filter.selector {
        select_by(&mut select, selector);
    }
    if let Some(app) = &filter.app {
        select.push(" AND EXISTS (SELECT 1 FROM app_instances i WHERE i.app = ").push_bind(app.to_string());
        select.push(" AND i.host = h.number)");
    }
    let order = match sort {
        HostSort::Name => Order::text("h.name", "h.number"),
        HostSort::EnrolledAt => Order::number("h.enrolled_at", "h.number"),
    };
    order.end(&mut select, page);
    select
}

pub(super) fn app_names(host: Option<HostId>, page: &ListPage) -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::new("SELECT a.app FROM app_instances a WHERE ");
    match host {
        Some(host) => {
            select.push("a.host = (SELECT number FROM hosts WHERE revoked_at IS NULL AND id = ");
            select.push_bind(host.as_bytes().to_vec()).push(")");
        }
        // What a revoked host runs is not known any more.
        None => {
            select.push("(SELECT revoked_at FROM hosts WHERE number = a.host) IS NULL");
        }
    }
    let (compare, direction) = if page.descending { ("<", "DESC") } else { (">", "ASC") };
    let start = match &page.after {
        Some(ListKey { value: ListValue::Text(text), .. }) => text.clone(),
        _ if page.descending => "\u{10FFFF}".to_owned(),
        _ => String::new(),
    };
    select.push(format_args!(" AND a.app {compare} ")).push_bind(start);
    select.push(format_args!(" GROUP BY a.app ORDER BY a.app {direction} LIMIT "));
    select.push_bind(i64::from(limit(page)) + 1);
    select
}

impl Reader {
    pub(crate) async fn hosts_list(
        &self,
        filter: HostFilter,
        sort: HostSort,
        page: ListPage,
    ) -> Result<Listed<Host>, StoreError> {
        let rows = self.rows("listing hosts", hosts(&filter, sort, &page).build()).await?;
        listed(rows, &page, |row| {
            let (host, number) = host(row)?;
            let key = match sort {
                HostSort::Name => ListKey { value: ListValue::Text(host.name.to_string()), row: number },
                HostSort::EnrolledAt => number_key(host.enrolled_at.0, number),
            };
            Ok((key, host))
        })
    }

    pub(crate) async fn hosts_named(&self, names: Vec<HostName>) -> Result<Vec<Host>, StoreError> {
        let mut found = Vec::with_capacity(names.len());
        for piece in pieces(&names) {
            let mut select = QueryBuilder::<Sqlite>::new(SELECT_HOSTS);
            select.push("WHERE h.name IN (");
            let mut list = select.separated(", ");
            for name in piece {
                list.push_bind(name.to_string());
            }
            select.push(") ORDER BY h.revoked_at IS NOT NULL, h.revoked_at DESC");
            for row in self.rows("reading hosts", select.build()).await? {
                found.push(host(&row)?.0);
            }
        }
        Ok(found)
    }

    pub(crate) async fn apps_list(&self, on: Option<HostId>, page: ListPage) -> Result<Listed<AppLine>, StoreError> {
        let rows = self.rows("listing apps", app_names(on, &page).build()).await?;
        let mut apps = listed(rows, &page, |row| {
            let name: AppName = Fields::of(row, "the apps").word()?;
            let key = ListKey { value: ListValue::Text(name.to_string()), row: 0 };
            Ok((key, AppLine { name, instances: Vec::new() }))
        })?;
        let names: Vec<AppName> = apps.items.iter().map(|(_, app)| app.name.clone()).collect();
        let mut instances: BTreeMap<AppName, Vec<AppInstance>> = BTreeMap::new();
        for instance in self.instances(&names, on).await? {
            instances.entry(instance.app.clone()).or_default().push(instance);
        }
        for (_, app) in &mut apps.items {
            app.instances = instances.remove(&app.name).unwrap_or_default();
        }
        // Between the two looks the last instance of an app may have gone.
        apps.items.retain(|(_, app)| !app.instances.is_empty());
        Ok(apps)
    }

    pub(crate) async fn apps_on(&self, host: HostId) -> Result<Vec<AppName>, StoreError> {
        let select = sqlx::query(
            "SELECT a.app FROM app_instances a WHERE a.host = (SELECT number FROM hosts WHERE id = $1) ORDER BY a.app",
        )
        .bind(&host.as_bytes()[..]);
        let rows = self.rows("reading a host's apps", select).await?;
        rows.iter().map(|row| Fields::of(row, "the apps").word()).collect()
    }
}
