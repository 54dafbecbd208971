//! The control word: what the daemon tells the running program without a reload.

use bytemuck::{Pod, Zeroable};

use crate::proof::layout;

/// The control word of [`crate::tables::Tables`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Control {
    /// Non-zero: everything passes (`burst bypass on`).
    pub bypass: u32,
    /// Seconds counted by the controller; a pin that is hit stores it. Stands still when the daemon is gone, so
    /// that no pin ages unseen.
    pub epoch: u32,
    /// Zero.
    pub pad: [u32; 14],
}
layout!(Control, size = 64, bypass @ 0, epoch @ 4, pad @ 8);
