//! Programs and maps that are not burst's: hand-written XDP programs of a few instructions, and maps of any layout. Raw
//! bpf(2), so that nothing of what is under test takes part in making them.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;

const BPF_MAP_CREATE: i64 = 0;
const BPF_PROG_LOAD: i64 = 5;
const BPF_OBJ_PIN: i64 = 6;
const BPF_LINK_CREATE: i64 = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// To the next program (`TCX_NEXT`).
const TCX_NEXT: i32 = -1;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 4;
const XDP_PASS: i32 = 2;
/// `bpf_redirect`.
const HELPER_REDIRECT: i32 = 23;

/// A plain array map (`BPF_MAP_TYPE_ARRAY`).
pub const ARRAY: u32 = 2;

/// `attr` of BPF_PROG_LOAD, as in the kernel's `include/uapi/linux/bpf.h`, up to the fields used here.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// `attr` of BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// `attr` of BPF_OBJ_PIN.
#[repr(C)]
struct ObjectPin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `attr` of BPF_MAP_CREATE: what makes a map's layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Type of the map ([`ARRAY`]).
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Entries.
    pub entries: u32,
    /// Flags.
    pub flags: u32,
}

fn bpf<T>(command: i64, attributes: &T) -> Result<i32> {
    // SAFETY: the attributes live through the call, are as long as said, and point only to memory that does, too.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    ensure!(result >= 0, "bpf command {command}: {}", std::io::Error::last_os_error());
    Ok(i32::try_from(result)?)
}

/// A command that answers a new descriptor.
fn open<T>(command: i64, attributes: &T) -> Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the callers' commands answer a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const fn instruction(code: u8, registers: u8, immediate: i32) -> u64 {
    code as u64 | (registers as u64) << 8 | (immediate.cast_unsigned() as u64) << 32
}

/// Attaches a program natively, by a link that lasts until the answer is dropped.
fn attach(namespace: &Namespace, device: &str, instructions: &[u64]) -> Result<OwnedFd> {
    let load = ProgramLoad {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: u32::try_from(instructions.len())?,
        instructions: instructions.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        attach_type: BPF_XDP,
        ..ProgramLoad::default()
    };
    let program = open(BPF_PROG_LOAD, &load)?;
    let link = LinkCreate {
        program: u32::try_from(program.as_raw_fd())?,
        ifindex: namespace.ifindex(device)?,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    namespace.run(|| open(BPF_LINK_CREATE, &link))?
}

/// Passes every frame that enters at a device, natively, until the answer is dropped.
///
/// # Errors
/// When the kernel refuses, for example because another program is attached.
pub fn pass(namespace: &Namespace, device: &str) -> Result<OwnedFd> {
    // r0 = XDP_PASS; return r0.
    attach(namespace, device, &[instruction(0xb7, 0, XDP_PASS), instruction(0x95, 0, 0)])
}

/// Lets every packet pass that leaves by a device, as a program of traffic control named `foreign` (tcx), until the answer is
/// dropped.
///
/// # Errors
/// When a device does not exist or the kernel refuses.
pub fn egress(namespace: &Namespace, device: &str) -> Result<OwnedFd> {
    classifier(namespace, device, BPF_TCX_EGRESS)
}

/// As [`egress`], of what arrives by a device.
///
/// # Errors
/// As [`egress`].
pub fn ingress(namespace: &Namespace, device: &str) -> Result<OwnedFd> {
    classifier(namespace, device, BPF_TCX_INGRESS)
}

fn classifier(namespace: &Namespace, device: &str, attach_type: u32) -> Result<OwnedFd> {
    // r0 = TCX_NEXT; return r0.
    let instructions = [instruction(0xb7, 0, TCX_NEXT), instruction(0x95, 0, 0)];
    let mut load = ProgramLoad {
        program_type: BPF_PROG_TYPE_SCHED_CLS,
        instruction_count: u32::try_from(instructions.len())?,
        instructions: instructions.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        ..ProgramLoad::default()
    };
    load.name[..7].copy_from_slice(b"foreign");
    let program = open(BPF_PROG_LOAD, &load)?;
    let link = LinkCreate {
        program: u32::try_from(program.as_raw_fd())?,
        ifindex: namespace.ifindex(device)?,
        attach_type,
        flags: 0,
    };
    namespace.run(|| open(BPF_LINK_CREATE, &link))?
}

/// Redirects every frame that enters at `from` out of `to`, natively, until the answer is dropped.
///
/// # Errors
/// When a device does not exist or the kernel refuses.
pub fn wire(namespace: &Namespace, from: &str, to: &str) -> Result<OwnedFd> {
    let to = i32::try_from(namespace.ifindex(to)?)?;
    // r1 = to; r2 = 0; r0 = bpf_redirect(r1, r2); return r0.
    let instructions = [
        instruction(0xb7, 1, to),
        instruction(0xb7, 2, 0),
        instruction(0x85, 0, HELPER_REDIRECT),
        instruction(0x95, 0, 0),
    ];
    attach(namespace, from, &instructions)
}

/// Makes a map and pins it; it lasts as long as its pin.
///
/// # Errors
/// When the kernel refuses the map, or `path` is not on a bpffs.
pub fn pin_map(layout: Layout, path: &Path) -> Result<()> {
    let map = open(BPF_MAP_CREATE, &layout).with_context(|| format!("making a map of {layout:?}"))?;
    let text = CString::new(path.as_os_str().as_bytes())?;
    let pin = ObjectPin { path: text.as_ptr().addr() as u64, fd: u32::try_from(map.as_raw_fd())?, flags: 0 };
    bpf(BPF_OBJ_PIN, &pin).with_context(|| format!("pinning at {}", path.display()))?;
    Ok(())
}
