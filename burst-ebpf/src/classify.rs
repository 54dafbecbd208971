//! Flow → rule, inline or through maps, as the policy says.

use burst_common::classify::{self, Matched};
use burst_common::flow::{Addr4, Addr6, Address, Flow};
use burst_common::policy::{Policy, Rules, constant};

use crate::maps;

/// An address family the program can match.
pub trait Family: Address {
    /// Rules that do not ask for a destination: what [`Family::destination`] gives for an address no rule names.
    fn any_destination(policy: &Policy) -> Rules;
    /// Rules whose destination prefix holds this address.
    fn destination(self, policy: &Policy) -> Rules;
    /// Rules whose source prefix holds this address.
    fn source(self, policy: &Policy) -> Rules;
}

impl Family for Addr4 {
    #[inline(always)]
    fn any_destination(policy: &Policy) -> Rules {
        policy.dims.dst4.any()
    }
    #[inline(always)]
    fn destination(self, policy: &Policy) -> Rules {
        let table = &policy.dims.dst4;
        if constant(&policy.large) == 0 {
            classify::prefixes4(table, maps::rows().dst4.rows(), self)
        } else {
            table.any() | maps::destination4(self)
        }
    }
    #[inline(always)]
    fn source(self, policy: &Policy) -> Rules {
        let table = &policy.dims.src4;
        if constant(&policy.large) == 0 {
            classify::prefixes4(table, maps::rows().src4.rows(), self)
        } else {
            table.any() | maps::source4(self)
        }
    }
}

impl Family for Addr6 {
    #[inline(always)]
    fn any_destination(policy: &Policy) -> Rules {
        policy.dims.dst6.any()
    }
    #[inline(always)]
    fn destination(self, policy: &Policy) -> Rules {
        let table = &policy.dims.dst6;
        if constant(&policy.large) == 0 {
            classify::prefixes6(table, maps::rows().dst6.rows(), self)
        } else {
            table.any() | maps::destination6(self)
        }
    }
    #[inline(always)]
    fn source(self, policy: &Policy) -> Rules {
        let table = &policy.dims.src6;
        if constant(&policy.large) == 0 {
            classify::prefixes6(table, maps::rows().src6.rows(), self)
        } else {
            table.any() | maps::source6(self)
        }
    }
}

/// Whether a flow goes to a destination and port that a keep rule names, wherever it comes from. Rules that name no
/// destination do not count: they would mean clients whose own port is among theirs.
#[inline(always)]
pub fn kept<A: Family>(policy: &Policy, flow: &Flow<A>) -> bool {
    let named = flow.dst.destination(policy) & !A::any_destination(policy) & constant(&policy.keep);
    named != 0 && named & port_rules(policy, flow) != 0
}

#[inline(always)]
fn port_rules<A>(policy: &Policy, flow: &Flow<A>) -> Rules {
    let table = &policy.dims.ports;
    if constant(&policy.large) == 0 {
        classify::ports(table, maps::rows().ports.rows(), flow.proto, flow.dst_port)
    } else {
        table.any() | maps::ports(flow.proto, flow.dst_port)
    }
}

/// The rule that decides over a flow.
#[inline(always)]
pub fn classify<A: Family>(policy: &Policy, flow: &Flow<A>) -> Option<Matched> {
    // Most packets of an edge host go elsewhere: the destination is asked first.
    among(policy, flow.dst.destination(policy), flow)
}

/// The rule that decides over a flow, among those that its destination satisfies.
#[inline(always)]
pub fn among<A: Family>(policy: &Policy, mut rules: Rules, flow: &Flow<A>) -> Option<Matched> {
    if rules == 0 {
        return None;
    }
    rules &= port_rules(policy, flow);
    if rules == 0 {
        return None;
    }
    rules &= flow.src.source(policy);
    classify::lowest(policy, rules)
}
