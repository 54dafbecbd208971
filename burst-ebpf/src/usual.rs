//! The usual way: what nearly every packet is and becomes, decided without a call.
//!
//! A usual frame whose outcome is one of a few takes it here; whatever is rarer is `None`, untouched, and takes the way step by
//! step (`forward`, `reply`), which decides from the start with the same stages. So this way needs few registers, and no
//! packet on it pays for what happens to others. A return costs more than its instruction where the processor must not predict
//! it (Linux, Documentation/admin-guide/hw-vuln/srso.rst): there is none on it but those of helpers, of segment sizes (a SYN
//! that leaves, a SYN-ACK that comes home) and of the routing table (a reply where no gateway is cached).

use burst_common::reason::Reason;

use crate::count::Account;

pub mod out;
pub mod home;

/// What this way ends with: it counts the packet, and knows the action.
pub trait Conclude {
    /// The action of a packet with this verdict.
    fn conclude(&self, account: &Account, reason: Reason) -> u32;
}
