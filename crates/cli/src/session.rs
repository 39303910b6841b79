//! `session …`

use api::{SessionSummary, WhoAmI};
use ids::UnixMs;
use serde::Serialize;

use crate::{
    arguments::Session,
    client::Client,
    clock,
    exit::{Ended, Failure},
    list::{self, part},
    output::{Output, Paint},
    spans::relative,
    table::Table,
};

/// What `session revoke` prints as JSON.
#[derive(Serialize)]
struct Revoked {
    revoked: String,
}

pub(crate) async fn run(output: &Output, client: &Client, verb: Session) -> Result<Ended, Failure> {
    match verb {
        Session::List { user, address, extent } => {
            let query = [part("user", user.as_ref()), part("address", address.as_ref()), extent.sort()];
            let query: Vec<_> = query.into_iter().flatten().collect();
            let sessions: Vec<SessionSummary> = list::items(client, &["sessions"], &query, extent.most()).await?;
            output.result(&sessions, |sessions, paint| list_words(sessions, clock::now(), paint))?;
        }
        Session::Revoke { id: Some(id), .. } => {
            client.delete(&["sessions", &id.to_string()]).await?;
            output.result(&Revoked { revoked: id.to_string() }, |_, _| format!("session {id} has ended\n"))?;
        }
        Session::Revoke { id: None, user, .. } => {
            let name = match user {
                Some(name) => name,
                None => client.get::<WhoAmI>(&["session"]).await?.name,
            };
            client.delete(&["users", name.as_str(), "sessions"]).await?;
            output.result(&Revoked { revoked: "all".to_owned() }, |_, _| {
                format!("every session of {name} has ended\n")
            })?;
        }
    }
    Ok(Ended::Well)
}

fn list_words(sessions: &[SessionSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["ID", "SIGNED IN", "ENDS", "FROM", ""]);
    for session in sessions {
        table.row([
            session.id.to_string().into(),
            relative(now, session.created_at.0).into(),
            relative(now, session.expires_at.0).into(),
            session.address.clone().into(),
            if session.current { "this one" } else { "" }.into(),
        ]);
    }
    table.render(paint, "no open sessions")
}
