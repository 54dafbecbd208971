//! What an instance reports of the last packet it judged: for `explain` and `replay`, which ask a second instance that
//! carries no traffic. The entry of those that do has none of this.

use bytemuck::{Pod, Zeroable};

use crate::pin::PinKey;
use crate::proof::layout;
use crate::slot::EndpointId;

/// The only row of the map `REPORT`: written as a whole for every packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Report {
    /// Packets reported so far: who reads a row sees by it that it is of the packet that was asked about.
    pub packets: u64,
    /// Source address of the flow that decided, as in the packet; IPv4 in the first word.
    pub src: [u32; 4],
    /// Destination address.
    pub dst: [u32; 4],
    /// Length as it is counted.
    pub bytes: u32,
    /// Class id; 0 is none.
    pub class: u32,
    /// Number of the rule that decided, plus one; 0 is none.
    pub rule: u32,
    /// Index of the slot that was asked, plus one; 0 is none.
    pub slot: u32,
    /// Link id: the one chosen on the way out, the instance's own for a reply; 0 is none.
    pub link: u32,
    /// Device that was asked for, by its index: the link's, or what the routing table said; 0 is none.
    pub device: u32,
    /// Where the packet was placed, or which endpoint answered; 0 is local or none.
    pub endpoint: EndpointId,
    /// Source port, network byte order.
    pub src_port: u16,
    /// Destination port, network byte order.
    pub dst_port: u16,
    /// Number of the reason.
    pub reason: u8,
    /// Family of the flow, 4 or 6; 0: the packet was not understood, and nothing is said of a flow: what stands there is of another packet.
    pub family: u8,
    /// Protocol.
    pub proto: u8,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// 1 if it was counted as one that opens its flow, else 0.
    pub opener: u8,
    /// Zero.
    pub pad: [u8; 5],
}
layout!(
    Report,
    size = 80,
    packets @ 0,
    src @ 8,
    dst @ 24,
    bytes @ 40,
    class @ 44,
    rule @ 48,
    slot @ 52,
    link @ 56,
    device @ 60,
    endpoint @ 64,
    src_port @ 66,
    dst_port @ 68,
    reason @ 70,
    family @ 71,
    proto @ 72,
    flags @ 73,
    opener @ 74,
    pad @ 75,
);

impl Report {
    /// The flow that decided.
    #[must_use]
    pub const fn flow(&self) -> PinKey {
        PinKey::of(self.family, self.proto, (self.src, self.src_port), (self.dst, self.dst_port))
    }
}
