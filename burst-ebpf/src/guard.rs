//! The guard: whether a flow is one that must not leave, from tables of its own. Asked immediately before a packet is
//! made to leave, and by the sentinel for every frame that goes out to a link. It shares no table with `classify`.

use burst_common::classify;
use burst_common::flow::{Addr4, Addr6, Flow};
use burst_common::policy::{Rules, constant};

use crate::classify::Family;
use crate::maps;

/// An address family that the guard can match.
pub trait Guarded: Family {
    /// Keep rules whose destination prefix holds this address, and among them those that ask for no destination.
    fn guard_destination(self) -> (Rules, Rules);
    /// Keep rules whose source prefix holds this address.
    fn guard_source(self) -> Rules;
}

impl Guarded for Addr4 {
    #[inline(always)]
    fn guard_destination(self) -> (Rules, Rules) {
        let guard = maps::guard();
        let table = &guard.dims.dst4;
        let named = if constant(&guard.large) == 0 { 0 } else { maps::keep4(false, self) };
        (classify::prefixes4(table, maps::guard_rows().dst4.rows(), self) | named, table.any())
    }
    #[inline(always)]
    fn guard_source(self) -> Rules {
        let guard = maps::guard();
        let named = if constant(&guard.large) == 0 { 0 } else { maps::keep4(true, self) };
        classify::prefixes4(&guard.dims.src4, maps::guard_rows().src4.rows(), self) | named
    }
}

impl Guarded for Addr6 {
    #[inline(always)]
    fn guard_destination(self) -> (Rules, Rules) {
        let guard = maps::guard();
        let table = &guard.dims.dst6;
        let named = if constant(&guard.large) == 0 { 0 } else { maps::keep6(false, self) };
        (classify::prefixes6(table, maps::guard_rows().dst6.rows(), self) | named, table.any())
    }
    #[inline(always)]
    fn guard_source(self) -> Rules {
        let guard = maps::guard();
        let named = if constant(&guard.large) == 0 { 0 } else { maps::keep6(true, self) };
        classify::prefixes6(&guard.dims.src6, maps::guard_rows().src6.rows(), self) | named
    }
}

#[inline(always)]
fn ports(proto: u8, port: u16) -> Rules {
    let guard = maps::guard();
    let named = if constant(&guard.large) == 0 { 0 } else { maps::keep_ports(proto, port) };
    classify::ports(&guard.dims.ports, maps::guard_rows().ports.rows(), proto, port) | named
}

/// Whether a packet of this flow, on its way to a service, matches a keep rule.
#[inline(always)]
pub fn keeps<A: Guarded>(flow: &Flow<A>) -> bool {
    // Port first: it is the cheapest.
    let mut rules = ports(flow.proto, flow.dst_port);
    if rules == 0 {
        return false;
    }
    rules &= flow.dst.guard_destination().0;
    rules != 0 && rules & flow.src.guard_source() != 0
}

/// Whether a packet of this flow, on its way to a client, speaks to a destination and port that a keep rule names,
/// whoever sends it. Rules that name no destination do not count: they would mean clients whose own port is among theirs.
#[inline(always)]
pub fn keeps_from<A: Guarded>(flow: &Flow<A>) -> bool {
    let (rules, any) = flow.dst.guard_destination();
    let named = rules & !any;
    named != 0 && named & ports(flow.proto, flow.dst_port) != 0
}

/// Whether an address pair alone, of a packet without ports, matches a keep rule that asks for none.
#[inline(always)]
pub fn keeps_portless<A: Guarded>(src: A, dst: A) -> bool {
    let rules = maps::guard().dims.ports.any();
    rules != 0 && rules & dst.guard_destination().0 & src.guard_source() != 0
}

/// Whether a keep rule names the source or the destination of a packet whose ports and protocol cannot be told: it may be
/// one of that rule's. Rules that name neither do not count: they would mean every such packet.
#[inline(always)]
pub fn keeps_addresses<A: Guarded>(src: A, dst: A) -> bool {
    let dims = &maps::guard().dims;
    let (to, any_to) = dst.guard_destination();
    let any_from = if A::FAMILY == 4 { dims.src4.any() } else { dims.src6.any() };
    to & src.guard_source() & !(any_to & any_from) != 0
}
