//! The control word: what the daemon tells the running program without a reload.

use bytemuck::{Pod, Zeroable};

use crate::proof::layout;

/// Parts of a slot group that come home one after the other, see [`Control::homing`].
pub const HOME_STEPS: u64 = 64;

/// The control word of [`crate::tables::Tables`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Control {
    /// Non-zero: everything passes (`burst bypass on`).
    pub bypass: u32,
    /// Seconds counted by the controller; a pin that is hit stores it. Stands still when the daemon is gone, so
    /// that no pin ages unseen.
    pub epoch: u32,
    /// The lease: until when the controller's last word is to be trusted. Nanoseconds of `CLOCK_MONOTONIC`, which is what
    /// `bpf_ktime_get_coarse_ns` reads. 0: for ever.
    pub lease: u64,
    /// How long after that new flows keep to the slots as they are, in nanoseconds.
    pub hold: u64,
    /// How long after that each of the [`HOME_STEPS`] parts of the slots takes to come home, in nanoseconds.
    pub step: u64,
    /// Zero.
    pub pad: [u32; 8],
}
layout!(Control, size = 64, bypass @ 0, epoch @ 4, lease @ 8, hold @ 16, step @ 24, pad @ 32);

impl Control {
    /// Offset of [`Control::lease`], for userspace that publishes only this word.
    pub const LEASE_OFFSET: usize = core::mem::offset_of!(Self, lease);
    /// Offset of [`Control::hold`].
    pub const HOLD_OFFSET: usize = core::mem::offset_of!(Self, hold);
    /// Offset of [`Control::step`].
    pub const STEP_OFFSET: usize = core::mem::offset_of!(Self, step);

    /// Whether a slot's new flows are to come home at `now` (nanoseconds of `CLOCK_MONOTONIC`), because nobody leads any more. Slot by
    /// slot, so that the premises get them back no faster than in `HOME_STEPS * step`.
    #[inline(always)]
    #[must_use]
    pub const fn homing(&self, slot: u32, now: u64) -> bool {
        let from = self.lease.wrapping_add(self.hold);
        // Slots are drawn by a hash of their number: their order says nothing of where they are.
        let turn = slot as u64 & (HOME_STEPS - 1);
        self.lease != 0 && now > from && now - from > turn.wrapping_mul(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_home_one_part_after_the_other_once_nobody_leads() {
        let control = Control { lease: 1_000, hold: 500, step: 10, ..Control::zeroed() };
        let home = |control: Control, now| (0..128).filter(|slot| control.homing(*slot, now)).count();
        assert_eq!([0, 1_000, 1_001, 1_500].map(|now| home(control, now)), [0; 4], "leased, then held");
        assert_eq!(
            [1_501, 1_511, 1_820, 2_130, 2_131, u64::MAX].map(|now| home(control, now)),
            [2, 4, 64, 126, 128, 128]
        );
        assert!(control.homing(64, 1_501) && !control.homing(63, 1_501));
        assert_eq!(home(Control { lease: 0, ..control }, u64::MAX), 0, "no lease, none that ends");
        assert_eq!(home(Control { lease: u64::MAX - 600, ..control }, u64::MAX - 200), 0, "far away, not long ago");
    }
}
