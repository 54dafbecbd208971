//! What there is to see after a tick.

use std::net::IpAddr;

use burst_common::counter::{Counter, IN, OUT};
use burst_common::endpoint::{Endpoint, link_at};
use burst_common::limits::ENDPOINT_LINKS;
use burst_common::reason::{Note, Reason};
use tokio::time::Instant;

use super::Core;
use super::observe::Snapshot;
use crate::api::types::{self as api, Mode, ReasonCount, Share, Slots, Source, Status, Traffic};
use crate::config::model::{Burst, Class};
use crate::decide::trust;
use crate::netlink::{Gateway, NetState};

/// Too few new flows in a window to call what they did a share.
const FEW: u64 = 20;

/// Builds the status.
pub(super) fn status(core: &Core, net: &NetState, at: Instant) -> Status {
    let now = at - core.started;
    let config = &core.config;
    let reasons = |id: usize| core.meter.now().map_or_else(Vec::new, |snapshot| reasons(snapshot.class(id)));
    let classes = config.classes.iter().enumerate().map(|(index, class)| api::Class {
        name: class.name.clone(),
        reasons: reasons(usize::from(core.publisher.ids(index).0)),
        burst: class.burst.as_ref().map(|burst| self::burst(core, index, class, burst, at)),
    });
    let links = config.links.iter().zip(&net.links).enumerate().map(|(index, (link, state))| api::Link {
        name: link.name.clone(),
        device: link.device.clone(),
        vlan: link.vlan,
        next_hop: link.next_hop,
        mac: state.next_hop_mac.map(api::mac),
        up: state.up,
        why: state.why.to_string(),
        mtu: state.mtu,
        fallback: link.fallback,
        source: link.source4.map(IpAddr::V4).into_iter().chain(link.source6.map(IpAddr::V6)).collect(),
        out: traffic(core, |snapshot| snapshot.links[index][OUT]),
        back: traffic(core, |snapshot| snapshot.links[index][IN]),
    });
    let clients = net.clients.iter().map(|client| api::Client {
        device: client.name.clone(),
        up: client.up,
        why: client.why.to_string(),
    });
    let mut warnings = Vec::new();
    let bypass = core.publisher.maps().control().bypass != 0;
    if bypass {
        warnings.push("bypass is on: nothing is shifted and no reply is sent home".to_owned());
    }
    let config_view = core.versions.view(now);
    warnings.extend(config_view.trouble.clone());
    if let Some(pending) = &config_view.pending {
        let left = pending.remaining_s;
        warnings.push(format!(
            "the configuration is not confirmed: in {left} s burst goes back to the former one (burst confirm)"
        ));
    }
    for client in net.clients.iter().filter(|client| client.strips_tags) {
        warnings.push(format!(
            "client device {} takes VLAN tags off what it receives: clients of its VLANs look untagged (ethtool -K {0} rxvlan off)",
            client.name
        ));
    }
    for link in net.links.iter().filter(|link| link.up && !link.elsewhere.is_empty()) {
        let endpoints: Vec<_> = link.elsewhere.iter().map(ToString::to_string).collect();
        let (name, device) = (&link.name, &link.device);
        warnings.push(format!("link {name}: the routing table does not send {} by {device}", endpoints.join(", ")));
    }
    for (class, _) in config.classes.iter().enumerate().filter(|(index, _)| core.publisher.surging(*index)) {
        let name = &config.classes[class].name;
        warnings.push(format!("class {name}: surge, new flows beyond the local budget leave at once"));
    }
    warnings.extend(core.health.warnings());
    warnings.extend(core.publisher.trouble().map(|error| error.message.clone()));
    let mut status = Status {
        version: api::VERSION,
        burst: env!("CARGO_PKG_VERSION").to_owned(),
        edge: config.edge.name.clone(),
        mode: if config.edge.shadow { Mode::Shadow } else { Mode::Active },
        bypass,
        config: config_view,
        pid: std::process::id(),
        uptime_s: now.as_secs_f64(),
        classes: classes.collect(),
        links: links.collect(),
        clients: clients.collect(),
        gateways: gateways(core, net),
        other: reasons(0),
        events: core.events.view(),
        warnings,
    };
    let recent = |class: Option<usize>, reason: Reason| {
        let (Some((before, _)), Some(now)) = (core.meter.before(), core.meter.now()) else { return 0 };
        let id = class.map_or(0, |class| usize::from(core.publisher.ids(class).0));
        let packets = |snapshot: &Snapshot| snapshot.class(id)[reason.number()].packets;
        packets(now).saturating_sub(packets(before))
    };
    let found = super::warnings::warnings(&status, &core.decision, recent);
    status.warnings.extend(found);
    status
}

/// How replies find their way, of the families that any class shifts.
fn gateways(core: &Core, net: &NetState) -> Vec<api::Gateway> {
    let families = [4, 6].into_iter().zip(&net.gateways).zip(super::start::shifted(&core.config));
    let gateway = |((family, gateway), _): ((u8, &Gateway), bool)| match gateway {
        Gateway::Lookup(why) => api::Gateway { family, router: None, why: Some(why.to_string()) },
        Gateway::Cached(way) => {
            let router = api::Router {
                address: way.address,
                mac: api::mac(way.mac),
                device: way.device.clone(),
                vlan: Some(way.vlan).filter(|vlan| *vlan != 0),
                mtu: way.mtu,
                except: way.except.iter().map(ToString::to_string).collect(),
            };
            api::Gateway { family, router: Some(router), why: None }
        }
    };
    families.filter(|(_, shifted)| *shifted).map(gateway).collect()
}

fn burst(core: &Core, index: usize, class: &Class, burst: &Burst, at: Instant) -> api::Burst {
    let (id, endpoints) = core.publisher.ids(index);
    let decided = &core.decision.classes[index];
    let opened = Opened::measure(core, index, usize::from(id));
    let mut slots = Slots { total: burst.slots * 2, ..Slots::default() };
    for summary in core.publisher.summaries(index) {
        slots.transition += summary.moving as u32;
        slots.pins += summary.pinned as u32;
        slots.offsite += summary.offsite as u32;
    }
    let mut next = 0;
    let tiers = burst.tiers.iter().enumerate().map(|(number, tier)| {
        let first = next;
        let rows = tier.endpoint_names().into_iter().map(|name| {
            let place = next;
            next += 1;
            let row = core.publisher.maps().endpoint(endpoints[place]);
            api::Endpoint {
                name,
                reachable: Endpoint::reached(row.links),
                links: links(core, row.links),
                health: core.health.view(at - core.started, index, place),
                share: Share {
                    wanted: decided.weights.get(place).copied().unwrap_or(0.0),
                    achieved: opened.share(&[place]),
                },
                out: traffic(core, |snapshot| snapshot.endpoints[index][place][OUT]),
                back: traffic(core, |snapshot| snapshot.endpoints[index][place][IN]),
            }
        });
        let endpoints = rows.collect();
        let places: Vec<_> = (first..next).collect();
        let wanted = decided.tiers.get(number).copied().unwrap_or(0.0);
        let share = Share { wanted, achieved: opened.share(&places) };
        api::Tier { name: tier.name.clone(), share, capacity_fps: tier.capacity, endpoints }
    });
    let tiers = tiers.collect();
    let sources = core.sources.status(index, at).into_iter().zip(&burst.local.load);
    api::Burst {
        demand_fps: decided.rate,
        local: api::Local {
            share: Share { wanted: decided.local, achieved: opened.local() },
            load: decided.load,
            target: burst.local.target,
            capacity_fps: decided.capacity,
        },
        tiers,
        sources: sources
            .map(|(source, configured)| Source {
                name: source.name,
                value: source.reading.map(|reading| reading.value),
                limit: configured.limit,
                age_s: source.reading.map(|reading| reading.age.as_secs_f64()),
                error: source.error,
                unused: source
                    .reading
                    .and_then(|reading| trust(reading, configured).err())
                    .map(|distrust| distrust.to_string()),
            })
            .collect(),
        ordered: core.orders.get(&index).map(|order| order.view(at - core.started)),
        decision: if decided.reason.is_empty() {
            format!("{}: nothing decided yet", class.name)
        } else {
            decided.reason.clone()
        },
        slots,
        pins: core.publisher.pins(index).0,
        pins_offsite: core.publisher.pins(index).1,
    }
}

/// New flows of a class over the last window.
struct Opened {
    all: u64,
    local: u64,
    endpoints: Vec<u64>,
}

impl Opened {
    fn measure(core: &Core, class: usize, id: usize) -> Self {
        let nothing = Self { all: 0, local: 0, endpoints: Vec::new() };
        let (Some((before, _)), Some(now)) = (core.meter.before(), core.meter.now()) else { return nothing };
        let since = |get: &dyn Fn(&Snapshot) -> u64| get(now).saturating_sub(get(before));
        Self {
            all: since(&|snapshot| snapshot.openers(id).0),
            local: since(&|snapshot| snapshot.openers(id).1),
            endpoints: (0..now.endpoints[class].len())
                .map(|place| since(&|snapshot| snapshot.endpoints[class][place][OUT].openers))
                .collect(),
        }
    }

    fn part(&self, part: u64) -> Option<f64> {
        (self.all >= FEW).then(|| part as f64 / self.all as f64)
    }

    fn local(&self) -> Option<f64> {
        self.part(self.local)
    }

    fn share(&self, places: &[usize]) -> Option<f64> {
        self.part(places.iter().filter_map(|&place| self.endpoints.get(place)).sum())
    }
}

/// Names of the links in an endpoint's table.
fn links(core: &Core, table: u64) -> Vec<String> {
    let ids: Vec<_> = (0..ENDPOINT_LINKS).map(|n| link_at(table, n)).collect();
    let named = core.config.links.iter().filter(|link| ids.contains(&core.publisher.link_id(&link.name)));
    named.map(|link| link.name.clone()).collect()
}

fn traffic(core: &Core, get: impl Fn(&Snapshot) -> Counter) -> Traffic {
    let Some(now) = core.meter.now().map(&get) else { return Traffic::default() };
    let bits = |(before, seconds): (&Snapshot, f64)| now.bytes.saturating_sub(get(before).bytes) as f64 * 8.0 / seconds;
    Traffic {
        packets: now.packets,
        bytes: now.bytes,
        openers: now.openers,
        rate_bps: core.meter.before().map_or(0.0, bits),
    }
}

/// Reasons and notes that were counted.
fn reasons(rows: &[Counter]) -> Vec<ReasonCount> {
    let reasons = Reason::ALL.iter().map(|reason| (reason.text(), reason.number()));
    let notes = Note::ALL.iter().map(|note| (note.text(), note.number()));
    reasons
        .chain(notes)
        .map(|(text, number)| (text, rows[number]))
        .filter(|(_, row)| row.packets > 0)
        .map(|(text, row)| ReasonCount {
            reason: text.to_owned(),
            packets: row.packets,
            bytes: row.bytes,
            openers: row.openers,
        })
        .collect()
}
