//! burst's XDP program: the way of a packet.
//!
//! `bytes ─parse→ Flow ─classify→ Matched ─place→ endpoint ─rewrite→ Rewrite ─apply→ verdict + counter`. One stage, one
//! file, one verb; the modules are listed in that order, after what all of them use. `forward` and `reply` are the two
//! directions: they call the stages. `sentinel` stands beside that way: it looks at what leaves. Only this file and `sentinel` name
//! an XDP action; only `packet`, `parse`, `apply` and `sentinel` hold packet pointers; `packet` holds the only bounds check.
//!
//! The crate also compiles for the host, as an empty program, so that checks and lints need no exceptions.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// Assembly for BPF, one instruction of it, and the question whether a value is a constant: see `packet`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "`is_val_statically_known` has no stable name"))]

#[cfg(target_arch = "bpf")]
mod subprogram;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod parse;
#[cfg(target_arch = "bpf")]
mod classify;
#[cfg(target_arch = "bpf")]
mod opener;
#[cfg(target_arch = "bpf")]
mod place;
#[cfg(target_arch = "bpf")]
mod guard;
#[cfg(target_arch = "bpf")]
mod leave;
#[cfg(target_arch = "bpf")]
mod rewrite;
#[cfg(target_arch = "bpf")]
mod apply;
#[cfg(target_arch = "bpf")]
mod quoted;
#[cfg(target_arch = "bpf")]
mod mss;
#[cfg(target_arch = "bpf")]
mod outer;
#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod home;
#[cfg(target_arch = "bpf")]
mod reply;
#[cfg(target_arch = "bpf")]
mod tunnel;
#[cfg(target_arch = "bpf")]
mod usual;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod report;
#[cfg(target_arch = "bpf")]
mod bytes;
#[cfg(target_arch = "bpf")]
mod walk;
#[cfg(target_arch = "bpf")]
mod sentinel;
#[cfg(target_arch = "bpf")]
mod kernel_return;

#[cfg(target_arch = "bpf")]
mod program {
    use core::marker::PhantomData;

    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
    use aya_ebpf::bindings::xdp_md;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use burst_common::flow::{Addr4, Addr6};
    use burst_common::policy::{ROLE_CLIENT, constant};
    use burst_common::reason::{Action, Reason};

    use crate::count::{self, Account};
    use crate::guard::Guarded;
    use crate::packet::Packet;
    use crate::parse::{self, Frame, Kind, Usual, full};
    use crate::usual::Conclude;
    use crate::usual::home::Step;
    use crate::{forward, maps, reply, report, tunnel, usual};

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

    /// What is not decided there: from the start, step by step. A program of its own, with a stack of its own, to which `burst`
    /// jumps.
    #[xdp(frags)]
    #[inline(always)]
    pub fn burst_steps(ctx: XdpContext) -> u32 {
        unusual::<false>(ctx.ctx)
    }

    /// The same, and it reports.
    #[xdp(frags)]
    #[inline(always)]
    pub fn burst_steps_reporting(ctx: XdpContext) -> u32 {
        unusual::<true>(ctx.ctx)
    }

    #[inline(always)]
    fn judge<const REPORT: bool>(ctx: &XdpContext) -> u32 {
        let action = match parse::kind(&Packet::of(ctx.ctx)) {
            Kind::V4(packet) => usual::<REPORT, Addr4>(&packet),
            Kind::V6(packet) => usual::<REPORT, Addr6>(&packet),
            Kind::Other => None,
        };
        match action {
            Some(action) => action,
            None => {
                maps::go_on(ctx);
                // There is no such program: the instance is not whole.
                unread::<REPORT>(ctx.ctx, Reason::Unready.number() as u32 + 1)
            }
        }
    }

    /// What a subprogram returns of a packet that it neither touched nor counted: no XDP action.
    const NEXT: u32 = u32::MAX;

    /// A usual frame: a reply from the cloud if the device carries an untagged link and the source says so, else a packet from a
    /// client. `None`: it is neither touched nor counted.
    #[inline(always)]
    fn usual<const REPORT: bool, A: Usual>(packet: &Packet) -> Option<u32> {
        let checked = A::check(packet)?;
        if REPORT {
            report::flow(&A::frame(packet, &checked)?.flow);
        }
        let act = &Act::<REPORT, A> { packet, family: PhantomData };
        if let Some(link) = maps::policy().link(0) {
            match usual::home::home(packet, &A::frame(packet, &checked)?, link, act) {
                Step::Done(action) => return Some(action),
                Step::NotReturn => {}
                Step::Rare => return None,
            }
        }
        if constant(&maps::policy().role) & ROLE_CLIENT == 0 {
            return Some(act.conclude(&Account::new(checked.bytes()), Reason::NotReturn));
        }
        usual::out::out::<A>(packet, &checked, act)
    }

    /// How a usual frame's way ends.
    struct Act<'a, const REPORT: bool, A> {
        packet: &'a Packet,
        family: PhantomData<A>,
    }

    impl<const REPORT: bool, A: Usual> Conclude for Act<'_, REPORT, A> {
        #[inline(always)]
        fn conclude(&self, account: &Account, reason: Reason) -> u32 {
            if REPORT {
                report::verdict::<A>(&self.packet.context(), account, reason);
            }
            conclude(account, reason)
        }
    }

    /// All that is not a usual frame: what it is, is found step by step.
    #[inline(always)]
    fn unusual<const REPORT: bool>(ctx: *mut xdp_md) -> u32 {
        let missed = full::find_packet(ctx);
        if missed != 0 {
            return unread::<REPORT>(ctx, missed);
        }
        let missed = full::find_transport(ctx);
        if missed != 0 {
            return unread::<REPORT>(ctx, missed);
        }
        let Some(found) = maps::found() else { return XDP_PASS };
        // SAFETY: the row is this CPU's alone, and an XDP program is not preempted by another on its CPU.
        let link = maps::policy().link(unsafe { (*found).vlan } as u16);
        if tunnel::may_come()
            && let Some(link) = link
            && tunnel::open_tunnel(ctx, link) != 0
        {
            return opened::<REPORT>(ctx, found, link);
        }
        let missed = full::check_transport(ctx);
        if missed != 0 {
            return unread::<REPORT>(ctx, missed);
        }
        // SAFETY: as above.
        let v4 = unsafe { (*found).family } == 4;
        if let Some(link) = link {
            let action =
                if v4 { found_home::<REPORT, Addr4>(ctx, link) } else { found_home::<REPORT, Addr6>(ctx, link) };
            if action != NEXT {
                return action;
            }
        }
        if v4 { found_out::<REPORT, Addr4>(ctx) } else { found_out::<REPORT, Addr6>(ctx) }
    }

    #[inline(never)]
    fn found_home<const REPORT: bool, A: Guarded>(ctx: *mut xdp_md, link: u32) -> u32 {
        let packet = Packet::of(ctx);
        let Some(frame) = full::frame::<A>(&packet) else { return NEXT };
        home::<REPORT, A>(&packet, &frame, link)
    }

    #[inline(never)]
    fn found_out<const REPORT: bool, A: Guarded>(ctx: *mut xdp_md) -> u32 {
        let packet = Packet::of(ctx);
        let Some(frame) = full::frame::<A>(&packet) else { return XDP_PASS };
        out::<REPORT, A>(&packet, &frame)
    }

    /// A tunnel of an endpoint's. What is inside and cannot be read cannot be told to be a service's.
    #[inline(always)]
    fn opened<const REPORT: bool>(ctx: *mut xdp_md, found: *mut full::Found, link: u32) -> u32 {
        if full::find_transport(ctx) != 0 || full::check_transport(ctx) != 0 {
            let bypass = maps::control().is_none_or(|control| control.bypass != 0);
            let reason = if bypass { Reason::Bypass } else { Reason::Spoofed };
            return unread::<REPORT>(ctx, reason.number() as u32 + 1);
        }
        // SAFETY: as in `unusual`.
        if unsafe { (*found).family } == 4 {
            unwrap::<REPORT, Addr4>(ctx, link)
        } else {
            unwrap::<REPORT, Addr6>(ctx, link)
        }
    }

    /// A packet out of a tunnel.
    #[inline(never)]
    fn unwrap<const REPORT: bool, A: Guarded>(ctx: *mut xdp_md, link: u32) -> u32 {
        let packet = Packet::of(ctx);
        let mut account = Account::new(packet.linear_len());
        let reason = match tunnel::unwrap::<A>(&packet, link, &mut account) {
            Ok(reason) | Err(reason) => reason,
        };
        if REPORT {
            report::unread(&account, reason);
        }
        conclude(&account, reason)
    }

    /// A packet that no stage understood; `missed` is one more than the number of the reason.
    #[inline(never)]
    fn unread<const REPORT: bool>(ctx: *mut xdp_md, missed: u32) -> u32 {
        let account = Account::new(Packet::of(ctx).linear_len());
        let reason = Reason::from_number(missed - 1).unwrap_or(Reason::Unready);
        if REPORT {
            report::unread(&account, reason);
        }
        conclude(&account, reason)
    }

    /// A packet from a link, if it is an endpoint's answer.
    #[inline(always)]
    fn home<const REPORT: bool, A: Guarded>(packet: &Packet, frame: &Frame<A>, link: u32) -> u32 {
        if REPORT {
            report::flow(&frame.flow);
        }
        let mut account = Account::new(frame.bytes());
        let reason = reply::reply(packet, frame, link, &mut account);
        if matches!(reason, Reason::NotReturn) {
            return NEXT;
        }
        if REPORT {
            report::verdict::<A>(&packet.context(), &account, reason);
        }
        conclude(&account, reason)
    }

    /// A packet from a client, if the device has any.
    #[inline(always)]
    fn out<const REPORT: bool, A: Guarded>(packet: &Packet, frame: &Frame<A>) -> u32 {
        if REPORT {
            report::flow(&frame.flow);
        }
        let mut account = Account::new(frame.bytes());
        let reason = if constant(&maps::policy().role) & ROLE_CLIENT != 0 {
            forward::forward(packet, frame, &mut account)
        } else {
            Reason::NotReturn
        };
        if REPORT {
            report::verdict::<A>(&packet.context(), &account, reason);
        }
        conclude(&account, reason)
    }

    /// Counts the reason and turns it into an action.
    #[inline(always)]
    fn conclude(account: &Account, reason: Reason) -> u32 {
        count::verdict(account, reason);
        match reason.action() {
            Action::Pass => XDP_PASS,
            Action::Drop => XDP_DROP,
            Action::Redirect => XDP_REDIRECT,
        }
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
