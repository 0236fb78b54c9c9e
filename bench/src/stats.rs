//! Percentiles.

use std::time::Duration;

/// Durations of one kind of call.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// The smallest sample that at least `percent` of 100 samples do not exceed, in milliseconds
    /// (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
    }
}

impl Extend<Duration> for Samples {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, samples: I) {
        self.0.extend(samples);
    }
}

/// The middle of some figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let mut samples = Samples::default();
        samples.extend((1..=200).rev().map(Duration::from_millis));
        assert!((samples.percentile(50) - 100.0).abs() < 1e-9);
        assert!((samples.percentile(99) - 198.0).abs() < 1e-9);
        assert!((samples.percentile(100) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn no_sample_has_no_percentile() {
        assert!(Samples::default().percentile(50).is_nan());
        assert!(median(&[]).is_nan());
    }
}
