//! `standing …`: what hosts are to run by themselves.

use anstyle::{AnsiColor, Style};
use api::{OperationResponse, StandingDropRequest, StandingOrderRequest, StandingOrderState, StandingOrderSummary};
use ids::{HostName, StandingOrderId, UnixMs};

use crate::{
    action,
    arguments::{Standing, StandingInstall},
    client::Client,
    clock,
    exit::{Ended, Failure},
    operation::{self, Wait},
    output::{Output, Paint, clean_line},
    spans::relative,
    table::{Cell, Table},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: Standing) -> Result<Ended, Failure> {
    match verb {
        Standing::List => {
            let orders: Vec<StandingOrderSummary> = client.get(&["standing-orders"]).await?;
            output.result(&orders, |orders, paint| words(orders, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Standing::Install(install) => run_install(output, client, install).await,
        Standing::Drop { host, standing_order, detach } => run_drop(output, client, host, standing_order, detach).await,
    }
}

async fn run_install(output: &Output, client: &Client, install: StandingInstall) -> Result<Ended, Failure> {
    let parameters = action::parameters(client, &install.name, install.file.as_deref(), &install.parameters).await?;
    let request = StandingOrderRequest {
        operation_id: clock::operation_id()?,
        host: install.host,
        action: install.name.to_string(),
        parameters,
        schedule: install.schedule,
        zone: install.zone,
        valid_for_seconds: install.valid_for,
        alone_for_seconds: install.alone_for,
    };
    let sent: OperationResponse = client.post_repeatedly(&["standing-orders"], &request, |_| again(output)).await?;
    ended(output, client, sent, install.detach).await
}

async fn run_drop(
    output: &Output,
    client: &Client,
    host: HostName,
    order: StandingOrderId,
    detach: bool,
) -> Result<Ended, Failure> {
    let request = StandingDropRequest { operation_id: clock::operation_id()?, host };
    let path = ["standing-orders", &order.to_string(), "drop"];
    let sent: OperationResponse = client.post_repeatedly(&path, &request, |_| again(output)).await?;
    ended(output, client, sent, detach).await
}

fn again(output: &Output) {
    output.progress("the control plane does not answer; sending the same request again");
}

async fn ended(output: &Output, client: &Client, sent: OperationResponse, detach: bool) -> Result<Ended, Failure> {
    let ended = operation::finish(client, output, sent, Wait::unless(detach)).await?;
    operation::show(output, &ended, &[])
}

fn state(order: &StandingOrderSummary) -> (&'static str, Style) {
    match order.state {
        StandingOrderState::Installed if order.outdated == Some(true) => {
            ("being signed anew", AnsiColor::Yellow.on_default())
        }
        StandingOrderState::Installed => ("installed", AnsiColor::Green.on_default()),
        StandingOrderState::Installing => ("installing", Style::new()),
        StandingOrderState::Refused => ("refused", AnsiColor::Red.on_default()),
        StandingOrderState::Dropping => ("dropping", Style::new()),
        StandingOrderState::Dropped => ("dropped", Style::new().dimmed()),
    }
}

fn words(orders: &[StandingOrderSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["ID", "HOST", "ACTION", "SCHEDULE", "ZONE", "STATE", "VALID"]);
    for order in orders {
        let (word, style) = state(order);
        table.row([
            order.standing_order_id.into(),
            order.host.as_str().into(),
            order.action.as_str().into(),
            order.schedule.as_str().into(),
            order.zone.as_str().into(),
            Cell::styled(word, style),
            relative(now, order.valid_until.0).into(),
        ]);
    }
    let mut text = table.render(paint, "no standing orders");
    for order in orders.iter().filter(|order| order.state != StandingOrderState::Dropped) {
        if let Some(problem) = &order.problem {
            text.push_str(&format!("\n{} on {}: {}\n", order.standing_order_id, order.host, clean_line(problem)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(state: StandingOrderState, outdated: bool, problem: Option<&str>) -> StandingOrderSummary {
        StandingOrderSummary {
            standing_order_id: StandingOrderId::from_bytes([4; 16]),
            host: "web-1".parse().unwrap(),
            action: "app.restart".parse().unwrap(),
            action_version: 1,
            schedule: "30 3 * * 1-5".to_owned(),
            zone: "Europe/Zurich".to_owned(),
            valid_until: UnixMs(86_400_000 * 90).into(),
            alone_for_seconds: 2_592_000,
            state,
            revision: Some(3),
            signed_by: None,
            outdated: Some(outdated),
            problem: problem.map(ToOwned::to_owned),
            requested_by: "ada".parse().unwrap(),
            created_at: UnixMs(0).into(),
            operation_id: ids::OperationId::from_bytes([5; 16]),
        }
    }

    #[test]
    fn standing_orders_stand_in_a_table_with_what_is_wrong_below() {
        let orders = [
            order(StandingOrderState::Installed, false, None),
            order(StandingOrderState::Installed, true, Some("it was away\nfor long")),
        ];
        let text = words(&orders, UnixMs(0), Paint(false));
        assert!(text.contains("app.restart  30 3 * * 1-5  Europe/Zurich  installed          in 90 days"), "{text}");
        assert!(text.contains("being signed anew  in 90 days"), "{text}");
        assert!(text.ends_with("04040404-0404-0404-0404-040404040404 on web-1: it was away for long\n"), "{text}");
        assert_eq!(words(&[], UnixMs(0), Paint(false)), "no standing orders\n");
    }
}
