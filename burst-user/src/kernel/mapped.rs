//! Memory-mapped arrays: counters are read and slots written without a system call.
//!
//! Rows are seen as whole 64-bit words, each read and written atomically, as the program on the other side does; a row
//! of several words can be seen half-written, and the callers order their writes so that this does no harm.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped array of `T`.
pub struct Mapped<T> {
    base: NonNull<AtomicU64>,
    bytes: usize,
    /// Words before the first row.
    first: usize,
    rows: usize,
    rest: PhantomData<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread; all access goes through atomics.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8);
        size_of::<T>() / 8
    };

    /// Maps the array behind `fd`, made with `BPF_F_MMAPABLE`, of `rows` rows of `T`.
    ///
    /// # Errors
    /// When the kernel refuses: the map is smaller, frozen, or not mappable.
    pub fn new(fd: impl AsFd, rows: usize) -> io::Result<Self> {
        Self::part(fd, 0, rows)
    }

    /// Maps the array behind `fd` as far as `rows` rows of `T` that begin `offset` bytes into it.
    ///
    /// # Errors
    /// As [`Mapped::new`].
    pub fn part(fd: impl AsFd, offset: usize, rows: usize) -> io::Result<Self> {
        assert!(offset.is_multiple_of(8));
        let bytes = offset + rows * size_of::<T>();
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours.
        let base =
            unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes, first: offset / 8, rows, rest: PhantomData })
    }

    fn words(&self, row: usize) -> &[AtomicU64] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: behind `first` words the mapping covers `rows` rows of `WORDS` aligned words, and it lives as long as `self`; `row`
        // is below `rows`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.first + row * Self::WORDS), Self::WORDS) }
    }

    /// Reads a row, word by word.
    #[must_use]
    pub fn read(&self, row: usize) -> T {
        let mut value = T::zeroed();
        let words = self.words(row);
        for (chunk, word) in bytemuck::bytes_of_mut(&mut value).chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        value
    }

    /// Writes a row, word by word, and makes it visible before anything that is written later.
    pub fn write(&self, row: usize, value: &T) {
        for (chunk, word) in bytemuck::bytes_of(value).chunks_exact(8).zip(self.words(row)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(bytes), Ordering::Release);
        }
    }

    /// Writes the word at byte `offset` of a row: one store, seen wholly or not at all.
    pub fn write_word(&self, row: usize, offset: usize, word: u64) {
        assert!(offset.is_multiple_of(8));
        self.words(row)[offset / 8].store(word, Ordering::Release);
    }

    /// Makes every row zero, word by word.
    pub fn clear(&self) {
        // SAFETY: behind `first` words the mapping covers `rows` rows of `WORDS` aligned words, and it lives as long as `self`.
        let words = unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.first), self.rows * Self::WORDS) };
        words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Replaces the word at byte `offset` of a row, if it still is `old`.
    ///
    /// # Errors
    /// What stands there instead.
    pub fn swap_word(&self, row: usize, offset: usize, old: u64, new: u64) -> Result<(), u64> {
        assert!(offset.is_multiple_of(8));
        let word = &self.words(row)[offset / 8];
        word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    /// Changes the word at byte `offset` of a row that others write, too: what they write meanwhile is neither lost nor
    /// undone, also when they are other processes. Gives the word as it was before.
    pub fn change_word(&self, row: usize, offset: usize, new: impl Fn(u64) -> u64) -> u64 {
        assert!(offset.is_multiple_of(8));
        let word = &self.words(row)[offset / 8];
        let mut former = word.load(Ordering::Acquire);
        while let Err(found) = word.compare_exchange_weak(former, new(former), Ordering::AcqRel, Ordering::Acquire) {
            former = found;
        }
        former
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this base and length and is not used after this.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(result.is_ok(), "munmap: {result:?}");
    }
}
