//! The pin table, read in batches and cleaned by the controller alone.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{HashMap, Map, MapData, MapError};
use burst_common::pin::{Pin, PinKey};

use super::error::{KernelError, Kind, with_causes};
use super::sys::{self, Cursor};

/// Entries read by one system call.
const BATCH: usize = 4096;

type KeyBytes = [u8; size_of::<PinKey>()];
type PinBytes = [u8; size_of::<Pin>()];

/// The pins of all classes. Owns the untyped map, because typed views hide the descriptor.
pub struct PinTable {
    map: Map,
}

impl PinTable {
    pub(super) fn new(data: MapData) -> Self {
        Self { map: Map::HashMap(data) }
    }

    /// All pins. Those that come and go meanwhile may or may not be among them.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(&self) -> io::Result<Vec<(PinKey, Pin)>> {
        let Map::HashMap(data) = &self.map else { return Ok(Vec::new()) };
        let mut pins = Vec::new();
        let mut keys: Vec<KeyBytes> = vec![[0; _]; BATCH];
        let mut values: Vec<PinBytes> = vec![[0; _]; BATCH];
        let mut cursor = Cursor::default();
        loop {
            let fd = data.fd().as_fd();
            let (count, done) = sys::lookup_batch(fd, &mut cursor, &mut keys, &mut values)?;
            let rows = keys.iter().zip(&values).take(count as usize);
            pins.extend(rows.map(|(&key, &value)| (bytemuck::cast(key), bytemuck::cast(value))));
            if done {
                return Ok(pins);
            }
        }
    }

    /// A pin, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self, key: &PinKey) -> Result<Option<Pin>, MapError> {
        let map: HashMap<&MapData, KeyBytes, PinBytes> = HashMap::try_from(&self.map)?;
        match map.get(&bytemuck::cast(*key), 0) {
            Ok(pin) => Ok(Some(bytemuck::cast(pin))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a pin; one that is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, key: &PinKey) -> Result<(), MapError> {
        let mut map: HashMap<&mut MapData, KeyBytes, PinBytes> = HashMap::try_from(&mut self.map)?;
        match map.remove(&bytemuck::cast(*key)) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Removes all pins.
    ///
    /// # Errors
    /// When the kernel refuses; some may be gone then.
    pub fn clear(&mut self) -> Result<(), KernelError> {
        for (key, _) in self.read().map_err(|error| KernelError::os("reading the pins", &error))? {
            let failed = |error| KernelError::new(Kind::Other, format!("removing a pin: {}", with_causes(&error)), "");
            self.remove(&key).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes a pin, for repairs.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses.
    pub fn insert(&mut self, key: &PinKey, pin: &Pin) -> Result<(), MapError> {
        let mut map: HashMap<&mut MapData, KeyBytes, PinBytes> = HashMap::try_from(&mut self.map)?;
        map.insert(bytemuck::cast::<PinKey, KeyBytes>(*key), bytemuck::cast::<Pin, PinBytes>(*pin), 0)
    }
}
