//! Attaching an instance to a device, by bpf_link only, pinned; or putting it into the link that is already there.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode as AyaMode};

use super::bpffs::entries;
use super::error::{KernelError, Kind, PRIVILEGES, errno, remedy, with_causes};
use super::load::Instance;
use super::sys;
use crate::config::model::XdpMode;

/// What was done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The program is new on the device.
    New,
    /// The program took the place of burst's former one, atomically.
    Replaced,
}

/// A device burst is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Device.
    pub device: String,
    /// Its index.
    pub ifindex: u32,
    /// What was done.
    pub attached: Attached,
}

/// Attaches `instance` to the device, or replaces burst's own program there.
///
/// # Errors
/// When the device is gone, a foreign XDP program is attached, or the driver cannot do what is asked for. A foreign
/// program is never touched.
pub(super) fn attach(
    instance: &mut Instance,
    device: &str,
    ifindex: u32,
    mode: XdpMode,
    links_dir: &Path,
) -> Result<Attachment, KernelError> {
    let pin = pin(links_dir, device);
    if let Some(link) = adopt(&pin, ifindex)? {
        let program = instance.program();
        let link = XdpLink::try_from(link).map_err(|error| {
            KernelError::new(
                Kind::State,
                format!("{} is no XDP link: {error}", pin.display()),
                "choose another `pin_dir`",
            )
        })?;
        let id = program.attach_to_link(link).map_err(|error| refused(device, mode, &error))?;
        // The pin keeps the link; what aya holds of it must not detach anything when it is dropped.
        forget(program.take_link(id), device)?;
        return Ok(Attachment { device: device.to_owned(), ifindex, attached: Attached::Replaced });
    }
    let aya_mode = match mode {
        XdpMode::Native => AyaMode::Driver,
        XdpMode::Generic => AyaMode::Skb,
    };
    let program = instance.program();
    let id = program.attach_to_if_index(ifindex, aya_mode).map_err(|error| refused(device, mode, &error))?;
    let link = program.take_link(id).map_err(|error| refused(device, mode, &error))?;
    // aya falls back to a netlink attachment on EINVAL, which cannot be pinned and dies with this process.
    let link = FdLink::try_from(link).map_err(|_| {
        KernelError::new(
            Kind::Unsupported,
            format!("{device}: the kernel refused a bpf_link in {} mode", name(mode)),
            if mode == XdpMode::Native {
                "the driver may not support XDP, or not with this MTU or these offloads: see `ethtool -i` and the driver's \
                 notes; `edge.xdp = \"generic\"` works everywhere, slowly"
            } else {
                "burst needs Linux 6.1 or newer"
            },
        )
    })?;
    link.pin(&pin).map_err(|error| {
        let message = format!("pinning the link of {device} at {}: {}", pin.display(), with_causes(&error));
        KernelError::new(Kind::State, message, "see that no other burst uses this `pin_dir`, and start again")
    })?;
    Ok(Attachment { device: device.to_owned(), ifindex, attached: Attached::New })
}

/// The link pinned for a device, if it is still attached to it. One whose device went away is unpinned.
fn adopt(pin: &Path, ifindex: u32) -> Result<Option<FdLink>, KernelError> {
    let Some(attached_to) = attached_to(pin)? else { return Ok(None) };
    if attached_to != ifindex {
        fs::remove_file(pin).map_err(|error| KernelError::os(pin.display(), &error))?;
        return Ok(None);
    }
    let link = PinnedLink::from_pin(pin).map_err(|error| {
        KernelError::new(Kind::State, format!("{}: {error}", pin.display()), "choose another `pin_dir`")
    })?;
    Ok(Some(FdLink::from(link)))
}

/// Index of the device that a pinned link is attached to, 0 when that is gone; `None` without a pin.
fn attached_to(pin: &Path) -> Result<Option<u32>, KernelError> {
    let os = |error| KernelError::os(pin.display(), &error);
    match sys::open_pin(pin) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        opened => sys::link_ifindex(opened.map_err(os)?.as_fd()).map(Some).map_err(os),
    }
}

/// Whether a pinned link is attached to anything.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn is_alive(pin: &Path) -> Result<bool, KernelError> {
    Ok(attached_to(pin)?.is_some_and(|ifindex| ifindex != 0))
}

/// Whether any pinned link is attached.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn any_alive(links_dir: &Path) -> Result<bool, KernelError> {
    for (_, pin) in pinned(links_dir)? {
        if is_alive(&pin)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Drops our hold on a pinned link without detaching it: closing the descriptor leaves the pin's reference.
fn forget(link: Result<XdpLink, ProgramError>, device: &str) -> Result<(), KernelError> {
    let link = link.map_err(|error| KernelError::new(Kind::Other, format!("{device}: {error}"), ""))?;
    drop(FdLink::try_from(link));
    Ok(())
}

/// Devices with a pinned link, and the pins.
///
/// # Errors
/// When the directory is there and cannot be read.
pub(super) fn pinned(links_dir: &Path) -> Result<Vec<(String, PathBuf)>, KernelError> {
    let entries = entries(links_dir).map_err(|error| KernelError::os(links_dir.display(), &error))?;
    let device = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().replace("%2E", ".").replace("%25", "%");
    Ok(entries.iter().map(|entry| (device(entry), entry.path())).collect())
}

/// Where the link of a device is pinned. A bpffs takes no dots (`bpf_lookup` in kernel/bpf/inode.c), device names may have
/// them.
pub(super) fn pin(links_dir: &Path, device: &str) -> PathBuf {
    links_dir.join(device.replace('%', "%25").replace('.', "%2E"))
}

fn name(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
    }
}

fn refused(device: &str, mode: XdpMode, error: &ProgramError) -> KernelError {
    let message = format!("attaching to {device} in {} mode: {}", name(mode), with_causes(error));
    match errno(error) {
        Some(libc::EBUSY | libc::EEXIST) => KernelError::new(
            Kind::Device,
            format!("{device} already has an XDP program that is not burst's; it was left alone"),
            format!("see `ip link show dev {device}` and `bpftool net`, detach it, or take another device"),
        ),
        Some(libc::ENODEV) => KernelError::new(
            Kind::Device,
            format!("the device {device} went away"),
            "bring it back, or correct `edge.client` and the links' `device`",
        ),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE) => KernelError::new(
            Kind::Unsupported,
            message,
            "the driver does not support native XDP as things stand: check MTU, LRO and channels (`ethtool -k`, `ethtool \
             -l`); `edge.xdp = \"generic\"` works everywhere, slowly",
        ),
        Some(libc::EPERM | libc::EACCES) => KernelError::new(Kind::Permission, message, PRIVILEGES),
        errno => KernelError::new(Kind::Other, message, remedy(errno)),
    }
}
