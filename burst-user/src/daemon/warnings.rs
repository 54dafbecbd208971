//! What an operator should know: found in the rows of a status, said in a sentence each.

use burst_common::reason::Reason;

use super::tell::{grave, percent};
use crate::api::types::{self as api, Burst, Class, Endpoint, HealthState, Mode, Status};
use crate::decide::Decision;

/// Measured share and wanted share may differ by so much: slots are drawn, and flows are few.
const FAR: f64 = 0.15;
/// New flows per second below which that says nothing: of a hundred, a share is within 15 points of its mean in 99.7 % of
/// all seconds (three standard deviations of the binomial distribution).
const MANY: f64 = 100.0;

/// The warnings that the rows of a status give rise to. `recent` tells how many packets a class (by its place; `None`: of
/// no class) counted for a reason over the last window.
pub(super) fn warnings(
    status: &Status,
    decision: &Decision,
    recent: impl Fn(Option<usize>, Reason) -> u64,
) -> Vec<String> {
    let mut found = Vec::new();
    for link in status.links.iter().filter(|link| !link.up) {
        found.push(format!("link {} is down: {}", link.name, link.why));
    }
    for client in status.clients.iter().filter(|client| !client.up) {
        found.push(format!("client device {} is down: {}", client.device, client.why));
    }
    for (index, class) in status.classes.iter().enumerate() {
        if let Some(burst) = &class.burst {
            let limits = decision.classes.get(index).map_or(&[][..], |decided| &decided.limits);
            let grave = limits.iter().filter(|limit| grave(**limit));
            found.extend(grave.map(|limit| format!("class {}: {limit}", class.name)));
            of_burst(&class.name, burst, status.mode, &mut found);
        }
        of_reasons(&format!("class {}", class.name), Some(index), &recent, &mut found);
        dropped_before(class, index, &recent, &mut found);
    }
    of_reasons("packets of no class", None, &recent, &mut found);
    of_events(&status.events, &mut found);
    found
}

/// Payment on its way out, as far as it was seen.
fn of_events(events: &api::Events, found: &mut Vec<String>) {
    const DEFECT: &str = "; a defect of burst, report it";
    for (count, what, kind, so) in [
        (events.guard, "the guard kept from leaving", "guard", DEFECT),
        (events.stopped_own, "the sentinel stopped", "sentinel-stopped-own", DEFECT),
        (events.reported, "this host's kernel sent to a link", "sentinel-reported", ""),
        (events.stopped, "the sentinel stopped, of those that this host's kernel sends,", "sentinel-stopped", ""),
    ] {
        if count == 0 {
            continue;
        }
        let last = events.recent.iter().rev().find(|event| event.what == kind);
        let last = last.map_or_else(String::new, |last| {
            format!(", the last {} {} -> {} at {}", last.proto, last.src, last.dst, last.device)
        });
        found.push(format!("payment: {what} {count} packets of kept rules{last}{so}"));
    }
}

fn of_burst(class: &str, burst: &Burst, mode: Mode, found: &mut Vec<String>) {
    for tier in &burst.tiers {
        // Of these it is said with the reason.
        let said = |endpoint: &Endpoint| {
            let state = endpoint.health.as_ref().map(|health| health.state);
            matches!(state, Some(HealthState::Dead | HealthState::Unproven))
        };
        let gone: Vec<_> = tier.endpoints.iter().filter(|endpoint| !endpoint.reachable && !said(endpoint)).collect();
        let all = tier.endpoints.len();
        match gone[..] {
            [] => {}
            [one] if all > 1 => found.push(format!("class {class}: endpoint {} is unreachable", one.name)),
            _ => {
                found.push(format!("class {class}: {} of {all} endpoints of {} are unreachable", gone.len(), tier.name))
            }
        }
    }
    for source in &burst.sources {
        match (&source.error, &source.unused) {
            (Some(error), _) => found.push(format!("class {class}: load source {}: {error}", source.name)),
            (None, Some(why)) => found.push(format!("class {class}: load source {} is not used: {why}", source.name)),
            (None, None) => {}
        }
    }
    let api::Share { wanted, achieved } = burst.local.share;
    let far = |achieved: &f64| (achieved - wanted).abs() > FAR && burst.demand_fps >= MANY && mode == Mode::Active;
    if let Some(achieved) = achieved.filter(far) {
        found.push(format!(
            "class {class}: {} of new flows stay local, {} is wanted",
            percent(achieved),
            percent(wanted)
        ));
    }
}

/// What is dropped or cannot be delivered now.
fn of_reasons(
    whose: &str,
    class: Option<usize>,
    recent: &impl Fn(Option<usize>, Reason) -> u64,
    found: &mut Vec<String>,
) {
    for (reason, what) in [(Reason::TooBig, "dropped"), (Reason::NoRoute, "not routed")] {
        let packets = recent(class, reason);
        if packets > 0 {
            found.push(format!("{whose}: {packets} packets {what} as {} in the last second", reason.text()));
        }
    }
}

/// That something was dropped as too big is said also when it is over: it comes with long transfers, and goes.
fn dropped_before(
    class: &Class,
    index: usize,
    recent: &impl Fn(Option<usize>, Reason) -> u64,
    found: &mut Vec<String>,
) {
    let text = Reason::TooBig.text();
    let dropped = class.reasons.iter().find(|row| row.reason == text).map_or(0, |row| row.packets);
    if dropped > 0 && recent(Some(index), Reason::TooBig) == 0 {
        found.push(format!("class {}: {dropped} packets were dropped as {text} since the maps were made", class.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{
        Client, EndpointHealth, Event, Events, Local, ReasonCount, Share, Slots, Source, Tier, Traffic, VERSION,
    };
    use crate::decide::{ClassDecision, Limit};

    fn endpoint(last: u8, reachable: bool) -> Endpoint {
        Endpoint {
            name: format!("reserved/10.20.0.{last}"),
            reachable,
            links: vec![],
            health: None,
            share: Share::default(),
            out: Traffic::default(),
            back: Traffic::default(),
        }
    }

    fn source(error: Option<&str>, unused: Option<&str>) -> Source {
        let (error, unused) = (error.map(Into::into), unused.map(Into::into));
        Source { name: "m".into(), value: None, limit: 1.0, age_s: None, error, unused }
    }

    fn status(well: bool) -> Status {
        let burst = Burst {
            demand_fps: 100.0,
            local: Local {
                share: Share { wanted: 0.5, achieved: Some(if well { 0.64 } else { 0.66 }) },
                load: None,
                target: 0.75,
                capacity_fps: None,
            },
            tiers: vec![Tier {
                name: "reserved".into(),
                share: Share::default(),
                capacity_fps: 1.0,
                endpoints: vec![endpoint(1, true), endpoint(2, well)],
            }],
            sources: if well {
                vec![source(None, None)]
            } else {
                vec![source(Some("refused"), None), source(None, Some("stale"))]
            },
            ordered: None,
            decision: String::new(),
            slots: Slots::default(),
            pins: 0,
            pins_offsite: 0,
        };
        let reasons = if well {
            vec![]
        } else {
            vec![ReasonCount { reason: "too-big".into(), packets: 7, bytes: 0, openers: 0 }]
        };
        let why = if well { "up" } else { "no carrier" };
        Status {
            version: VERSION,
            burst: String::new(),
            edge: String::new(),
            mode: Mode::Active,
            bypass: false,
            config: Default::default(),
            pid: 1,
            uptime_s: 0.0,
            classes: vec![Class { name: "promo".into(), reasons, burst: Some(burst) }],
            links: vec![],
            clients: vec![Client { device: "eth0".into(), up: well, why: why.into() }],
            gateways: vec![],
            other: vec![],
            events: if well { Events::default() } else { events() },
            warnings: vec![],
        }
    }

    fn events() -> Events {
        let event = |what: &str, port: u16| Event {
            what: what.into(),
            proto: "tcp".into(),
            src: format!("198.51.100.7:{port}"),
            dst: "203.0.113.10:443".into(),
            device: "eth1".into(),
            link: None,
            since_boot_s: 1.0,
        };
        let recent = vec![event("sentinel-reported", 1), event("guard", 2), event("sentinel-reported", 3)];
        Events { guard: 1, reported: 40, recent, ..Events::default() }
    }

    fn decision(limits: &[Limit]) -> Decision {
        let class = ClassDecision {
            wanted: 0.5,
            local: 0.5,
            weights: vec![],
            tiers: vec![],
            admit: None,
            overflow: vec![],
            demand: 0.0,
            rate: 0.0,
            local_rate: 0.0,
            load: None,
            capacity: None,
            limits: limits.to_vec(),
            reason: String::new(),
        };
        Decision { classes: vec![class] }
    }

    #[test]
    fn of_the_dead_it_is_not_said_that_they_are_unreachable() {
        for (state, said) in [(HealthState::Dead, 0), (HealthState::Unreachable, 1)] {
            let mut status = status(true);
            let burst = status.classes[0].burst.as_mut().unwrap();
            let health = EndpointHealth { state, since_s: 1.0, why: String::new(), paths: vec![] };
            burst.tiers[0].endpoints[1] = Endpoint { health: Some(health), ..endpoint(2, false) };
            assert_eq!(warnings(&status, &decision(&[]), |_, _| 0).len(), said, "{state:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_and_nothing_else() {
        let calm = decision(&[Limit::HomeRate, Limit::Override]);
        assert_eq!(warnings(&status(true), &calm, |_, _| 0), [""; 0]);
        let wrong = decision(&[Limit::TiersFull, Limit::HomeRate]);
        let recent = |class: Option<usize>, reason| u64::from(class.is_none() && reason == Reason::NoRoute) * 3;
        let expected = [
            "client device eth0 is down: no carrier",
            "class promo: tiers are full, the rest stays local",
            "class promo: endpoint reserved/10.20.0.2 is unreachable",
            "class promo: load source m: refused",
            "class promo: load source m is not used: stale",
            "class promo: 66.0 % of new flows stay local, 50.0 % is wanted",
            "class promo: 7 packets were dropped as too-big since the maps were made",
            "packets of no class: 3 packets not routed as no-route in the last second",
            "payment: the guard kept from leaving 1 packets of kept rules, the last tcp 198.51.100.7:2 -> 203.0.113.10:443 at \
             eth1; a defect of burst, report it",
            "payment: this host's kernel sent to a link 40 packets of kept rules, the last tcp 198.51.100.7:3 -> \
             203.0.113.10:443 at eth1",
        ];
        assert_eq!(warnings(&status(false), &wrong, recent), expected);
        let recent = |class: Option<usize>, reason| u64::from(class.is_some() && reason == Reason::TooBig);
        let found = warnings(&status(false), &calm, recent);
        assert!(
            found.contains(&"class promo: 1 packets dropped as too-big in the last second".to_owned()),
            "{found:?}"
        );
    }
}
