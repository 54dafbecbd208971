//! What the program goes by, as userspace can read it: policy and names.

use burst_common::policy::{BY_CLIENT, Class, Policy, ROLE_CLIENT, ROLE_LINK};
use burst_common::reason::Reason;
use burst_common::report::Report;
use burst_common::slot::{EndpointId, base};

use crate::policy::dimensions::Large;
use crate::policy::ids::Names;
use crate::policy::matcher::Matcher;

/// Policy and names.
#[derive(Clone, Debug)]
pub struct Tables {
    /// What the instance was told.
    pub policy: Policy,
    /// The rows of its maps, when the policy does not fit inline.
    pub large: Option<Large>,
    /// The names behind the ids.
    pub names: Names,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client to a service.
    Forward,
    /// From a link to a client.
    Return,
}

impl Tables {
    /// Name of a class; its number, where it has none any more.
    #[must_use]
    pub fn class(&self, id: u32) -> String {
        let name = u8::try_from(id).ok().and_then(|id| self.names.class(id));
        name.map_or_else(|| format!("#{id}"), str::to_owned)
    }

    /// Name of a link, likewise.
    #[must_use]
    pub fn link(&self, id: u32) -> String {
        let name = u8::try_from(id).ok().and_then(|id| self.names.link(id));
        name.map_or_else(|| format!("#{id}"), str::to_owned)
    }

    /// Name of an endpoint within its class, likewise; `local` for the premises.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> String {
        match (id, self.names.endpoint(id)) {
            (0, _) => "local".to_owned(),
            (_, Some(name)) => name.split_once('/').map_or(name, |(_, rest)| rest).to_owned(),
            (id, None) => format!("#{id}"),
        }
    }

    /// What the packet path knows of a class.
    #[must_use]
    pub fn class_row(&self, id: u32) -> Class {
        self.policy.classes[id as usize % self.policy.classes.len()]
    }

    /// Whether the slots of a class are chosen by client, not by flow.
    #[must_use]
    pub fn by_client(&self, class: u32) -> bool {
        self.class_row(class).flags & BY_CLIENT != 0
    }

    /// Number of a slot within its class and family, by its index.
    #[must_use]
    pub fn slot_number(&self, class: u32, family: u8, index: u32) -> u32 {
        index.wrapping_sub(base(class as u8, family))
    }

    /// Number of a rule within its class, from 1, as the configuration has them.
    #[must_use]
    pub fn rule_number(&self, rule: u32) -> u32 {
        let class = |rule: u32| self.policy.rule_class[rule as usize % self.policy.rule_class.len()];
        (0..rule).filter(|other| class(*other) == class(rule)).count() as u32 + 1
    }

    /// What a rule asks for.
    #[must_use]
    pub fn rule_text(&self, rule: u32) -> String {
        super::rules::text(&self.policy, self.large.as_ref(), rule)
    }

    /// The packet path's answer to which rule decides, by the same tables.
    #[must_use]
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher::of(&self.policy, self.large.as_ref())
    }

    /// Which way a packet was taken to go: from a link, if the instance has one and the program found a reply.
    #[must_use]
    pub fn direction(&self, report: &Report, reason: Reason) -> Direction {
        let (client, link) = (self.policy.role & ROLE_CLIENT != 0, self.policy.role & ROLE_LINK != 0);
        // A reply has a class without a rule; or none, where the kernel is to have it as it came.
        let reply = report.class != 0 && report.rule == 0
            || matches!(reason, Reason::ToHost | Reason::NoRoute | Reason::Spoofed | Reason::Congested);
        if link && (!client || reply) { Direction::Return } else { Direction::Forward }
    }
}

/// The reason of a report; `None` when it is a number of another version.
#[must_use]
pub(super) fn reason(report: &Report) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.number() == usize::from(report.reason))
}
