//! What became of a capture, in all: for programs and for people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burst_common::flow::TCP;
use burst_common::reason::Reason;
use serde::Serialize;

use super::super::render::table::{Align, Table};
use super::super::render::{percent, scaled};
use crate::inspect::{Broken, ClassTally, Source, Specimen, Sum, Tables, Tally, action_text};
use crate::kernel::Action;

/// What is known of the run beside what became of the packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// Packets that were captured in part.
    pub(super) cut: u64,
    /// Those of them of which headers are missing.
    pub(super) cut_in_headers: u64,
    /// Packets too short to be put.
    pub(super) unasked: u64,
    /// Packets that were taken for replies.
    pub(super) returns: u64,
}

/// The whole summary.
#[derive(Serialize)]
pub(super) struct Summary {
    summary: Body,
}

#[derive(Serialize)]
struct Body {
    file: PathBuf,
    #[serde(rename = "in")]
    device: String,
    source: Source,
    shadow: bool,
    packets: u64,
    bytes: u64,
    bytes_out: u64,
    cut: u64,
    cut_in_headers: u64,
    shorter_than_ethernet: u64,
    replies: u64,
    actions: BTreeMap<&'static str, Count>,
    classes: Vec<ClassBody>,
    other: BTreeMap<&'static str, Count>,
    flows: u64,
    flows_broken: u64,
    flows_stalled: u64,
    flows_under_way: u64,
    broken: Vec<BrokenBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<PathBuf>,
}

#[derive(Clone, Copy, Serialize)]
struct Count {
    packets: u64,
    bytes: u64,
    openers: u64,
}

impl From<Sum> for Count {
    fn from(Sum { packets, bytes, openers }: Sum) -> Self {
        Self { packets, bytes, openers }
    }
}

#[derive(Serialize)]
struct ClassBody {
    class: String,
    packets: u64,
    bytes: u64,
    flows: u64,
    flows_broken: u64,
    flows_stalled: u64,
    flows_under_way: u64,
    places: Vec<PlaceBody>,
    reasons: BTreeMap<&'static str, Count>,
}

#[derive(Serialize)]
struct PlaceBody {
    /// `local`, or an endpoint.
    place: String,
    flows: u64,
    packets: u64,
    bytes: u64,
    share_of_flows: f64,
    share_of_bytes: f64,
}

#[derive(Serialize)]
struct BrokenBody {
    n: u64,
    class: String,
    flow: String,
    from: String,
    to: String,
    reason: &'static str,
}

impl Summary {
    pub(super) fn new(specimen: &Specimen, tally: &Tally, run: &Run, file: &Path, written: Option<&Path>) -> Self {
        let tables = &specimen.tables;
        let actions = [Action::Pass, Action::Tx, Action::Redirect, Action::Drop];
        let actions = actions
            .map(|action| (action_text(action), Count::from(tally.actions.get(&action).copied().unwrap_or_default())));
        let classes = tally.classes.iter().filter(|(id, _)| **id != 0);
        Self {
            summary: Body {
                file: file.to_owned(),
                device: specimen.device.clone(),
                source: specimen.source.clone(),
                shadow: tables.policy.shadow != 0,
                packets: tally.all.packets,
                bytes: tally.all.bytes,
                bytes_out: tally.bytes_out,
                cut: run.cut,
                cut_in_headers: run.cut_in_headers,
                shorter_than_ethernet: run.unasked,
                replies: run.returns,
                actions: actions.into(),
                classes: classes.map(|(id, class)| ClassBody::new(tables, *id, class)).collect(),
                other: tally.classes.get(&0).map(reasons).unwrap_or_default(),
                flows: tally.sum(|class| class.flows),
                flows_broken: tally.sum(|class| class.broken),
                flows_stalled: tally.sum(|class| class.stalled),
                flows_under_way: tally.sum(|class| class.under_way),
                broken: tally.examples.iter().map(|broken| BrokenBody::new(tables, broken)).collect(),
                written: written.map(Path::to_owned),
            },
        }
    }

    /// The summary for people.
    pub(super) fn render(&self) -> String {
        let body = &self.summary;
        let mut text = format!(
            "{}: {} packets, {}, arriving on {}\nmaps: {}\n",
            body.file.display(),
            body.packets,
            scaled(body.bytes as f64, "B"),
            body.device,
            body.source.text()
        );
        if body.shadow {
            text += "mode: shadow, nothing is shifted; places are where flows would be\n";
        }
        text += &body.render_oddities();
        text += &body.render_verdicts();
        for class in &body.classes {
            text += &class.render();
        }
        if !body.other.is_empty() {
            text += &format!("\npackets of no class\n{}", render_reasons(&body.other));
        }
        text += &body.render_broken();
        if let Some(written) = &body.written {
            let left = body.packets - body.actions.get("drop").map_or(0, |count| count.packets);
            text += &format!("\n{left} packets written to {}\n", written.display());
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl Body {
    fn render_oddities(&self) -> String {
        let mut text = String::new();
        if self.cut > 0 {
            text += &format!("{} packets were captured in part (snapshot length)", self.cut);
            text += &match self.cut_in_headers {
                0 => "; all their headers are there, so the verdicts hold\n".to_owned(),
                some => format!("; {some} of them lack headers, and their verdicts say no more than that\n"),
            };
        }
        if self.shorter_than_ethernet > 0 {
            text += &format!(
                "{} packets are shorter than an Ethernet header; they were not put to the program, which passes such\n",
                self.shorter_than_ethernet
            );
        }
        let too_big = |class: &ClassBody| {
            class.reasons.contains_key(Reason::TooBig.text())
                || class.reasons.contains_key(Reason::TooBigAnswered.text())
        };
        if self.classes.iter().any(too_big) {
            text += "some packets are larger than their link: in captures of hosts with GRO or LRO, packets are often merged\n";
        }
        text
    }

    fn render_verdicts(&self) -> String {
        let mut table = Table::new([
            ("VERDICT", Align::Left),
            ("PACKETS", Align::Right),
            ("SHARE", Align::Right),
            ("BYTES", Align::Right),
        ]);
        for (action, count) in self.actions.iter().filter(|(_, count)| count.packets > 0) {
            let share = percent(count.packets as f64 / self.packets.max(1) as f64);
            table.row([(*action).to_owned(), count.packets.to_string(), share, scaled(count.bytes as f64, "B")]);
        }
        format!("\n{}", table.render(""))
    }

    fn render_broken(&self) -> String {
        let mut text = match self.flows_broken {
            0 => "\nflows that would break: none\n".to_owned(),
            some => format!("\nflows that would break: {some} of {}\n", self.flows),
        };
        for broken in &self.broken {
            let BrokenBody { n, class, flow, from, to, reason } = broken;
            text +=
                &format!("  packet {n}: {flow} of class {class} was at {from}, this packet went to {to} ({reason})\n");
        }
        if self.flows_broken as usize > self.broken.len() {
            text += &format!("  and {} more\n", self.flows_broken as usize - self.broken.len());
        }
        if self.flows_stalled > 0 {
            text += &format!("flows that lost a packet because it is too big for the link: {}\n", self.flows_stalled);
        }
        if self.flows_under_way > 0 {
            text += &format!(
                "flows that were under way when the capture began, and are shifted here: {}; where a share changes, such \
                 flows stay where they are\n",
                self.flows_under_way
            );
        }
        text
    }
}

impl ClassBody {
    fn new(tables: &Tables, id: u32, class: &ClassTally) -> Self {
        let total = class.reasons.values().fold(Sum::default(), |all, sum| Sum {
            packets: all.packets + sum.packets,
            bytes: all.bytes + sum.bytes,
            openers: all.openers + sum.openers,
        });
        let bytes: u64 = class.places.values().map(|place| place.sum.bytes).sum();
        let share = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 / all as f64 };
        let places = class.places.iter().map(|(endpoint, place)| PlaceBody {
            place: tables.endpoint(*endpoint),
            flows: place.flows,
            packets: place.sum.packets,
            bytes: place.sum.bytes,
            share_of_flows: share(place.flows, class.flows),
            share_of_bytes: share(place.sum.bytes, bytes),
        });
        Self {
            class: tables.class(id),
            packets: total.packets,
            bytes: total.bytes,
            flows: class.flows,
            flows_broken: class.broken,
            flows_stalled: class.stalled,
            flows_under_way: class.under_way,
            places: places.collect(),
            reasons: reasons(class),
        }
    }

    fn render(&self) -> String {
        let mut text =
            format!("\nclass {} · {} packets · {}", self.class, self.packets, scaled(self.bytes as f64, "B"));
        if self.places.is_empty() {
            text += "\n";
        } else {
            let mut table = Table::new([
                ("PLACE", Align::Left),
                ("FLOWS", Align::Right),
                ("SHARE", Align::Right),
                ("PACKETS", Align::Right),
                ("BYTES", Align::Right),
                ("SHARE", Align::Right),
            ]);
            for place in &self.places {
                table.row([
                    place.place.clone(),
                    place.flows.to_string(),
                    percent(place.share_of_flows),
                    place.packets.to_string(),
                    scaled(place.bytes as f64, "B"),
                    percent(place.share_of_bytes),
                ]);
            }
            text += &format!(" · {} flows\n{}", self.flows, table.render("  "));
        }
        text + &render_reasons(&self.reasons)
    }
}

impl BrokenBody {
    fn new(tables: &Tables, broken: &Broken) -> Self {
        let flow = &broken.flow;
        let proto = if flow.proto() == TCP { "tcp" } else { "udp" };
        Self {
            n: broken.packet,
            class: tables.class(broken.class),
            flow: format!("{proto} {} to {}", flow.source(), flow.destination()),
            from: tables.endpoint(broken.from),
            to: tables.endpoint(broken.to),
            reason: broken.reason.text(),
        }
    }
}

fn reasons(class: &ClassTally) -> BTreeMap<&'static str, Count> {
    let text = |number: usize| Reason::ALL.iter().find(|reason| reason.number() == number).map(|reason| reason.text());
    class.reasons.iter().filter_map(|(number, sum)| Some((text(*number)?, Count::from(*sum)))).collect()
}

fn render_reasons(reasons: &BTreeMap<&'static str, Count>) -> String {
    let mut table = Table::new([
        ("REASON", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("OPENERS", Align::Right),
    ]);
    for (reason, count) in reasons {
        let (packets, openers) = (count.packets.to_string(), count.openers.to_string());
        table.row([(*reason).to_owned(), packets, scaled(count.bytes as f64, "B"), openers]);
    }
    table.render("  ")
}
