//! A row: one frame, where it enters, and everything that is to come of it.

use burst_common::counter::{Counter, IN, OUT};
use burst_common::reason::{Note, Reason};

use super::counters::{Count, Moved};

/// What the program may answer (include/uapi/linux/bpf.h, `enum xdp_action`). Written here again, so that a test does
/// not take the program's word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_REDIRECT`, out of this device.
    Redirect(&'static str),
}

impl Verdict {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Drop => 1,
            Self::Pass => 2,
            Self::Redirect(_) => 4,
        }
    }
}

/// A packet that is redirected to an endpoint or home: which ids it is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Class id.
    pub class: usize,
    /// Endpoint id; `None` where no endpoint is known (a `nexthop` reply).
    pub endpoint: Option<u16>,
    /// Link id; `None` where the device's instance carries several.
    pub link: Option<u8>,
}

/// One frame and what is to come of it. Unless told otherwise, the frame stays as it is and nothing is counted but the
/// verdict, with the frame's length.
#[derive(Clone, Debug)]
#[must_use = "a row proves nothing before `Bed::check`"]
pub struct Row {
    /// The promise.
    pub name: String,
    /// The frame as it enters.
    pub frame: Vec<u8>,
    /// The program's answer.
    pub verdict: Verdict,
    /// The frame as it goes on.
    pub out: Vec<u8>,
    /// The counters that move.
    pub moved: Moved,
}

impl Row {
    fn new(name: impl Into<String>, frame: Vec<u8>, verdict: Verdict, count: Count) -> Self {
        let counter = Counter { packets: 1, bytes: frame.len() as u64, openers: 0 };
        Self { name: name.into(), out: frame.clone(), frame, verdict, moved: [(count, counter)].into() }
    }

    /// A frame that goes on to the kernel, counted under a class (0 is none) and a reason.
    pub fn passes(name: impl Into<String>, frame: Vec<u8>, class: usize, reason: Reason) -> Self {
        Self::new(name, frame, Verdict::Pass, Count::Class(class, reason.number()))
    }

    /// A frame that is dropped.
    pub fn dropped(name: impl Into<String>, frame: Vec<u8>, class: usize, reason: Reason) -> Self {
        Self::new(name, frame, Verdict::Drop, Count::Class(class, reason.number()))
    }

    /// A frame that leaves for an endpoint by `device`, as `out`.
    pub fn leaves(name: impl Into<String>, frame: Vec<u8>, device: &'static str, leg: Leg, out: Vec<u8>) -> Self {
        Self::redirected(name, frame, device, (leg, OUT), Reason::Shifted, out)
    }

    /// A reply that goes home by `device`, as `out`.
    pub fn returns(name: impl Into<String>, frame: Vec<u8>, device: &'static str, leg: Leg, out: Vec<u8>) -> Self {
        Self::redirected(name, frame, device, (leg, IN), Reason::Returned, out)
    }

    /// A frame that is too big for its link, and goes back by `device` as `answer`.
    pub fn answered(
        name: impl Into<String>,
        frame: Vec<u8>,
        device: &'static str,
        class: usize,
        answer: Vec<u8>,
    ) -> Self {
        let count = Count::Class(class, Reason::TooBigAnswered.number());
        Self::new(name, frame, Verdict::Redirect(device), count).becomes(answer)
    }

    /// A frame that goes on to the kernel as `out`, which sends it to an endpoint.
    pub fn renamed(name: impl Into<String>, frame: Vec<u8>, leg: Leg, out: Vec<u8>) -> Self {
        let mut row = Self::redirected(name, frame, "", (leg, OUT), Reason::ShiftedKernel, out);
        row.verdict = Verdict::Pass;
        row
    }

    /// A reply from a link that the kernel routes, sent on by the program as `out`.
    pub fn returns_from_kernel(name: impl Into<String>, frame: Vec<u8>, leg: Leg, out: Vec<u8>) -> Self {
        Self::redirected(name, frame, "", (leg, IN), Reason::ReturnedKernel, out)
    }

    fn redirected(
        name: impl Into<String>,
        frame: Vec<u8>,
        device: &'static str,
        (leg, direction): (Leg, usize),
        reason: Reason,
        out: Vec<u8>,
    ) -> Self {
        let verdict = Count::Class(leg.class, reason.number());
        let mut row = Self::new(name, frame, Verdict::Redirect(device), verdict).becomes(out);
        let counter = row.moved[&verdict];
        row.moved.extend(leg.endpoint.map(|id| (Count::Endpoint(id, direction), counter)));
        row.moved.extend(leg.link.map(|id| (Count::Link(id, direction), counter)));
        row
    }

    /// The frame goes on as `out`.
    pub fn becomes(mut self, out: Vec<u8>) -> Self {
        self.out = out;
        self
    }

    /// It is counted as one that opens a flow.
    pub fn opens(mut self) -> Self {
        self.moved.values_mut().for_each(|counter| counter.openers = counter.packets);
        self
    }

    /// It is counted with this length instead of the frame's.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.moved.values_mut().for_each(|counter| counter.bytes = bytes as u64);
        self
    }

    /// A note is counted, too: an occurrence without bytes. Comes last.
    pub fn notes(mut self, class: usize, note: Note) -> Self {
        self.moved.insert(Count::Class(class, note.number()), Counter { packets: 1, bytes: 0, openers: 0 });
        self
    }
}
