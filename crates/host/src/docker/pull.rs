//! Progress of a pull: the engine sends a message for every few kilobytes of every layer; a person
//! wants a line now and then.

use std::collections::BTreeMap;

use bollard::models::CreateImageInfo;
use tokio::time::Instant;

use crate::limits;

/// What has been heard of one pull.
pub(super) struct PullProgress {
    reference: String,
    layers: BTreeMap<String, Layer>,
    told_at: Option<Instant>,
    verdict: Option<String>,
}

#[derive(Default)]
struct Layer {
    loaded: u64,
    total: u64,
    is_complete: bool,
}

impl PullProgress {
    pub(super) fn new(reference: &str) -> Self {
        Self { reference: reference.to_owned(), layers: BTreeMap::new(), told_at: None, verdict: None }
    }

    /// Takes one message in; a line if it is time for one.
    pub(super) fn hear(&mut self, message: &CreateImageInfo, now: Instant) -> Option<String> {
        let status = message.status.as_deref().unwrap_or_default();
        match message.id.as_deref() {
            Some(id) if !status.starts_with("Pulling from") => self.hear_layer(id, status, message),
            _ => {
                if let Some(verdict) = status.strip_prefix("Status: ") {
                    self.verdict = Some(verdict.to_owned());
                }
            }
        }
        let is_time = self.told_at.is_none_or(|at| now.duration_since(at) >= limits::PULL_PROGRESS_INTERVAL);
        if self.layers.is_empty() || !is_time {
            return None;
        }
        self.told_at = Some(now);
        Some(self.line())
    }

    fn hear_layer(&mut self, id: &str, status: &str, message: &CreateImageInfo) {
        if self.layers.len() >= limits::PULL_LAYERS_MAX && !self.layers.contains_key(id) {
            return;
        }
        let layer = self.layers.entry(id.to_owned()).or_default();
        match status {
            "Pull complete" | "Already exists" => {
                layer.is_complete = true;
                layer.loaded = layer.total;
            }
            "Downloading" => {
                let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
                if let Some(detail) = &message.progress_detail {
                    layer.loaded = number(detail.current);
                    layer.total = number(detail.total).max(layer.loaded);
                }
            }
            "Download complete" => layer.loaded = layer.total,
            _ => {}
        }
    }

    fn line(&self) -> String {
        let complete = self.layers.values().filter(|layer| layer.is_complete).count();
        let loaded = self.layers.values().fold(0_u64, |sum, layer| sum.saturating_add(layer.loaded));
        let total = self.layers.values().fold(0_u64, |sum, layer| sum.saturating_add(layer.total));
        format!(
            "Pulling {}: {complete} of {} layers, {} of {} MB",
            self.reference,
            self.layers.len(),
            megabytes(loaded),
            megabytes(total)
        )
    }

    /// What to say at the end.
    pub(super) fn last(&self) -> String {
        match self.verdict.as_deref() {
            Some(verdict) if verdict.starts_with("Image is up to date") => format!("{} is up to date", self.reference),
            _ => format!("Pulled {}", self.reference),
        }
    }
}

/// Millions of bytes with one decimal.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bollard::models::ProgressDetail;

    use super::*;

    fn message(id: Option<&str>, status: &str, bytes: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: id.map(str::to_owned),
            status: Some(status.to_owned()),
            progress_detail: bytes
                .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn a_flood_of_messages_becomes_two_lines_a_second() {
        let mut told = PullProgress::new("nginx:1");
        let start = Instant::now();
        let mut lines = Vec::new();
        for step in 0..2000_i64 {
            let now = start + Duration::from_millis(u64::try_from(step).expect("small"));
            lines.extend(told.hear(&message(Some("a"), "Downloading", Some((step * 1000, 2_000_000))), now));
        }
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[3], "Pulling nginx:1: 0 of 1 layers, 1.5 of 2.0 MB");
    }

    #[test]
    fn layers_add_up_and_the_verdict_is_kept() {
        let mut told = PullProgress::new("nginx:1");
        let now = Instant::now();
        assert_eq!(told.hear(&message(Some("1"), "Pulling from library/nginx", None), now), None);
        told.hear(&message(Some("a"), "Downloading", Some((1, 3_000_000))), now);
        told.hear(&message(Some("a"), "Pull complete", None), now);
        let later = now + limits::PULL_PROGRESS_INTERVAL;
        let line = told.hear(&message(Some("b"), "Already exists", None), later);
        assert_eq!(line.as_deref(), Some("Pulling nginx:1: 2 of 2 layers, 3.0 of 3.0 MB"));
        assert_eq!(told.last(), "Pulled nginx:1");
        told.hear(&message(None, "Status: Image is up to date for nginx:1", None), later);
        assert_eq!(told.last(), "nginx:1 is up to date");
    }

    #[test]
    fn layers_are_bounded() {
        let mut told = PullProgress::new("x:1");
        for number in 0..2 * limits::PULL_LAYERS_MAX {
            told.hear(&message(Some(&number.to_string()), "Waiting", None), Instant::now());
        }
        assert_eq!(told.layers.len(), limits::PULL_LAYERS_MAX);
    }
}
