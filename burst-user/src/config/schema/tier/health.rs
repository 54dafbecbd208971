//! `health` of a tier: how its endpoints are probed.

use std::time::Duration;

use toml::de::DeValue;

use crate::config::diagnostics::{Diagnostic, Span};
use crate::config::leaf::{self, Leaf};
use crate::config::model::{Health, Mode, Probe};
use crate::config::read::{At, Table};
use crate::config::units::{self, Complaint};

const EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(500);
const FALL: i64 = 3;
const RISE: i64 = 2;
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// Reads `health`; `Some(None)` when there is none, `None` when it is refused, which was reported.
pub(super) fn read(tier: &mut Table<'_>, mode: Option<Mode>) -> Option<Option<Health>> {
    let Some(span) = tier.key("health") else { return Some(None) };
    if mode == Some(Mode::Nexthop) {
        let message = format!("{} is of mode nexthop and has `health`", tier.what);
        let help = "remove `health`: packets keep their destination, so that there is no endpoint to probe; the tier is healthy \
                    while a link is up";
        tier.sink.push(Diagnostic::error(span, message).help(help));
        return None;
    }
    let mut table = tier.sub("health", "`health`")?;
    let ms = Duration::from_millis;
    let target = if table.key("tcp").is_none() {
        table.req("http", "http = \":8080/healthz\"", http)
    } else {
        if let Some(span) = table.key("http") {
            table.sink.push(Diagnostic::error(span, "`health` has both `http` and `tcp`").help("remove one of them"));
        }
        table.opt("tcp", tcp)
    };
    let every = or(&mut table, "every", EVERY, leaf::duration(ms(100), ms(3_600_000)));
    let timeout = or(&mut table, "timeout", TIMEOUT, leaf::duration(ms(10), ms(60_000)));
    let fall = or(&mut table, "fall", FALL, leaf::integer(1, 100));
    let rise = or(&mut table, "rise", RISE, leaf::integer(1, 100));
    let dead_after = or(&mut table, "dead_after", DEAD_AFTER, leaf::duration(ms(1000), ms(86_400_000)));
    let (sink, written) = (table.sink, table.key("timeout"));
    table.finish();
    let (every, timeout) = (every?.value, timeout?);
    if written.is_some() && timeout.value > every {
        let message = format!("timeout: {:?} is longer than `every`, {every:?}", timeout.value);
        let help = "a probe must be over when the next one begins: shorten `timeout`, or lengthen `every`";
        sink.push(Diagnostic::error(timeout.span, message).help(help));
        return None;
    }
    Some(Some(Health {
        probe: target?.value,
        every,
        timeout: timeout.value.min(every),
        // 1 to 100.
        fall: fall?.value as u32,
        rise: rise?.value as u32,
        dead_after: dead_after?.value,
    }))
}

/// The value of a key, or what stands for it where it is not written; `None` when it is refused.
fn or<T>(
    table: &mut Table<'_>,
    key: &'static str,
    default: T,
    read: impl Fn(&DeValue<'_>) -> Leaf<T>,
) -> Option<At<T>> {
    let nowhere: Span = table.span;
    match table.key(key) {
        Some(_) => table.opt(key, read),
        None => Some(At { value: default, span: nowhere }),
    }
}

/// `:PORT`.
fn tcp(value: &DeValue<'_>) -> Leaf<Probe> {
    let text = leaf::string(value)?;
    match text.strip_prefix(':').map(units::port) {
        Some(Ok(port)) => Ok(Probe::Tcp { port }),
        _ => Err(Complaint::new(not_a_target(&text), "write a port, such as \":8080\"")),
    }
}

/// `:PORT/PATH`; the path may be left out.
fn http(value: &DeValue<'_>) -> Leaf<Probe> {
    let text = leaf::string(value)?;
    let parts = text.strip_prefix(':').map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())));
    let (port, path) = match parts.map(|(port, path)| (units::port(port), path)) {
        Some((Ok(port), path)) => (port, if path.is_empty() { "/" } else { path }),
        _ => return Err(Complaint::new(not_a_target(&text), "write a port and a path, such as \":8080/healthz\"")),
    };
    // What the request line takes (RFC 9112, section 3.2.1): no white space, no control characters, no fragment.
    if path.parse::<hyper::http::uri::PathAndQuery>().is_err() || path.contains('#') || !path.is_ascii() {
        let message = format!("`{}` is not the path of a request", path.escape_debug());
        return Err(Complaint::new(message, "write a path without white space, such as \":8080/healthz\""));
    }
    Ok(Probe::Http { port, path: path.to_owned() })
}

fn not_a_target(text: &str) -> String {
    format!("`{}` is not a probe's target", text.escape_debug())
}
