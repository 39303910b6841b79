//! `key list`.

use anstyle::{AnsiColor, Style};
use api::{KeyChangeSummary, KeyList, KeyRole, KeyState, KeySummary};
use ids::UnixMs;

use super::{is_end, rotate::waits_for, state_word, word};
use crate::{
    client::Client,
    clock,
    exit::{Ended, Failure},
    output::{Output, Paint},
    spans::relative,
    table::{Cell, Table},
};

pub(super) async fn run(output: &Output, client: &Client) -> Result<Ended, Failure> {
    let list: KeyList = client.get(&["keys"]).await?;
    output.result(&list, |list, paint| words(list, clock::now(), paint))?;
    if let Some(problem) = &list.problem {
        output.problem(problem);
    }
    Ok(Ended::well_if(list.problem.is_none()))
}

fn state(key: &KeySummary) -> (&'static str, Style) {
    match (key.state, key.held) {
        (KeyState::InUse, _) => ("in use", AnsiColor::Green.on_default()),
        (KeyState::Listed, true) => ("next", Style::new()),
        (KeyState::Listed, false) => ("not held", AnsiColor::Yellow.on_default()),
        (KeyState::Unlisted, _) => ("made", Style::new().dimmed()),
        (KeyState::Void, _) => ("void", Style::new().dimmed()),
    }
}

/// What people call a key by.
pub(super) fn short(key: &KeySummary) -> String {
    key.key_id.clone().unwrap_or_else(|| key.key.clone())
}

fn words(list: &KeyList, now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["ROLE", "ID", "STATE", "MADE", "ROTATION DUE"]);
    for key in &list.keys {
        let (word_of, style) = state(key);
        let due = key.rotation_due_at.map_or_else(String::new, |at| relative(now, at.0));
        let is_due = key.rotation_due_at.is_some_and(|at| at.0 <= now);
        table.row([
            word(key.role).into(),
            short(key).into(),
            Cell::styled(word_of, style),
            key.made_at.map_or_else(|| "unknown".to_owned(), |at| relative(now, at.0)).into(),
            Cell::styled(&due, if is_due { AnsiColor::Yellow.on_default() } else { Style::new() }),
        ]);
    }
    let mut text = table.render(paint, "no keys are known");
    for change in list.changes.iter().filter(|change| !is_end(change.state)) {
        text.push_str(&format!("\n{}\n", change_words(change, now)));
    }
    let missing = list.changes.iter().find(|change| is_newest_emergency(list, change) && is_end(change.state));
    if let Some(change) = missing.filter(|change| !change.hosts_waiting.is_empty()) {
        text.push_str(&format!("\n{}\n", not_reached(change)));
    }
    text
}

/// Only of the last one is it still news who has not heard.
fn is_newest_emergency(list: &KeyList, change: &KeyChangeSummary) -> bool {
    let first = list.changes.iter().find(|change| change.role == KeyRole::Command && change.emergency);
    first.is_some_and(|first| first == change)
}

fn change_words(change: &KeyChangeSummary, now: UnixMs) -> String {
    let (role, begun) = (word(change.role), relative(now, change.begun_at.0));
    let what = if change.emergency { "stolen" } else { "changed" };
    let by = &change.begun_by;
    let stuck = if change.stuck { " It has stood still for long: look why." } else { "" };
    format!(
        "The {role} key is being {what}, begun by {by} {begun}: {}.\n  It waits for {}.{stuck}",
        state_word(change.state),
        waits_for(change)
    )
}

/// After an emergency: who may still take orders of the key that was shut out.
pub(super) fn not_reached(change: &KeyChangeSummary) -> String {
    let hosts = change.hosts_waiting.join(", ");
    format!(
        "Not reached yet: {hosts}. Where that cannot wait, `serverflow root export FILE` here and `serverflow-agent trust apply FILE` there."
    )
}

#[cfg(test)]
mod tests {
    use api::KeyChangeState;
    use serde_json::json;

    use super::*;
    use crate::sample::NOW;

    fn list(state: KeyChangeState) -> KeyList {
        let at = |days: u64| api::Timestamp(UnixMs(NOW.0 - 200 * 86_400_000 + days * 86_400_000)).to_string();
        let key = |role: &str, n: u8, state: &str, held: bool| {
            json!({"role": role, "key": format!("{n:064x}"), "key_id": format!("{n:032x}"), "state": state, "held": held,
                "made_at": at(0), "rotation_due_at": (state == "in_use").then(|| at(180))})
        };
        let mut tls = key("tls", 9, "in_use", true);
        tls.as_object_mut().unwrap().remove("key_id");
        serde_json::from_value(json!({
            "keys": [key("command", 1, "in_use", true), key("command", 2, "listed", true), key("session", 3, "listed", false), tls],
            "changes": [{"role": "command", "state": state, "emergency": false, "old_key": "01", "new_key": "02",
                "fresh_key": "02", "begun_by": "ada", "begun_at": at(199), "moved_at": at(199), "stuck": true,
                "root_version": 4, "activate_anyway": false, "hosts": 3, "hosts_acknowledged": 1,
                "hosts_waiting": ["a", "b"], "hosts_quarantined": ["q"], "hosts_never_seen": [], "orders_under_way": 0}],
        }))
        .unwrap()
    }

    #[test]
    fn keys_stand_in_a_table_and_changes_below_it() {
        let expected = expect_test::expect![[r#"
            ROLE     ID                                                                STATE     MADE          ROTATION DUE
            command  00000000000000000000000000000001                                  in use    200 days ago  20 days ago
            command  00000000000000000000000000000002                                  next      200 days ago  -
            session  00000000000000000000000000000003                                  not held  200 days ago  -
            tls      0000000000000000000000000000000000000000000000000000000000000009  in use    200 days ago  20 days ago

            The command key is being changed, begun by ada 24 h ago: published.
              It waits for hosts to acknowledge it: 1 of 3 have (not yet: a, b); `serverflow key rotate command --activate-anyway` waits no longer. It has stood still for long: look why.
        "#]];
        expected.assert_eq(&words(&list(KeyChangeState::Published), NOW, Paint(false)));
        let done = words(&list(KeyChangeState::Retired), NOW, Paint(false));
        assert!(!done.contains("waits for"), "{done}");
        let mut stolen = list(KeyChangeState::Retired);
        stolen.changes[0].emergency = true;
        let told = words(&stolen, NOW, Paint(false));
        assert!(told.contains("Not reached yet: a, b.") && told.contains("trust apply"), "{told}");
    }
}
