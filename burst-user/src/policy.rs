//! Configuration → the policy the program is loaded with.

use ipnet::{Ipv4Net, Ipv6Net};
use burst_common::policy::Rules;

/// The dimensions of a policy that is too large to be matched inline, as the program's maps want them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Large {
    /// Destination prefixes; each carries the rules of those that cover it.
    pub dst4: Vec<(Ipv4Net, Rules)>,
    /// Source prefixes, likewise.
    pub src4: Vec<(Ipv4Net, Rules)>,
    /// Destination prefixes, likewise.
    pub dst6: Vec<(Ipv6Net, Rules)>,
    /// Source prefixes, likewise.
    pub src6: Vec<(Ipv6Net, Rules)>,
    /// (TCP 0 or UDP 65536) + port → rules; only those that are not zero.
    pub ports: Vec<(u32, Rules)>,
}
