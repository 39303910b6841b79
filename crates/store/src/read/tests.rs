//! How the engine reads: by index, whatever is asked for. A plan that scans a table, or sorts what an
//! index should have brought in order, would be slow only in a large fleet.

use fleet::{
    list::{
        AuditFilter, AuditSort, CommandListFilter, CredentialSort, HostFilter, HostSort, ListKey, ListPage, ListValue,
        OperationFilter, SessionFilter, StandingKind, TokenFilter, UserFilter, UserSort,
    },
    model::{CommandStatus, TokenStanding, UserRole},
};
use ids::{HostId, OperationId, UnixMs, UserId};
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::{host_lists, lists, people};
use crate::{fault::Location, schema};

async fn database() -> SqliteConnection {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    schema::migrate(&mut connection, &Location("test.db".into()), schema::MIGRATIONS).await.unwrap();
    connection
}

async fn plan(connection: &mut SqliteConnection, select: &QueryBuilder<Sqlite>) -> Vec<String> {
    // Parameters stay unbound: the plan does not depend on them.
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", select.sql().as_str()));
    let rows = sqlx::query(explain).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

async fn seeks(connection: &mut SqliteConnection, what: &str, select: &QueryBuilder<Sqlite>) {
    let plan = plan(connection, select).await;
    for step in &plan {
        assert!(!step.starts_with("SCAN") && !step.contains("TEMP B-TREE"), "{what}: {plan:#?}");
    }
    assert!(!plan.is_empty(), "{what}");
}

fn pages() -> Vec<ListPage> {
    let number = ListKey { value: ListValue::Number(7), row: 7 };
    let page = |descending, after| ListPage { descending, after, limit: 100 };
    vec![page(false, None), page(true, None), page(false, Some(number.clone())), page(true, Some(number))]
}

/// Each filter by itself: of several, the engine takes one index and looks at the rest row by row.
fn command_filters() -> Vec<CommandListFilter> {
    let none = CommandListFilter::default;
    let mut filters = vec![
        none(),
        CommandListFilter { host: Some(HostId::from_bytes([1; 16])), ..none() },
        CommandListFilter { app: Some("shop".parse().unwrap()), ..none() },
        CommandListFilter { action: Some("app.deploy".parse().unwrap()), ..none() },
        CommandListFilter { requested_by: Some("ada".parse().unwrap()), ..none() },
        CommandListFilter { since: Some(UnixMs(1)), until: Some(UnixMs(9)), ..none() },
        CommandListFilter { host: Some(HostId::from_bytes([1; 16])), since: Some(UnixMs(1)), ..none() },
    ];
    filters.extend(CommandStatus::ALL.map(|status| CommandListFilter { status: Some(status), ..none() }));
    filters
}

#[tokio::test]
async fn no_list_of_commands_scans_or_sorts() {
    let mut connection = database().await;
    for filter in command_filters() {
        for page in pages() {
            seeks(&mut connection, &format!("{filter:?} {page:?}"), &lists::commands(&filter, &page).unwrap()).await;
        }
    }
    // The whole commands are put into order once they are found; only they are.
    let mut overdue = lists::overdue(UnixMs(1), 10).unwrap();
    overdue.push(")");
    let plan_of_overdue = plan(&mut connection, &overdue).await;
    assert!(plan_of_overdue.iter().any(|step| step.contains("commands_deadline")), "{plan_of_overdue:#?}");
    assert!(plan_of_overdue.iter().all(|step| !step.starts_with("SCAN")), "{plan_of_overdue:#?}");
    // One operation's commands may be sorted, but only they are read.
    let filter = CommandListFilter { operation: Some(OperationId::from_bytes([1; 16])), ..Default::default() };
    let plan = plan(&mut connection, &lists::commands(&filter, &pages()[0]).unwrap()).await;
    assert!(plan.iter().all(|step| !step.starts_with("SCAN")), "{plan:#?}");
}

#[tokio::test]
async fn no_other_list_scans_or_sorts() {
    let mut connection = database().await;
    let labelled = HostFilter { selector: Some("role=app,env=prod,!old".parse().unwrap()), ..Default::default() };
    let active = HostFilter { standing: Some(StandingKind::Active), ..Default::default() };
    let carrying = HostFilter { app: Some("shop".parse().unwrap()), ..Default::default() };
    for page in pages() {
        for filter in [&HostFilter::default(), &labelled, &active, &carrying] {
            for sort in [HostSort::Name, HostSort::EnrolledAt] {
                seeks(&mut connection, "hosts", &host_lists::hosts(filter, sort, &page)).await;
            }
        }
        for filter in [
            OperationFilter::default(),
            OperationFilter { requested_by: Some("ada".parse().unwrap()), ..Default::default() },
            OperationFilter { since: Some(UnixMs(1)), until: Some(UnixMs(9)), ..Default::default() },
        ] {
            seeks(&mut connection, "operations", &lists::operations(&filter, &page).unwrap()).await;
        }
        for filter in [
            AuditFilter::default(),
            AuditFilter { actor: Some("ada".to_owned()), ..Default::default() },
            AuditFilter { kind: Some(envelope::audit::AuditKind::SignIn), ..Default::default() },
            AuditFilter { since: Some(UnixMs(1)), until: Some(UnixMs(9)), ..Default::default() },
        ] {
            let select = lists::audit(&filter, AuditSort::Time, &page).unwrap();
            seeks(&mut connection, "audit", &select).await;
        }
        let filter = AuditFilter { first: Some(5), ..Default::default() };
        seeks(&mut connection, "audit", &lists::audit(&filter, AuditSort::Index, &page).unwrap()).await;
        seeks(&mut connection, "apps", &host_lists::app_names(None, &page)).await;
        for filter in [UserFilter::default(), UserFilter { role: Some(UserRole::Admin), is_disabled: Some(false) }] {
            for sort in [UserSort::Name, UserSort::CreatedAt] {
                seeks(&mut connection, "users", &people::users(&filter, sort, &page)).await;
            }
        }
        // An account has at most so many of these. They may be sorted, but only they are read.
        for sort in [CredentialSort::CreatedAt, CredentialSort::Expires] {
            let (user, now) = (UserId::from_bytes([1; 16]), UnixMs(1));
            let sessions = people::sessions(&SessionFilter { user, now, peer: None }, sort, &page).unwrap();
            let standing = Some(TokenStanding::Good);
            let tokens = people::tokens(&TokenFilter { user, now, standing }, sort, &page).unwrap();
            for select in [sessions, tokens] {
                let plan = plan(&mut connection, &select).await;
                assert!(plan.iter().all(|step| !step.starts_with("SCAN")), "{plan:#?}");
            }
        }
    }
}
