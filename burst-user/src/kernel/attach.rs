//! Attaching a program to a device, pinned; or putting it into the place of burst's former one. Where it is attached is a
//! [`Hook`]; how, is in [`xdp`] and [`classifier`].

mod classifier;
mod xdp;

pub(super) use classifier::has_tcx;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};

use super::bpffs::{entries, filters_dir, links_dir};
use super::error::{KernelError, Kind, with_causes};
use super::load::Instance;
use super::sys;
use crate::config::model::XdpMode;

/// Where a program is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Every frame that arrives: the way of packets and replies.
    Xdp,
    /// Every packet that the kernel sends: the sentinel of a link device.
    Egress,
    /// Every packet that arrives over a link of `via = "kernel"`: the way of its replies.
    Ingress,
}

impl Hook {
    const ALL: [Self; 3] = [Self::Xdp, Self::Egress, Self::Ingress];

    /// What stands behind the device's name in the name of a pin. Device names have no colons.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Xdp => "",
            Self::Egress => ":egress",
            Self::Ingress => ":ingress",
        }
    }
}

/// What was done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The program is new on the device.
    New,
    /// The program took the place of burst's former one, atomically.
    Replaced,
}

/// A program on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Device.
    pub device: String,
    /// Its index.
    pub ifindex: u32,
    /// Where on it.
    pub hook: Hook,
    /// What was done.
    pub attached: Attached,
}

/// Attaches the program of a hook to the device, or replaces burst's own there.
///
/// # Errors
/// When the device is gone, a foreign XDP program is attached, or the driver cannot do what is asked for. A foreign
/// program is never touched.
pub(super) fn attach(
    instance: &mut Instance,
    (device, ifindex): (&str, u32),
    hook: Hook,
    (mode, tcx): (XdpMode, bool),
    pin_dir: &Path,
) -> Result<Attachment, KernelError> {
    let attached = match hook {
        Hook::Xdp => xdp::attach(instance, device, ifindex, mode, pin_dir)?,
        Hook::Egress | Hook::Ingress if tcx => classifier::by_link(instance, device, ifindex, hook, pin_dir)?,
        Hook::Egress | Hook::Ingress => classifier::by_filter(instance, device, hook, pin_dir)?,
    };
    Ok(Attachment { device: device.to_owned(), ifindex, hook, attached })
}

/// Loads the program of a hook of traffic control.
///
/// # Errors
/// When the verifier or the kernel refuses, with the verifier's words.
pub(super) fn prepare(instance: &mut Instance, hook: Hook) -> Result<(), KernelError> {
    instance.classifier(classifier::program(hook)).map(drop)
}

/// What burst has pinned of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// The device.
    pub(super) device: String,
    /// Where on it.
    pub(super) hook: Hook,
    /// The pin.
    pub(super) path: PathBuf,
    /// A link, or what stands for a filter of traffic control, which is none.
    link: bool,
}

impl Pin {
    /// Whether it is attached to anything. What is no link cannot be asked: it is taken to be.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(super) fn is_alive(&self) -> Result<bool, KernelError> {
        Ok(!self.link || attached_to(&self.path)?.is_some_and(|ifindex| ifindex != 0))
    }

    /// Takes the program off its device; one that is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn remove(&self) -> Result<(), KernelError> {
        if !self.link {
            classifier::remove_filter(&self.device, self.hook)?;
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(KernelError::os(self.path.display(), &error))
            }
            _ => Ok(()),
        }
    }
}

/// Everything that is pinned of devices.
///
/// # Errors
/// When a directory is there and cannot be read.
pub(super) fn pinned(pin_dir: &Path) -> Result<Vec<Pin>, KernelError> {
    let mut pins = Vec::new();
    for (dir, link) in [(links_dir(pin_dir), true), (filters_dir(pin_dir), false)] {
        let entries = entries(&dir).map_err(|error| KernelError::os(dir.display(), &error))?;
        pins.extend(entries.iter().map(|entry| {
            let name = entry.file_name().to_string_lossy().replace("%2E", ".").replace("%25", "%");
            let hook = Hook::ALL.into_iter().rev().find(|hook| name.ends_with(hook.suffix())).unwrap_or(Hook::Xdp);
            let device = name.strip_suffix(hook.suffix()).unwrap_or(&name).to_owned();
            Pin { device, hook, path: entry.path(), link }
        }));
    }
    Ok(pins)
}

/// Takes back what an attachment of this process made.
///
/// # Errors
/// When it cannot be found or removed.
pub(super) fn take_back(attachment: &Attachment, pin_dir: &Path) -> Result<(), KernelError> {
    let is_it = |pin: &&Pin| pin.device == attachment.device && pin.hook == attachment.hook;
    pinned(pin_dir)?.iter().find(is_it).map_or(Ok(()), Pin::remove)
}

/// Whether any XDP program of burst's is attached.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn any_alive(pin_dir: &Path) -> Result<bool, KernelError> {
    for pin in pinned(pin_dir)?.iter().filter(|pin| pin.hook == Hook::Xdp) {
        if pin.is_alive()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The link pinned at `pin`, if it is still attached to the device. One whose device went away is unpinned.
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

/// Where something of a device is pinned. A bpffs takes no dots (`bpf_lookup` in kernel/bpf/inode.c), device names may have
/// them.
fn pin(dir: &Path, device: &str, hook: Hook) -> PathBuf {
    dir.join(device.replace('%', "%25").replace('.', "%2E") + hook.suffix())
}

/// Pins a new link.
fn pin_link(link: FdLink, pin: &Path, device: &str) -> Result<(), KernelError> {
    link.pin(pin).map(drop).map_err(|error| {
        let message = format!("pinning the link of {device} at {}: {}", pin.display(), with_causes(&error));
        KernelError::new(Kind::State, message, "see that no other burst uses this `pin_dir`, and start again")
    })
}

fn foreign_link(pin: &Path, error: &dyn std::fmt::Display) -> KernelError {
    KernelError::new(
        Kind::State,
        format!("{} is no link of burst's: {error}", pin.display()),
        "choose another `pin_dir`",
    )
}
