//! Endpoint → what changes in the packet. Pure: `apply` writes it.

use burst_common::checksum::Delta;
use burst_common::endpoint::Endpoint;
use burst_common::flow::Flow;

use crate::classify::Family;

/// A changed address and port.
pub struct Changed<A> {
    /// Which of the two.
    pub side: Side,
    /// Former address.
    pub old: A,
    /// New address.
    pub addr: A,
    /// Former port, network byte order.
    pub old_port: u16,
    /// New port, network byte order.
    pub port: u16,
    /// What the change of the address does to a checksum over it.
    pub addr_delta: Delta,
    /// What both changes do to the transport checksum.
    pub delta: Delta,
}

/// Source or destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Source: a reply on its way to the client.
    Source,
    /// Destination: a packet on its way to an endpoint.
    Destination,
}

/// The rewrite of a packet on its way to an endpoint of mode `dnat`.
#[inline(always)]
pub fn outward<A: Family>(flow: &Flow<A>, endpoint: &Endpoint) -> Changed<A> {
    changed(Side::Destination, flow.dst, A::narrow(endpoint.address), flow.dst_port, endpoint.port(flow.dst_port))
}

/// The rewrite of a reply: `service` and `port` are what the client knows the endpoint by.
#[inline(always)]
pub fn homeward<A: Family>(flow: &Flow<A>, service: A, port: u16) -> Changed<A> {
    changed(Side::Source, flow.src, service, flow.src_port, port)
}

#[inline(always)]
fn changed<A: Family>(side: Side, old: A, addr: A, old_port: u16, port: u16) -> Changed<A> {
    let addr_delta = Delta::NONE.address(old.wide(), addr.wide());
    Changed { side, old, addr, old_port, port, addr_delta, delta: addr_delta.word(old_port, port) }
}
