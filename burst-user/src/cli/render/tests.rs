//! The text of a status, to the letter.

use super::*;
use crate::api::types::{Client, Events, Local, Override, Router, Slots, Tier, VERSION};

fn traffic(packets: u64, rate_bps: f64) -> Traffic {
    Traffic { packets, bytes: packets * 100, openers: packets / 10, rate_bps }
}

fn reason(name: &str, packets: u64) -> ReasonCount {
    ReasonCount { reason: name.into(), packets, bytes: packets * 100, openers: packets / 10 }
}

fn endpoint(address: &str, links: &[&str], wanted: f64) -> Endpoint {
    Endpoint {
        name: format!("reserved/{address}"),
        reachable: !links.is_empty(),
        links: links.iter().map(|link| (*link).to_owned()).collect(),
        health: None,
        share: Share { wanted, achieved: Some(wanted) },
        out: traffic(1200, 1.5e9),
        back: traffic(2400, 250e6),
    }
}

fn promo() -> Burst {
    Burst {
        demand_fps: 12_345.6,
        local: Local {
            share: Share { wanted: 0.62, achieved: Some(0.618) },
            load: Some(0.748),
            target: 0.75,
            capacity_fps: Some(10_200.0),
        },
        tiers: vec![Tier {
            name: "reserved".into(),
            share: Share { wanted: 0.38, achieved: Some(0.382) },
            capacity_fps: 20_000.0,
            endpoints: vec![
                endpoint("10.20.0.10", &["dx-seoul-1", "dx-seoul-2"], 0.38),
                endpoint("10.20.0.11", &[], 0.0),
            ],
        }],
        sources: vec![
            Source {
                name: "haproxy /run/haproxy.sock web/BACKEND scur".into(),
                value: Some(748.0),
                limit: 1000.0,
                age_s: Some(0.12),
                error: None,
                unused: None,
            },
            Source {
                name: "http://127.0.0.1:9113/metrics nginx_busy".into(),
                value: None,
                limit: 1.0,
                age_s: None,
                error: Some("connection refused".into()),
                unused: None,
            },
        ],
        ordered: None,
        decision: "local share 62.0 %: 0.75 of 10.2k/s for 12.3k/s".into(),
        slots: Slots { total: 2048, ..Slots::default() },
        pins: 0,
        pins_offsite: 0,
    }
}

fn link(up: bool) -> Link {
    Link {
        name: "dx-seoul-1".into(),
        device: "eth1".into(),
        vlan: Some(101),
        next_hop: "10.64.0.1".parse().ok(),
        mac: up.then(|| crate::api::types::mac([2, 0, 0, 0, 0x0d, 1])),
        up,
        why: if up { "up" } else { "no carrier" }.into(),
        mtu: 8500,
        fallback: false,
        source: vec![],
        out: traffic(1200, 1.5e9),
        back: traffic(2400, 250e6),
    }
}

fn router() -> Router {
    Router {
        address: "192.0.2.2".parse().unwrap(),
        mac: crate::api::types::mac([2, 0, 0, 0, 0x0d, 2]),
        device: "eth0".into(),
        vlan: None,
        mtu: 1500,
        except: vec!["10.0.0.0/8".into(), "127.0.0.0/8".into()],
    }
}

fn status() -> Status {
    Status {
        version: VERSION,
        burst: "0.1.0".into(),
        edge: "edge-a1".into(),
        mode: Mode::Active,
        bypass: false,
        config: Running {
            file: "/etc/burst/burst.toml".into(),
            hash: "9c1d0f4a77e21b35".into(),
            generation: 2,
            loaded_s: 720.0,
            ..Running::default()
        },
        pid: 4711,
        uptime_s: 7500.4,
        classes: vec![
            Class { name: "payment".into(), reasons: vec![reason("keep", 90_210)], burst: None },
            Class {
                name: "promo".into(),
                reasons: vec![reason("local", 62_000), reason("shifted", 38_000)],
                burst: Some(promo()),
            },
        ],
        links: vec![link(true)],
        clients: vec![Client { device: "eth0".into(), up: true, why: "up".into() }],
        gateways: vec![
            Gateway { family: 4, router: Some(router()), why: None },
            Gateway { family: 6, router: None, why: Some("there is no default route".into()) },
        ],
        other: vec![reason("no-match", 12), reason("not-ip", 345)],
        events: Events::default(),
        warnings: vec![],
    }
}

#[test]
fn a_whole_status() {
    let expected = "\
edge edge-a1 · active · up 2h 5m · burst 0.1.0 · pid 4711
configuration /etc/burst/burst.toml · 9c1d0f4a77e21b35 · number 2 · loaded 12m ago

class payment · kept on premises
  REASON  PACKETS    BYTES  OPENERS
  keep      90210  9021000     9021

class promo · 12.3k new flows/s · 2048 slots, all stable
  decision: local share 62.0 %: 0.75 of 10.2k/s for 12.3k/s
  PLACE         WANTED  ACHIEVED  CAPACITY          OUT          IN  STATE
  local         62.0 %    61.8 %   10.2k/s            -           -  load 0.75, target 0.75
  reserved      38.0 %    38.2 %   20.0k/s  3.00 Gbit/s  500 Mbit/s  1 of 2 reachable
    10.20.0.10  38.0 %    38.0 %         -  1.50 Gbit/s  250 Mbit/s  via dx-seoul-1, dx-seoul-2
    10.20.0.11   0.0 %     0.0 %         -  1.50 Gbit/s  250 Mbit/s  unreachable: no link is up
  LOAD SOURCE                                 VALUE  LIMIT  LOAD   AGE  STATE
  haproxy /run/haproxy.sock web/BACKEND scur    748  1.00k  0.75  0.1s  ok
  http://127.0.0.1:9113/metrics nginx_busy        -      1     -     -  connection refused
  REASON   PACKETS    BYTES  OPENERS
  local      62000  6200000     6200
  shifted    38000  3800000     3800

LINK        DEVICE                 OUT          IN  PACKETS OUT  PACKETS IN  STATE
dx-seoul-1  eth1 vlan 101  1.50 Gbit/s  250 Mbit/s         1200        2400  up
  next hop 10.64.0.1 (02:00:00:00:0d:01), mtu 8500

CLIENT DEVICE  STATE
eth0           up
replies of IPv4 go by 192.0.2.2 (02:00:00:00:0d:02) on eth0, but for 2 prefixes
replies of IPv6: the routing table is asked for each: there is no default route

packets of no class
  REASON    PACKETS  BYTES  OPENERS
  no-match       12   1200        1
  not-ip        345  34500       34
";
    let rendered = render(&status());
    assert_eq!(rendered, expected, "\n{rendered}");
    assert!(rendered.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn what_is_unusual_is_said() {
    let mut burst = promo();
    burst.ordered = Some(Override { offsite: 0.4, reason: "campaign".into(), uid: 1000, remaining_s: 1790 });
    burst.slots = Slots { total: 2048, transition: 12, pins: 3, ..Slots::default() };
    burst.pins = 55;
    burst.local.load = None;
    burst.local.capacity_fps = None;
    burst.local.share.achieved = None;
    burst.tiers.clear();
    burst.sources.truncate(1);
    // JSON has no NaN: it arrives as none.
    burst.sources[0].value = None;
    burst.sources[0].unused = Some("not a number".into());
    let status = Status {
        mode: Mode::Shadow,
        classes: vec![Class { name: "promo".into(), reasons: vec![], burst: Some(burst) }],
        links: vec![
            link(false),
            Link {
                name: "vpn".into(),
                device: "wg0".into(),
                vlan: None,
                next_hop: None,
                mac: None,
                mtu: 1420,
                fallback: true,
                ..link(true)
            },
            Link { source: vec!["10.64.0.2".parse().unwrap(), "2001:db8:64::2".parse().unwrap()], ..link(true) },
        ],
        clients: vec![Client { device: "eth0".into(), up: false, why: "device does not exist".into() }],
        gateways: vec![Gateway { family: 4, router: Some(Router { vlan: Some(7), ..router() }), why: None }],
        other: vec![],
        events: Events::default(),
        warnings: vec!["the slot table is not published".into()],
        ..status()
    };
    let expected = "\
edge edge-a1 · shadow (nothing is shifted) · up 2h 5m · burst 0.1.0 · pid 4711
configuration /etc/burst/burst.toml · 9c1d0f4a77e21b35 · number 2 · loaded 12m ago
warning: the slot table is not published

class promo · 12.3k new flows/s · 2048 slots, 12 in transition, 3 keep pins · 55 flows pinned
  override: 40.0 % leave for another 29m 50s, by uid 1000: campaign
  decision: local share 62.0 %: 0.75 of 10.2k/s for 12.3k/s
  PLACE  WANTED  ACHIEVED  CAPACITY  OUT  IN  STATE
  local  62.0 %         -         -    -   -  load unknown, target 0.75
  LOAD SOURCE                                 VALUE  LIMIT  LOAD   AGE  STATE
  haproxy /run/haproxy.sock web/BACKEND scur      -  1.00k     -  0.1s  not used: not a number
  no packets yet

LINK        DEVICE                 OUT          IN  PACKETS OUT  PACKETS IN  STATE
dx-seoul-1  eth1 vlan 101  1.50 Gbit/s  250 Mbit/s         1200        2400  DOWN: no carrier
  next hop 10.64.0.1 (no MAC address), mtu 8500
vpn         wg0            1.50 Gbit/s  250 Mbit/s         1200        2400  up
  the routing table picks the way, mtu 1420, only while no other link is up
dx-seoul-1  eth1 vlan 101  1.50 Gbit/s  250 Mbit/s         1200        2400  up
  next hop 10.64.0.1 (02:00:00:00:0d:01), mtu 8500, tunnels from 10.64.0.2 and 2001:db8:64::2

CLIENT DEVICE  STATE
eth0           DOWN: device does not exist
replies of IPv4 go by 192.0.2.2 (02:00:00:00:0d:02) on eth0 vlan 7, but for 2 prefixes
";
    let rendered = render(&status);
    assert_eq!(rendered, expected, "\n{rendered}");
}

#[test]
fn numbers_have_three_digits() {
    for (number, text) in [
        (0.0, "0"),
        (0.5, "0.50"),
        (7.0, "7"),
        (12.34, "12.3"),
        (999.0, "999"),
        (999.6, "1.00k"),
        (1000.0, "1.00k"),
        (12_345.0, "12.3k"),
        (999_499.0, "999k"),
        (999_600.0, "1.00M"),
        (4.2e13, "42.0T"),
    ] {
        assert_eq!(count(number), text, "{number}");
    }
}

#[test]
fn times_have_two_units() {
    for (seconds, text) in
        [(0.0, "0s"), (59.9, "59s"), (60.0, "1m"), (3661.0, "1h 1m"), (3601.0, "1h"), (90_000.0, "1d 1h"), (-1.0, "0s")]
    {
        assert_eq!(span(seconds), text, "{seconds}");
    }
}

#[test]
fn an_endpoint_says_how_it_is_and_why_over_each_link() {
    use crate::api::types::{EndpointHealth, HealthState, Path};
    let path = |link: &str, up, probed, why: &str, latency_s| Path {
        link: link.into(),
        up,
        probed,
        why: why.into(),
        since_s: 75.0,
        age_s: probed.then_some(0.42),
        latency_s,
    };
    let paths = vec![
        path("dx-1", true, true, "well", Some(0.00314)),
        path("dx-2", false, true, "connection refused, 7 times", None),
        path("vpn", true, false, "not probed: no route", None),
    ];
    for (state, expected) in [
        (HealthState::Unproven, "unproven: no new flows before it has answered"),
        (HealthState::Healthy, "healthy, via dx-1"),
        (HealthState::Failing, "FAILING for 1m 5s: no new flows, via dx-1"),
        (HealthState::Suspect, "SUSPECT for 1m 5s: no new flows, via dx-1"),
        (HealthState::Dead, "DEAD for 1m 5s"),
        (HealthState::Unreachable, "via dx-1"),
    ] {
        let health = Some(EndpointHealth { state, since_s: 65.0, why: String::new(), paths: paths.clone() });
        let endpoint = Endpoint { health, ..endpoint("10.20.0.10", &["dx-1"], 0.5) };
        assert_eq!(health::state(&endpoint), expected, "{state:?}");
        assert_eq!(
            health::notes(&endpoint),
            [
                "      over dx-1 up for 1m 15s: well in 3.1 ms, 0.4 s ago",
                "      over dx-2 DOWN for 1m 15s: connection refused, 7 times, 0.4 s ago",
                "      over vpn taken to be up for 1m 15s: not probed: no route",
            ]
        );
    }
}
