//! What the daemon tells the running program: control word, links and endpoints, in one element of one map, so that the program
//! looks up once for all that it asks of a packet. Slots are another map: they are as large as an element may be
//! (kernel/bpf/arraymap.c, `array_map_alloc_check`).

use crate::control::Control;
use crate::endpoint::Endpoint;
use crate::limits::{MAX_ENDPOINTS, MAX_LINKS};
use crate::link::Link;
use crate::proof::layout;
use crate::slot::EndpointId;

/// The tables.
#[repr(C)]
pub struct Tables {
    /// The control word.
    pub control: Control,
    links: [Link; MAX_LINKS],
    endpoints: [Endpoint; MAX_ENDPOINTS],
}
layout!(Tables, size = 64 + 64 * MAX_LINKS + 64 * MAX_ENDPOINTS, control @ 0, links @ 64, endpoints @ 64 + 64 * MAX_LINKS);

impl Tables {
    /// Byte offset of the rows of links.
    pub const LINKS_OFFSET: usize = core::mem::offset_of!(Self, links);
    /// Byte offset of the rows of endpoints.
    pub const ENDPOINTS_OFFSET: usize = core::mem::offset_of!(Self, endpoints);

    /// The row of a link; ids are below [`MAX_LINKS`].
    #[inline(always)]
    #[must_use]
    pub const fn link(&self, id: u8) -> &Link {
        &self.links[id as usize & (MAX_LINKS - 1)]
    }

    /// The row of an endpoint; ids are below [`MAX_ENDPOINTS`].
    #[inline(always)]
    #[must_use]
    pub const fn endpoint(&self, id: EndpointId) -> &Endpoint {
        &self.endpoints[id as usize & (MAX_ENDPOINTS - 1)]
    }
}
