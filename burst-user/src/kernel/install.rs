//! Installing a compiled policy: prepare the pin directory, check what is there, load one instance per device, attach.
//! And the way back: `detach`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::programs::ProgramFd;
use burst_common::limits::DEVICE_LINKS;
use burst_common::meta::{ATTACH_GENERIC, ATTACH_NATIVE, Meta};
use burst_common::policy::{DeviceLink, Guard, Policy, ROLE_CLIENT, ROLE_LINK, Table, TooMany, mac_word};

use super::attach::{self, Attached, Attachment, Hook};
use super::bpffs::{self, maps_dir};
use super::error::{KernelError, Kind};
use super::events::Events;
use super::layout;
use super::load::{Instance, Told, load, prepare};
use super::maps::Maps;
use super::pinned::Pinned;
use super::steps;
use crate::config::model::XdpMode;
use crate::policy::compile::Compiled;
use crate::policy::dimensions::Large;

/// A device to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// MAC address: frames for others are not looked at. Zero when it has none.
    pub mac: [u8; 6],
    /// Whether there are VLAN devices on it with MAC addresses of their own: then all frames are looked at.
    pub other_macs: bool,
    /// Whether client traffic arrives on it.
    pub client: bool,
    /// Ids of the links on it, and their VLANs (0 is untagged).
    pub links: Vec<(u8, u16)>,
    /// Whether its only link is of `via = "kernel"`.
    pub via_kernel: bool,
}

impl Device {
    /// Where programs are attached to it, in this order; the devmap's program of a link device comes before all.
    #[must_use]
    pub fn hooks(&self) -> &'static [Hook] {
        match (self.links.is_empty(), self.via_kernel) {
            (true, _) => &[Hook::Xdp],
            (false, false) => &[Hook::Egress, Hook::Xdp],
            (false, true) => &[Hook::Egress, Hook::Ingress],
        }
    }

    /// The policy as the instance of this device is told it.
    ///
    /// # Errors
    /// When links are on more VLANs of the device than an instance knows.
    pub fn policy(&self, compiled: &Compiled) -> Result<Policy, KernelError> {
        let role = if self.client { ROLE_CLIENT } else { 0 } | if self.links.is_empty() { 0 } else { ROLE_LINK };
        let mac = if self.other_macs { 0 } else { mac_word(self.mac) };
        Ok(Policy { role, mac, links: device_links(self)?, ..compiled.policy })
    }
}

/// What guard and sentinel hold back.
pub struct Keep {
    /// Inline, or that it is in maps.
    pub guard: Guard,
    /// The rows of the maps.
    pub large: Option<Large>,
}

/// What to install.
pub struct Plan<'a> {
    /// The BPF object.
    pub object: &'a [u8],
    /// Pin directory.
    pub pin_dir: &'a Path,
    /// Native or generic.
    pub mode: XdpMode,
    /// Leave per-packet logging in the program.
    pub trace: bool,
}

/// The state that was opened: maps checked and stamped. Nothing is attached yet.
pub struct Installation {
    /// The shared maps.
    pub maps: Maps,
    /// Whether they were there before, with the slots of a former run.
    pub adopted: bool,
    pin_dir: PathBuf,
    cpus: usize,
    /// Whether programs of traffic control are links.
    tcx: bool,
    /// Held as long as the maps are written.
    lock: Arc<fs::File>,
}

/// Opens the pinned state, or makes it.
///
/// # Errors
/// When a privilege is missing, or what is pinned does not fit this version.
pub fn install(plan: &Plan<'_>, seed: u64) -> Result<Installation, KernelError> {
    bpffs::prepare(plan.pin_dir)?;
    let lock = bpffs::lock(plan.pin_dir)?;
    open(plan, seed, Arc::new(lock))
}

/// Opens the pinned state once more, in the same process: the lock stays where it is.
///
/// # Errors
/// As [`install`].
pub fn reinstall(plan: &Plan<'_>, seed: u64, former: &Installation) -> Result<Installation, KernelError> {
    bpffs::prepare(plan.pin_dir)?;
    open(plan, seed, Arc::clone(&former.lock))
}

fn open(plan: &Plan<'_>, seed: u64, lock: Arc<fs::File>) -> Result<Installation, KernelError> {
    let maps_dir = maps_dir(plan.pin_dir);
    let cpus = super::cpus()?;
    // What another version made is refused before anything is made beside it.
    Pinned::open(plan.object, plan.pin_dir)?;
    layout::check(plan.object, &maps_dir, cpus)?;
    // An instance that does nothing makes the maps that are missing.
    let (policy, guard) = (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
    let nothing = Told { policy: &policy, large: None, guard: &guard, guard_large: None, trace: false };
    prepare(plan.object, &maps_dir, cpus, &nothing)?;
    let mut maps = Maps::open(&maps_dir, cpus)?;
    let adopted = match maps.check_stamp(plan.pin_dir)? {
        Some(meta) if meta.seed != seed => {
            return Err(KernelError::new(
                Kind::State,
                "`edge.seed` differs from the one the running flows were placed by: every flow would move",
                format!(
                    "restore the former seed, or drain and `burst detach --pin-dir {}` first",
                    plan.pin_dir.display()
                ),
            ));
        }
        Some(meta) => {
            same_attach_mode(&meta, plan)?;
            true
        }
        None => {
            maps.stamp(seed)?;
            false
        }
    };
    Ok(Installation { maps, adopted, pin_dir: plan.pin_dir.to_owned(), cpus, tcx: attach::has_tcx(), lock })
}

/// A program that takes another's place in a link runs where that ran: a link cannot be told to change its mode.
fn same_attach_mode(meta: &Meta, plan: &Plan<'_>) -> Result<(), KernelError> {
    let wanted = attach_mode(plan.mode);
    let recorded = match meta.attach {
        ATTACH_NATIVE => "native",
        ATTACH_GENERIC => "generic",
        _ => return Ok(()),
    };
    if meta.attach == wanted || !attach::any_alive(plan.pin_dir)? {
        return Ok(());
    }
    Err(KernelError::new(
        Kind::State,
        format!("`edge.xdp` differs from the {recorded:?} that burst is attached with: a link keeps its mode"),
        format!(
            "restore `edge.xdp = {recorded:?}`, or drain, `burst detach --pin-dir {}` and start anew",
            plan.pin_dir.display()
        ),
    ))
}

const fn attach_mode(mode: XdpMode) -> u8 {
    match mode {
        XdpMode::Native => ATTACH_NATIVE,
        XdpMode::Generic => ATTACH_GENERIC,
    }
}

/// The links of a device as its instance is told: one row for each VLAN, with the link if it is the only one there.
fn device_links(device: &Device) -> Result<Table<DeviceLink, DEVICE_LINKS>, KernelError> {
    let mut rows: Vec<DeviceLink> = Vec::new();
    for &(id, vlan) in &device.links {
        match rows.iter_mut().find(|row| row.vlan == u32::from(vlan)) {
            Some(row) => row.link = 0,
            None => rows.push(DeviceLink { vlan: vlan.into(), link: id.into() }),
        }
    }
    Table::new(0, &rows).map_err(|TooMany { rows, limit }| {
        KernelError::new(
            Kind::Unsupported,
            format!("{}: links on {rows} VLANs; at most {limit} are possible on one device", device.name),
            "spread the links over several devices",
        )
    })
}

/// What is loaded for a device.
struct Loaded<'a> {
    device: &'a Device,
    instance: Instance,
    /// Where programs of traffic control must be told another MAC address than the entry: with zero, this looks at frames to
    /// any, and those take the device for one without Ethernet headers.
    other: Option<Instance>,
    /// The devmap's program.
    devmap: Option<ProgramFd>,
}

impl Loaded<'_> {
    /// The instance whose program belongs to a hook.
    fn of(&mut self, hook: Hook) -> &mut Instance {
        match &mut self.other {
            Some(other) if hook != Hook::Xdp => other,
            _ => &mut self.instance,
        }
    }
}

/// The instance of a device runs no more: its place is free when it is dropped.
fn give_back(loaded: &mut [Loaded<'_>], device: &str) {
    for place in loaded.iter_mut().filter(|loaded| loaded.device.name == device).filter_map(|l| l.instance.place()) {
        place.give_back();
    }
}

impl Installation {
    /// Attaches programs of traffic control as kernels before Linux 6.6 need it, whatever this one is.
    #[must_use]
    pub fn without_tcx(self) -> Self {
        Self { tcx: false, ..self }
    }

    /// The events that were not read yet.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn events(&self) -> Result<Events, KernelError> {
        Events::open(&self.pin_dir)
    }

    /// Loads an instance for each device and attaches it: sentinels first, then links, then client devices, so that no packet
    /// is shifted before what would stop it is there, and its reply finds the way back. Detaches devices that are no longer
    /// configured, and removes the pins of those that are gone.
    ///
    /// # Errors
    /// When an instance is refused: then the devices this call attached anew are detached again; those that run the new
    /// program in place of a former one keep it, and the error names them.
    ///
    /// The instances are returned for their log maps; the pins hold the programs, so that they may be dropped.
    pub fn attach(
        &mut self,
        plan: &Plan<'_>,
        compiled: &Compiled,
        devices: &[Device],
    ) -> Result<(Vec<Attachment>, Vec<Instance>), KernelError> {
        self.attach_by(plan, compiled, devices, None)
    }

    /// The same in place of the programs of another policy: until the last entry is replaced, sentinels know `both`, what the
    /// former and the new policy keep.
    ///
    /// # Errors
    /// As [`Self::attach`]; sentinels that took the place of former ones may know `both` then.
    pub fn attach_in_place(
        &mut self,
        plan: &Plan<'_>,
        compiled: &Compiled,
        devices: &[Device],
        both: &Keep,
    ) -> Result<(Vec<Attachment>, Vec<Instance>), KernelError> {
        self.attach_by(plan, compiled, devices, Some(both))
    }

    fn attach_by(
        &mut self,
        plan: &Plan<'_>,
        compiled: &Compiled,
        devices: &[Device],
        both: Option<&Keep>,
    ) -> Result<(Vec<Attachment>, Vec<Instance>), KernelError> {
        // All are loaded before any is attached: a refusal by the verifier changes nothing.
        let mut loaded =
            devices.iter().map(|device| self.load(plan, compiled, device)).collect::<Result<Vec<_>, _>>()?;
        loaded.sort_by_key(|loaded| loaded.device.client);
        let links = || devices.iter().filter(|device| !device.links.is_empty());
        let between = both.map(|both| links().map(|device| self.load_sentinel(plan, compiled, device, both)).collect());
        let mut between: Vec<_> = between.transpose()?.unwrap_or_default();
        // Before the first link, and never after: of links that are there already, what is recorded is true.
        if !attach::any_alive(&self.pin_dir)? {
            self.maps.set_attach_mode(attach_mode(plan.mode))?;
        }
        let (mut attached, mut reachable) = (Vec::new(), Vec::new());
        if let Err(mut error) = self.attach_all(plan.mode, &mut between, &mut loaded, (&mut attached, &mut reachable)) {
            let replaced = attached.iter().filter(|a| a.attached == Attached::Replaced);
            let mut replaced: Vec<_> = replaced.map(|a| a.device.as_str()).collect();
            replaced.dedup();
            if !replaced.is_empty() {
                error.message += &format!("; the new program already runs on {}", replaced.join(", "));
            }
            for new in attached.iter().filter(|a| a.attached == Attached::New).rev() {
                match attach::take_back(new, &self.pin_dir) {
                    Ok(()) if new.hook == Hook::Xdp => give_back(&mut loaded, &new.device),
                    Ok(()) => {}
                    Err(error) => {
                        tracing::error!(device = new.device, hook = ?new.hook, %error, "could not take back an attachment");
                    }
                }
            }
            for new in reachable {
                if let Err(error) = self.maps.remove_device(new) {
                    tracing::error!(ifindex = new, %error, "could not take back a device");
                }
            }
            if let Err(error) = self.settle(&mut loaded, &attached) {
                tracing::error!(%error, "programs that run no more keep their places");
            }
            return Err(error);
        }
        for pin in attach::pinned(&self.pin_dir)? {
            if devices.iter().any(|device| device.name == pin.device && device.hooks().contains(&pin.hook)) {
                continue;
            }
            // A device that is configured but gone for now is not among `devices` either; its link is dead.
            let dead = !pin.is_alive()?;
            pin.remove()?;
            if dead {
                tracing::info!(device = pin.device, "the device is gone: removed the pin of its link");
            } else {
                tracing::info!(
                    device = pin.device,
                    "not configured, or not under this name and here any more: detached"
                );
            }
        }
        self.settle(&mut loaded, &attached)?;
        let instances = loaded.into_iter().flat_map(|loaded| [Some(loaded.instance), loaded.other]).flatten();
        Ok((attached, instances.collect()))
    }

    /// Clears the places of programs that this attachment replaced. A device where it failed keeps what it had.
    fn settle(&self, loaded: &mut [Loaded<'_>], attached: &[Attachment]) -> Result<(), KernelError> {
        let (mut now, mut standing) = (BTreeMap::new(), BTreeSet::new());
        for Loaded { device, instance, .. } in loaded {
            let is_it = |a: &Attachment| a.device == device.name && a.hook == Hook::Xdp;
            match instance.place().filter(|place| place.is_kept() && attached.iter().any(is_it)) {
                Some(place) => drop(now.insert(device.ifindex, place.number())),
                None => drop(standing.insert(device.ifindex)),
            }
        }
        steps::settle(&maps_dir(&self.pin_dir), &now, &standing)
    }

    /// Loads what a device needs.
    fn load<'d>(&self, plan: &Plan<'_>, compiled: &Compiled, device: &'d Device) -> Result<Loaded<'d>, KernelError> {
        let policy = device.policy(compiled)?;
        let maps_dir = maps_dir(&self.pin_dir);
        let instance = |policy: &Policy, entry: bool| {
            let told = Told {
                policy,
                large: compiled.large.as_ref(),
                guard: &compiled.guard,
                guard_large: compiled.guard_large.as_ref(),
                trace: plan.trace,
            };
            if entry {
                load(plan.object, &maps_dir, self.cpus, &told)
            } else {
                prepare(plan.object, &maps_dir, self.cpus, &told)
            }
        };
        let hooks = device.hooks();
        let mut loaded =
            Loaded { device, instance: instance(&policy, hooks.contains(&Hook::Xdp))?, other: None, devmap: None };
        if device.other_macs && hooks.contains(&Hook::Egress) {
            let policy = Policy { mac: mac_word(device.mac), ..policy };
            loaded.other = Some(instance(&policy, false)?);
        }
        for &hook in hooks.iter().filter(|hook| **hook != Hook::Xdp) {
            attach::prepare(loaded.of(hook), hook)?;
        }
        if hooks == [Hook::Egress, Hook::Xdp] {
            loaded.devmap = Some(loaded.of(Hook::Egress).sentinel()?);
        }
        Ok(loaded)
    }

    /// Loads what stands at a link device until its entry is replaced: a sentinel that knows `both`.
    fn load_sentinel<'d>(
        &self,
        plan: &Plan<'_>,
        compiled: &Compiled,
        device: &'d Device,
        both: &Keep,
    ) -> Result<Loaded<'d>, KernelError> {
        let policy = Policy { mac: mac_word(device.mac), ..device.policy(compiled)? };
        let told = Told {
            policy: &policy,
            large: compiled.large.as_ref(),
            guard: &both.guard,
            guard_large: both.large.as_ref(),
            trace: plan.trace,
        };
        let mut instance = prepare(plan.object, &maps_dir(&self.pin_dir), self.cpus, &told)?;
        attach::prepare(&mut instance, Hook::Egress)?;
        let devmap = if device.via_kernel { None } else { Some(instance.sentinel()?) };
        Ok(Loaded { device, instance, other: None, devmap })
    }

    /// Attaches everything, in order; what was done is in `attached` and `reachable`, also when it fails.
    fn attach_all(
        &mut self,
        mode: XdpMode,
        between: &mut [Loaded<'_>],
        loaded: &mut [Loaded<'_>],
        (attached, reachable): (&mut Vec<Attachment>, &mut Vec<u32>),
    ) -> Result<(), KernelError> {
        if between.is_empty() {
            self.attach_sentinels(mode, loaded, attached, reachable)?;
            return self.attach_entries(mode, loaded, attached);
        }
        self.attach_sentinels(mode, between, attached, reachable)?;
        // Devices that only clients are behind have no sentinel, and may be new.
        for Loaded { device, .. } in loaded.iter().filter(|loaded| loaded.device.links.is_empty()) {
            if self.maps.add_watched(device.ifindex, None)? {
                reachable.push(device.ifindex);
            }
        }
        self.attach_entries(mode, loaded, attached)?;
        // Each takes the place of one that is told of already.
        self.attach_sentinels(mode, loaded, &mut Vec::new(), &mut Vec::new())
    }

    /// Attaches the devmap's programs, and the programs on the egress of link devices.
    fn attach_sentinels(
        &mut self,
        mode: XdpMode,
        loaded: &mut [Loaded<'_>],
        attached: &mut Vec<Attachment>,
        reachable: &mut Vec<u32>,
    ) -> Result<(), KernelError> {
        // A device that only clients are behind has no program here. The devmap of a former daemon holds its sentinel until
        // this one takes its place, in one write.
        for Loaded { device, devmap, .. } in loaded.iter().filter(|loaded| !loaded.device.via_kernel) {
            if self.maps.add_watched(device.ifindex, devmap.as_ref())? {
                reachable.push(device.ifindex);
            }
        }
        for loaded in loaded.iter_mut().filter(|loaded| loaded.device.hooks().contains(&Hook::Egress)) {
            let at = (loaded.device.name.as_str(), loaded.device.ifindex);
            let done = attach::attach(loaded.of(Hook::Egress), at, Hook::Egress, (mode, self.tcx), &self.pin_dir)?;
            attached.push(done);
        }
        Ok(())
    }

    /// Attaches everything else.
    fn attach_entries(
        &mut self,
        mode: XdpMode,
        loaded: &mut [Loaded<'_>],
        attached: &mut Vec<Attachment>,
    ) -> Result<(), KernelError> {
        for loaded in &mut *loaded {
            let device = loaded.device;
            for &hook in device.hooks().iter().filter(|hook| **hook != Hook::Egress) {
                let at = (device.name.as_str(), device.ifindex);
                let entry = hook == Hook::Xdp;
                if let Some(place) = loaded.instance.place().filter(|_| entry) {
                    place.keep(device.ifindex)?;
                }
                match attach::attach(loaded.of(hook), at, hook, (mode, self.tcx), &self.pin_dir) {
                    Ok(done) => attached.push(done),
                    Err(error) => {
                        if let Some(place) = loaded.instance.place().filter(|_| entry) {
                            place.give_back();
                        }
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Detaches burst from every device and removes its pins, its directories and its mount; nothing else. Returns what was
/// detached. Works without a daemon, and on the state of any version: all that is pinned as a link or a map goes.
///
/// # Errors
/// When it cannot be seen what is there, or a pin cannot be removed. What could be removed is gone.
pub fn detach(pin_dir: &Path) -> Result<Vec<String>, KernelError> {
    let unreadable = |dir: &Path, error: &std::io::Error| KernelError::os(dir.display(), error);
    match bpffs::is_bpffs(pin_dir).map_err(|error| unreadable(pin_dir, &error))? {
        None => return Ok(Vec::new()),
        Some(false) => {
            bpffs::remove(pin_dir).map_err(|error| unreadable(pin_dir, &error))?;
            return Ok(Vec::new());
        }
        Some(true) => {}
    }
    let lock = bpffs::lock(pin_dir)?;
    let remove = |pin: &Path| match fs::remove_file(pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(KernelError::os(pin.display(), &error)),
        _ => Ok(()),
    };
    let mut detached = Vec::new();
    // Client devices and links lose their programs first, the maps after: no program runs without its maps.
    for pin in attach::pinned(pin_dir)?.iter().rev() {
        pin.remove()?;
        detached.push(pin.device.clone());
    }
    detached.sort_unstable();
    detached.dedup();
    // The directory is burst's own if its stamp lies in it: then maps go that this version does not know, too. A bpffs
    // holds BPF objects, directories and symbolic links; only the first are files.
    let maps_dir = maps_dir(pin_dir);
    let entries = bpffs::entries(&maps_dir).map_err(|error| unreadable(&maps_dir, &error))?;
    let own = entries.iter().any(|entry| entry.file_name() == "META");
    for entry in entries {
        let file = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?.is_file();
        if file && (own || layout::SHARED.iter().any(|shared| entry.file_name() == shared.name)) {
            remove(&entry.path())?;
        }
    }
    // An open directory keeps its mount busy.
    drop(lock);
    bpffs::remove(pin_dir).map_err(|error| {
        KernelError::new(
            Kind::State,
            format!("detached, but {} could not be removed: {error}", pin_dir.display()),
            "something that is not burst's lies in it, or a process stands in it",
        )
    })?;
    Ok(detached)
}
