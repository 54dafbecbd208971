//! One packet, step by step. Verdict, bytes, class, rule, slot, endpoint and link are the program's; what lies between them is
//! computed here from the same tables with the same code, and the two must agree.

use std::net::SocketAddr;

use burst_common::endpoint::{Endpoint, MODE_DNAT, MODE_GUE, MODE_IPIP, MODE_NEXTHOP, link_at};
use burst_common::flow::{UDP, narrow};
use burst_common::hash;
use burst_common::limits::{MAX_CLASSES, MAX_REASONS};
use burst_common::link::VIA_KERNEL;
use burst_common::pin::{Pin, PinKey};
use burst_common::place;
use burst_common::policy::{PER_PACKET, ROLE_CLIENT, ROLE_LINK};
use burst_common::reason::{Note, Reason};
use burst_common::slot::{EndpointId, Slot, State};
use serde::Serialize;

use super::fields::{Change, changes};
use super::packet::Question;
use super::placed::Placing;
use super::scratch;
use super::specimen::{Answer, InspectError, Source, Specimen};
use super::tables::{Direction, Tables};
use crate::kernel::{Action, ClassCounters, KernelError, Kind};

/// What became of a packet, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// Where the maps come from.
    pub source: Source,
    /// The packet.
    pub packet: PacketView,
    /// Which way it goes.
    pub direction: &'static str,
    /// The class and the rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassView>,
    /// The slot that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotView>,
    /// The pin, where the slot alone could not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<PinView>,
    /// The endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointView>,
    /// The link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkView>,
    /// What changed in the packet.
    pub changes: Vec<Change>,
    /// The verdict.
    pub verdict: VerdictView,
    /// The counters that moved.
    pub counters: Vec<CounterView>,
    /// All of it in words, in order.
    pub steps: Vec<Step>,
}

/// A step in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub step: &'static str,
    /// What was found.
    pub says: String,
}

/// The packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PacketView {
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// Whether it is a SYN.
    pub syn: bool,
    /// Device it arrives on.
    #[serde(rename = "in")]
    pub device: String,
    /// VLAN id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Bytes of the frame.
    pub len: usize,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassView {
    /// Name.
    pub name: String,
    /// Whether it is kept on premises.
    pub keep: bool,
    /// Number of the rule within the class, from 1; none for replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// What the rule asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asks: Option<String>,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotView {
    /// Number within its class and family.
    pub number: u32,
    /// How many there are.
    pub of: u32,
    /// `flow` or `client`: what it was chosen by.
    pub by: &'static str,
    /// The hash.
    pub hash: String,
    /// `stable`, `transition` or `pins`.
    pub state: &'static str,
    /// Where new flows go.
    pub current: String,
    /// Where unrecorded flows are, in transition.
    pub previous: String,
    /// How often it was written.
    pub generation: u32,
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PinView {
    /// The endpoint of the pin that was found.
    pub found: Option<String>,
    /// The endpoint of the pin that would be made now.
    pub made: Option<String>,
    /// Whether a pin was refused: the table is full.
    pub refused: bool,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointView {
    /// Name within its class.
    pub name: String,
    /// How a packet is rewritten.
    pub mode: &'static str,
    /// Address; none for `nexthop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkView {
    /// Name.
    pub name: String,
    /// Entry of the endpoint's table of links, from 0; none for replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<usize>,
    /// Device; none when the link is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// VLAN id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// MAC address of the next hop; none where the routing table picks the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// Source MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerdictView {
    /// `pass`, `tx`, `redirect` or `drop`.
    pub action: &'static str,
    /// Name of the reason.
    pub reason: &'static str,
    /// When that reason is given.
    pub meaning: String,
    /// Device it leaves by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Bytes of the frame then.
    pub len: usize,
}

/// A counter that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CounterView {
    /// Class; none for packets of no class.
    pub class: Option<String>,
    /// Reason or note.
    pub counter: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Openers.
    pub openers: u64,
}

/// The name of an action.
#[must_use]
pub const fn action_text(action: Action) -> &'static str {
    match action {
        Action::Pass => "pass",
        Action::Tx => "tx",
        Action::Redirect => "redirect",
        Action::Drop => "drop",
    }
}

/// Asks the instance about a packet.
///
/// # Errors
/// When such a packet cannot be, the kernel refuses, or program and tables disagree.
pub fn explain(specimen: &mut Specimen, question: &Question) -> Result<Explained, InspectError> {
    let key = question.key()?;
    let frame = question.frame(own_mac(&specimen.tables))?;
    let pin = specimen
        .alone
        .maps
        .pins
        .get(&key)
        .map_err(|error| KernelError::new(Kind::Other, format!("the pins: {error}"), ""))?;
    let before = specimen.counters();
    let mut out = Vec::new();
    let answer = specimen.ask(&frame, Some(&mut out))?;
    let moved = moved(&specimen.tables, &before, &specimen.counters());
    let story = Story { specimen, question, key, pin, answer, notes: &moved };
    let mut wrong = story.counted(&moved);
    let explained = story.tell(&frame, &out, moved.clone(), &mut wrong);
    if wrong.is_empty() { Ok(explained) } else { Err(InspectError::Disagree(wrong)) }
}

/// The MAC address of the instance's device, or of a stand-in where it does not ask.
fn own_mac(tables: &Tables) -> [u8; 6] {
    match tables.policy.mac {
        0 => scratch::DEVICE,
        word => std::array::from_fn(|n| word.to_ne_bytes()[n]),
    }
}

fn moved(tables: &Tables, before: &ClassCounters, after: &ClassCounters) -> Vec<CounterView> {
    let name = |row: usize| {
        let reason = Reason::ALL.iter().find(|reason| reason.number() == row).map(|reason| reason.text());
        reason.or_else(|| Note::ALL.iter().find(|note| note.number() == row).map(|note| note.text()))
    };
    let mut moved = Vec::new();
    for class in 0..MAX_CLASSES {
        for row in 0..MAX_REASONS {
            let (old, new) = (before.get(class, row), after.get(class, row));
            if old != new {
                moved.push(CounterView {
                    class: (class != 0).then(|| tables.class(class as u32)),
                    counter: name(row).unwrap_or("a row without a name"),
                    packets: new.packets - old.packets,
                    bytes: new.bytes - old.bytes,
                    openers: new.openers - old.openers,
                });
            }
        }
    }
    moved
}

/// All that is known when the packet has been through.
struct Story<'a> {
    specimen: &'a Specimen,
    question: &'a Question,
    key: PinKey,
    /// The flow's pin before.
    pin: Option<Pin>,
    answer: Answer,
    notes: &'a [CounterView],
}

impl Story<'_> {
    /// The verdict is counted once, under its class and reason.
    fn counted(&self, moved: &[CounterView]) -> Vec<String> {
        let class = (self.answer.report.class != 0).then(|| self.specimen.tables.class(self.answer.report.class));
        let reason = self.answer.reason.text();
        let verdicts: Vec<_> =
            moved.iter().filter(|count| Note::ALL.iter().all(|note| note.text() != count.counter)).collect();
        match verdicts[..] {
            [one] if one.class == class && one.counter == reason && one.packets == 1 => Vec::new(),
            _ => vec![format!("the program says {reason} of class {class:?}, its counters say {verdicts:?}")],
        }
    }

    fn noted(&self, note: Note) -> bool {
        self.notes.iter().any(|count| count.counter == note.text())
    }

    fn tell(&self, frame: &[u8], out: &[u8], counters: Vec<CounterView>, wrong: &mut Vec<String>) -> Explained {
        let (specimen, question, answer) = (self.specimen, self.question, self.answer);
        let (tables, report) = (&specimen.tables, answer.report);
        let direction = tables.direction(&report, answer.reason);
        let mut steps = vec![self.say_packet(frame), self.say_direction(direction)];
        let class = self.class(direction, &mut steps, wrong);
        let (slot, pin) = self.slot(&mut steps, wrong);
        let endpoint = self.endpoint(direction, &mut steps);
        let link = self.link(direction, &mut steps, wrong);
        let row = specimen.alone.maps.endpoint(report.endpoint);
        let changes = changes(frame, out, &[u16::from_be(row.tunnel_port)]);
        for change in &changes {
            let says = match (&change.before, &change.after) {
                (Some(before), Some(after)) => format!("{}: {before} -> {after}", change.field),
                (None, Some(after)) => format!("{}: {after}, new", change.field),
                (Some(before), None) => format!("{}: {before}, gone", change.field),
                (None, None) => continue,
            };
            steps.push(Step { step: "rewrite", says });
        }
        let device = match (answer.action, answer.reason) {
            // An answer goes back to where the packet came from, not to the link that was too small for it.
            (Action::Redirect, Reason::TooBigAnswered) => Some(specimen.device.clone()),
            (Action::Redirect, _) => specimen.device_name(report.device).map(str::to_owned),
            _ => None,
        };
        let verdict = VerdictView {
            action: action_text(answer.action),
            reason: answer.reason.text(),
            meaning: plain(answer.reason.meaning()),
            device,
            len: answer.len,
        };
        let by = verdict.device.as_ref().map_or_else(String::new, |device| format!(" out of {device}"));
        let bytes = if answer.len == frame.len() { String::new() } else { format!(" as {} bytes", answer.len) };
        let says = format!("{}{by}{bytes}, reason {}: {}", verdict.action, verdict.reason, verdict.meaning);
        steps.push(Step { step: "verdict", says });
        Explained {
            source: specimen.source.clone(),
            packet: PacketView {
                proto: question.proto.text(),
                src: question.src,
                dst: question.dst,
                syn: question.syn,
                device: specimen.device.clone(),
                vlan: question.vlan,
                len: frame.len(),
            },
            direction: match direction {
                Direction::Forward => "forward",
                Direction::Return => "return",
            },
            class,
            slot,
            pin,
            endpoint,
            link,
            changes,
            verdict,
            counters,
            steps,
        }
    }

    fn say_packet(&self, frame: &[u8]) -> Step {
        let Question { proto, src, dst, syn, vlan, .. } = *self.question;
        let what = match (proto.number(), syn) {
            (burst_common::flow::TCP, true) => " SYN, which opens a flow",
            (burst_common::flow::TCP, false) => " segment of an established flow",
            _ => " datagram",
        };
        let tag = vlan.map_or_else(String::new, |vlan| format!(", VLAN {vlan}"));
        let says = format!("{}{what}, {src} to {dst}, frame of {} bytes{tag}", proto.text(), frame.len());
        Step { step: "packet", says }
    }

    fn say_direction(&self, direction: Direction) -> Step {
        let role = self.specimen.tables.policy.role;
        let device = match (role & ROLE_CLIENT != 0, role & ROLE_LINK != 0) {
            (true, true) => "a device of clients and links",
            (true, false) => "a device of clients",
            _ => "a device of links",
        };
        let way = match direction {
            Direction::Forward => "from a client",
            Direction::Return => "from a link",
        };
        Step { step: "direction", says: format!("arrives on {}, {device}: {way}", self.specimen.device) }
    }

    fn class(&self, direction: Direction, steps: &mut Vec<Step>, wrong: &mut Vec<String>) -> Option<ClassView> {
        let (tables, report) = (&self.specimen.tables, self.answer.report);
        let mut say = |says: String| steps.push(Step { step: "class", says });
        let rule = report.rule.checked_sub(1);
        if direction == Direction::Forward && report.family != 0 {
            let (src, dst) = (narrow(report.family, report.src), narrow(report.family, report.dst));
            let port = u16::from_be(report.dst_port);
            let matched = tables.matcher().matched(src, dst, report.proto, port);
            let found = matched.map(|matched| (matched.rule, matched.class));
            if found != rule.map(|rule| (rule, report.class)) {
                let program = rule.map(|rule| (rule, report.class));
                wrong.push(format!("the program took (rule, class) {program:?}, the tables say {found:?}"));
            }
        }
        if report.class == 0 {
            say(match direction {
                Direction::Forward => "no rule matches".to_owned(),
                Direction::Return => {
                    "the source is no endpoint's, and no service that comes back over links".to_owned()
                }
            });
            return None;
        }
        let name = tables.class(report.class);
        let Some(rule) = rule else {
            say(format!("{name}: the source is in its return table, or one of its services"));
            return Some(ClassView { name, keep: false, rule: None, asks: None });
        };
        let keep = tables.policy.keep & 1 << rule != 0;
        let (number, asks) = (tables.rule_number(rule), tables.rule_text(rule));
        let why = if keep { "kept on premises" } else { "no keep rule matches, and none before this one" };
        say(format!("{name}, by rule {number} ({asks}): {why}"));
        Some(ClassView { name, keep, rule: Some(number), asks: Some(asks) })
    }

    fn slot(&self, steps: &mut Vec<Step>, wrong: &mut Vec<String>) -> (Option<SlotView>, Option<PinView>) {
        let (tables, report) = (&self.specimen.tables, self.answer.report);
        let Some(index) = report.slot.checked_sub(1) else { return (None, None) };
        let (class, by_client) = (tables.class_row(report.class), tables.by_client(report.class));
        let hash = self.key.hash(tables.policy.seed, by_client);
        let base = if report.family == 6 { class.base6 } else { class.base4 };
        let expected = base + hash::slot(hash, class.mask);
        if expected != index {
            wrong.push(format!("the program asked slot {index}, the flow's hash says {expected}"));
        }
        let slot: Slot = self.specimen.alone.maps.slot(index as usize);
        let view = SlotView {
            number: tables.slot_number(report.class, report.family, index),
            of: class.mask + 1,
            by: if by_client { "client" } else { "flow" },
            hash: format!("{hash:#018x}"),
            state: match slot.state() {
                State::Stable => "stable",
                State::Transition => "transition",
                State::Pins => "pins",
            },
            current: tables.endpoint(slot.current()),
            previous: tables.endpoint(slot.previous()),
            generation: slot.generation(),
        };
        let holds = match slot.state() {
            State::Stable => format!("stable, every flow goes to {}", view.current),
            State::Transition => {
                format!(
                    "in transition, new flows go to {}, older ones that are not pinned to {}",
                    view.current, view.previous
                )
            }
            State::Pins => format!("looks for pins, all others go to {}", view.current),
        };
        steps.push(Step { step: "slot", says: format!("{} of {} by {} hash: {holds}", view.number, view.of, view.by) });
        let (endpoint, pin) = self.place(index, slot, steps);
        if endpoint != Some(report.endpoint) {
            let program = tables.endpoint(report.endpoint);
            let tables = endpoint.map_or_else(|| "nothing".to_owned(), |endpoint| tables.endpoint(endpoint));
            wrong.push(format!("the program went to {program}, slot and pin say {tables}"));
        }
        (Some(view), pin)
    }

    /// Where slot and pin send the packet. `None`: nowhere, which cannot be.
    fn place(&self, index: u32, slot: Slot, steps: &mut Vec<Step>) -> (Option<EndpointId>, Option<PinView>) {
        let (tables, report, maps) = (&self.specimen.tables, self.answer.report, &self.specimen.alone.maps);
        let name = |endpoint| tables.endpoint(endpoint);
        let mut say = |says: String| steps.push(Step { step: "pin", says });
        let reaches = |endpoint| Endpoint::reached(maps.endpoint(endpoint).links);
        let mut here = Placing {
            slot,
            pin: self.pin.map(|pin| pin.endpoint),
            noted: &|note| self.noted(note),
            went: report.endpoint,
            overflow: maps.overflow(report.class as u8, report.family, index),
            reaches: &reaches,
            made: None,
            refused: false,
        };
        let alone = report.proto == UDP && tables.class_row(report.class).flags & PER_PACKET != 0;
        let opens = report.opener != 0 || self.noted(Note::Repeated);
        let endpoint = match () {
            () if alone => place::alone(&mut here),
            () if opens => place::opener(&mut here).map(|opened| opened.endpoint),
            () => place::later(&mut here, true),
        };
        let (made, refused) = (here.made, here.refused);
        for (note, says) in [
            (Note::Repeated, "this opener was seen not long ago: it is no new flow"),
            (Note::Homed, "nobody leads any more: the slot's new flows came home"),
            (Note::Stranded, "no link leads to where the slot sends new flows: they stay local"),
            (Note::Surged, "the premises have no room for another new flow: it goes to the overflow"),
        ] {
            if self.noted(note) {
                say(says.to_owned());
            }
        }
        if alone || slot.state() == State::Stable {
            return (endpoint, None);
        }
        let view = PinView { found: self.pin.map(|pin| name(pin.endpoint)), made: made.map(name), refused };
        let which = if opens { "opens its flow" } else { "is of an older flow" };
        let went = endpoint.map_or_else(String::new, name);
        say(match (&view.found, &view.made) {
            (Some(found), _) => format!("the flow is pinned to {found}"),
            (None, Some(made)) => format!("the flow has none; this packet {which}, and is pinned to {made}"),
            (None, None) if refused => {
                format!("the flow has none, and none can be made, the table is full: it goes to {went}")
            }
            (None, None) => format!("the flow has none: it goes to {went}"),
        });
        (endpoint, Some(view))
    }

    fn endpoint(&self, direction: Direction, steps: &mut Vec<Step>) -> Option<EndpointView> {
        let (tables, report) = (&self.specimen.tables, self.answer.report);
        if report.endpoint == 0 {
            return None;
        }
        let row: Endpoint = self.specimen.alone.maps.endpoint(report.endpoint);
        let mode = match row.mode {
            MODE_NEXTHOP => "nexthop",
            MODE_DNAT => "dnat",
            MODE_GUE => "gue",
            MODE_IPIP => "ipip",
            _ => "none",
        };
        let address = (row.family != 0).then(|| narrow(row.family, row.address).to_string());
        let name = tables.endpoint(report.endpoint);
        let at = address.as_ref().map_or_else(String::new, |address| format!(" at {address}"));
        let says = match direction {
            Direction::Forward => format!("{name}, mode {mode}{at}"),
            Direction::Return => format!("a reply of {name}, mode {mode}{at}"),
        };
        steps.push(Step { step: "endpoint", says });
        Some(EndpointView { name, mode, address })
    }

    fn link(&self, direction: Direction, steps: &mut Vec<Step>, wrong: &mut Vec<String>) -> Option<LinkView> {
        let (specimen, report) = (self.specimen, self.answer.report);
        if report.link == 0 {
            return None;
        }
        let row = specimen.alone.maps.link(report.link as u8);
        let name = specimen.tables.link(report.link);
        let mut entry = None;
        if direction == Direction::Forward {
            let place = hash::link(self.key.hash(specimen.tables.policy.seed, false));
            entry = Some(place);
            let expected = link_at(specimen.alone.maps.endpoint(report.endpoint).links, place);
            if u32::from(expected) != report.link {
                let expected = specimen.tables.link(expected.into());
                wrong.push(format!("the program took link {name}, the endpoint's table says {expected}"));
            }
        }
        let macs: [u8; 12] = bytemuck::cast(row.macs);
        let half = |at: usize| crate::api::types::mac(std::array::from_fn(|n| macs[at + n]));
        let via_kernel = row.flags & VIA_KERNEL != 0;
        let view = LinkView {
            name,
            entry,
            device: specimen.device_name(row.ifindex).map(str::to_owned),
            vlan: (row.vlan != 0).then_some(row.vlan),
            next_hop: (!via_kernel).then(|| half(0)),
            source: (!via_kernel).then(|| half(6)),
            mtu: row.mtu,
        };
        let says = match direction {
            Direction::Return => format!("came by {}", view.name),
            Direction::Forward if row.ifindex == 0 => format!("{} is down", view.name),
            Direction::Forward => {
                let device = view.device.as_deref().unwrap_or("a device that is gone");
                let tag = view.vlan.map_or_else(String::new, |vlan| format!(" VLAN {vlan}"));
                let hop = view
                    .next_hop
                    .as_ref()
                    .map_or_else(|| "the routing table picks the way".to_owned(), |mac| format!("next hop {mac}"));
                let entry = entry.unwrap_or_default();
                format!(
                    "{} by entry {entry} of the endpoint's links: {device}{tag}, {hop}, mtu {}",
                    view.name, view.mtu
                )
            }
        };
        steps.push(Step { step: "link", says });
        Some(view)
    }
}

/// A comment as a sentence without mark-up.
fn plain(comment: &str) -> String {
    let text = comment.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "");
    let text = text.strip_suffix('.').unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
