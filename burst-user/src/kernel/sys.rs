//! bpf(2) calls that aya does not offer, and others that are unsafe. The only raw system calls of the crate.

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
    open(path, 0)
}

/// Opens a pinned map for reading: the kernel refuses to write through what is returned.
pub(super) fn open_pin_to_read(path: &Path) -> io::Result<OwnedFd> {
    open(path, aya_obj::generated::BPF_F_RDONLY)
}

fn open(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.file_flags = flags;
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

/// Id of the program behind an XDP link (BPF_OBJ_GET_INFO_BY_FD).
pub(super) fn link_program(link: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: plain integers.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    // SAFETY: a struct of plain integers; the kernel may fill it with whatever it likes.
    unsafe { describe(link, &mut info) }?;
    Ok(info.prog_id)
}

/// What matters of a map to those who copy it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// A number of `enum bpf_map_type`.
    pub(super) kind: u32,
    key_size: usize,
    /// Bytes of a value.
    pub(super) value_size: usize,
    /// Entries, at most.
    pub(super) entries: usize,
    /// Whether it can be mapped into memory.
    pub(super) mapped: bool,
}

/// The shape of a map (BPF_OBJ_GET_INFO_BY_FD).
pub(super) fn map_shape(map: BorrowedFd<'_>) -> io::Result<Shape> {
    // SAFETY: plain integers.
    let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
    // SAFETY: a struct of plain integers; the kernel may fill it with whatever it likes.
    unsafe { describe(map, &mut info) }?;
    Ok(Shape {
        kind: info.type_,
        key_size: info.key_size as usize,
        value_size: info.value_size as usize,
        entries: info.max_entries as usize,
        mapped: info.map_flags & aya_obj::generated::BPF_F_MMAPABLE != 0,
    })
}

/// Sizes of a map's keys and values, in bytes.
fn map_sizes(map: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    map_shape(map).map(|shape| (shape.key_size, shape.value_size))
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

/// All entries of a map: keys and values, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    key_size: usize,
    value_size: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Entries {
    /// Key and value of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.chunks_exact(self.key_size.max(1)).zip(self.values.chunks_exact(self.value_size.max(1)))
    }
}

/// Entries read by one call of [`read_all`], at most.
const BATCH: usize = 4096;

/// Reads a hash map, a trie or an array (BPF_MAP_LOOKUP_BATCH). Entries that come and go meanwhile may or may not be there.
pub(super) fn read_all(map: BorrowedFd<'_>) -> io::Result<Entries> {
    let Shape { key_size, value_size, entries, .. } = map_shape(map)?;
    let batch = entries.min(BATCH);
    let mut all = Entries { key_size, value_size, ..Entries::default() };
    let (mut keys, mut values) = (vec![0; key_size * batch], vec![0; value_size * batch]);
    // The position is a u32 for hash maps and a key for all others (kernel/bpf/syscall.c, `generic_map_lookup_batch`).
    let (mut position, mut next) = (vec![0u8; key_size.max(4)], vec![0u8; key_size.max(4)]);
    let mut started = false;
    loop {
        let mut attr = attr();
        attr.batch.in_batch = if started { position.as_ptr() as u64 } else { 0 };
        attr.batch.out_batch = next.as_mut_ptr() as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = batch as u32;
        attr.batch.map_fd = map.as_raw_fd() as u32;
        // SAFETY: both buffers have room for `batch` entries of this map's sizes, which were asked for above and never
        // change; a position is no longer than a key, or four bytes.
        let done = match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) } {
            Ok(_) => false,
            // The end of the map; what was read before it counts.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel wrote the number of entries back.
        let count = unsafe { attr.batch.count } as usize;
        all.keys.extend_from_slice(&keys[..count * key_size]);
        all.values.extend_from_slice(&values[..count * value_size]);
        if done {
            return Ok(all);
        }
        std::mem::swap(&mut position, &mut next);
        started = true;
    }
}

/// Reads an entry (BPF_MAP_LOOKUP_ELEM); `None` when there is none.
///
/// # Errors
/// When the key has another size, or the kernel refuses.
pub(super) fn read(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let (key_size, value_size) = map_sizes(map)?;
    sized(key, key_size, "key")?;
    let mut value = vec![0u8; value_size];
    let mut attr = attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    // SAFETY: key and value have this map's sizes; it is no map of CPUs, whose values are longer (the callers').
    match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes entries into a map (BPF_MAP_UPDATE_ELEM).
///
/// # Errors
/// When the map has other sizes, is full, or the kernel refuses.
pub(super) fn write_all(map: BorrowedFd<'_>, entries: &Entries) -> io::Result<()> {
    let (key_size, value_size) = map_sizes(map)?;
    for (key, value) in entries.iter() {
        sized(key, key_size, "key")?;
        sized(value, value_size, "value")?;
        let mut attr = attr();
        attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
        attr.__bindgen_anon_2.key = key.as_ptr() as u64;
        attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
        // SAFETY: key and value have this map's sizes and live until the call returns.
        unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }?;
    }
    Ok(())
}

fn sized(bytes: &[u8], size: usize, what: &str) -> io::Result<()> {
    if bytes.len() == size {
        return Ok(());
    }
    let message = format!("a {what} of {} bytes for a map whose {what}s have {size}", bytes.len());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Moves the calling thread into a new, empty network namespace, which ends with it.
pub(crate) fn leave_network() -> io::Result<()> {
    // SAFETY: the flag concerns the network of this thread alone: no memory, no descriptor and no file system.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Gives memory that is free back to the system. To load a program takes tens of megabytes for a moment, which glibc would
/// keep for good (malloc_trim(3)).
pub(crate) fn give_back_memory() {
    // SAFETY: no arguments that are pointers; it moves nothing that is in use. That it may have found nothing is no error.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
