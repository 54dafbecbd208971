//! All counters of the packet path at one moment, and which of them moved since.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use burst_common::counter::{CLASS_ROWS, Counter, ENDPOINT_ROWS, OUT, ROWS};
use burst_common::limits::MAX_REASONS;
use burst_common::reason::{Note, Reason};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// One counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Class id and the number of a [`Reason`] or a [`Note`].
    Class(usize, usize),
    /// Endpoint id and direction (`OUT`, `IN`).
    Endpoint(u16, usize),
    /// Link id and direction.
    Link(u8, usize),
}

impl Count {
    /// What a row of one CPU counts.
    fn of_row(row: usize) -> Self {
        if row < CLASS_ROWS {
            return Self::Class(row / MAX_REASONS, row % MAX_REASONS);
        }
        let row = row - CLASS_ROWS;
        if row < ENDPOINT_ROWS {
            return Self::Endpoint((row / 2) as u16, row % 2);
        }
        let row = row - ENDPOINT_ROWS;
        Self::Link((row / 2) as u8, row % 2)
    }
}

/// As a failed test shows it.
impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |direction: usize| if direction == OUT { "out" } else { "in" };
        match *self {
            Self::Class(class, row) => {
                let reason = Reason::ALL.iter().find(|reason| reason.number() == row).map(|reason| reason.text());
                let note = Note::ALL.iter().find(|note| note.number() == row).map(|note| note.text());
                write!(f, "class {class} {}", reason.or(note).unwrap_or("a row without a name"))
            }
            Self::Endpoint(id, direction) => write!(f, "endpoint {id} {}", way(direction)),
            Self::Link(id, direction) => write!(f, "link {id} {}", way(direction)),
        }
    }
}

/// Counters that moved, and by how much.
pub type Moved = BTreeMap<Count, Counter>;

/// One map of counters, as a window into the kernel's memory.
struct Window {
    base: NonNull<Counter>,
    rows: usize,
    /// Rows of one CPU.
    per_cpu: usize,
    /// What a row of one CPU counts.
    name: fn(usize) -> Count,
}

impl Window {
    fn open(path: &Path, per_cpu: usize, cpus: usize, name: fn(usize) -> Count) -> Result<Self> {
        let map = MapData::from_pin(path).with_context(|| path.display().to_string())?;
        let rows = per_cpu * cpus;
        let length = rows * size_of::<Counter>();
        // SAFETY: a fresh read-only mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, map.fd().as_fd(), 0)
                .with_context(|| path.display().to_string())?
        };
        let base = NonNull::new(base.cast()).context("a mapping at address zero")?;
        Ok(Self { base, rows, per_cpu, name })
    }

    fn read(&self) -> Vec<Counter> {
        let mut rows = vec![Counter::default(); self.rows];
        // SAFETY: the mapping covers `rows` rows until `self` is dropped. Nothing writes them meanwhile: no program is
        // attached, and the one that runs has returned.
        unsafe { std::ptr::copy_nonoverlapping(self.base.as_ptr(), rows.as_mut_ptr(), self.rows) };
        rows
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this base and length, and nothing refers to it any more.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.rows * size_of::<Counter>()) };
        debug_assert!(result.is_ok(), "munmap: {result:?}");
    }
}

/// Every counter there is.
pub struct Counters {
    window: Window,
}

/// All counters at one moment.
pub struct Snapshot(Vec<Counter>);

impl Counters {
    /// Opens the maps that are pinned in a directory.
    ///
    /// # Errors
    /// When one is missing or cannot be mapped.
    pub fn open(dir: &Path, cpus: usize) -> Result<Self> {
        Ok(Self { window: Window::open(&dir.join("COUNTS"), ROWS, cpus, Count::of_row)? })
    }

    /// Reads them all.
    #[must_use]
    pub fn read(&self) -> Snapshot {
        Snapshot(self.window.read())
    }

    /// What moved from `before` to `now`, summed over CPUs. A counter that fell shows as an enormous number.
    #[must_use]
    pub fn moved(&self, before: &Snapshot, now: &Snapshot) -> Moved {
        let mut moved = Moved::new();
        let window = &self.window;
        // Compared in pieces, which is one call each: few differ.
        let size = window.per_cpu.min(256);
        let pieces = before.0.chunks(size).zip(now.0.chunks(size));
        for (piece, (before, now)) in pieces.enumerate().filter(|(_, (before, now))| !same(before, now)) {
            for (row, (then, now)) in before.iter().zip(now).enumerate().filter(|(_, (then, now))| then != now) {
                let row = piece * size + row;
                let sum = moved.entry((window.name)(row % window.per_cpu)).or_default();
                sum.packets = sum.packets.wrapping_add(now.packets.wrapping_sub(then.packets));
                sum.bytes = sum.bytes.wrapping_add(now.bytes.wrapping_sub(then.bytes));
                sum.openers = sum.openers.wrapping_add(now.openers.wrapping_sub(then.openers));
            }
        }
        moved
    }
}

fn same(a: &[Counter], b: &[Counter]) -> bool {
    bytemuck::cast_slice::<_, u8>(a) == bytemuck::cast_slice::<_, u8>(b)
}
