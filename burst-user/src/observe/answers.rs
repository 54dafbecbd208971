//! What the sources make of an answer, without asking for one: text in, value out. For tools and for fuzzing.

use super::haproxy::Haproxy;
use super::metrics::{Counters, Selector};
use crate::config::model::Combine;

/// The field of a row of HAProxy's `show stat`.
///
/// # Errors
/// Why there is none, in words.
pub fn haproxy(answer: &str, proxy: &str, server: &str, field: &str) -> Result<f64, String> {
    let [proxy, server, field] = [proxy, server, field].map(str::to_owned);
    Haproxy { socket: "answer".into(), proxy, server, field }.value(answer)
}

/// The samples of a metric that have these labels, combined; of a text in the Prometheus or OpenMetrics format.
///
/// # Errors
/// Why there is no value, in words.
pub fn metrics(
    answer: &str,
    metric: &str,
    labels: &[(String, String)],
    combine: Combine,
) -> Result<Option<f64>, String> {
    let selector = Selector { metric: metric.to_owned(), labels: labels.to_vec(), combine, rate: false };
    selector.value(answer, super::clock(), &mut Counters::default())
}
