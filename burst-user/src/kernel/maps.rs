//! The shared maps, opened from their pins, behind typed accessors. One owner: the task that publishes.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya::programs::ProgramFd;
use burst_common::admission::Admission;
use burst_common::control::Control;
use burst_common::counter::{CLASS_ROWS, Counter, ROWS, class_row, endpoint_row, link_row};
use burst_common::endpoint::Endpoint;
use burst_common::gateway::{Gateway, Vlan};
use burst_common::limits::{
    MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS, MAX_REASONS, MAX_REPEATS, MAX_RETURNS, MAX_SLOTS, OVERFLOW_ROWS,
};
use burst_common::link::Link;
use burst_common::meta::{ABI, MAGIC, Meta, NAMES, Name};
use burst_common::repeat::Repeat;
use burst_common::returns::Return;
use burst_common::slot::{EndpointId, Slot};
use burst_common::tables::Tables;
use bytemuck::Zeroable;

use super::error::{KernelError, Kind, errno, remedy, with_causes};
use super::load::Instance;
use super::mapped::Mapped;
use super::pins::PinTable;

/// The shared maps.
pub struct Maps {
    /// Slot words, of all classes and families.
    slots: Mapped<Slot>,
    endpoints: Mapped<Endpoint>,
    links: Mapped<Link>,
    returns: Mapped<Return>,
    control: Mapped<Control>,
    repeats: Mapped<Repeat>,
    admission: Mapped<Admission>,
    gateways: Mapped<Gateway>,
    vlans: Map,
    counts: Mapped<Counter>,
    devices: Map,
    meta: Map,
    names: Map,
    /// The pins.
    pub pins: PinTable,
    cpus: usize,
}

/// The counters of all classes, summed over CPUs: row `class * MAX_REASONS + reason`.
pub struct ClassCounters(Vec<Counter>);

impl ClassCounters {
    /// The counter of a class's row: a reason's or a note's number.
    #[must_use]
    pub fn get(&self, class: usize, row: usize) -> Counter {
        self.0[class * MAX_REASONS + row]
    }

    /// All rows of a class.
    #[must_use]
    pub fn class(&self, class: usize) -> &[Counter] {
        &self.0[class * MAX_REASONS..(class + 1) * MAX_REASONS]
    }
}

impl Maps {
    /// Opens what is pinned in `dir`. Layouts must have been checked.
    ///
    /// # Errors
    /// When a map is missing or cannot be mapped.
    pub(super) fn open(dir: &Path, cpus: usize) -> Result<Self, KernelError> {
        let open = |name: &str| {
            MapData::from_pin(dir.join(name)).map_err(|error| {
                KernelError::new(
                    Kind::State,
                    format!("the pinned map {}: {error}", dir.join(name).display()),
                    "the pin directory is incomplete: `burst detach` and start anew",
                )
            })
        };
        Self::by(open, cpus)
    }

    /// Opens the maps of an instance that has its own.
    ///
    /// # Errors
    /// When a map is missing or cannot be mapped.
    pub(super) fn of(instance: &Instance, cpus: usize) -> Result<Self, KernelError> {
        let open = |name: &str| {
            let fd = instance.map(name)?.try_clone_to_owned();
            let fd = fd.map_err(|error| KernelError::os(format!("the map {name}"), &error))?;
            MapData::from_fd(fd).map_err(|error| other(name, &error))
        };
        Self::by(open, cpus)
    }

    fn by(open: impl Fn(&str) -> Result<MapData, KernelError>, cpus: usize) -> Result<Self, KernelError> {
        let mapped = |name: &str, result: io::Result<()>| {
            result.map_err(|error| KernelError::os(format!("mapping {name} into memory"), &error))
        };
        macro_rules! map {
            ($name:literal, $rows:expr) => {
                map!($name, $rows, 0)
            };
            ($name:literal, $rows:expr, $offset:expr) => {{
                let data = open($name)?;
                let array = Mapped::part(data.fd().as_fd(), $offset, $rows);
                match array {
                    Ok(array) => array,
                    Err(error) => return Err(mapped($name, Err(error)).expect_err("an error was passed")),
                }
            }};
        }
        Ok(Self {
            slots: map!("SLOTS", MAX_SLOTS),
            endpoints: map!("TABLES", MAX_ENDPOINTS, Tables::ENDPOINTS_OFFSET),
            links: map!("TABLES", MAX_LINKS, Tables::LINKS_OFFSET),
            returns: map!("RETURNS", MAX_RETURNS),
            control: map!("TABLES", 1),
            repeats: map!("REPEATS", MAX_REPEATS),
            admission: map!("ADMISSION", MAX_CLASSES),
            gateways: map!("GATEWAYS", 2),
            vlans: Map::HashMap(open("VLANS")?),
            counts: map!("COUNTS", ROWS * cpus),
            devices: Map::DevMapHash(open("DEVICES")?),
            meta: Map::Array(open("META")?),
            names: Map::Array(open("NAMES_OF")?),
            pins: PinTable::new(open("PINS")?),
            cpus,
        })
    }

    /// Reads a slot word.
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot {
        self.slots.read(index)
    }

    /// Replaces a slot word, if it still is `old`: the program changes slots, too.
    ///
    /// # Errors
    /// The word that stands there instead.
    pub fn swap_slot(&self, index: usize, old: Slot, new: Slot) -> Result<(), Slot> {
        self.slots.swap_word(index, 0, old.word(), new.word()).map_err(Slot::from_word)
    }

    /// Publishes a slot word, by one store, whatever is there.
    pub fn set_slot(&self, index: usize, slot: Slot) {
        self.slots.write(index, &slot);
    }

    /// Reads an endpoint's row.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Endpoint {
        self.endpoints.read(id as usize)
    }

    /// Writes an endpoint's row: one that no slot or pin names yet, or one that differs in its links only.
    pub fn set_endpoint(&self, id: EndpointId, endpoint: &Endpoint) {
        self.endpoints.write(id as usize, endpoint);
    }

    /// Publishes which links an endpoint is reached by, by one store.
    pub fn set_endpoint_links(&self, id: EndpointId, table: u64) {
        self.endpoints.write_word(id as usize, Endpoint::LINKS_OFFSET, table);
    }

    /// Reads a link's row.
    #[must_use]
    pub fn link(&self, id: u8) -> Link {
        self.links.read(id as usize)
    }

    /// Writes a link's row. A packet that is forwarded meanwhile may get half of the old and half of the new next-hop
    /// MAC address, and is lost; to take the link down first would send it to the local stack, which resets its flow.
    pub fn set_link(&self, id: u8, link: &Link) {
        self.links.write(id as usize, link);
    }

    /// Reads a row of the return table.
    #[must_use]
    pub fn returns(&self, row: usize) -> Return {
        self.returns.read(row)
    }

    /// Writes a row of the return table. Its last word holds the protocol and becomes visible last; a row in use first
    /// gets a protocol that no packet has (255, "Reserved" at IANA), so that no reader takes half of it for either.
    pub fn set_return(&self, row: usize, entry: &Return) {
        let former = self.returns.read(row);
        if former.proto != 0 {
            self.returns.write(row, &Return { proto: u8::MAX, ..former });
        }
        self.returns.write(row, entry);
    }

    /// Makes a row of the return table that is in use count and measure as another endpoint's, by one store: its last word
    /// (ports, endpoint, protocol, class) is all that changes.
    pub fn set_return_endpoint(&self, row: usize, endpoint: EndpointId) {
        let entry = Return { endpoint, ..self.returns.read(row) };
        let bytes: [u8; size_of::<Return>()] = bytemuck::cast(entry);
        if let Some(word) = bytes.last_chunk() {
            self.returns.write_word(row, size_of::<Return>() - size_of::<u64>(), u64::from_ne_bytes(*word));
        }
    }

    /// Reads the gateway of a family (4 or 6).
    #[must_use]
    pub fn gateway(&self, family: u8) -> Gateway {
        self.gateways.read(Gateway::row(family) as usize)
    }

    /// Writes the gateway of a family (4 or 6), or takes it out (`None`). What is there is taken out first, and what is new
    /// counts with the last word that is written. A packet that read the row before may get parts of both, and is lost.
    pub fn set_gateway(&self, family: u8, gateway: Option<&Gateway>) {
        let row = Gateway::row(family) as usize;
        self.gateways.write_word(row, Gateway::READY_OFFSET, 0);
        if let Some(gateway) = gateway {
            self.gateways.write(row, &Gateway { ifindex: 0, ..*gateway });
            let ready = u64::from(gateway.macs[2]) | u64::from(gateway.ifindex) << 32;
            self.gateways.write_word(row, Gateway::READY_OFFSET, ready.to_le());
        }
    }

    /// Makes the table of VLAN devices hold these alone.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses; those before the one it failed at are there.
    pub fn set_vlans(&mut self, vlans: &[(u32, Vlan)]) -> Result<(), KernelError> {
        const SIZE: usize = size_of::<Vlan>();
        let mut map: HashMap<&mut MapData, u32, [u8; SIZE]> =
            HashMap::try_from(&mut self.vlans).map_err(|error| other("VLANS", &error))?;
        let former: Vec<u32> = map.keys().collect::<Result<_, _>>().map_err(|error| other("VLANS", &error))?;
        for gone in former.iter().filter(|former| vlans.iter().all(|(ifindex, _)| ifindex != *former)) {
            match map.remove(gone) {
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                result => result.map_err(|error| other("VLANS", &error))?,
            }
        }
        for (ifindex, vlan) in vlans {
            map.insert(ifindex, bytemuck::cast::<Vlan, [u8; SIZE]>(*vlan), 0)
                .map_err(|error| other("VLANS", &error))?;
        }
        Ok(())
    }

    /// Reads the control word.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.read(0)
    }

    /// Publishes bypass and epoch, by one store: where nobody else writes either.
    pub fn set_control(&self, bypass: bool, epoch: u32) {
        self.control.write_word(0, 0, u64::from(bypass) | u64::from(epoch) << 32);
    }

    /// Publishes until when the program may trust the last word it was given: nanoseconds of `CLOCK_MONOTONIC`, 0 for ever.
    pub fn set_lease(&self, until: u64) {
        self.control.write_word(0, Control::LEASE_OFFSET, until);
    }

    /// Publishes what becomes of new flows after that: for how long they keep to the slots, and how long each part of the slots
    /// then takes to come home. In nanoseconds.
    pub fn set_home(&self, hold: u64, step: u64) {
        self.control.write_word(0, Control::HOLD_OFFSET, hold);
        self.control.write_word(0, Control::STEP_OFFSET, step);
    }

    /// Reads a class's row of the surge guard.
    #[must_use]
    pub fn admission(&self, class: u8) -> Admission {
        self.admission.read(class as usize)
    }

    /// Publishes how many new flows of a class the premises take: nanoseconds between two of them (0: no limit).
    pub fn set_admission(&self, class: u8, interval: u64) {
        let allowance = Admission::allowance_of(interval);
        // More room first, less last: a reader in between is the more generous.
        self.admission.write_word(class as usize, core::mem::offset_of!(Admission, allowance), allowance);
        self.admission.write_word(class as usize, core::mem::offset_of!(Admission, interval), interval);
    }

    /// Sets when the next new flow of a class is due: what the program counts by.
    pub fn set_due(&self, class: u8, due: u64) {
        self.admission.write_word(class as usize, core::mem::offset_of!(Admission, due), due);
    }

    /// Publishes where new flows of a class and family go for which the premises have no room, by slot.
    pub fn set_overflow(&self, class: u8, family: u8, endpoints: &[EndpointId; OVERFLOW_ROWS]) {
        let first = Admission::OVERFLOW_OFFSET + usize::from(family == 6) * size_of_val(endpoints);
        for (n, four) in endpoints.chunks_exact(4).enumerate() {
            let word = u64::from_ne_bytes(bytemuck::cast([four[0], four[1], four[2], four[3]]));
            self.admission.write_word(class as usize, first + n * 8, word);
        }
    }

    /// Where new flows of a class's slot go for which the premises have no room.
    #[must_use]
    pub fn overflow(&self, class: u8, family: u8, slot: u32) -> EndpointId {
        self.admission(class).overflow[usize::from(family == 6)][slot as usize % OVERFLOW_ROWS]
    }

    /// Forgets all openers that were seen.
    pub fn forget_openers(&self) {
        self.repeats.clear();
    }

    /// Publishes the epoch. The other half of its word is left as it is, whoever writes it meanwhile.
    pub fn set_epoch(&self, epoch: u32) {
        self.control.change_word(0, 0, |word| word & u64::from(u32::MAX) | u64::from(epoch) << 32);
    }

    /// Publishes the bypass; whether it was on before. The epoch in the other half of its word is left as it is, whoever
    /// writes it meanwhile: two processes may, for `burst bypass` does not wait for a daemon that does not answer.
    pub fn set_bypass(&self, bypass: bool) -> bool {
        let former = self.control.change_word(0, 0, |word| word & !u64::from(u32::MAX) | u64::from(bypass));
        former as u32 != 0
    }

    /// Sums the counters of all classes.
    #[must_use]
    pub fn class_counters(&self) -> ClassCounters {
        let mut sums = vec![Counter::default(); CLASS_ROWS];
        for cpu in 0..self.cpus {
            for class in 0..MAX_CLASSES {
                for reason in 0..MAX_REASONS {
                    let row = class_row(class, reason);
                    add(&mut sums[row], self.counts.read(cpu * ROWS + row));
                }
            }
        }
        ClassCounters(sums)
    }

    /// Sums an endpoint's counter of one direction.
    #[must_use]
    pub fn endpoint_counter(&self, id: EndpointId, direction: usize) -> Counter {
        self.sum(endpoint_row(id as usize, direction))
    }

    /// Sums a link's counter of one direction.
    #[must_use]
    pub fn link_counter(&self, id: u8, direction: usize) -> Counter {
        self.sum(link_row(id as usize, direction))
    }

    fn sum(&self, row: usize) -> Counter {
        let mut sum = Counter::default();
        for cpu in 0..self.cpus {
            add(&mut sum, self.counts.read(cpu * ROWS + row));
        }
        sum
    }

    /// Lets packets be redirected out of a device.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn add_device(&mut self, ifindex: u32) -> Result<(), KernelError> {
        self.add_watched(ifindex, None).map(drop)
    }

    /// Lets packets be redirected out of a device, through `program` if there is one; whether none could before.
    ///
    /// # Errors
    /// When the device is gone.
    pub(super) fn add_watched(&mut self, ifindex: u32, program: Option<&ProgramFd>) -> Result<bool, KernelError> {
        let mut devices = self.devices()?;
        let new = match devices.get(ifindex, 0) {
            Ok(_) => false,
            Err(MapError::KeyNotFound) => true,
            Err(error) => return Err(other("DEVICES", &error)),
        };
        devices.insert(ifindex, ifindex, program, 0).map_err(|error| other("DEVICES", &error))?;
        Ok(new)
    }

    /// Lets no packet be redirected out of a device any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn remove_device(&mut self, ifindex: u32) -> Result<(), KernelError> {
        self.devices()?.remove(ifindex).map_err(|error| other("DEVICES", &error))
    }

    fn devices(&mut self) -> Result<DevMapHash<&mut MapData>, KernelError> {
        DevMapHash::try_from(&mut self.devices).map_err(|error| other("DEVICES", &error))
    }

    /// Reads the stamp and holds it against this program.
    ///
    /// # Errors
    /// When the maps were made by a version with another ABI, for other hardware, or by something else. All-zero maps
    /// are new, and no error.
    pub(super) fn check_stamp(&self, pin_dir: &Path) -> Result<Option<Meta>, KernelError> {
        let meta = self.meta()?;
        if meta == Meta::zeroed() {
            return Ok(None);
        }
        fits(&meta, self.cpus, pin_dir)?;
        Ok(Some(meta))
    }

    /// Stamps new maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn stamp(&mut self, seed: u64) -> Result<(), KernelError> {
        self.set_meta(Meta { magic: MAGIC, abi: ABI, cpus: self.cpus as u32, seed, ..Meta::zeroed() })
    }

    /// Records how the flows of each class (id, name, shape) find their slots.
    ///
    /// # Errors
    /// When a class's flows were placed in another way, which would send every one of them elsewhere; then nothing is
    /// recorded. When the kernel refuses.
    pub fn set_shapes(&mut self, classes: &[(u8, &str, u64)]) -> Result<(), KernelError> {
        let mut meta = self.meta()?;
        for &(id, name, shape) in classes {
            if ![0, shape].contains(&meta.shape(id)) {
                return Err(Self::other_shape(name));
            }
            meta = meta.with_shape(id, shape);
        }
        self.set_meta(meta)
    }

    /// How the flows of a class find their slots ([`Meta::shape`]); 0 when none were placed yet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn shape(&self, class: u8) -> Result<u64, KernelError> {
        Ok(self.meta()?.shape(class))
    }

    /// Slots of each family of a class; 0 when it has none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn slots_of(&self, class: u8) -> Result<u32, KernelError> {
        // The inverse of `burst_common::meta::shape`.
        Ok(match self.shape(class)? {
            0 => 0,
            shape => 32 << (shape & 7),
        })
    }

    /// That the flows of a class were placed in another way.
    pub(crate) fn other_shape(class: &str) -> KernelError {
        KernelError::new(
            Kind::State,
            format!(
                "class `{class}`: `slots` or `affinity` differ from those its running flows were placed by: every flow would move"
            ),
            "restore the former values, or drain, `burst detach` and start anew",
        )
    }

    /// The mode under which the slots were filled ([`Meta::mode`]).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mode(&self) -> Result<u8, KernelError> {
        Ok(self.meta()?.mode)
    }

    /// Records the mode under which the slots are filled.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mode(&mut self, mode: u8) -> Result<(), KernelError> {
        let meta = self.meta()?;
        self.set_meta(Meta { mode, ..meta })
    }

    /// Records how links are attached ([`Meta::attach`]).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn set_attach_mode(&mut self, attach: u8) -> Result<(), KernelError> {
        let meta = self.meta()?;
        self.set_meta(Meta { attach, ..meta })
    }

    fn meta(&self) -> Result<Meta, KernelError> {
        let array: Array<&MapData, [u8; size_of::<Meta>()]> =
            Array::try_from(&self.meta).map_err(|error| other("META", &error))?;
        Ok(bytemuck::cast(array.get(&0, 0).map_err(|error| other("META", &error))?))
    }

    fn set_meta(&mut self, meta: Meta) -> Result<(), KernelError> {
        let mut array: Array<&mut MapData, [u8; size_of::<Meta>()]> =
            Array::try_from(&mut self.meta).map_err(|error| other("META", &error))?;
        array.set(0, bytemuck::cast::<Meta, [u8; size_of::<Meta>()]>(meta), 0).map_err(|error| other("META", &error))
    }

    /// Reads all names.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn names(&self) -> Result<Vec<Name>, KernelError> {
        let array: Array<&MapData, [u8; size_of::<Name>()]> =
            Array::try_from(&self.names).map_err(|error| other("NAMES_OF", &error))?;
        (0..NAMES as u32)
            .map(|row| Ok(bytemuck::cast(array.get(&row, 0).map_err(|error| other("NAMES_OF", &error))?)))
            .collect()
    }

    /// Writes names.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_names(&mut self, rows: &[(usize, Name)]) -> Result<(), KernelError> {
        let mut array: Array<&mut MapData, [u8; size_of::<Name>()]> =
            Array::try_from(&mut self.names).map_err(|error| other("NAMES_OF", &error))?;
        for (row, name) in rows {
            array
                .set(*row as u32, bytemuck::cast::<Name, [u8; size_of::<Name>()]>(*name), 0)
                .map_err(|error| other("NAMES_OF", &error))?;
        }
        Ok(())
    }
}

/// Holds a stamp against this program.
///
/// # Errors
/// When the maps were made by a version with another ABI, for other hardware, or by something else.
pub(super) fn fits(meta: &Meta, cpus: usize, pin_dir: &Path) -> Result<(), KernelError> {
    if meta.magic == MAGIC && meta.abi == ABI && meta.cpus as usize == cpus {
        return Ok(());
    }
    let (magic, abi, its) = (meta.magic, meta.abi, meta.cpus);
    Err(KernelError::new(
        Kind::State,
        format!(
            "the pinned state in {} has the stamp {magic:#x}, ABI {abi}, {its} CPUs; this version has {MAGIC:#x}, ABI {ABI}, \
             {cpus} CPUs",
            pin_dir.display(),
        ),
        format!(
            "run the version of burst that made it, or `burst detach --pin-dir {}` and start anew (placed flows are lost)",
            pin_dir.display()
        ),
    ))
}

fn add(sum: &mut Counter, row: Counter) {
    sum.packets += row.packets;
    sum.bytes += row.bytes;
    sum.openers += row.openers;
}

fn other(name: &str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    let message = format!("the map {name}: {}", with_causes(error));
    let errno = errno(error);
    let kind = match errno {
        Some(libc::EPERM | libc::EACCES) => Kind::Permission,
        Some(libc::ENODEV) => Kind::Device,
        _ => Kind::Other,
    };
    KernelError::new(kind, message, remedy(errno))
}
