//! Installing a compiled policy: prepare the pin directory, check what is there, load one instance per device, attach.
//! And the way back: `detach`.

use std::fs;
use std::path::{Path, PathBuf};

use burst_common::limits::DEVICE_LINKS;
use burst_common::meta::{ATTACH_GENERIC, ATTACH_NATIVE, Meta};
use burst_common::policy::{DeviceLink, Policy, ROLE_CLIENT, ROLE_LINK, Table, TooMany, mac_word};

use super::attach::{self, Attachment};
use super::bpffs::{self, links_dir, maps_dir};
use super::error::{KernelError, Kind};
use super::events::Events;
use super::layout;
use super::load::{Instance, Told, load};
use super::maps::Maps;
use crate::config::model::XdpMode;
use crate::policy::compile::Compiled;

/// A device to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// MAC address: frames for others are not looked at. Zero when unknown: then all are.
    pub mac: [u8; 6],
    /// Whether client traffic arrives on it.
    pub client: bool,
    /// Ids of the links on it, and their VLANs (0 is untagged).
    pub links: Vec<(u8, u16)>,
}

impl Device {
    /// The policy as the instance of this device is told it.
    ///
    /// # Errors
    /// When links are on more VLANs of the device than an instance knows.
    pub fn policy(&self, compiled: &Compiled) -> Result<Policy, KernelError> {
        let role = if self.client { ROLE_CLIENT } else { 0 } | if self.links.is_empty() { 0 } else { ROLE_LINK };
        Ok(Policy { role, mac: mac_word(self.mac), links: device_links(self)?, ..compiled.policy })
    }
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
    /// Held as long as the maps are written.
    _lock: fs::File,
}

/// Opens the pinned state, or makes it.
///
/// # Errors
/// When a privilege is missing, or what is pinned does not fit this version.
pub fn install(plan: &Plan<'_>, seed: u64) -> Result<Installation, KernelError> {
    bpffs::prepare(plan.pin_dir)?;
    let lock = bpffs::lock(plan.pin_dir)?;
    let maps_dir = maps_dir(plan.pin_dir);
    let cpus = super::cpus()?;
    layout::check(plan.object, &maps_dir, cpus)?;
    // An instance that does nothing makes the maps that are missing.
    let (policy, guard) = (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
    let nothing = Told { policy: &policy, large: None, guard: &guard, guard_large: None, trace: false };
    load(plan.object, &maps_dir, cpus, &nothing)?;
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
    Ok(Installation { maps, adopted, pin_dir: plan.pin_dir.to_owned(), cpus, _lock: lock })
}

/// A program that takes another's place in a link runs where that ran: a link cannot be told to change its mode.
fn same_attach_mode(meta: &Meta, plan: &Plan<'_>) -> Result<(), KernelError> {
    let wanted = attach_mode(plan.mode);
    let recorded = match meta.attach {
        ATTACH_NATIVE => "native",
        ATTACH_GENERIC => "generic",
        _ => return Ok(()),
    };
    if meta.attach == wanted || !attach::any_alive(&links_dir(plan.pin_dir))? {
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

impl Installation {
    /// The events that were not read yet.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn events(&self) -> Result<Events, KernelError> {
        Events::open(&self.pin_dir)
    }

    /// Loads an instance for each device and attaches it: links first, then client devices, so that no packet is
    /// shifted before its reply finds the way back. Detaches devices that are no longer configured, and removes the
    /// pins of those that are gone.
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
        let maps_dir = maps_dir(&self.pin_dir);
        let links_dir = links_dir(&self.pin_dir);
        // All are loaded before any is attached: a refusal by the verifier changes nothing.
        let mut loaded = Vec::new();
        for device in devices {
            let policy = device.policy(compiled)?;
            let told = Told {
                policy: &policy,
                large: compiled.large.as_ref(),
                guard: &compiled.guard,
                guard_large: compiled.guard_large.as_ref(),
                trace: plan.trace,
            };
            loaded.push((device, load(plan.object, &maps_dir, self.cpus, &told)?));
        }
        loaded.sort_by_key(|(device, _)| device.client);
        for (device, _) in &loaded {
            self.maps.add_device(device.ifindex)?;
        }
        // Before the first link, and never after: of links that are there already, what is recorded is true.
        if !attach::any_alive(&links_dir)? {
            self.maps.set_attach_mode(attach_mode(plan.mode))?;
        }
        let mut attached: Vec<Attachment> = Vec::new();
        for (device, instance) in &mut loaded {
            match attach::attach(instance, &device.name, device.ifindex, plan.mode, &links_dir) {
                Ok(attachment) => attached.push(attachment),
                Err(mut error) => {
                    let replaced = attached.iter().filter(|a| a.attached == attach::Attached::Replaced);
                    let replaced: Vec<_> = replaced.map(|a| a.device.as_str()).collect();
                    if !replaced.is_empty() {
                        error.message += &format!("; the new program already runs on {}", replaced.join(", "));
                    }
                    for new in attached.iter().filter(|a| a.attached == attach::Attached::New) {
                        let pin = attach::pin(&links_dir, &new.device);
                        if let Err(error) = fs::remove_file(&pin) {
                            tracing::error!(pin = %pin.display(), %error, "could not take back an attachment");
                        }
                    }
                    return Err(error);
                }
            }
        }
        for (name, pin) in attach::pinned(&links_dir)? {
            if devices.iter().any(|device| device.name == name) {
                continue;
            }
            // A device that is configured but gone for now is not among `devices` either; its link is dead.
            let dead = !attach::is_alive(&pin)?;
            fs::remove_file(&pin).map_err(|error| KernelError::os(pin.display(), &error))?;
            if dead {
                tracing::info!(device = name, "the device is gone: removed the pin of its link");
            } else {
                tracing::info!(device = name, "not configured, or not under this name and here any more: detached");
            }
        }
        Ok((attached, loaded.into_iter().map(|(_, instance)| instance).collect()))
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
    for (name, pin) in attach::pinned(&links_dir(pin_dir))? {
        remove(&pin)?;
        detached.push(name);
    }
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
