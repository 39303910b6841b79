//! Lists, a page at a time: every filter and every order, in both directions, held against what a
//! plain filter and sort of the same rows says.

use envelope::audit::AuditKind;
use fleet::{
    limits::LIST_MAX,
    list::*,
    model::*,
    ports::{AppChange, AuditEntry, HostEdit, Settlement, Store, StoreError, Write},
};
use ids::{AppName, HostId, UnixMs, UserName};

use super::{
    fixtures::*,
    people::{change, create, initialise, session, sign_in, token_create, token_of, user},
};

/// `NOW` and so many milliseconds.
fn at(ms: u64) -> UnixMs {
    UnixMs(NOW.0 + ms)
}

/// All of a list, in pages of that length. Each page but the last is full, says that there is more, and
/// goes on behind the one before.
async fn walked<T>(
    limit: u32,
    descending: bool,
    ask: impl AsyncFn(ListPage) -> Result<Listed<T>, StoreError>,
) -> Vec<T> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = ask(ListPage { descending, after, limit }).await.unwrap();
        assert!(page.items.len() <= limit as usize && (!page.more || page.items.len() == limit as usize));
        after = page.items.last().map(|(key, _)| key.clone());
        all.extend(page.items.into_iter().map(|(_, item)| item));
        if !page.more {
            return all;
        }
    }
}

/// Rows in the order they came to be, each with what it is sorted by, and whether a filter lets it through.
fn expected<T: Clone, K: Ord>(
    rows: &[T],
    descending: bool,
    key: impl Fn(&T) -> K,
    holds: impl Fn(&T) -> bool,
) -> Vec<T> {
    let mut kept: Vec<(usize, &T)> = rows.iter().enumerate().filter(|(_, row)| holds(row)).collect();
    kept.sort_by_key(|(number, row)| (key(row), *number));
    if descending {
        kept.reverse();
    }
    kept.into_iter().map(|(_, row)| row.clone()).collect()
}

const SHAPES: [(u32, bool); 4] = [(1, false), (2, true), (3, false), (LIST_MAX, true)];

pub(crate) async fn accounts_are_listed(store: &dyn Store) {
    let anna = user("anna", UserRole::Owner);
    done(store, initialise(&anna)).await;
    let mut users = vec![anna];
    for (name, role, made) in [
        ("zoe", UserRole::Viewer, 5),
        ("bob", UserRole::Admin, 3),
        ("carl", UserRole::Viewer, 3),
        ("dora", UserRole::Viewer, 9),
    ] {
        let made = User { created_at: at(made), ..user(name, role) };
        done(store, create(&made)).await;
        users.push(made);
    }
    done(store, change(&users[3], UserChange::Disable(at(7)))).await;
    users[3].disabled_at = Some(at(7));
    done(store, change(&users[4], UserChange::Delete(at(8)))).await;
    users.pop();
    for (role, is_disabled) in
        [(None, None), (Some(UserRole::Viewer), None), (None, Some(true)), (Some(UserRole::Viewer), Some(false))]
    {
        let holds = |user: &User| {
            role.is_none_or(|role| user.role == role)
                && is_disabled.is_none_or(|disabled| user.disabled_at.is_some() == disabled)
        };
        for (limit, descending) in SHAPES {
            let ask = async |sort, page| store.users_list(UserFilter { role, is_disabled }, sort, page).await;
            let by_name = walked(limit, descending, async |page| ask(UserSort::Name, page).await).await;
            assert_eq!(by_name, expected(&users, descending, |user| user.name.clone(), holds));
            let by_age = walked(limit, descending, async |page| ask(UserSort::CreatedAt, page).await).await;
            assert_eq!(by_age, expected(&users, descending, |user| user.created_at, holds));
        }
    }
}

const CREDENTIAL_SORTS: [CredentialSort; 2] = [CredentialSort::CreatedAt, CredentialSort::Expires];

pub(crate) async fn sessions_are_listed(store: &dyn Store) {
    let (anna, bob) = (user("anna", UserRole::Owner), user("bob", UserRole::Viewer));
    done(store, initialise(&anna)).await;
    done(store, create(&bob)).await;
    let mut sessions = Vec::new();
    for (number, (of, made, expires, peer)) in
        [(&anna, 1, 40, "::1"), (&bob, 1, 90, "::1"), (&anna, 1, 90, "192.0.2.1"), (&anna, 3, 20, "::1")]
            .into_iter()
            .enumerate()
    {
        let made = UserSession {
            created_at: at(made),
            peer: peer.to_owned(),
            ..session(of, &number.to_be_bytes(), at(expires))
        };
        done(store, sign_in(&made, of)).await;
        sessions.push(made);
    }
    for (of, now, peer) in [(&anna, 0, None), (&anna, 20, None), (&anna, 0, Some("::1")), (&bob, 0, None)] {
        let filter = SessionFilter { user: of.id, now: at(now), peer: peer.map(ToOwned::to_owned) };
        let holds = |session: &UserSession| {
            session.user == of.id && session.expires > at(now) && peer.is_none_or(|peer| session.peer == peer)
        };
        for ((limit, descending), sort) in
            SHAPES.into_iter().flat_map(|shape| CREDENTIAL_SORTS.map(|sort| (shape, sort)))
        {
            let ask = async |page| store.user_sessions_list(filter.clone(), sort, page).await;
            let key = |session: &UserSession| match sort {
                CredentialSort::CreatedAt => session.created_at,
                CredentialSort::Expires => session.expires,
            };
            assert_eq!(walked(limit, descending, ask).await, expected(&sessions, descending, key, holds));
        }
    }
}

pub(crate) async fn api_tokens_are_listed_by_their_standing(store: &dyn Store) {
    let (anna, bob) = (user("anna", UserRole::Owner), user("bob", UserRole::Viewer));
    done(store, initialise(&anna)).await;
    done(store, create(&bob)).await;
    let mut tokens = Vec::new();
    for (of, name, made, expires) in
        [(&anna, "a", 1, 40), (&anna, "b", 1, 90), (&bob, "c", 1, 40), (&anna, "d", 2, 20), (&anna, "e", 0, 90)]
    {
        let made = ApiToken { created_at: at(made), expires: at(expires), ..token_of(of, name) };
        done(store, token_create(&made)).await;
        tokens.push(made);
    }
    let audit = entry(AuditKind::AccountChange, "a token");
    done(store, Write::ApiTokenRevoke { token: tokens[1].id, at: at(3), audit }).await;
    tokens[1].revoked_at = Some(at(3));
    done(store, change(&bob, UserChange::Disable(at(4)))).await;
    tokens[2].user_disabled = true;
    let standings =
        [TokenStanding::Good, TokenStanding::Expired, TokenStanding::Revoked, TokenStanding::AccountDisabled];
    for standing in standings.map(Some).into_iter().chain([None]) {
        for (of, now) in [(&anna, 0), (&anna, 20), (&anna, 90), (&bob, 39), (&bob, 40)] {
            let filter = TokenFilter { user: of.id, now: at(now), standing };
            let holds = |token: &ApiToken| {
                token.user == of.id && standing.is_none_or(|standing| token.standing(at(now)) == standing)
            };
            for ((limit, descending), sort) in
                SHAPES.into_iter().flat_map(|shape| CREDENTIAL_SORTS.map(|sort| (shape, sort)))
            {
                let ask = async |page| store.api_tokens_list(filter.clone(), sort, page).await;
                let key = |token: &ApiToken| match sort {
                    CredentialSort::CreatedAt => token.created_at,
                    CredentialSort::Expires => token.expires,
                };
                assert_eq!(walked(limit, descending, ask).await, expected(&tokens, descending, key, holds));
            }
        }
    }
}

async fn labelled(store: &dyn Store, host: &Host, label: &str) {
    let labels = vec![(label.parse().unwrap(), Some("x".parse().unwrap()))];
    let audit = vec![entry(AuditKind::HostLabelled, host.name.as_str())];
    let edit = HostEdit { host: host.id, was: host.name.clone(), name: None, labels, at: NOW, audit };
    done(store, Write::HostEdit(Box::new(edit))).await;
}

async fn revoked(store: &dyn Store, host: HostId) {
    done(store, Write::HostRevoke { host, at: NOW, audit: entry(AuditKind::HostRevoked, "host") }).await;
}

/// The app is deployed on the host, by its `number`th report.
async fn deployed(store: &dyn Store, host: &Host, app: &str, number: u64) {
    let command = queued(store, host).await;
    done(store, seal_write(&command, number - 1, number)).await;
    let instance = AppInstance {
        app: app.parse().unwrap(),
        host: host.id,
        host_name: host.name.clone(),
        release: command.order.operation,
        deployed_at: NOW,
        state: AppInstanceState::Running,
        result: b"{}".to_vec(),
    };
    let settled = Settlement { app: Some(AppChange::Deployed(instance)), ..settlement(&command, number, number) };
    done(store, Write::CommandSettle(Box::new(settled))).await;
}

pub(crate) async fn hosts_are_listed(store: &dyn Store) {
    let first = enrolled(store, "web-1").await;
    revoked(store, first.id).await;
    let mut ids = vec![first.id];
    for name in ["web-1", "db-1", "web-2"] {
        ids.push(enrolled(store, name).await.id);
    }
    let why = "an old copy".to_owned();
    done(store, Write::HostQuarantine { host: ids[2], why, audit: entry(AuditKind::Quarantine, "db-1") }).await;
    for id in [ids[1], ids[2]] {
        labelled(store, &store.host(id).await.unwrap().unwrap(), "gpu").await;
    }
    deployed(store, &store.host(ids[3]).await.unwrap().unwrap(), "shop", 1).await;
    let mut hosts = Vec::new();
    for id in &ids {
        hosts.push(store.host(*id).await.unwrap().unwrap());
    }
    let none = HostFilter::default;
    let kinds = [StandingKind::Active, StandingKind::Quarantined, StandingKind::Revoked];
    let mut filters: Vec<HostFilter> = kinds.map(|standing| HostFilter { standing: Some(standing), ..none() }).into();
    filters.push(none());
    filters.push(HostFilter { selector: Some("gpu".parse().unwrap()), ..none() });
    filters.push(HostFilter {
        standing: Some(StandingKind::Active),
        selector: Some("!gpu".parse().unwrap()),
        app: None,
    });
    filters.push(HostFilter { app: Some("shop".parse().unwrap()), ..none() });
    for filter in filters {
        let holds = |host: &Host| {
            let kind = match host.standing {
                HostStanding::Active => StandingKind::Active,
                HostStanding::Quarantined { .. } => StandingKind::Quarantined,
                HostStanding::Revoked { .. } => StandingKind::Revoked,
            };
            filter.standing.is_none_or(|standing| standing == kind)
                && filter.selector.as_ref().is_none_or(|selector| selector.selects(&host.roles, &host.labels))
                && (filter.app.is_none() || host.id == ids[3])
        };
        for (limit, descending) in SHAPES {
            let ask = async |sort, page| store.hosts_list(filter.clone(), sort, page).await;
            let by_name = walked(limit, descending, async |page| ask(HostSort::Name, page).await).await;
            assert_eq!(by_name, expected(&hosts, descending, |host| host.name.clone(), holds), "{filter:?}");
            let by_age = walked(limit, descending, async |page| ask(HostSort::EnrolledAt, page).await).await;
            assert_eq!(by_age, expected(&hosts, descending, |host| host.enrolled_at, holds), "{filter:?}");
        }
    }
}

pub(crate) async fn apps_are_listed(store: &dyn Store) {
    let (web, db, old) = (enrolled(store, "web-1").await, enrolled(store, "db-1").await, enrolled(store, "old").await);
    for (host, app, number) in
        [(&web, "shop", 1), (&web, "mail", 2), (&db, "shop", 1), (&db, "blog", 2), (&old, "wiki", 1)]
    {
        deployed(store, host, app, number).await;
    }
    revoked(store, old.id).await;
    for (on, names) in [(None, &["blog", "mail", "shop"][..]), (Some(web.id), &["mail", "shop"]), (Some(old.id), &[])] {
        for (limit, descending) in SHAPES {
            let found = walked(limit, descending, async |page| store.apps_list(on, page).await).await;
            let mut names: Vec<AppName> = names.iter().map(|name| name.parse().unwrap()).collect();
            if descending {
                names.reverse();
            }
            assert_eq!(found.iter().map(|app| app.name.clone()).collect::<Vec<_>>(), names);
            let shop = found.iter().find(|app| app.name.as_str() == "shop");
            let places = shop.map_or(0, |shop| shop.instances.len());
            assert_eq!(places, [0, 2, 1][usize::from(on.is_none()) + 2 * usize::from(on == Some(web.id))]);
        }
    }
}

/// Operations of two people at three times, the second of each cancelled, on two hosts.
async fn worked(store: &dyn Store) -> (Vec<Operation>, Vec<NewCommand>, [Host; 2]) {
    let hosts = [enrolled(store, "web-1").await, enrolled(store, "db-1").await];
    let (mut operations, mut commands) = (Vec::new(), Vec::new());
    for (by, time) in [("anna", 1), ("bob", 1), ("anna", 5), ("anna", 3)] {
        let mut made = operation(OperationKind::Single);
        (made.requested_by, made.created_at) = (by.parse().unwrap(), at(time));
        let mut both = [new_command(&made, &hosts[0], "host.facts"), new_command(&made, &hosts[1], "app.plan")];
        both[1].app = Some("mail".parse().unwrap());
        both.iter_mut().for_each(|command| command.order.proposed_at = at(time));
        done(store, propose_write(&made, &both)).await;
        let end = Write::CommandEnd {
            command: both[1].order.command,
            from: vec![CommandStatus::Queued],
            status: CommandStatus::Cancelled,
            message: "not needed".to_owned(),
            at: NOW,
            audit: entry(AuditKind::Cancel, "a command"),
        };
        done(store, end).await;
        operations.push(made);
        commands.extend(both);
    }
    (operations, commands, hosts)
}

pub(crate) async fn commands_are_listed(store: &dyn Store) {
    let (operations, commands, hosts) = worked(store).await;
    let by = |new: &NewCommand| {
        let made = operations.iter().find(|operation| operation.id == new.order.operation);
        made.unwrap().requested_by.clone()
    };
    let none = CommandListFilter::default;
    let bob: UserName = "bob".parse().unwrap();
    let filters = [
        none(),
        CommandListFilter { host: Some(hosts[1].id), ..none() },
        CommandListFilter { operation: Some(operations[2].id), ..none() },
        CommandListFilter { status: Some(CommandStatus::Queued), ..none() },
        CommandListFilter { status: Some(CommandStatus::Cancelled), since: Some(at(3)), ..none() },
        CommandListFilter { app: Some("mail".parse().unwrap()), ..none() },
        CommandListFilter { action: Some("host.facts".parse().unwrap()), ..none() },
        CommandListFilter { requested_by: Some(bob), ..none() },
        CommandListFilter { since: Some(at(1)), until: Some(at(5)), ..none() },
    ];
    for filter in filters {
        let holds = |new: &NewCommand| {
            let order = &new.order;
            let status = if order.host == hosts[1].id { CommandStatus::Cancelled } else { CommandStatus::Queued };
            filter.host.is_none_or(|host| order.host == host)
                && filter.operation.is_none_or(|operation| order.operation == operation)
                && filter.status.is_none_or(|wanted| wanted == status)
                && filter.app.as_ref().is_none_or(|app| new.app.as_ref() == Some(app))
                && filter.action.as_ref().is_none_or(|action| order.action == *action)
                && filter.requested_by.as_ref().is_none_or(|name| by(new) == *name)
                && filter.since.is_none_or(|since| order.proposed_at >= since)
                && filter.until.is_none_or(|until| order.proposed_at < until)
        };
        for (limit, descending) in SHAPES {
            let ask = async |page| store.commands_list(filter.clone(), page).await;
            let found: Vec<_> = walked(limit, descending, ask).await.iter().map(|line| line.command).collect();
            let expected = expected(&commands, descending, |new| new.order.proposed_at, holds);
            assert_eq!(found, expected.iter().map(|new| new.order.command).collect::<Vec<_>>(), "{filter:?}");
        }
    }
}

pub(crate) async fn operations_are_listed(store: &dyn Store) {
    let (operations, ..) = worked(store).await;
    let none = OperationFilter::default;
    for filter in [
        none(),
        OperationFilter { requested_by: Some("anna".parse().unwrap()), ..none() },
        OperationFilter { since: Some(at(3)), ..none() },
        OperationFilter { requested_by: Some("anna".parse().unwrap()), since: Some(at(1)), until: Some(at(5)) },
    ] {
        let holds = |operation: &Operation| {
            filter.requested_by.as_ref().is_none_or(|name| operation.requested_by == *name)
                && filter.since.is_none_or(|since| operation.created_at >= since)
                && filter.until.is_none_or(|until| operation.created_at < until)
        };
        for (limit, descending) in SHAPES {
            let found = walked(limit, descending, async |page| store.operations_list(filter.clone(), page).await).await;
            let expected = expected(&operations, descending, |operation| operation.created_at, holds);
            let ids = |lines: &[OperationLine]| lines.iter().map(|line| line.operation).collect::<Vec<_>>();
            assert_eq!(ids(&found), expected.iter().map(|operation| operation.id).collect::<Vec<_>>(), "{filter:?}");
            for mut line in found {
                line.commands.sort_by_key(|(status, _)| status.as_str());
                assert_eq!(line.commands, [(CommandStatus::Cancelled, 1), (CommandStatus::Queued, 1)]);
            }
        }
    }
}

pub(crate) async fn audit_entries_are_listed(store: &dyn Store) {
    let mut rows: Vec<(u64, AuditEntry)> = Vec::new();
    for (index, (kind, actor, time)) in [
        (AuditKind::SignIn, "anna", 4),
        (AuditKind::SignOut, "anna", 4),
        (AuditKind::SignIn, "bob", 2),
        (AuditKind::SignIn, "anna", 9),
    ]
    .into_iter()
    .enumerate()
    {
        let made = AuditEntry { time: at(time), actor: actor.to_owned(), ..entry(kind, "it") };
        done(store, Write::Audit(made.clone())).await;
        rows.push((index as u64, made));
    }
    let none = AuditFilter::default;
    for filter in [
        none(),
        AuditFilter { kind: Some(AuditKind::SignIn), ..none() },
        AuditFilter { actor: Some("anna".to_owned()), ..none() },
        AuditFilter { since: Some(at(4)), until: Some(at(9)), ..none() },
    ] {
        let holds = |(_, row): &(u64, AuditEntry)| {
            filter.kind.is_none_or(|kind| row.kind == kind)
                && filter.actor.as_ref().is_none_or(|actor| row.actor == *actor)
                && filter.since.is_none_or(|since| row.time >= since)
                && filter.until.is_none_or(|until| row.time < until)
        };
        for (limit, descending) in SHAPES {
            let ask = async |page| store.audit_list(filter.clone(), AuditSort::Time, page).await;
            let found: Vec<_> = walked(limit, descending, ask).await.iter().map(|line| line.index).collect();
            let expected = expected(&rows, descending, |(_, row)| row.time, holds);
            assert_eq!(found, expected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), "{filter:?}");
        }
    }
    for (first, (limit, descending)) in [None, Some(2), Some(9)].into_iter().zip(SHAPES) {
        let filter = AuditFilter { first, ..none() };
        let ask = async |page| store.audit_list(filter.clone(), AuditSort::Index, page).await;
        let found: Vec<_> = walked(limit, descending, ask).await.iter().map(|line| line.index).collect();
        let expected =
            expected(&rows, descending, |(index, _)| *index, |(index, _)| first.is_none_or(|first| *index >= first));
        assert_eq!(found, expected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), "{first:?}");
    }
}

pub(crate) async fn what_comes_between_two_pages_hides_and_repeats_nothing(store: &dyn Store) {
    done(store, initialise(&user("anna", UserRole::Owner))).await;
    for name in ["carl", "edda"] {
        done(store, create(&user(name, UserRole::Viewer))).await;
    }
    let ask = async |after| {
        let page = ListPage { descending: false, after, limit: 1 };
        store.users_list(UserFilter::default(), UserSort::Name, page).await.unwrap()
    };
    let (mut after, mut found) = (None, Vec::new());
    for new in ["bob", "anton", "dora", "zoe", "last"] {
        let page = ask(after).await;
        after = page.items.last().map(|(key, _)| key.clone());
        found.extend(page.items.into_iter().map(|(_, user)| user.name.to_string()));
        done(store, create(&user(new, UserRole::Viewer))).await;
    }
    // Bob and Dora came before their places were reached; Anton came when his had passed.
    assert_eq!(found, ["anna", "bob", "carl", "dora", "edda"]);
    // A place that nobody has (its row went, or it was made up) is a place all the same.
    let key = ListKey { value: ListValue::Text("dzz".to_owned()), row: u64::MAX };
    assert_eq!(ask(Some(key)).await.items[0].1.name.as_str(), "edda");
}
