//! Samples of one metric → one value: chosen by labels, as they are or as a rate, combined.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::text::{self, Labels};
use super::{Error, http};
use crate::config::model::Combine;

/// What to make of a scraped text.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub(super) metric: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) combine: Combine,
    pub(super) rate: bool,
}

/// A text endpoint that is scraped.
#[derive(Debug)]
pub(super) struct Metrics {
    client: http::Client,
    selector: Selector,
    counters: Counters,
}

/// Counters as of the last scrape, for rates.
#[derive(Debug, Default)]
pub(super) struct Counters {
    last: Option<(Instant, HashMap<Labels, f64>)>,
}

impl Metrics {
    pub(super) fn new(url: &str, selector: Selector) -> Result<Self, Error> {
        Ok(Self { client: http::Client::new(url)?, selector, counters: Counters::default() })
    }

    /// Scrapes once. `None`: the first of two counters that a rate needs.
    pub(super) async fn read(&mut self) -> Result<Option<f64>, Error> {
        let body = self.client.get().await?;
        let text = str::from_utf8(&body).map_err(|_| Error::Answer("the answer is not UTF-8 text".into()))?;
        self.selector.value(text, crate::observe::clock(), &mut self.counters).map_err(Error::Answer)
    }
}

impl Selector {
    /// The value in a scraped text.
    pub(super) fn value(&self, text: &str, now: Instant, counters: &mut Counters) -> Result<Option<f64>, String> {
        let all = text::samples(text, &self.metric)?;
        let chosen: Vec<_> =
            all.iter().filter(|sample| self.labels.iter().all(|label| sample.labels.contains(label))).collect();
        if chosen.is_empty() {
            return Err(self.absent(text, all.first().map(|sample| &sample.labels)));
        }
        let values: Vec<f64> = if self.rate {
            let now_values = chosen.iter().map(|sample| (sample.labels.clone(), sample.value)).collect();
            counters.rates(now, now_values)
        } else {
            chosen.iter().map(|sample| sample.value).collect()
        };
        Ok(combine(self.combine, &values))
    }

    fn absent(&self, text: &str, labels: Option<&Labels>) -> String {
        let metric = &self.metric;
        match labels {
            Some(labels) => {
                let first = text::shorten_to(200, &format!("{labels:?}"));
                format!("no sample of `{metric}` has the labels {:?}; the first has {first}", self.labels)
            }
            None => match &text::alike(text, metric)[..] {
                [] => format!("the answer has no metric `{metric}`"),
                names => format!("the answer has no metric `{metric}`; it has {}", names.join(", ")),
            },
        }
    }
}

impl Counters {
    /// Rates per second since the last call, of the counters that were there then. A counter that went down started
    /// anew from zero.
    fn rates(&mut self, now: Instant, values: HashMap<Labels, f64>) -> Vec<f64> {
        let before = self.last.replace((now, values));
        let Some((then, before)) = before else { return Vec::new() };
        let span = now.saturating_duration_since(then).max(Duration::from_millis(1)).as_secs_f64();
        let current = self.last.iter().flat_map(|(_, values)| values);
        let rate = |(labels, value): (&Labels, &f64)| {
            let old = *before.get(labels)?;
            Some(if *value < old { *value } else { value - old } / span)
        };
        current.filter_map(rate).collect()
    }
}

/// Several values as one; none of none. A value that is not a number makes all of them none, also for the maximum.
fn combine(how: Combine, values: &[f64]) -> Option<f64> {
    let count = values.len();
    let sum: f64 = values.iter().sum();
    let value = match how {
        _ if count == 0 => return None,
        _ if sum.is_nan() => sum,
        Combine::Sum => sum,
        Combine::Avg => sum / count as f64,
        Combine::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    };
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
busy{pool=\"a\",host=\"1\"} 3
busy{pool=\"a\",host=\"2\"} 5
busy{pool=\"b\",host=\"1\"} 100
lone 7
";

    fn selector(metric: &str, labels: &[(&str, &str)], combine: Combine, rate: bool) -> Selector {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Selector { metric: metric.into(), labels, combine, rate }
    }

    #[tokio::test]
    async fn samples_are_chosen_by_labels_and_combined() {
        let rows = [
            ("busy", &[("pool", "a")][..], Combine::Sum, Ok(8.0)),
            ("busy", &[("pool", "a")], Combine::Max, Ok(5.0)),
            ("busy", &[("pool", "a")], Combine::Avg, Ok(4.0)),
            ("busy", &[("host", "1"), ("pool", "b")], Combine::Max, Ok(100.0)),
            ("busy", &[], Combine::Sum, Ok(108.0)),
            ("lone", &[], Combine::Avg, Ok(7.0)),
            (
                "busy",
                &[("pool", "c")],
                Combine::Sum,
                Err(
                    "no sample of `busy` has the labels [(\"pool\", \"c\")]; the first has [(\"host\", \"1\"), (\"pool\", \"a\")]",
                ),
            ),
            ("busy_ratio", &[], Combine::Sum, Err("the answer has no metric `busy_ratio`; it has busy")),
            ("absent", &[], Combine::Sum, Err("the answer has no metric `absent`")),
        ];
        for (metric, labels, combine, expected) in rows {
            let value =
                selector(metric, labels, combine, false).value(TEXT, crate::observe::clock(), &mut Counters::default());
            assert_eq!(value, expected.map(Some).map_err(String::from), "{metric} {labels:?} {combine:?}");
        }
        let nan = "busy NaN\nbusy{a=\"b\"} 1\n";
        for combine in [Combine::Sum, Combine::Max, Combine::Avg] {
            let value =
                selector("busy", &[], combine, false).value(nan, crate::observe::clock(), &mut Counters::default());
            assert!(value.unwrap().unwrap().is_nan(), "{combine:?}");
        }
    }

    #[tokio::test]
    async fn a_rate_survives_counters_that_start_anew_appear_and_vanish() {
        let (selector, mut counters, start) =
            (selector("c", &[], Combine::Sum, true), Counters::default(), crate::observe::clock());
        let mut at = |millis, text| selector.value(text, start + Duration::from_millis(millis), &mut counters).unwrap();
        assert_eq!(at(0, "c{h=\"1\"} 100\nc{h=\"2\"} 1000"), None, "one reading is no rate");
        assert_eq!(at(500, "c{h=\"1\"} 110\nc{h=\"2\"} 1040"), Some(100.0));
        assert_eq!(at(1000, "c{h=\"1\"} 5\nc{h=\"2\"} 1040"), Some(10.0), "the first began anew");
        assert_eq!(at(2000, "c{h=\"1\"} 7\nc{h=\"3\"} 9999"), Some(2.0), "the third is new, the second gone");
        assert_eq!(at(3000, "c{h=\"4\"} 5"), None, "nothing was there before");
    }
}
