//! What became of many packets: verdicts, places, and flows that do not stay where they are. Pure.

use std::collections::{BTreeMap, HashMap};

use burst_common::flow::TCP;
use burst_common::pin::PinKey;
use burst_common::reason::Reason;
use burst_common::slot::{EndpointId, LOCAL};

use super::specimen::Answer;
use super::tables::Direction;
use crate::kernel::Action;

/// Flows that break, of which more is said than their number.
const EXAMPLES: usize = 10;

/// Packets, bytes and openers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames as they came in.
    pub bytes: u64,
    /// Those that opened a flow.
    pub openers: u64,
}

impl Sum {
    fn add(&mut self, bytes: usize, opener: bool) {
        self.packets += 1;
        self.bytes += bytes as u64;
        self.openers += u64::from(opener);
    }
}

/// What a place has of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Packets towards it.
    pub sum: Sum,
    /// Flows that were placed there first.
    pub flows: u64,
}

/// What became of the packets of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassTally {
    /// By reason, in the order of the reasons' numbers.
    pub reasons: BTreeMap<usize, Sum>,
    /// Packets from clients by the endpoint they went to.
    pub places: BTreeMap<EndpointId, Place>,
    /// Flows from clients.
    pub flows: u64,
    /// Flows whose packets went to different places.
    pub broken: u64,
    /// Flows that lost a packet on their way out.
    pub stalled: u64,
    /// Flows that had begun before the capture did and were shifted.
    pub under_way: u64,
}

/// A flow that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Number of the packet that went elsewhere, from 1.
    pub packet: u64,
    /// Class id.
    pub class: u32,
    /// The flow.
    pub flow: PinKey,
    /// Where it was.
    pub from: EndpointId,
    /// Where this packet went.
    pub to: EndpointId,
    /// Why.
    pub reason: Reason,
}

struct Flow {
    endpoint: EndpointId,
    /// Nothing but openers was seen: a repeat must go where the first went.
    opening: bool,
    broken: bool,
    stalled: bool,
}

/// What became of many packets.
#[derive(Default)]
pub struct Tally {
    /// All packets.
    pub all: Sum,
    /// Bytes of the frames as they go on.
    pub bytes_out: u64,
    /// By action.
    pub actions: BTreeMap<Action, Sum>,
    /// By class id; 0 is none.
    pub classes: BTreeMap<u32, ClassTally>,
    /// The first flows that break.
    pub examples: Vec<Broken>,
    flows: HashMap<(u32, PinKey), Flow>,
}

impl Tally {
    /// Takes in a packet; `bytes` are those of the frame as it came in.
    pub fn add(&mut self, answer: &Answer, direction: Direction, keep: bool, bytes: usize) {
        let report = &answer.report;
        let opener = report.opener != 0;
        self.all.add(bytes, opener);
        if answer.action != Action::Drop {
            self.bytes_out += answer.len as u64;
        }
        self.actions.entry(answer.action).or_default().add(bytes, opener);
        let class = self.classes.entry(report.class).or_default();
        class.reasons.entry(answer.reason.number()).or_default().add(bytes, opener);
        if report.class == 0 || keep || direction == Direction::Return || report.family == 0 {
            return;
        }
        let Some(place) = placed(answer) else { return };
        let stalled = answer.action == Action::Drop || answer.reason == Reason::TooBigAnswered;
        class.places.entry(place).or_default().sum.add(bytes, opener);
        let key = report.flow();
        let begin = |class: &mut ClassTally| {
            class.flows += 1;
            class.stalled += u64::from(stalled);
            class.places.entry(place).or_default().flows += 1;
            Flow { endpoint: place, opening: opener, broken: false, stalled }
        };
        let Some(flow) = self.flows.get_mut(&(report.class, key)) else {
            if !opener && place != LOCAL && report.proto == TCP {
                class.under_way += 1;
            }
            self.flows.insert((report.class, key), begin(class));
            return;
        };
        if stalled && !flow.stalled {
            flow.stalled = true;
            class.stalled += 1;
        }
        if place == flow.endpoint {
            flow.opening &= opener;
            return;
        }
        if opener && !flow.opening {
            // The former flow of these addresses and ports is over.
            *flow = begin(class);
            return;
        }
        if !flow.broken {
            flow.broken = true;
            class.broken += 1;
            if self.examples.len() < EXAMPLES {
                let (from, to) = (flow.endpoint, place);
                let (packet, reason) = (self.all.packets, answer.reason);
                self.examples.push(Broken { packet, class: report.class, flow: key, from, to, reason });
            }
        }
        flow.opening = false;
    }

    /// The sum of a count over all classes.
    pub fn sum(&self, count: impl Fn(&ClassTally) -> u64) -> u64 {
        self.classes.values().map(count).sum()
    }
}

/// Where a packet of a flow went; `None` of one that says nothing of where its flow is.
fn placed(answer: &Answer) -> Option<EndpointId> {
    match answer.reason {
        // Answers to connections the service opened; and what the kernel answers by itself.
        Reason::SynAck | Reason::TtlExpired => None,
        // In shadow mode it would have gone there.
        Reason::Shifted | Reason::Shadow | Reason::TooBig | Reason::TooBigAnswered => Some(answer.report.endpoint),
        // Whatever else passes goes to the local stack.
        _ => Some(LOCAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burst_common::report::Report;
    use bytemuck::Zeroable;

    fn answer(port: u16, reason: Reason, endpoint: EndpointId, opener: bool) -> Answer {
        let action = match reason.action() {
            burst_common::reason::Action::Pass => Action::Pass,
            burst_common::reason::Action::Redirect => Action::Redirect,
            burst_common::reason::Action::Drop => Action::Drop,
        };
        let report = Report {
            class: 1,
            rule: 2,
            endpoint,
            src_port: port,
            family: 4,
            proto: TCP,
            opener: opener.into(),
            ..Report::zeroed()
        };
        Answer { action, reason, len: 60, report }
    }

    fn tally(packets: &[(u16, Reason, EndpointId, bool)]) -> Tally {
        let mut tally = Tally::default();
        for &(port, reason, endpoint, opener) in packets {
            tally.add(&answer(port, reason, endpoint, opener), Direction::Forward, false, 60);
        }
        tally
    }

    #[test]
    fn a_flow_breaks_when_its_packets_go_to_different_places() {
        use Reason::{Local, NoLink, Shifted, SynAck, TooBig, TtlExpired};
        for (what, packets, flows, broken) in [
            ("stays local", &[(1, Local, 0, true), (1, Local, 0, false)][..], 1, 0),
            ("stays in the cloud", &[(1, Shifted, 7, true), (1, Shifted, 7, false)], 1, 0),
            ("two flows", &[(1, Shifted, 7, true), (2, Local, 0, true), (1, Shifted, 7, false)], 2, 0),
            ("changes its endpoint", &[(1, Shifted, 7, true), (1, Shifted, 8, false), (1, Shifted, 7, false)], 1, 1),
            ("comes home within itself", &[(1, Shifted, 7, true), (1, Local, 0, false)], 1, 1),
            ("has no link for a packet", &[(1, Shifted, 7, true), (1, NoLink, 7, false)], 1, 1),
            ("a repeated opener goes elsewhere", &[(1, Shifted, 7, true), (1, Local, 0, true)], 1, 1),
            ("a port is used again", &[(1, Shifted, 7, true), (1, Shifted, 7, false), (1, Local, 0, true)], 2, 0),
            (
                "the kernel answers for it",
                &[(1, Shifted, 7, true), (1, TtlExpired, 7, false), (1, SynAck, 0, false)],
                1,
                0,
            ),
            ("too big is no other place", &[(1, Shifted, 7, true), (1, TooBig, 7, false)], 1, 0),
        ] {
            let tally = tally(packets);
            let class = &tally.classes[&1];
            assert_eq!((class.flows, class.broken, tally.examples.len() as u64), (flows, broken, broken), "{what}");
            assert_eq!(class.places.values().map(|place| place.flows).sum::<u64>(), flows, "{what}");
        }
    }

    #[test]
    fn flows_that_were_under_way_and_those_that_stall_are_counted_once() {
        let tally = tally(&[
            (1, Reason::Shifted, 7, false),
            (1, Reason::TooBig, 7, false),
            (1, Reason::TooBig, 7, false),
            (2, Reason::Local, 0, false),
            (3, Reason::Shifted, 7, true),
        ]);
        let class = &tally.classes[&1];
        assert_eq!((class.flows, class.under_way, class.stalled), (3, 1, 1));
        assert_eq!(tally.all, Sum { packets: 5, bytes: 300, openers: 1 });
        assert_eq!((tally.actions[&Action::Drop].packets, tally.bytes_out), (2, 180));
        assert_eq!(class.places[&7], Place { sum: Sum { packets: 4, bytes: 240, openers: 1 }, flows: 2 });
    }

    #[test]
    fn what_is_kept_or_comes_back_is_no_flow_of_a_place() {
        let mut tally = Tally::default();
        tally.add(&answer(1, Reason::Keep, 0, true), Direction::Forward, true, 60);
        tally.add(&answer(1, Reason::Returned, 7, false), Direction::Return, false, 60);
        let class = &tally.classes[&1];
        assert_eq!((class.flows, class.places.len(), class.reasons.len()), (0, 0, 2));
    }
}
