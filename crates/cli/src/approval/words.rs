//! What waits, as people read it.

use actions::Class;
use api::CommandSummary;
use ids::UnixMs;

use super::{Waiting, evidence::Checked};
use crate::{
    action::{has_content, value_words},
    follow,
    output::{Paint, clean_line},
    spans::relative,
    table::{Table, fields},
};

pub(super) fn list(held: &[CommandSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["OPERATION", "HOST", "ACTION", "APP", "ASKED BY", "SINCE", "HAS"]);
    for command in held {
        let has = command.message.split(';').next().unwrap_or_default();
        table.row([
            command.operation_id.into(),
            command.host.to_string().into(),
            command.action.as_str().into(),
            command.app.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            command.requested_by.to_string().into(),
            relative(now, command.proposed_at.0).into(),
            has.into(),
        ]);
    }
    let mut text = table.render(paint, "nothing waits for approval");
    if let [first, ..] = held {
        text.push_str(&format!("Look at one with `serverflow approval show {}`.\n", first.operation_id));
    }
    text
}

pub(super) fn show(waiting: &Waiting, now: UnixMs, paint: Paint) -> String {
    let mut text = String::new();
    for (at, checked) in waiting.hosts.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| waiting.hosts.get(at));
        if before.is_none_or(|before| before.order.parameters != checked.order.parameters) {
            text.push_str(&order_words(waiting, checked, now, paint));
        }
        text.push_str(&host_words(checked, now, paint));
    }
    text
}

/// What was asked for; the same for every host, but for the version of the action.
fn order_words(waiting: &Waiting, checked: &Checked, now: UnixMs, paint: Paint) -> String {
    let order = &checked.order;
    let class = actions::find(&order.action, order.action_version).map_or(Class::Destructive, |info| info.class);
    let by_key = order.requester.map(|key| format!(", approver key {key}")).unwrap_or_default();
    let rows = [
        ("operation", waiting.id.to_string()),
        ("action", format!("{}@{} ({class})", order.action, order.action_version)),
        ("asked by", format!("{}{by_key} (the control plane's word)", checked.shown.requested_by)),
        ("asked", relative(now, order.proposed_at)),
        ("deliver by", format!("{} ({})", relative(now, order.deliver_by), api::Timestamp(order.deliver_by))),
    ];
    let mut text = fields(paint, &rows);
    if !order.sealed.is_empty() {
        let names: Vec<&str> = order.sealed.iter().map(|sealed| sealed.name.as_str()).collect();
        text.push_str(&fields(paint, &[("sealed values", clean_line(&names.join(", ")))]));
    }
    let parameters = serde_json::from_slice(&order.parameters).unwrap_or_default();
    // Of a deploy, the plan says what comes of them.
    if has_content(&parameters) && order.action.as_str() != "app.deploy" {
        text.push_str(&format!("\n{}\n{}", paint.bold("Parameters"), value_words(&parameters)));
    }
    text
}

fn host_words(checked: &Checked, now: UnixMs, paint: Paint) -> String {
    let name = paint.bold(&checked.host);
    let renamed = match checked.host == checked.enrolled_as {
        true => String::new(),
        false => format!(" (enrolled as {})", checked.enrolled_as),
    };
    let mut text =
        format!("\n{name}{renamed} has signed, {}, that it would do this:\n", relative(now, checked.planned_at));
    match follow::plan_words(&checked.plan.result) {
        Some(plan) => text.push_str(&plan),
        None => {
            text.push_str(&format!("  {}\n", clean_line(&checked.plan.message)));
            if has_content(&checked.plan.result) {
                text.push_str(&value_words(&checked.plan.result));
            }
        }
    }
    for approval in &checked.shown.approvals {
        let who = approval.user.as_ref().map_or("nobody's key", |user| user.as_str());
        let counts = if approval.in_force { "" } else { ", which does not count any more" };
        text.push_str(&format!("  approved by {who}, {}{counts}\n", relative(now, approval.approved_at.0)));
    }
    text.push_str(&format!("  {}\n", clean_line(&checked.shown.message)));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    #[test]
    fn what_waits_stands_in_a_table() {
        let held = json!([{
            "command_id": sample::id(1), "operation_id": sample::id(2), "host": "local", "action": "app.remove@1",
            "app": "sample", "dry_run": false, "status": "held", "message": "1 of 2 approvals; ask an approver",
            "requested_by": "admin", "proposed_at": "2023-11-14T22:12:20.000Z", "settled_at": null,
        }]);
        let held: Vec<CommandSummary> = serde_json::from_value(held).unwrap();
        let expected = expect_test::expect![[r"
            OPERATION                             HOST   ACTION        APP     ASKED BY  SINCE     HAS
            00000000-0000-7000-8000-000000000002  local  app.remove@1  sample  admin     60 s ago  1 of 2 approvals
            Look at one with `serverflow approval show 00000000-0000-7000-8000-000000000002`.
        "]];
        expected.assert_eq(&list(&held, NOW, Paint(false)));
        assert_eq!(list(&[], NOW, Paint(false)), "nothing waits for approval\n");
    }
}
