//! What openraft keeps its own statistics in, without the memory: samples are counted and forgotten.
//!
//! openraft shows these statistics only with its feature `runtime-stats`, which is off here, but pays for them
//! all the same: the crate whose place this one takes lays out its buckets for every precision, 25 MiB of a
//! process that is idle (decision 0006). The names are those that openraft uses.

use std::fmt;
use std::marker::PhantomData;

/// Counts samples. `T` is for data that openraft does not attach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    total: u64,
    data: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// No samples yet.
    pub fn new() -> Self {
        Self { total: 0, data: PhantomData }
    }

    /// Counts one sample, whatever its value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `count` samples, whatever their value.
    pub fn record_n(&mut self, _value: u64, count: u64) {
        self.total += count;
    }

    /// How many samples there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The number of samples; the percentiles are not known and 0.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats { samples: self.total, ..PercentileStats::default() }
    }
}

/// Some percentiles of a distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the percentile of its name")]
pub struct PercentileStats {
    /// How many samples there were.
    pub samples: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples", self.samples)
    }
}

/// A chart of histograms; there is nothing to draw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty chart.
    pub fn new() -> Self {
        Self
    }

    /// The same chart.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
