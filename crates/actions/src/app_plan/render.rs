//! A plan in words.

use super::{Change, PlanResult};
use crate::engine::count;

/// One sentence: what a deploy would change.
pub(super) fn summary(plan: &PlanResult) -> String {
    if plan.unchanged {
        return format!("nothing to change: {} runs as asked", plan.app);
    }
    let parts: Vec<String> = [
        (Change::Create, "create"),
        (Change::Replace, "replace"),
        (Change::Restart, "start"),
        (Change::Remove, "remove"),
    ]
    .into_iter()
    .filter_map(|(change, word)| {
        let n = plan.changes.iter().filter(|entry| entry.change == change).count();
        (n > 0).then(|| format!("{word} {}", count(n, "service")))
    })
    .collect();
    let parts = if parts.is_empty() { "change networks only".to_owned() } else { parts.join(", ") };
    format!("would {parts} of {}", plan.app)
}

/// The plan as lines for a person, ending with a newline.
#[must_use]
pub fn render_plan(plan: &PlanResult) -> String {
    let mut lines = vec![summary(plan)];
    let width = plan.changes.iter().map(|entry| entry.service.len()).max().unwrap_or(0);
    for entry in &plan.changes {
        let (sign, word) = match entry.change {
            Change::Create => ('+', "create"),
            Change::Replace => ('~', "replace"),
            Change::Restart => ('>', "start"),
            Change::Remove => ('-', "remove"),
            Change::Unchanged => ('=', "unchanged"),
        };
        let reasons = entry.reasons.join("; ");
        let line = format!("  {sign} {:width$}  {word:9}  {reasons}", entry.service);
        lines.push(line.trim_end().to_owned());
    }
    for (kind, things) in [("network", &plan.networks), ("volume", &plan.volumes)] {
        for thing in things {
            let (sign, word) = if thing.change == Change::Remove { ('-', "remove") } else { ('+', "create") };
            lines.push(format!("  {sign} {kind} {}  {word}", thing.name));
        }
    }
    for (service, image) in &plan.images {
        let origin = if image.local { " (only on this host)" } else { "" };
        lines.push(format!("  image of {service}: {} = {}{origin}", image.reference, image.pinned));
    }
    for service in &plan.unresolved {
        lines.push(format!("  image of {service}: not on this host yet; a real plan pulls it"));
    }
    if !plan.unchanged {
        lines.push(format!("  stop-first: {}", plan.why));
    }
    if !plan.without_probe.is_empty() {
        let names: Vec<&str> = plan.without_probe.iter().map(ids::ServiceName::as_str).collect();
        lines.push(format!("  no health check: {}; the deploy will end as unverified", names.join(", ")));
    }
    lines.join("\n") + "\n"
}
