//! `token …`

use anstyle::{AnsiColor, Style};
use api::{TokenRequest, TokenResponse, TokenStatus, TokenSummary};
use ids::UnixMs;
use serde::Serialize;

use crate::{
    arguments::Token,
    client::Client,
    clock,
    exit::{Ended, Failure},
    list::{self, part},
    output::{Output, Paint, clean_line},
    spans::relative,
    table::{Cell, Table},
};

/// What `token revoke` prints as JSON.
#[derive(Serialize)]
struct Revoked {
    revoked: ids::ApiTokenId,
}

pub(crate) async fn run(output: &Output, client: &Client, verb: Token) -> Result<Ended, Failure> {
    match verb {
        Token::Create { name, role, ttl } => {
            let request = TokenRequest { name, role, ttl_seconds: ttl };
            let token: TokenResponse = client.post(&["tokens"], &request).await?;
            let url = client.address();
            output.result(&token, |token, paint| create_words(token, url, clock::now(), paint))?;
        }
        Token::List { user, status, extent } => {
            let query = [part("user", user.as_ref()), part("status", status.as_ref()), extent.sort()];
            let query: Vec<_> = query.into_iter().flatten().collect();
            let tokens: Vec<TokenSummary> = list::items(client, &["tokens"], &query, extent.most()).await?;
            output.result(&tokens, |tokens, paint| list_words(tokens, clock::now(), paint))?;
        }
        Token::Revoke { id } => {
            client.delete(&["tokens", &id.to_string()]).await?;
            output.result(&Revoked { revoked: id }, |_, _| format!("API token {id} is revoked\n"))?;
        }
    }
    Ok(Ended::Well)
}

fn create_words(token: &TokenResponse, url: &str, now: UnixMs, paint: Paint) -> String {
    format!(
        "API token {id} of {user} ({role}), shown once. It ends {until}:\n\n  {token}\n\n\
         `serverflow` takes it from SERVERFLOW_TOKEN, with SERVERFLOW_URL={url}; other programs send\n\
         `Authorization: Bearer TOKEN`.\n",
        id = token.summary.id,
        user = token.summary.user,
        role = clean_line(&token.summary.role),
        until = relative(now, token.summary.expires_at.0),
        token = paint.bold(clean_line(&token.token)),
    )
}

const fn status(status: TokenStatus) -> (&'static str, Style) {
    match status {
        TokenStatus::Active => ("active", AnsiColor::Green.on_default()),
        TokenStatus::Expired => ("expired", Style::new().dimmed()),
        TokenStatus::Revoked => ("revoked", Style::new().dimmed()),
        TokenStatus::Disabled => ("disabled", AnsiColor::Yellow.on_default()),
    }
}

fn list_words(tokens: &[TokenSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["ID", "NAME", "ROLE", "STATUS", "ENDS", "LAST USED"]);
    for token in tokens {
        let (word, style) = status(token.status);
        table.row([
            token.id.to_string().into(),
            token.name.clone().into(),
            token.role.clone().into(),
            Cell::styled(word, style),
            relative(now, token.expires_at.0).into(),
            token.last_used_at.map_or_else(|| "never".to_owned(), |at| relative(now, at.0)).into(),
        ]);
    }
    table.render(paint, "no API tokens; make one with `serverflow token create`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    #[test]
    fn tokens_stand_in_a_table_and_show_themselves_once() {
        let at = |ms: u64| api::Timestamp(UnixMs(ms)).to_string();
        let token = json!({"id": sample::id(1), "name": "ci", "user": "ada", "role": "viewer", "status": "active",
            "created_at": at(NOW.0), "expires_at": at(NOW.0 + 30 * 86_400_000), "last_used_at": null});
        let tokens: Vec<TokenSummary> = serde_json::from_value(json!([token])).unwrap();
        let expected = expect_test::expect![[r"
            ID                                    NAME  ROLE    STATUS  ENDS        LAST USED
            00000000-0000-7000-8000-000000000001  ci    viewer  active  in 30 days  never
        "]];
        expected.assert_eq(&list_words(&tokens, NOW, Paint(false)));
        let made = TokenResponse { token: "sft_secret".to_owned(), summary: tokens[0].clone() };
        assert!(create_words(&made, "https://x", NOW, Paint(false)).contains("\n  sft_secret\n"));
    }
}
