//! Events of the program, read as they come: into the log, and kept for `status`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use burst_common::event::{Event, GUARD, SENTINEL_REPORTED, SENTINEL_STOPPED, SENTINEL_STOPPED_OWN};
use burst_common::flow::{TCP, UDP, narrow};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::types as api;
use crate::kernel::Events as Ring;
use crate::netlink::NetState;

/// Events kept for `status`, the latest.
const KEPT: usize = 32;
/// Lines of one kind that the log takes in a [`WINDOW`]; the rest is counted.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);
/// How often the ring is looked at, and events taken from it at most: it holds several thousand.
const PERIOD: Duration = Duration::from_millis(100);
const BATCH: usize = 1024;

/// What was seen since the daemon started.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// By kind.
    counts: BTreeMap<u8, u64>,
    recent: VecDeque<api::Event>,
}

impl Seen {
    fn add(&mut self, kind: u8, event: api::Event) {
        *self.counts.entry(kind).or_default() += 1;
        self.recent.push_back(event);
        if self.recent.len() > KEPT {
            self.recent.pop_front();
        }
    }

    /// As status shows them.
    pub(super) fn view(&self) -> api::Events {
        let count = |kind| self.counts.get(&kind).copied().unwrap_or(0);
        api::Events {
            guard: count(GUARD),
            stopped_own: count(SENTINEL_STOPPED_OWN),
            reported: count(SENTINEL_REPORTED),
            stopped: count(SENTINEL_STOPPED),
            recent: self.recent.iter().cloned().collect(),
        }
    }
}

/// The running task. Dropping it stops the task; events wait in the ring then.
#[derive(Debug)]
pub(super) struct Reader {
    seen: Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Reader {
    /// What was seen up to now, for a reader that goes on.
    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// The same, as status shows it.
    pub(super) fn view(&self) -> api::Events {
        self.seen.borrow().view()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to read events, which are added to those `before`. `links` are names by id; devices are named as the kernel knows them when an event is read.
/// Must be called within a tokio runtime.
pub(super) fn read(ring: Ring, links: BTreeMap<u8, String>, net: Receiver<NetState>, before: Seen) -> Reader {
    let (sender, seen) = channel(before);
    Reader { seen, task: tokio::spawn(follow(ring, links, net, sender)) }
}

async fn follow(mut ring: Ring, links: BTreeMap<u8, String>, net: Receiver<NetState>, seen: Sender<Seen>) {
    let (mut limiter, begun) = (Limiter::default(), super::clock());
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What comes faster than this waits in the ring, and what finds that full is counted all the same.
        for _ in 0..BATCH {
            let Some(event) = ring.next() else { break };
            let view = view(&event, &links, &net.borrow());
            tell(&view, limiter.admit(super::clock() - begun, event.kind));
            seen.send_modify(|seen| seen.add(event.kind, view));
        }
    }
}

/// What the log is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admitted {
    /// This event, and that so many before it were left out.
    Told { left_out: u64 },
    /// Not this one.
    LeftOut,
}

/// Bounds the lines of each kind.
#[derive(Debug, Default)]
struct Limiter(HashMap<u8, (Duration, u32, u64)>);

impl Limiter {
    fn admit(&mut self, now: Duration, kind: u8) -> Admitted {
        let (since, lines, left_out) = self.0.entry(kind).or_insert((now, 0, 0));
        if now.saturating_sub(*since) >= WINDOW {
            (*since, *lines) = (now, 0);
        }
        if *lines == LINES {
            *left_out += 1;
            return Admitted::LeftOut;
        }
        *lines += 1;
        Admitted::Told { left_out: std::mem::take(left_out) }
    }
}

fn tell(event: &api::Event, admitted: Admitted) {
    let Admitted::Told { left_out } = admitted else { return };
    let api::Event { what, proto, src, dst, device, link, .. } = event;
    let meaning = match what.as_str() {
        "guard" => "payment was about to leave by burst: passed to the kernel instead; a defect of burst, report it",
        "sentinel-stopped-own" => {
            "payment was about to leave by burst: stopped at the link; a defect of burst, report it"
        }
        "sentinel-reported" => "payment leaves over a link, sent by this host's kernel: see its routes and NAT",
        "sentinel-stopped" => "payment was about to leave over a link, sent by this host's kernel: stopped",
        _ => "an event that this version does not know",
    };
    let link = link.as_deref().unwrap_or("-");
    tracing::error!(what, proto, src, dst, device, link, left_out, "{meaning}");
}

fn view(event: &Event, links: &BTreeMap<u8, String>, net: &NetState) -> api::Event {
    let what = match event.kind {
        GUARD => "guard".to_owned(),
        SENTINEL_STOPPED_OWN => "sentinel-stopped-own".to_owned(),
        SENTINEL_REPORTED => "sentinel-reported".to_owned(),
        SENTINEL_STOPPED => "sentinel-stopped".to_owned(),
        other => format!("unknown-{other}"),
    };
    let proto = match event.proto {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        other => other.to_string(),
    };
    let end = |address, port| SocketAddr::new(narrow(event.family, address), u16::from_be(port)).to_string();
    let client = net.clients.iter().find(|client| client.ifindex == event.ifindex).map(|client| client.name.clone());
    let device =
        client.or_else(|| net.device_of(event.ifindex)).unwrap_or_else(|| format!("ifindex {}", event.ifindex));
    api::Event {
        what,
        proto,
        src: end(event.src, event.src_port),
        dst: end(event.dst, event.dst_port),
        device,
        link: u8::try_from(event.link).ok().and_then(|id| links.get(&id).cloned()),
        since_boot_s: event.stamp as f64 / 1e9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burst_common::flow::wide;
    use bytemuck::Zeroable;

    fn event(kind: u8) -> Event {
        Event {
            src: wide("198.51.100.7".parse().unwrap()),
            dst: wide("203.0.113.10".parse().unwrap()),
            src_port: 40000u16.to_be(),
            dst_port: 443u16.to_be(),
            proto: TCP,
            family: 4,
            kind,
            ifindex: 7,
            link: 2,
            stamp: 1_500_000_000,
            ..Event::zeroed()
        }
    }

    #[test]
    fn an_event_names_the_flow_the_device_and_the_link() {
        let links = BTreeMap::from([(2, "dx-1".to_owned())]);
        let seen = view(&event(SENTINEL_REPORTED), &links, &NetState::default());
        assert_eq!((seen.what.as_str(), seen.proto.as_str()), ("sentinel-reported", "tcp"));
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), ("198.51.100.7:40000", "203.0.113.10:443"));
        assert_eq!((seen.device.as_str(), seen.link.as_deref(), seen.since_boot_s), ("ifindex 7", Some("dx-1"), 1.5));
        let six = Event { family: 6, src: wide("2001:db8::7".parse().unwrap()), link: 0, ..event(GUARD) };
        let seen = view(&six, &links, &NetState::default());
        assert_eq!((seen.src.as_str(), seen.link), ("[2001:db8::7]:40000", None));
        assert_eq!(view(&event(99), &links, &NetState::default()).what, "unknown-99");
    }

    #[test]
    fn counts_go_on_where_memory_ends() {
        let mut seen = Seen::default();
        for n in 0..KEPT as u64 + 5 {
            let event = Event { stamp: n * 1_000_000_000, ..event(GUARD) };
            seen.add(GUARD, view(&event, &BTreeMap::new(), &NetState::default()));
        }
        seen.add(SENTINEL_STOPPED, view(&event(SENTINEL_STOPPED), &BTreeMap::new(), &NetState::default()));
        let view = seen.view();
        assert_eq!((view.guard, view.stopped, view.reported, view.stopped_own), (KEPT as u64 + 5, 1, 0, 0));
        assert_eq!((view.recent.len(), view.recent[0].since_boot_s), (KEPT, 6.0), "the latest");
    }

    #[test]
    fn a_flood_of_one_kind_is_counted_and_does_not_silence_another() {
        let mut limiter = Limiter::default();
        let second = Duration::from_secs;
        for _ in 0..LINES {
            assert_eq!(limiter.admit(second(5), GUARD), Admitted::Told { left_out: 0 });
        }
        for _ in 0..1000 {
            assert_eq!(limiter.admit(second(5), GUARD), Admitted::LeftOut);
        }
        assert_eq!(limiter.admit(second(5), SENTINEL_STOPPED), Admitted::Told { left_out: 0 });
        assert_eq!(limiter.admit(second(6), GUARD), Admitted::Told { left_out: 1000 });
        assert_eq!(limiter.admit(second(6), GUARD), Admitted::Told { left_out: 0 });
    }
}
