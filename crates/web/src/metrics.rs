//! What is counted, for `/metrics` (OpenMetrics text, as Prometheus reads it). Labels are words of
//! ours, never a caller's: a route's pattern and not the path, a status and not a message.

use core::time::Duration;

use fleet::model::CommandStatus;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use crate::state::Figures;

/// Content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the latency histogram, in seconds.
const LATENCIES: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignInLabels {
    result: &'static str,
}

#[derive(Clone)]
struct Latency;

impl MetricConstructor<Histogram> for Latency {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCIES)
    }
}

/// This room's metrics and the registry they stand in.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram, Latency>,
    command_events: Family<StatusLabels, Counter>,
    sign_ins: Family<SignInLabels, Counter>,
    sessions: Gauge,
    audit_size: Gauge,
    pub(crate) event_streams: Gauge,
    pub(crate) connections: Gauge,
}

impl Metrics {
    pub(crate) fn new(mut registry: Registry) -> Self {
        let requests = Family::default();
        let latency = Family::new_with_constructor(Latency);
        let (command_events, sign_ins) = (Family::default(), Family::default());
        let (sessions, audit_size, event_streams, connections) =
            (Gauge::default(), Gauge::default(), Gauge::default(), Gauge::default());
        let own = registry.sub_registry_with_prefix("serverflow");
        own.register("http_requests", "HTTP requests answered", requests.clone());
        own.register_with_unit(
            "http_response_time",
            "Time until a response began; event streams are not among them",
            Unit::Seconds,
            latency.clone(),
        );
        own.register("http_connections", "HTTP connections open", connections.clone());
        own.register("http_event_streams", "Event streams open", event_streams.clone());
        own.register("command_events", "Commands that reached a status, since the start", command_events.clone());
        own.register("sign_ins", "Sign-ins tried, by result", sign_ins.clone());
        own.register("agent_sessions", "Sessions with agents open", sessions.clone());
        own.register("audit_entries", "Entries of the audit log", audit_size.clone());
        for status in CommandStatus::ALL {
            // Present from the first scrape on, so that a rate over it is right.
            drop(command_events.get_or_create(&StatusLabels { status: status.as_str() }));
        }
        Self { registry, requests, latency, command_events, sign_ins, sessions, audit_size, event_streams, connections }
    }

    pub(crate) fn answered(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { method, route: route.to_owned(), status }).inc();
        self.latency.get_or_create(&RouteLabels { method, route: route.to_owned() }).observe(took.as_secs_f64());
    }

    pub(crate) fn command_event(&self, status: CommandStatus) {
        self.command_events.get_or_create(&StatusLabels { status: status.as_str() }).inc();
    }

    pub(crate) fn sign_in(&self, result: &'static str) {
        self.sign_ins.get_or_create(&SignInLabels { result }).inc();
    }

    /// The text, with others' figures as they are now.
    pub(crate) fn text(&self, figures: &dyn Figures) -> Result<String, core::fmt::Error> {
        self.sessions.set(i64::try_from(figures.sessions_open()).unwrap_or(i64::MAX));
        self.audit_size.set(i64::try_from(figures.audit_size()).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
