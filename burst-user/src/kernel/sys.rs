//! bpf(2) calls that aya does not offer. The only raw system calls of the crate.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info};

/// One call. `attr` must be filled as the command demands.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a live union of exactly the size that is passed; pointers inside it are the caller's, each
    // valid for the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn attr() -> bpf_attr {
    // SAFETY: a union of plain integers; all-zero is what bpf(2) asks unused fields to be.
    unsafe { std::mem::zeroed() }
}

/// Opens a pinned object (BPF_OBJ_GET).
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: a successful BPF_OBJ_GET returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Device of an XDP link (BPF_OBJ_GET_INFO_BY_FD); 0 once the device is gone or the link was detached.
pub(super) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: plain integers.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attr = attr();
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_link_info>() as u32;
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: the link was made for XDP; its part of the union was written by the kernel, or is still zero.
    Ok(unsafe { info.__bindgen_anon_1.xdp.ifindex })
}

/// Freezes a map for userspace writes (BPF_MAP_FREEZE).
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// A position in a hash map between two batches: opaque to userspace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    position: u32,
    started: bool,
}

/// Reads the next entries of a hash map (BPF_MAP_LOOKUP_BATCH) into `keys` and `values`, which hold `key_size` and
/// `value_size` bytes per entry. Returns how many were read and whether the map is exhausted.
pub(super) fn lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [u8],
    values: &mut [u8],
    entries: u32,
) -> io::Result<(u32, bool)> {
    let mut next = 0u32;
    let mut attr = attr();
    attr.batch.in_batch = if cursor.started { std::ptr::from_ref(&cursor.position) as u64 } else { 0 };
    attr.batch.out_batch = std::ptr::from_mut(&mut next) as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = entries;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    let done = match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => false,
        // The end of the map; what was read before it counts.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    *cursor = Cursor { position: next, started: true };
    // SAFETY: the kernel wrote the number of entries back.
    Ok((unsafe { attr.batch.count }, done))
}
