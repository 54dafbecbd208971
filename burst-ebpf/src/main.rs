//! burst's XDP program: the way of a packet.
//!
//! `bytes ─parse→ Flow ─classify→ Matched ─place→ endpoint ─rewrite→ Rewrite ─apply→ verdict + counter`. One stage, one
//! file, one verb; the modules are listed in that order, after what all of them use. `forward` and `reply` are the two
//! directions: they call the stages. Only this file names an XDP action; only `packet`, `parse` and
//! `apply` hold packet pointers; `packet` holds the only bounds check.
//!
//! The crate also compiles for the host, as an empty program, so that checks and lints need no exceptions.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod parse;
#[cfg(target_arch = "bpf")]
mod classify;
#[cfg(target_arch = "bpf")]
mod place;
#[cfg(target_arch = "bpf")]
mod rewrite;
#[cfg(target_arch = "bpf")]
mod guard;
#[cfg(target_arch = "bpf")]
mod apply;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod reply;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod report;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use burst_common::policy::{ROLE_CLIENT, ROLE_LINK, constant};
    use burst_common::reason::{Action, Reason};

    use crate::classify::Family;
    use crate::count::{self, Account};
    use crate::packet::Packet;
    use crate::parse::{self, Frame, Parsed};
    use crate::{forward, maps, reply, report};

    /// Entry for client and link devices; what the device is, the instance knows from its policy.
    #[xdp(frags)]
    #[inline(always)]
    pub fn burst(ctx: XdpContext) -> u32 {
        judge::<false>(&ctx)
    }

    /// The same, and it reports what became of each packet: for instances that carry no traffic but are asked, and for
    /// those that are traced. An entry of its own, so that what nobody reads costs `burst` nothing, not even a register.
    #[xdp(frags)]
    #[inline(always)]
    pub fn burst_reporting(ctx: XdpContext) -> u32 {
        judge::<true>(&ctx)
    }

    #[inline(always)]
    fn judge<const REPORT: bool>(ctx: &XdpContext) -> u32 {
        let packet = Packet::new(ctx);
        let mut account = Account::new(packet.linear_len());
        let reason = match parse::parse(&packet) {
            Ok(Parsed::V4(frame)) => travel::<REPORT, _>(ctx, &packet, &frame, &mut account),
            Ok(Parsed::V6(frame)) => travel::<REPORT, _>(ctx, &packet, &frame, &mut account),
            Err(reason) => {
                if REPORT {
                    report::unread(&account, reason);
                }
                reason
            }
        };
        count::verdict(&account, reason);
        match reason.action() {
            Action::Pass => XDP_PASS,
            Action::Drop => XDP_DROP,
            Action::Redirect => XDP_REDIRECT,
        }
    }

    /// Chooses the direction: a reply from the cloud if the device carries a link and the source says so, else a
    /// packet from a client.
    #[inline(always)]
    fn travel<const REPORT: bool, A: Family>(
        ctx: &XdpContext,
        packet: &Packet,
        frame: &Frame<A>,
        account: &mut Account,
    ) -> Reason {
        let role = constant(&maps::policy().role);
        account.bytes = frame.bytes;
        let mut reason = Reason::NotReturn;
        if role & ROLE_LINK != 0 {
            reason = reply::reply(ctx, packet, frame, account);
        }
        if role & ROLE_CLIENT != 0 && matches!(reason, Reason::NotReturn) {
            reason = forward::forward(packet, frame, account);
        }
        if REPORT {
            report::verdict(ctx, frame, account, reason);
        }
        reason
    }

    /// A reachable panic is a program the verifier refuses: this loop never ends.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// The kernel lets only GPL-compatible programs call some helpers.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// On the host there is nothing to run: the object is built for the `bpf` target by `cargo xtask build`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
