//! Numbers that components keep themselves, in the words of the metrics library.

use std::fmt::Error;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// One series' labels.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// Writes families one after another.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

/// A histogram that somebody else has counted.
pub(super) struct Counts<'a> {
    /// Upper bounds.
    pub(super) bounds: &'a [f64],
    /// How many fell into each class, not cumulated; one more than bounds.
    pub(super) classes: &'a [u64],
    /// All values together.
    pub(super) sum: f64,
}

impl Page<'_> {
    /// A number that only grows.
    pub(super) fn counter(
        &mut self,
        (name, help): (&str, &str),
        series: &[(&Labels<'_>, u64)],
    ) -> Result<(), Error> {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            labelled(&mut family, labels, |encoder| {
                encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
            })?;
        }
        Ok(())
    }

    /// A number of now.
    pub(super) fn gauge(
        &mut self,
        (name, help): (&str, &str),
        series: &[(&Labels<'_>, f64)],
    ) -> Result<(), Error> {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            labelled(&mut family, labels, |encoder| encoder.encode_gauge(value))?;
        }
        Ok(())
    }

    /// A distribution.
    pub(super) fn histogram(
        &mut self,
        (name, help): (&str, &str),
        counts: &Counts<'_>,
    ) -> Result<(), Error> {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        let bounds = counts.bounds.iter().copied().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.classes.iter().copied()).collect();
        let count = counts.classes.iter().sum();
        family.encode_histogram::<NoLabelSet>(counts.sum, count, &buckets, None)
    }
}

fn labelled(
    family: &mut MetricEncoder<'_>,
    labels: &Labels<'_>,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if labels.is_empty() {
        return write(family);
    }
    let labels = &labels;
    let mut one = family.encode_family(labels)?;
    write(&mut one)
}
