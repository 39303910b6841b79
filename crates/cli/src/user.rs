//! `user …`

use anstyle::{AnsiColor, Style};
use api::{UserCreateRequest, UserPasswordRequest, UserRoleRequest, UserSummary, WhoAmI};
use ids::{UnixMs, UserName};
use serde::Serialize;
use zeroize::Zeroize as _;

use crate::{
    arguments::{NewPassword, User},
    client::Client,
    clock,
    exit::{Ended, Failure},
    list::{self, part},
    output::{Output, Paint, clean_line},
    password::{self, Chosen},
    prompt,
    spans::relative,
    table::{Cell, Table, fields},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: User) -> Result<Ended, Failure> {
    match verb {
        User::List { role, status, extent } => {
            let query = [part("role", role.as_ref()), part("status", status.as_ref()), extent.sort()];
            let query: Vec<_> = query.into_iter().flatten().collect();
            let users: Vec<UserSummary> = list::items(client, &["users"], &query, extent.most()).await?;
            output.result(&users, |users, paint| list_words(users, clock::now(), paint))?;
        }
        User::Show { name } => show(output, &client.get(&["users", name.as_str()]).await?)?,
        User::Create { name, role, password } => create(output, client, name, role, &password).await?,
        User::Role { name, role } => {
            let request = UserRoleRequest { role };
            let user: UserSummary = client.put(&["users", name.as_str(), "role"], &request).await?;
            let role = clean_line(&user.role);
            changed(output, &user, &format!("has the role {role} from the next request on"))?;
        }
        User::Password { name, password, old_password_file } => {
            let me: WhoAmI = client.get(&["session"]).await?;
            match name.filter(|name| *name != me.name) {
                Some(name) => reset(output, client, &name, &password).await?,
                None => change_own(output, client, &me.name, &password, old_password_file.as_deref()).await?,
            }
        }
        User::Disable { name } => {
            let user = client.post(&["users", name.as_str(), "disable"], &()).await?;
            changed(output, &user, "is disabled: its sessions have ended, its API tokens are refused")?;
        }
        User::Enable { name } => {
            let user = client.post(&["users", name.as_str(), "enable"], &()).await?;
            changed(output, &user, "is enabled and may sign in")?;
        }
        User::Delete { name, yes } => delete(output, client, &name, yes).await?,
    }
    Ok(Ended::Well)
}

/// What `user create` and `user password` print as JSON.
#[derive(Serialize)]
struct WithPassword<'a> {
    #[serde(flatten)]
    user: &'a UserSummary,
    /// If it was made here: shown once.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
}

fn shown(output: &Output, user: &UserSummary, chosen: &Chosen, done: &str) -> Result<(), Failure> {
    let password = chosen.is_generated.then_some(chosen.password.as_str());
    output.result(&WithPassword { user, password }, |it, paint| {
        let mut text = format!("{} {done}\n", it.user.name);
        if let Some(password) = it.password {
            text.push_str(&format!("Password  {}   (shown once)\n", paint.bold(password)));
        }
        text
    })
}

async fn create(
    output: &Output,
    client: &Client,
    name: UserName,
    role: String,
    from: &NewPassword,
) -> Result<(), Failure> {
    let chosen = password::new(from, name.as_str())?;
    let mut request = UserCreateRequest { name, role, password: chosen.password.as_str().to_owned() };
    let made: Result<UserSummary, Failure> = client.post(&["users"], &request).await;
    request.password.zeroize();
    let made = made?;
    shown(output, &made, &chosen, &format!("is there, as {}", clean_line(&made.role)))
}

async fn set(
    client: &Client,
    name: &UserName,
    chosen: &Chosen,
    old_password: Option<String>,
) -> Result<UserSummary, Failure> {
    let mut request = UserPasswordRequest { password: chosen.password.as_str().to_owned(), old_password };
    let set = client.put(&["users", name.as_str(), "password"], &request).await;
    request.password.zeroize();
    request.old_password.zeroize();
    set
}

async fn reset(output: &Output, client: &Client, name: &UserName, from: &NewPassword) -> Result<(), Failure> {
    let chosen = password::new(from, name.as_str())?;
    let user = set(client, name, &chosen, None).await?;
    shown(output, &user, &chosen, "has a new password, and its sessions have ended")
}

async fn change_own(
    output: &Output,
    client: &Client,
    name: &UserName,
    from: &NewPassword,
    old: Option<&std::path::Path>,
) -> Result<(), Failure> {
    let old = match old {
        Some(file) => password::of_file(file)?,
        None => prompt::password(&format!("Present password of {name}: "))?,
    };
    let password = match &from.password_file {
        Some(file) => password::of_file(file)?,
        None => password::asked(name.as_str())?,
    };
    let chosen = Chosen { password, is_generated: false };
    let user = set(client, name, &chosen, Some(old.as_str().to_owned())).await?;
    shown(
        output,
        &user,
        &chosen,
        "has the new password; every session has ended, sign in again with `serverflow login`",
    )
}

/// What `user delete` prints as JSON.
#[derive(Serialize)]
struct Deleted<'a> {
    name: &'a UserName,
    deleted: bool,
}

async fn delete(output: &Output, client: &Client, name: &UserName, yes: bool) -> Result<(), Failure> {
    if !yes {
        let question = format!(
            "{name} will be removed for good, with its sessions and API tokens; its name is not given again.\nType it to go on: "
        );
        if prompt::line(&question, "repeat the command with --yes to delete the account")? != name.as_str() {
            return Err(Failure::invalid(format!("that is not {name}; nothing was changed")));
        }
    }
    client.delete(&["users", name.as_str()]).await?;
    output.result(&Deleted { name, deleted: true }, |_, _| format!("{name} is deleted\n"))
}

const fn state(user: &UserSummary) -> (&'static str, Style) {
    match user.disabled_at {
        None => ("active", AnsiColor::Green.on_default()),
        Some(_) => ("disabled", AnsiColor::Yellow.on_default()),
    }
}

fn list_words(users: &[UserSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["NAME", "ROLE", "STATUS", "CREATED"]);
    for user in users {
        let (word, style) = state(user);
        table.row([
            user.name.to_string().into(),
            user.role.clone().into(),
            Cell::styled(word, style),
            relative(now, user.created_at.0).into(),
        ]);
    }
    table.render(paint, "no such accounts")
}

fn changed(output: &Output, user: &UserSummary, done: &str) -> Result<(), Failure> {
    output.result(user, |user, _| format!("{} {done}\n", user.name))
}

fn show(output: &Output, user: &UserSummary) -> Result<(), Failure> {
    output.result(user, |user, paint| show_words(user, clock::now(), paint))
}

fn show_words(user: &UserSummary, now: UnixMs, paint: Paint) -> String {
    let (word, style) = state(user);
    let mut rows = vec![
        ("name", user.name.to_string()),
        ("role", clean_line(&user.role)),
        ("status", paint.on(style, word)),
        ("id", user.id.to_string()),
        ("created", format!("{} ({})", relative(now, user.created_at.0), user.created_at)),
    ];
    if let Some(at) = user.disabled_at {
        rows.push(("disabled", format!("{} ({at})", relative(now, at.0))));
    }
    fields(paint, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    #[test]
    fn accounts_stand_in_a_table() {
        let user = |name: &str, role: &str, disabled: Option<u64>| {
            let disabled = disabled.map(|before| api::Timestamp(UnixMs(NOW.0 - before)).to_string());
            let created = api::Timestamp(UnixMs(NOW.0 - 7_200_000)).to_string();
            json!({"id": sample::id(1), "name": name, "role": role, "created_at": created, "disabled_at": disabled})
        };
        let users = json!([user("ada", "owner", None), user("bob", "viewer", Some(60_000))]);
        let users: Vec<UserSummary> = serde_json::from_value(users).unwrap();
        let expected = expect_test::expect![[r"
            NAME  ROLE    STATUS    CREATED
            ada   owner   active    2 h ago
            bob   viewer  disabled  2 h ago
        "]];
        expected.assert_eq(&list_words(&users, NOW, Paint(false)));
        assert!(show_words(&users[1], NOW, Paint(false)).contains("disabled  60 s ago"));
    }
}
