//! Flags that several nouns share: which hosts, how much of a list, from when to when.

use api::Timestamp;
use clap::Args;
use ids::{ActionName, HostName, LabelKey, LabelValue};
use serde_json::json;

use crate::{clock, spans};

/// Which hosts an order is for. Some must be named, or a selector given.
#[derive(Clone, Debug, Default, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Hosts {
    /// Host it is for; may be repeated
    #[arg(long = "host", value_name = "HOST", conflicts_with = "selector")]
    pub(crate) names: Vec<HostName>,
    /// Hosts it is for, by roles and labels, all of which must hold: role=app,env=prod,env!=old,gpu,!spot
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
}

/// Which of the hosts that carry an app; all of them when nothing is said.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SomeHosts {
    /// Only this host; may be repeated
    #[arg(long = "host", value_name = "HOST", conflicts_with = "selector")]
    pub(crate) names: Vec<HostName>,
    /// Only hosts with these roles and labels, all of which must hold: role=app,env=prod,env!=old,gpu,!spot
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
}

/// How much of a list, and in which order.
#[derive(Clone, Debug, Args)]
pub(crate) struct Extent {
    /// Show so many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show all there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Sort by this field, with a `-` before it for the greatest first (`--sort=-FIELD`)
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
}

impl Extent {
    /// At most so many; `None` for all.
    pub(crate) fn most(&self) -> Option<usize> {
        (!self.all).then(|| usize::try_from(self.limit).unwrap_or(usize::MAX))
    }

    /// The order that was asked for, as the query has it.
    pub(crate) fn sort(&self) -> Option<(&'static str, String)> {
        self.sort.as_ref().map(|field| ("sort", field.clone()))
    }
}

/// From when to when.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Period {
    /// Only then or later: a time such as 2026-01-31T08:00:00Z, or a span ago such as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<Timestamp>,
    /// Only earlier: a time, or a span ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) until: Option<Timestamp>,
}

impl Period {
    /// As the query has it.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let parts = [("since", self.since), ("until", self.until)];
        parts.into_iter().filter_map(|(name, time)| Some((name, time?.to_string()))).collect()
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = spans::seconds(text) {
        return Ok(clock::now().minus(ids::DurationMs::from_secs(seconds)).into());
    }
    serde_json::from_value(json!(text))
        .map_err(|_| "expected a time such as 2026-01-31T08:00:00Z, or a span ago such as 2h".to_owned())
}

/// An action's name; orders name the version that the host has by themselves.
pub(crate) fn action_name(text: &str) -> Result<ActionName, String> {
    match text.split_once('@') {
        Some((name, _)) => Err(format!("an action is named without its version: {name}")),
        None => text.parse().map_err(|error: ids::NameError| error.to_string()),
    }
}

/// `key=value`, or `key-` to take a label away.
pub(crate) fn label_change(text: &str) -> Result<(LabelKey, Option<LabelValue>), String> {
    let parts = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => (key, Some(value)),
        (None, Some(key)) => (key, None),
        (None, None) => return Err("expected KEY=VALUE, or KEY- to take the label away".to_owned()),
    };
    let value = parts.1.map(|value| value.parse().map_err(|error: ids::NameError| error.to_string())).transpose()?;
    Ok((parts.0.parse().map_err(|error: ids::NameError| error.to_string())?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_spans_ago() {
        assert_eq!(time("2023-11-14T22:13:20Z").unwrap().to_string(), "2023-11-14T22:13:20.000Z");
        let hours = time("2h").unwrap().0;
        assert!((7_199_000..7_300_000).contains(&clock::now().since(hours).0), "{hours:?}");
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn actions_are_named_without_a_version() {
        assert!(action_name("app.deploy").is_ok());
        assert_eq!(action_name("app.deploy@2"), Err("an action is named without its version: app.deploy".to_owned()));
        assert!(action_name("deploy").is_err());
    }

    #[test]
    fn labels_are_set_and_taken_away() {
        let change = |text| label_change(text).map(|(key, value)| (key.to_string(), value.map(|v| v.to_string())));
        assert_eq!(change("env=prod"), Ok(("env".to_owned(), Some("prod".to_owned()))));
        assert_eq!(change("env-"), Ok(("env".to_owned(), None)));
        assert_eq!(change("env=a-"), Ok(("env".to_owned(), Some("a-".to_owned()))));
        for wrong in ["env", "=x", "-", "Env=x", "env="] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
    }
}
