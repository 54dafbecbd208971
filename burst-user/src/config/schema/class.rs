//! `[class.NAME]`: its rules, and for burst classes its policy.

use std::time::Duration;

use toml::de::DeValue;

use super::{leaf, load, not_acted_on, tier, units};
use crate::config::diagnostics::Diagnostic;
use crate::config::leaf::Leaf;
use crate::config::model::{self, Affinity, Udp, WhenFull};
use crate::config::raw::{Burst, Class, Rule};
use crate::config::read::{At, Table};
use crate::config::units::Complaint;

/// Keys that only burst classes have.
const BURST_KEYS: [&str; 10] =
    ["affinity", "idle_timeout", "hold", "udp", "when_full", "max_offsite_share", "slots", "local", "tier", "event"];

/// All classes, in the order of the file.
pub(super) fn all(classes: Table<'_>) -> Option<Vec<Class>> {
    let (span, sink) = (classes.span, classes.sink);
    let mut list = Vec::new();
    for (name, value) in classes.entries() {
        if let Err(complaint) = leaf::check_name(name.value) {
            sink.push(Diagnostic::error(name.span, format!("class: {}", complaint.message)).help(complaint.help));
        }
        let name = At { value: name.value.to_owned(), span: name.span };
        match value.get_ref() {
            DeValue::Table(table) => {
                let what = format!("class `{}`", name.value);
                list.push(class(name, Table::new(table, value.span().into(), what, sink)));
            }
            _ => {
                let error = Diagnostic::error(name.span, format!("class `{}` is no table", name.value));
                sink.push(error.help(format!("write [class.{}] above its keys", name.value)));
            }
        }
    }
    if list.is_empty() {
        sink.push(Diagnostic::error(span, "there are no classes").help("add a class, such as [class.promo]"));
    }
    list.into_iter().collect()
}

fn class(name: At<String>, mut table: Table<'_>) -> Option<Class> {
    let keep = table.opt("keep", leaf::boolean);
    let example = "match = [{ dst = [\"203.0.113.10/32\"], proto = \"tcp\", ports = [443] }]";
    let rules = table.demand("match", example).then(|| table.subs("match", "the rule")).flatten();
    let rules = rules.map(|rules| {
        if rules.is_empty() {
            let error = Diagnostic::error(rules.span, format!("{} matches nothing", table.what));
            table.sink.push(
                error.help(format!("write at least one rule, such as {}", example.trim_start_matches("match = "))),
            );
        }
        rules.value.into_iter().map(rule).collect::<Vec<_>>()
    });
    let burst = match keep.filter(|at| at.value) {
        Some(keep) => {
            for key in BURST_KEYS {
                if let Some(span) = table.key(key) {
                    let error = Diagnostic::error(span, format!("{} is kept and has a `{key}`", table.what));
                    table
                        .sink
                        .push(error.other(keep.span, "kept: never shifted").help(format!("remove `{key}`, or `keep`")));
                }
            }
            Some(None)
        }
        None => burst(&mut table).map(Some),
    };
    table.finish();
    Some(Class { name, rules: rules?.into_iter().collect::<Option<_>>()?, burst: burst? })
}

fn rule(mut table: Table<'_>) -> Option<Rule> {
    let dst = dimension(&mut table, "dst", leaf::text(units::prefix));
    let src = dimension(&mut table, "src", leaf::text(units::prefix));
    let known = [("tcp", Some(burst_common::flow::TCP)), ("udp", Some(burst_common::flow::UDP))];
    let has_proto = table.key("proto").is_some();
    let proto = table.opt("proto", leaf::keyword(&known));
    let ports = dimension(&mut table, "ports", leaf::ports);
    if let (Some(span), false) = (table.key("ports"), has_proto) {
        let error = Diagnostic::error(span, "the rule has ports and no `proto`");
        table.sink.push(error.help("add proto = \"tcp\" or proto = \"udp\""));
    }
    let asks = ["dst", "src", "proto", "ports"].into_iter().any(|key| table.key(key).is_some());
    if !asks {
        let error = Diagnostic::error(table.span, "the rule matches every packet");
        table.sink.push(error.help("name what it matches: dst, src, or proto and ports"));
    }
    let span = table.span;
    table.finish();
    Some(Rule { span, dst: dst?, src: src?, proto: proto.map(|at| at.value), ports: ports? })
}

/// A dimension of a rule: absent matches all, empty would match nothing. `None` when it is wrong.
fn dimension<'a, T>(
    table: &mut Table<'a>,
    key: &'static str,
    read: impl Fn(&'a DeValue<'a>) -> Leaf<T>,
) -> Option<Vec<At<T>>> {
    if table.key(key).is_none() {
        return Some(Vec::new());
    }
    let list = table.list(key, read)?;
    if list.is_empty() {
        let error = Diagnostic::error(list.span, format!("{key}: an empty list matches nothing"));
        table.sink.push(error.help(format!("leave `{key}` out to match all, or name what it matches")));
    }
    Some(list.value)
}

fn burst(table: &mut Table<'_>) -> Option<Burst> {
    let affinity =
        table.opt("affinity", leaf::keyword(&[("flow", Some(Affinity::Flow)), ("client", Some(Affinity::Client))]));
    let idle = table.opt("idle_timeout", leaf::duration(Duration::from_secs(1), Duration::from_secs(24 * 3600)));
    let hold = table.opt("hold", leaf::duration(Duration::ZERO, Duration::from_secs(600)));
    let kinds = [("sticky", Some(Udp::Sticky)), ("quic", Some(Udp::Quic)), ("per-packet", Some(Udp::PerPacket))];
    let udp = table.opt("udp", leaf::keyword(&kinds));
    let full = leaf::keyword(&[("local", Some(WhenFull::Local)), ("shed", None)]);
    let when_full = table.req("when_full", "when_full = \"local\"", full);
    let max_offsite_share = table.opt("max_offsite_share", leaf::share(true, 1.0, units::share));
    let slots = table.opt("slots", slots);
    let example = format!("[{}.local]", table.what.replace("class `", "class.").replace('`', ""));
    let local =
        table.demand("local", &example).then(|| table.sub("local", "the local side")).flatten().and_then(load::local);
    let example = format!("[{}.tier]]", example.trim_end_matches(".local]"));
    let tiers = table.demand("tier", &example).then(|| table.subs("tier", "the tier")).flatten();
    let tiers = tiers.map(|tiers| {
        if tiers.is_empty() {
            let error = Diagnostic::error(tiers.span, format!("{} has no tier", table.what));
            table.sink.push(error.help("name at least one, or write keep = true"));
        }
        tiers.value.into_iter().map(tier::tier).collect::<Vec<_>>()
    });
    events(table);
    Some(Burst {
        affinity: affinity.map(|at| at.value),
        udp: udp.as_ref().map(|at| at.span),
        burst: model::Burst {
            affinity: Affinity::Flow,
            idle_timeout: idle.map_or(Duration::from_secs(120), |at| at.value),
            hold: hold.map_or(Duration::from_secs(15), |at| at.value),
            udp: udp.map_or(Udp::Sticky, |at| at.value),
            when_full: when_full?.value,
            max_offsite_share: max_offsite_share.map_or(1.0, |at| at.value),
            slots: slots.map_or(4096, |at| at.value),
            local: local?,
            tiers: Vec::new(),
        },
        tiers: tiers?.into_iter().collect::<Option<_>>()?,
    })
}

fn slots(value: &DeValue<'_>) -> Leaf<u32> {
    let max = burst_common::limits::MAX_CLASS_SLOTS as u32;
    let slots = leaf::integer(64, i64::from(max))(value)? as u32;
    if slots.is_power_of_two() {
        return Ok(slots);
    }
    let near = slots.next_power_of_two();
    Err(Complaint::new(format!("{slots} is not a power of two"), format!("write {} or {near}", near / 2)))
}

/// `[[class.NAME.event]]`: checked, not acted on.
fn events(table: &mut Table<'_>) {
    let Some(events) = table.subs("event", "the event") else { return };
    for mut event in events.value {
        event.req("name", "name = \"new-year push\"", leaf::words);
        let cron = event.opt("cron", leaf::words).is_some();
        if !cron && event.key("cron").is_none() {
            event.req("at", "at = \"2027-01-01T00:00:00+09:00\"", instant);
        } else if let Some(span) = event.key("at") {
            event.sink.push(Diagnostic::error(span, "the event has both `at` and `cron`").help("remove one of them"));
        }
        let day = Duration::from_secs(24 * 3600);
        event.req("last", "last = \"30m\"", leaf::duration(Duration::from_secs(1), 7 * day));
        event.req("expect", "expect = \"45k flows/s\"", leaf::text(units::rate));
        event.opt("lead", leaf::duration(Duration::ZERO, day));
        not_acted_on(&event, event.span, "event", "the share follows measurement alone");
        event.finish();
    }
}

/// A moment: RFC 3339 with an offset, as a text or as TOML's own date.
fn instant(value: &DeValue<'_>) -> Leaf<()> {
    let text = match value {
        DeValue::Datetime(date) => date.to_string(),
        other => leaf::string(other)?,
    };
    text.parse::<jiff::Timestamp>().map(|_| ()).map_err(|_| {
        Complaint::new(
            format!("`{text}` is not a moment"),
            "write date, time and offset, such as \"2027-01-01T00:00:00+09:00\"",
        )
    })
}
