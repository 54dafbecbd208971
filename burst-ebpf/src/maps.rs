//! The maps and the policy, behind typed getters. Nothing else names a map.
//!
//! SLOTS, TABLES, RETURNS, GATEWAYS, ADMISSION and COUNTS are memory-mapped by the daemon. TABLES, RETURNS and GATEWAYS are written by it
//! alone, one word at a time where a reader must not see half; words of SLOTS by both, by compare-and-swap.

use aya_ebpf::bindings::xdp_action::XDP_REDIRECT;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, DevMapHash, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_redirect_map};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use burst_common::admission::Admission;
use burst_common::control::Control;
use burst_common::counter::{Counter, Counts};
use burst_common::endpoint::Endpoint;
use burst_common::event::Event;
use burst_common::flow::{Addr4, Addr6, TCP};
use burst_common::gateway::{Gateway, Vlan};
use burst_common::limits::{
    EVENT_BYTES, MAX_CLASSES, MAX_INSTANCES, MAX_LINKS, MAX_PINS, MAX_PREFIXES, MAX_REPEATS, MAX_RETURNS, MAX_SLOTS,
    MAX_VLANS, OVERFLOW_ROWS,
};
use burst_common::link::Link;
use burst_common::meta::{Meta, NAMES, Name};
use burst_common::pin::{Pin, PinKey};
use burst_common::policy::{Dimensions, Guard, Policy, Rules, constant};
use burst_common::report::Report;
use burst_common::returns::Return;
use burst_common::slot::{EndpointId, Slot};
use burst_common::tables::Tables;

use crate::home::Home;
use crate::parse::full::Found;

/// The kernel maps no array writable that programs may only read (`bpf_map_mmap`), so `BPF_F_RDONLY_PROG` cannot say
/// who writes: the getters below do, and none of them gives a pointer to write through but those of counters.
const SHARED: usize = BPF_F_MMAPABLE as usize;
const TRIE: usize = (aya_ebpf::bindings::BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG) as usize;

/// A token bucket.
#[repr(C)]
pub struct Budget {
    /// When it was last filled, in nanoseconds of the coarse clock.
    pub filled: u64,
    /// What is left.
    pub tokens: u64,
}

/// Replaced by the loader, then frozen. Read through [`policy`] and `burst_common::policy::constant`.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
static POLICY: Policy = {
    // SAFETY: `Policy` is `Zeroable`; `bytemuck::zeroed` is not `const`.
    unsafe { core::mem::zeroed() }
};

/// The rows of the policy's tables, and of the guard's, once more: as in `POLICY` and `GUARD`, but where the verifier does not
/// know them (see `burst_common::classify`). Replaced and frozen likewise.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.rows")]
static ROWS: [Dimensions; 2] = {
    // SAFETY: as for `POLICY`.
    unsafe { core::mem::zeroed() }
};

/// Replaced and frozen likewise; read through [`guard`].
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
static GUARD: Guard = {
    // SAFETY: as for `POLICY`.
    unsafe { core::mem::zeroed() }
};

#[btf_map]
static SLOTS: Array<u64, MAX_SLOTS, SHARED> = Array::new();
#[btf_map]
static TABLES: Array<Tables, 1, SHARED> = Array::new();
#[btf_map]
static RETURNS: Array<Return, MAX_RETURNS, SHARED> = Array::new();
#[btf_map]
static GATEWAYS: Array<Gateway, 2, SHARED> = Array::new();
#[btf_map]
static VLANS: HashMap<u32, Vlan, MAX_VLANS> = HashMap::new();
#[btf_map]
static EVENTS: RingBuf<Event, EVENT_BYTES> = RingBuf::new();
#[btf_map]
static PINS: HashMap<PinKey, Pin, MAX_PINS> = HashMap::new();
#[btf_map]
static REPEATS: Array<u64, MAX_REPEATS, SHARED> = Array::new();
#[btf_map]
static ADMISSION: Array<Admission, MAX_CLASSES, SHARED> = Array::new();
#[btf_map]
static DEVICES: DevMapHash<MAX_LINKS> = DevMapHash::new();
/// The program that goes on with what is not decided at once, of each instance.
#[btf_map]
static STEPS: ProgramArray<MAX_INSTANCES> = ProgramArray::new();
/// Of which device. Userspace's own, like the next two.
#[btf_map]
static PLACES: Array<u32, MAX_INSTANCES> = Array::new();
#[btf_map]
static META: Array<Meta, 1> = Array::new();
#[btf_map]
static NAMES_OF: Array<Name, NAMES> = Array::new();

// One element for each possible CPU: the loader says how many there are.
#[btf_map]
static COUNTS: Array<Counts, 1, SHARED> = Array::new();

// Of this instance alone: what it reports of the last packet, if it does.
#[btf_map]
static REPORT: Array<Report, 1, SHARED> = Array::new();

// Large policies; of this instance alone, filled and frozen before it is attached. A `Rules` word as two halves: the
// trie keeps values behind the address, which aligns them to four bytes only. PORTS is frozen but not BPF_F_RDONLY_PROG: the
// verifier would then read it ahead of time, which it cannot do in an array of more than one entry (ENOTSUPP).
#[btf_map]
static DST4: LpmTrie<[u8; 4], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static SRC4: LpmTrie<[u8; 4], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static DST6: LpmTrie<[u8; 16], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static SRC6: LpmTrie<[u8; 16], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static PORTS: Array<u64, { 2 << 16 }> = Array::new();

// The same for a large set of keep rules: the guard shares nothing with what it guards against.
#[btf_map]
static KEEP_DST4: LpmTrie<[u8; 4], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static KEEP_SRC4: LpmTrie<[u8; 4], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static KEEP_DST6: LpmTrie<[u8; 16], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static KEEP_SRC6: LpmTrie<[u8; 16], [u32; 2], MAX_PREFIXES, TRIE> = LpmTrie::new();
#[btf_map]
static KEEP_PORTS: Array<u64, { 2 << 16 }> = Array::new();

/// Where the headers of a packet are that is not a usual one.
#[btf_map]
static FOUND: PerCpuArray<Found, 1> = PerCpuArray::new();

/// The way home of a packet, for a subprogram.
#[btf_map]
static WAY: PerCpuArray<Home, 1> = PerCpuArray::new();

/// How many "too big" answers this CPU may still give.
#[btf_map]
static ANSWERS: PerCpuArray<Budget, 1> = PerCpuArray::new();

/// Where in `STEPS` the other program of this instance is. Replaced and frozen likewise.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
static STEP: u32 = 0;

/// Jumps to the program that goes on with this packet; returns only where there is none.
#[inline(always)]
pub fn go_on(ctx: &XdpContext) {
    // SAFETY: nothing is left to be dropped.
    unsafe { STEPS.tail_call(ctx, constant(&STEP)) };
}

/// The policy of this instance.
#[inline(always)]
pub fn policy() -> &'static Policy {
    &POLICY
}

/// The rows of the policy's tables.
#[inline(always)]
pub fn rows() -> &'static Dimensions {
    &ROWS[0]
}

/// The rows of the guard's tables.
#[inline(always)]
pub fn guard_rows() -> &'static Dimensions {
    &ROWS[1]
}

/// The row in which the last packet is reported.
#[inline(always)]
pub fn reported() -> Option<*mut Report> {
    REPORT.get_ptr_mut(0)
}

/// A slot word, by one load.
#[inline(always)]
pub fn slot(index: u32) -> Option<Slot> {
    let word = SLOTS.get_ptr(index)?;
    // SAFETY: the map's memory outlives the program; the word is aligned and only ever stored whole.
    Some(Slot::from_word(unsafe { core::ptr::read_volatile(word) }))
}

/// The same word, to be replaced by compare-and-swap.
#[inline(always)]
pub fn slot_word(index: u32) -> Option<*mut u64> {
    SLOTS.get_ptr_mut(index)
}

/// Replaces a word in a map, if it still is `old`; gives what was there.
///
/// In assembly: the standard library has no compare-and-swap for this target, whose oldest version has none.
///
/// # Safety
/// `word` is aligned and lies in an element of a map.
#[inline(always)]
pub unsafe fn swap(word: *mut u64, old: u64, new: u64) -> u64 {
    let seen;
    // SAFETY: the caller promises the word; the instruction compares with r0 and leaves there what was in memory
    // (Documentation/bpf/standardization/instruction-set.rst, "Atomic operations").
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word, new = in(reg) new, inlateout("r0") old => seen,
            options(nostack, preserves_flags),
        );
    }
    seen
}

/// The row in which openers are remembered.
#[inline(always)]
pub fn repeat(row: u32) -> Option<*mut u64> {
    REPEATS.get_ptr_mut(row)
}

/// The row of a class's surge guard.
#[inline(always)]
pub fn admission(class: u32) -> Option<*mut Admission> {
    ADMISSION.get_ptr_mut(class)
}

/// Where the new flows of a class's slot go for which there is no room.
#[inline(always)]
pub fn overflow(class: u32, family: u8, slot: u32) -> Option<EndpointId> {
    let row = ADMISSION.get_ptr(class)?;
    let entry = slot as usize & (OVERFLOW_ROWS - 1);
    // SAFETY: array elements live as long as the program; an entry is a part of a word that the daemon stores whole.
    Some(unsafe { (*row).overflow[usize::from(family == 6)][entry] })
}

/// The flags of a class.
#[inline(always)]
pub fn class_flags(class: u32) -> u32 {
    constant(&POLICY.classes[class as usize & (MAX_CLASSES - 1)].flags)
}

/// Control word, links and endpoints.
#[inline(always)]
pub fn tables() -> Option<&'static Tables> {
    // SAFETY: array elements live as long as the program; rows named by a slot are complete before they are named.
    TABLES.get_ptr(0).map(|tables| unsafe { &*tables })
}

/// A row of the endpoint table.
#[inline(always)]
pub fn endpoint(id: EndpointId) -> Option<&'static Endpoint> {
    tables().map(|tables| tables.endpoint(id))
}

/// A row of the link table.
#[inline(always)]
pub fn link(id: u8) -> Option<&'static Link> {
    tables().map(|tables| tables.link(id))
}

/// A row of the return table.
#[inline(always)]
pub fn returns(row: u32) -> Option<&'static Return> {
    // SAFETY: as for `tables`; a row's `proto` is stored last.
    RETURNS.get_ptr(row).map(|row| unsafe { &*row })
}

/// The control word.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    tables().map(|tables| &tables.control)
}

/// The pin of a flow, seen now: a hit stores the epoch if it changed.
#[inline(always)]
pub fn pinned(key: &PinKey, epoch: u32) -> Option<EndpointId> {
    let pin = PINS.get_ptr_mut(key)?;
    // SAFETY: a preallocated element stays mapped until the program ends; words are written whole.
    unsafe {
        if (*pin).epoch != epoch {
            (*pin).epoch = epoch;
        }
        Some((*pin).endpoint)
    }
}

/// Pins a flow. `Err` is the kernel's errno: `EEXIST` when another packet of the flow was first.
#[inline(always)]
pub fn pin(key: &PinKey, pin: &Pin) -> Result<(), i32> {
    PINS.insert(key, pin, u64::from(BPF_NOEXIST))
}

/// Prepares the redirect of this packet out of the device `ifindex`. `false` if that is not a device of burst's; then
/// nothing is prepared.
#[inline(always)]
pub fn redirect(ifindex: u32) -> bool {
    // SAFETY: a helper, on a map that lives as long as the program.
    unsafe {
        bpf_redirect_map(core::ptr::from_ref(&DEVICES).cast_mut().cast(), u64::from(ifindex), 0)
            == i64::from(XDP_REDIRECT)
    }
}

/// The counters of this CPU.
#[inline(always)]
pub fn counts() -> Option<*mut Counter> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    COUNTS.get_ptr_mut(cpu).map(<*mut Counts>::cast)
}

/// Rules of the longest IPv4 destination prefix, covering ones included.
#[inline(always)]
pub fn destination4(addr: Addr4) -> Rules {
    DST4.get(&Key::new(32, addr.to_ne_bytes())).map_or(0, whole)
}

/// Rules of the longest IPv4 source prefix, covering ones included.
#[inline(always)]
pub fn source4(addr: Addr4) -> Rules {
    SRC4.get(&Key::new(32, addr.to_ne_bytes())).map_or(0, whole)
}

/// Rules of the longest IPv6 destination prefix, covering ones included.
#[inline(always)]
pub fn destination6(addr: Addr6) -> Rules {
    DST6.get(&Key::new(128, octets(addr))).map_or(0, whole)
}

/// Rules of the longest IPv6 source prefix, covering ones included.
#[inline(always)]
pub fn source6(addr: Addr6) -> Rules {
    SRC6.get(&Key::new(128, octets(addr))).map_or(0, whole)
}

/// Rules of a protocol (TCP, else UDP) and destination port (network byte order).
#[inline(always)]
pub fn ports(proto: u8, port: u16) -> Rules {
    let half = if proto == TCP { 0 } else { 1 << 16 };
    PORTS.get(half + u32::from(u16::from_be(port))).map_or(0, |rules| *rules)
}

/// The keep rules, as guard and sentinel have them.
#[inline(always)]
pub fn guard() -> &'static Guard {
    &GUARD
}

/// Rules of the longest IPv4 prefix among the guard's destinations (`false`) or sources (`true`).
#[inline(always)]
pub fn keep4(source: bool, addr: Addr4) -> Rules {
    let trie = if source { &KEEP_SRC4 } else { &KEEP_DST4 };
    trie.get(&Key::new(32, addr.to_ne_bytes())).map_or(0, whole)
}

/// Rules of the longest IPv6 prefix among the guard's destinations (`false`) or sources (`true`).
#[inline(always)]
pub fn keep6(source: bool, addr: Addr6) -> Rules {
    let trie = if source { &KEEP_SRC6 } else { &KEEP_DST6 };
    trie.get(&Key::new(128, octets(addr))).map_or(0, whole)
}

/// The guard's rules of a protocol (TCP, else UDP) and destination port (network byte order).
#[inline(always)]
pub fn keep_ports(proto: u8, port: u16) -> Rules {
    let half = if proto == TCP { 0 } else { 1 << 16 };
    KEEP_PORTS.get(half + u32::from(u16::from_be(port))).map_or(0, |rules| *rules)
}

/// The row of a family's gateway.
#[inline(always)]
pub fn gateway(family: u8) -> Option<&'static Gateway> {
    // SAFETY: as for `tables`; a row that is being written says that it does not count.
    GATEWAYS.get_ptr(Gateway::row(family)).map(|row| unsafe { &*row })
}

/// Parent and tag of a VLAN device.
#[inline(always)]
pub fn vlan(ifindex: u32) -> Option<Vlan> {
    // SAFETY: preallocated; a row is two words, and one that is rewritten meanwhile names devices of this host both times.
    unsafe { VLANS.get(ifindex) }.copied()
}

/// Reports an event; one that finds the ring full is lost, and only counted.
#[inline(always)]
pub fn report(event: &Event) {
    if let Some(mut entry) = EVENTS.reserve(0) {
        entry.write(*event);
        // BPF_RB_FORCE_WAKEUP is not asked for: the reader polls.
        entry.submit(0);
    }
}

/// Nanoseconds since boot, as of the last timer tick.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Where the headers of this CPU's packet are, if it is not a usual one.
#[inline(always)]
pub fn found() -> Option<*mut Found> {
    FOUND.get_ptr_mut(0)
}

/// The way home of this CPU's packet, for a subprogram.
#[inline(always)]
pub fn way() -> Option<*mut Home> {
    WAY.get_ptr_mut(0)
}

/// This CPU's budget of answers.
#[inline(always)]
pub fn answers() -> Option<*mut Budget> {
    ANSWERS.get_ptr_mut(0)
}

#[inline(always)]
fn whole(halves: &[u32; 2]) -> Rules {
    u64::from(halves[0]) | u64::from(halves[1]) << 32
}

#[inline(always)]
fn octets(addr: Addr6) -> [u8; 16] {
    bytemuck::cast(addr)
}
