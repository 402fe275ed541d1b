//! A page of metrics, read as Prometheus reads it: every line is understood or the test fails.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::Client;

/// Labels of one series.
type Labels = BTreeMap<String, String>;

/// One page.
pub(crate) struct Page {
    /// Type of each family, by name.
    pub(crate) families: BTreeMap<String, String>,
    /// All series.
    samples: Vec<(String, Labels, f64)>,
}

impl Page {
    #[track_caller]
    pub(crate) fn of(client: Client) -> Self {
        let reply = client.get("/metrics");
        assert_eq!(reply.status, 200);
        let kind = reply.header("content-type").unwrap();
        assert!(
            kind.starts_with("application/openmetrics-text; version=1.0.0"),
            "{kind}"
        );
        Self::read(&reply.text())
    }

    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with("# EOF\n"));
        let (mut families, mut samples) = (BTreeMap::new(), Vec::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let twice = families.insert(name.to_owned(), kind.to_owned());
                assert_eq!(twice, None, "{name} is there twice");
            } else if !line.starts_with('#') {
                samples.push(sample(line));
            }
        }
        let names: BTreeSet<_> = samples
            .iter()
            .map(|(name, labels, _)| (name, labels))
            .collect();
        assert_eq!(names.len(), samples.len(), "no series is there twice");
        Self { families, samples }
    }

    /// How many series there are.
    pub(crate) fn series(&self) -> usize {
        self.samples.len()
    }

    #[expect(clippy::cast_possible_truncation, reason = "what tests count is small")]
    /// The sum of all series of this name with these labels, rounded; without the prefix.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let name = format!("vllm_responses_{name}");
        let fits = |have: &Labels| {
            labels
                .iter()
                .all(|(key, value)| have.get(*key).is_some_and(|v| v == value))
        };
        let samples = self.samples.iter();
        let fitting = samples.filter(|(own, have, _)| *own == name && fits(have));
        fitting.map(|(.., value)| value).sum::<f64>().round() as i64
    }

    /// The labels that series of this name have; `None` where there is no such series.
    pub(crate) fn labels_of(&self, name: &str) -> Option<BTreeSet<&str>> {
        let mut samples = self
            .samples
            .iter()
            .filter(|(own, ..)| own == name)
            .peekable();
        samples.peek()?;
        Some(
            samples
                .flat_map(|(_, labels, _)| labels.keys().map(String::as_str))
                .collect(),
        )
    }

    /// Values of a label, over all series.
    pub(crate) fn words(&self, label: &str) -> BTreeSet<&str> {
        let samples = self.samples.iter();
        samples
            .filter_map(|(_, labels, _)| labels.get(label).map(String::as_str))
            .collect()
    }
}

/// `name{label="value",...} 1.5`; values of ours have no quotes in them.
#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap();
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), Labels::new(), value);
    };
    let labels = labels.strip_suffix('}').unwrap();
    let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
    let labels = pairs.map(|pair| {
        let (key, value) = pair.split_once("=\"").unwrap();
        (key.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value)
}
