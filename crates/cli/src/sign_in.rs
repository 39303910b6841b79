//! `login`, `logout`, `whoami`.

use std::path::Path;

use api::{SignInRequest, SignInResponse, WhoAmI};
use envelope::messages::PublicKeyBytes;
use ids::UnixMs;
use serde::Serialize;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    arguments::Login,
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    output::{Output, Paint, clean_line},
    password, prompt, roots, session_file,
    session_file::{Place, SessionFile},
    spans::relative,
    table::fields,
    trust::Trust,
};

/// What `login` and `whoami` print as JSON.
#[derive(Serialize)]
struct SignedIn<'a> {
    url: &'a str,
    #[serde(flatten)]
    user: &'a WhoAmI,
}

/// What `logout` prints as JSON.
#[derive(Serialize)]
struct SignedOut<'a> {
    url: &'a str,
    signed_out: bool,
}

pub(crate) async fn login(output: &Output, place: Place<'_>, login: Login) -> Result<Ended, Failure> {
    let url = session_file::address(&login.address)?;
    // From the environment it stands for the other commands, which is said below.
    if let Some(other) = place.url.filter(|other| session_file::variable("SERVERFLOW_URL").as_deref() != Some(*other))
        && session_file::address(other)? != url
    {
        return Err(Failure::invalid(format!("two addresses are given: {} and --url {other}", login.address))
            .hint("`login` takes the address as its argument; leave --url out"));
    }
    let path = session_file::path()?;
    // Before the password is asked for and sent.
    let named = given(login.root.as_deref()).map(roots::read_key).transpose()?;
    let name = match login.user {
        Some(name) => name,
        None => prompt::line("Account name: ", "say who signs in with --user NAME")?
            .parse()
            .map_err(|e: ids::NameError| Failure::invalid(e.to_string()))?,
    };
    let password = match &login.password_file {
        Some(file) => password::of_file(file)?,
        None => prompt::password(&format!("Password of {name}: "))?,
    };
    let trust = given(place.ca).map(Trust::read).transpose()?;
    let client = Client::new(url, None, trust)?;
    let mut request = SignInRequest { name: name.clone(), password: password.as_str().to_owned() };
    let answer: Result<SignInResponse, Failure> = client.post(&["session"], &request).await;
    request.password.zeroize();
    let mut answer = answer.map_err(|failure| match failure.kind {
        Kind::NotAllowed => failure.hint("check the name and the password"),
        _ => failure,
    })?;
    let signed_in = client.with_token(&answer.token)?;
    let kept = keep(output, &signed_in, &answer, named, &path).await;
    answer.token.zeroize();
    if let Err(failure) = kept {
        // Nobody would use that session.
        if signed_in.delete(&["session"]).await.is_err() {
            let until = answer.expires_at;
            output.progress(format_args!("note: the session that was begun could not be ended; it ends {until}"));
        }
        return Err(failure);
    }
    for name in ["SERVERFLOW_TOKEN", "SERVERFLOW_URL"] {
        if session_file::variable(name).is_some() {
            output.progress(format_args!("note: {name} is set and wins over this sign-in"));
        }
    }
    output.result(&SignedIn { url: client.address(), user: &answer.user }, |signed_in, _| {
        let until = relative(clock::now(), signed_in.user.expires_at.0);
        format!(
            "signed in at {} as {} ({}); the session ends {until}\n",
            signed_in.url,
            signed_in.user.name,
            clean_line(&signed_in.user.role)
        )
    })?;
    Ok(Ended::Well)
}

/// Verifies the fleet's root key and keeps the session.
async fn keep(
    output: &Output,
    client: &Client,
    answer: &SignInResponse,
    named: Option<PublicKeyBytes>,
    path: &Path,
) -> Result<(), Failure> {
    let root = root_key(output, client, named, path).await?;
    let session = SessionFile {
        url: client.address().to_owned(),
        user: answer.user.name.clone(),
        token: answer.token.clone(),
        expires_at: answer.expires_at,
        ca: client.trusted().map(str::to_owned),
        root: Some(root.to_string()),
    };
    session.save(path)
}

/// The fleet's root key, against which its chain of root metadata verified: the one that is named, else
/// the one that was kept with this address, else the one that the control plane shows now.
async fn root_key(
    output: &Output,
    client: &Client,
    named: Option<PublicKeyBytes>,
    path: &Path,
) -> Result<PublicKeyBytes, Failure> {
    let kept = match SessionFile::load(path) {
        Ok(Some(session)) if session.url == client.address() => session.root_key()?,
        // A file that is of no use any more is written anew.
        _ => None,
    };
    let chain = roots::fetch(client).await?;
    let key = match (named, kept) {
        (Some(key), _) => key,
        (None, Some(key)) => key,
        (None, None) => {
            let key = roots::first_key(&chain)?;
            output.progress(format_args!(
                "note: root key {key} is trusted from now on, because it was seen at this first sign-in; compare it with \
                 the owner's, or name that with --root FILE"
            ));
            key
        }
    };
    roots::verified(&chain, key)?;
    Ok(key)
}

/// An empty variable is none.
fn given(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

pub(crate) async fn logout(output: &Output, ca: Option<&Path>) -> Result<Ended, Failure> {
    let path = session_file::path()?;
    let Some(session) = SessionFile::load(&path)? else {
        let failure = Failure::invalid("there is no session to end");
        return Err(match session_file::variable("SERVERFLOW_TOKEN") {
            Some(_) => failure.hint("you are signed in by SERVERFLOW_TOKEN: `unset SERVERFLOW_TOKEN` signs out here"),
            None => failure,
        });
    };
    let trust = match (given(ca), &session.ca) {
        (Some(path), _) => Some(Trust::read(path)?),
        (None, Some(pem)) => Some(Trust::parse(pem, "the kept session")?),
        (None, None) => None,
    };
    let token = Zeroizing::new(session.token.clone());
    let client = Client::new(session_file::address(&session.url)?, Some(token), trust)?;
    let told = client.delete(&["session"]).await;
    SessionFile::remove(&path)?;
    match told {
        // It was not valid any more.
        Err(failure) if failure.kind == Kind::NotAllowed => {}
        Err(failure) => {
            let until = session.expires_at;
            return Err(failure.hint(format!("the session is forgotten here, but stays valid there until {until}")));
        }
        Ok(()) => {}
    }
    output.result(&SignedOut { url: client.address(), signed_out: true }, |_, _| {
        format!("signed out at {}\n", client.address())
    })?;
    Ok(Ended::Well)
}

pub(crate) async fn whoami(output: &Output, client: &Client) -> Result<Ended, Failure> {
    let user: WhoAmI = client.get(&["session"]).await?;
    let now = clock::now();
    output.result(&SignedIn { url: client.address(), user: &user }, |signed_in, paint| {
        whoami_words(signed_in, now, paint)
    })?;
    Ok(Ended::Well)
}

/// With an API token, what ends is the token, and the role is what it may do, which may be less than its account may.
fn whoami_words(signed_in: &SignedIn<'_>, now: UnixMs, paint: Paint) -> String {
    let WhoAmI { name, role, expires_at, token_id } = signed_in.user;
    let ends = format!("{} ({expires_at})", relative(now, expires_at.0));
    let mut rows = vec![("account", name.to_string())];
    match token_id {
        None => rows.extend([("role", clean_line(role)), ("session ends", ends)]),
        Some(id) => {
            rows.extend([("API token", id.to_string()), ("token's role", clean_line(role)), ("token ends", ends)])
        }
    }
    rows.insert(rows.len() - 1, ("control plane", clean_line(signed_in.url)));
    fields(paint, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    #[test]
    fn whoever_asks_is_shown_as_what_they_are() {
        let words = |token_id: Option<String>| {
            let mut user = json!({"name": "ada", "role": "viewer", "expires_at": "2023-11-16T22:13:20.000Z"});
            if let Some(id) = token_id {
                user["token_id"] = json!(id);
            }
            let user: WhoAmI = serde_json::from_value(user).unwrap();
            whoami_words(&SignedIn { url: "https://x", user: &user }, NOW, Paint(false))
        };
        let expected = expect_test::expect![[r#"
            account        ada
            role           viewer
            control plane  https://x
            session ends   in 2 days (2023-11-16T22:13:20.000Z)
        "#]];
        expected.assert_eq(&words(None));
        let expected = expect_test::expect![[r#"
            account        ada
            API token      00000000-0000-7000-8000-000000000007
            token's role   viewer
            control plane  https://x
            token ends     in 2 days (2023-11-16T22:13:20.000Z)
        "#]];
        expected.assert_eq(&words(Some(sample::id(7))));
    }
}
