//! `[class.NAME.local]` and its load sources.

use std::time::Duration;

use toml::de::DeValue;

use super::{leaf, units};
use crate::config::diagnostics::Diagnostic;
use crate::config::leaf::Leaf;
use crate::config::model::{Combine, LoadKind, LoadSource, Local};
use crate::config::read::Table;

/// Reads the local side of a class.
pub(super) fn local(mut table: Table<'_>) -> Option<Local> {
    let hour = Duration::from_secs(3600);
    let target = table.opt("target", leaf::share(false, 1.0, units::share));
    let capacity = table.opt("capacity", leaf::text(units::rate));
    let sources = table.subs("load", "the load source");
    let home_rate = table.opt("home_rate", leaf::share(false, 1.0, units::share_per_second));
    let stabilize = table.opt("stabilize", leaf::duration(Duration::ZERO, hour));
    let dead_band = table.opt("dead_band", leaf::share(true, 0.5, units::share));
    let hold = table.opt("hold", leaf::duration(Duration::ZERO, 24 * hour));
    let fallback = table.opt("fallback", leaf::share(true, 1.0, units::share));
    let sources: Vec<_> = sources.map(|sources| sources.value).unwrap_or_default().into_iter().map(source).collect();
    if sources.iter().all(|source| matches!(source, Some(None))) && table.key("capacity").is_none() {
        let message = if !sources.is_empty() {
            "the local side has no `capacity`, and no load source that this version can read"
        } else {
            "the local side has neither `capacity` nor a `load` source"
        };
        let error = Diagnostic::error(table.span, message);
        table.sink.push(error.help("add a line such as `capacity = \"2k flows/s\"`, or a source such as load = [{ metrics = \"http://127.0.0.1:9113/metrics\", metric = \"nginx_connections_active\", limit = 1000 }]"));
    }
    table.finish();
    let load = sources.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    Some(Local {
        target: target.map_or(0.75, |at| at.value),
        capacity: capacity.map(|at| at.value),
        load,
        home_rate: home_rate.map_or(0.05, |at| at.value),
        stabilize: stabilize.map_or(Duration::from_secs(10), |at| at.value),
        dead_band: dead_band.map_or(0.02, |at| at.value),
        hold: hold.map_or(Duration::from_secs(60), |at| at.value),
        fallback: fallback.map_or(1.0, |at| at.value),
    })
}

/// Reads one source. `None`: it is wrong. `Some(None)`: this version cannot read it, and a warning said so.
#[expect(clippy::option_option, reason = "wrong and left out are two things: the first was reported as an error")]
fn source(mut table: Table<'_>) -> Option<Option<LoadSource>> {
    let limit = table.req("limit", "limit = 1000", leaf::positive);
    let ms = Duration::from_millis;
    let timeout = table.opt("timeout", leaf::duration(ms(10), ms(10_000))).map_or(ms(200), |at| at.value);
    let every = table.opt("every", leaf::duration(ms(50), ms(60_000))).map_or(ms(250), |at| at.value);
    let kinds = ["metrics", "haproxy", "prometheus"];
    let named: Vec<_> = kinds.into_iter().filter(|kind| table.key(kind).is_some()).collect();
    let kind =
        match named[..] {
            ["metrics"] => metrics(&mut table).map(Some),
            ["haproxy"] => haproxy(&mut table).map(Some),
            ["prometheus"] => {
                let url = table.opt("prometheus", leaf::url(&["http", "https"]));
                table.req("query", "query = \"max(nginx_busy_ratio)\"", leaf::words);
                if let Some(url) = url {
                    let warning = Diagnostic::warning(
                        url.span,
                        "the load source is left out: PromQL queries are not supported by this version",
                    );
                    table.sink.push(warning.help("scrape the exporter itself with `metrics` and `metric`"));
                }
                Some(None)
            }
            _ => {
                let message = if named.is_empty() {
                    "the load source reads nothing"
                } else {
                    "the load source reads more than one thing"
                };
                let error = Diagnostic::error(table.span, message);
                table.sink.push(error.help(
                    "name one of metrics (with metric), haproxy (with proxy and field), prometheus (with query)",
                ));
                return None;
            }
        };
    table.finish();
    let (kind, limit) = (kind?, limit?.value);
    Some(kind.map(|kind| LoadSource { kind, limit, timeout, every }))
}

fn metrics(table: &mut Table<'_>) -> Option<LoadKind> {
    let url = table.opt("metrics", leaf::url(&["http"]));
    let metric = table.req("metric", "metric = \"nginx_connections_active\"", leaf::words);
    let known = [("sum", Some(Combine::Sum)), ("max", Some(Combine::Max)), ("avg", Some(Combine::Avg))];
    let combine = table.opt("combine", leaf::keyword(&known));
    let rate = table.opt("rate", leaf::boolean);
    let mut labels = Vec::new();
    if let Some(map) = table.sub("labels", "`labels`") {
        for (key, value) in map.entries() {
            match leaf::string(value.get_ref()) {
                Ok(text) => labels.push((key.value.to_owned(), text)),
                Err(complaint) => {
                    let error = Diagnostic::error(value.span().into(), format!("labels: {}", complaint.message));
                    map.sink.push(error.help(complaint.help));
                }
            }
        }
    }
    Some(LoadKind::Metrics {
        url: url?.value,
        metric: metric?.value,
        labels,
        combine: combine.map_or(Combine::Sum, |at| at.value),
        rate: rate.is_some_and(|at| at.value),
    })
}

fn haproxy(table: &mut Table<'_>) -> Option<LoadKind> {
    let socket = table.opt("haproxy", leaf::socket);
    let proxy = table.req("proxy", "proxy = \"promo\"", leaf::words);
    let server = table.opt("server", leaf::words);
    let field = table.req("field", "field = \"scur\"", field);
    Some(LoadKind::Haproxy {
        socket: socket?.value,
        proxy: proxy?.value,
        server: server.map_or_else(|| "BACKEND".to_owned(), |at| at.value),
        field: field?.value,
    })
}

/// A column of `show stat`.
fn field(value: &DeValue<'_>) -> Leaf<String> {
    let text = leaf::words(value)?;
    if text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Ok(text);
    }
    Err(units::Complaint::new(
        format!("`{}` is not a column of HAProxy's statistics", text.escape_debug()),
        "write a name from the header line of `show stat`, such as \"scur\"",
    ))
}
