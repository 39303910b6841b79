//! How long a deploy waits for health: asked for with the deploy, needed by its second stage.
//!
//! The second stage is made from the operation as it was stored, so the stored detail holds the spans beside
//! the specification. Without any it is the bare specification.

use actions::limits as bounds;
use ids::DurationMs;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ProposeError;

/// Spans of time of a deploy, as `app.deploy` takes them. Absent means what the host's agent has as its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployTiming {
    /// Within this time every service must be healthy: 1 s to 20 min.
    #[serde(default, rename = "timeout_ms", skip_serializing_if = "Option::is_none")]
    pub healthy_within: Option<DurationMs>,
    /// So long each service must stay healthy before it counts: at most 10 min, and not above the other.
    #[serde(default, rename = "min_healthy_ms", skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<DurationMs>,
}

impl DeployTiming {
    /// By the bounds of `app.deploy`, in the words of a request for a deploy.
    pub(super) fn check(&self) -> Result<(), ProposeError> {
        let (least, most) = (bounds::HEALTH_DEADLINE_MIN, bounds::HEALTH_DEADLINE_MAX);
        let within = self.healthy_within.unwrap_or(bounds::HEALTH_DEADLINE_DEFAULT);
        if !(least..=most).contains(&within) {
            return Err(ProposeError::invalid("healthy_within", format!("between {least} and {most}")));
        }
        let most = bounds::MIN_HEALTHY_MAX.min(within);
        let asked = self.min_healthy.unwrap_or(bounds::MIN_HEALTHY_DEFAULT);
        if asked > most {
            let message = format!("{asked} is too long: at most {most}, which must not be above healthy_within");
            return Err(ProposeError::invalid("min_healthy", message));
        }
        Ok(())
    }

    /// The operation's stored detail.
    #[must_use]
    pub fn detail(self, spec: &[u8]) -> Vec<u8> {
        if self == Self::default() {
            return spec.to_vec();
        }
        let mut detail = b"{\"timing\":".to_vec();
        detail.extend(serde_json::to_vec(&self).expect("invariant: two numbers are JSON"));
        detail.extend(b",\"spec\":");
        detail.extend(spec);
        detail.push(b'}');
        detail
    }

    /// The timing and the specification in a stored detail.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn of_detail(detail: &[u8]) -> Result<(Self, &RawValue), serde_json::Error> {
        #[derive(Deserialize)]
        struct Timed<'a> {
            timing: DeployTiming,
            #[serde(borrow)]
            spec: &'a RawValue,
        }
        // A specification has neither of these members.
        if let Ok(Timed { timing, spec }) = serde_json::from_slice::<Timed<'_>>(detail) {
            return Ok((timing, spec));
        }
        Ok((Self::default(), serde_json::from_slice(detail)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &[u8] = br#"{"app":"shop","services":{}}"#;

    fn timing(within: Option<u64>, least: Option<u64>) -> DeployTiming {
        DeployTiming { healthy_within: within.map(DurationMs), min_healthy: least.map(DurationMs) }
    }

    #[test]
    fn a_detail_gives_back_what_was_put_in() {
        for timing in [timing(None, None), timing(Some(5_000), None), timing(None, Some(0)), timing(Some(1), Some(2))] {
            let detail = timing.detail(SPEC);
            let (read, spec) = DeployTiming::of_detail(&detail).expect("a detail");
            assert_eq!((read, spec.get().as_bytes()), (timing, SPEC), "{}", String::from_utf8_lossy(&detail));
        }
        assert_eq!(timing(None, None).detail(SPEC), SPEC, "as a control plane of 0.1 stored it");
        assert!(DeployTiming::of_detail(b"{").is_err());
    }

    #[test]
    fn spans_have_the_bounds_of_the_action() {
        let (second, minute) = (1_000, 60_000);
        for (within, least) in [
            (None, None),
            (Some(2 * second), None),
            (Some(second), Some(second)),
            (Some(20 * minute), Some(10 * minute)),
            (None, Some(0)),
        ] {
            assert_eq!(timing(within, least).check(), Ok(()), "{within:?} {least:?}");
        }
        for (within, least, words) in [
            (Some(999), None, "healthy_within: between 1 s and 20 min"),
            (Some(20 * minute + 1), None, "healthy_within: between"),
            (Some(u64::MAX), None, "healthy_within: between"),
            (Some(second), None, "min_healthy: 2 s is too long: at most 1 s"),
            (None, Some(2 * minute + 1), "min_healthy: 2 min is too long: at most 2 min"),
            (Some(20 * minute), Some(11 * minute), "min_healthy: 11 min is too long: at most 10 min"),
        ] {
            let refused = timing(within, least).check().expect_err("out of bounds").to_string();
            assert!(refused.starts_with(words), "{within:?} {least:?}: {refused}");
        }
    }
}
