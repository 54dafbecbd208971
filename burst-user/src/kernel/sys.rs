//! bpf(2) calls that aya does not offer. The only raw system calls of the crate.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_map_info};

/// One call. `attr` must be filled as the command demands.
///
/// # Safety
/// Every pointer in `attr` that the command follows must be valid until the call returns: to read, and to write where
/// the kernel answers, for as many bytes as the command and the sizes in `attr` (and of the map) say.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a live union of exactly the size that is passed; for pointers inside it the caller answers.
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
    // SAFETY: `path` is NUL-terminated and lives until the end of this function.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: a successful BPF_OBJ_GET returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Device of an XDP link (BPF_OBJ_GET_INFO_BY_FD); 0 once the device is gone or the link was detached.
pub(super) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: plain integers.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    // SAFETY: a struct of plain integers; the kernel may fill it with whatever it likes.
    unsafe { describe(link, &mut info) }?;
    // SAFETY: the link was made for XDP; its part of the union was written by the kernel, or is still zero.
    Ok(unsafe { info.__bindgen_anon_1.xdp.ifindex })
}

/// Sizes of a map's keys and values, in bytes (BPF_OBJ_GET_INFO_BY_FD).
fn map_sizes(map: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    // SAFETY: plain integers.
    let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
    // SAFETY: a struct of plain integers; the kernel may fill it with whatever it likes.
    unsafe { describe(map, &mut info) }?;
    Ok((info.key_size as usize, info.value_size as usize))
}

/// What the kernel says of an object (BPF_OBJ_GET_INFO_BY_FD).
///
/// # Safety
/// Any bytes must be a valid `T`, and none of them a pointer that the kernel is to write through.
unsafe fn describe<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = attr();
    attr.info.bpf_fd = object.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = std::ptr::from_mut(info) as u64;
    // SAFETY: `info` is live and as large as is said; the kernel writes no more than that. What it may write into it,
    // the caller answers for.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// Freezes a map for userspace writes (BPF_MAP_FREEZE).
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    // SAFETY: the command follows no pointer.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr) }.map(drop)
}

/// A position in a hash map between two batches: opaque to userspace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    position: u32,
    started: bool,
}

/// Reads the next entries of a hash map with keys of `K` and values of `V` bytes (BPF_MAP_LOOKUP_BATCH), as many as both
/// `keys` and `values` hold. Returns how many were read and whether the map is exhausted.
///
/// # Errors
/// When the map has other sizes, or the kernel refuses.
pub(super) fn lookup_batch<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [[u8; K]],
    values: &mut [[u8; V]],
) -> io::Result<(u32, bool)> {
    if map_sizes(map)? != (K, V) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the map's entries are not of {K} and {V} bytes"),
        ));
    }
    let entries = keys.len().min(values.len()).try_into().unwrap_or(u32::MAX);
    let mut next = 0u32;
    let mut attr = attr();
    attr.batch.in_batch = if cursor.started { std::ptr::from_ref(&cursor.position) as u64 } else { 0 };
    attr.batch.out_batch = std::ptr::from_mut(&mut next) as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = entries;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    // SAFETY: both slices have room for `entries` entries of this map's sizes, which were asked for above and never
    // change; a hash map's position is a u32 (kernel/bpf/hashtab.c, `__htab_map_lookup_and_delete_batch`).
    let done = match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) } {
        Ok(_) => false,
        // The end of the map; what was read before it counts.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    *cursor = Cursor { position: next, started: true };
    // SAFETY: the kernel wrote the number of entries back.
    Ok((unsafe { attr.batch.count }, done))
}
