//! Figures of several rounds: median and range, and what stands beside them (load of the machine,
//! speed of its disk).

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use crate::Fault;

/// Syncs of one probe.
const PROBE_SYNCS: usize = 200;

/// One measure over all rounds.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
}

impl Figure {
    /// `name: median unit (least–greatest)`.
    pub(crate) fn line(&self) -> String {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
            return format!("| {} | not measured |", self.name);
        };
        let median = sorted[sorted.len() / 2];
        format!(
            "| {} | {} {} ({} runs: {}–{}) |",
            self.name,
            short(median),
            self.unit,
            sorted.len(),
            short(*first),
            short(*last)
        )
    }
}

/// Three digits that say something.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The value that `share` percent do not exceed, in milliseconds.
pub(crate) fn percentile(spans: &[Duration], share: usize) -> Option<f64> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[last * share / 100].as_secs_f64() * 1000.0)
}

/// Time of `fdatasync` after a write of 4 KiB, in milliseconds: p50 and p99.
pub(crate) fn sync_probe(folder: &Path) -> Result<(f64, f64), Fault> {
    let path = folder.join("probe");
    let mut file = File::create(&path)?;
    let mut spans = Vec::with_capacity(PROBE_SYNCS);
    for _ in 0..PROBE_SYNCS {
        file.write_all(&[7; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        spans.push(began.elapsed());
    }
    fs::remove_file(&path)?;
    Ok((percentile(&spans, 50).unwrap_or(0.0), percentile(&spans, 99).unwrap_or(0.0)))
}

/// The machine's load average of the last minute.
pub(crate) fn load_average() -> Result<f64, Fault> {
    let text = fs::read_to_string("/proc/loadavg")?;
    text.split(' ').next().and_then(|word| word.parse().ok()).ok_or(Fault::Proc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_median_and_range() {
        let figure = Figure { name: "time", unit: "s", values: vec![3.0, 1.0, 20.0] };
        assert_eq!(figure.line(), "| time | 3.00 s (3 runs: 1.00–20.0) |");
        assert!(Figure { name: "time", unit: "s", values: vec![] }.line().contains("not measured"));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let spans: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&spans, 50), Some(50.0));
        assert_eq!(percentile(&spans, 99), Some(99.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
