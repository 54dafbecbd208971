//! The XDP program of a device: by bpf_link only, in the mode that is asked for and no other.

use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode as AyaMode};

use super::{Attached, Hook, adopt, foreign_link, pin, pin_link};
use crate::config::model::XdpMode;
use crate::kernel::bpffs::links_dir;
use crate::kernel::error::{KernelError, Kind, PRIVILEGES, errno, remedy, with_causes};
use crate::kernel::load::Instance;

/// Attaches the entry, or replaces burst's own.
pub(super) fn attach(
    instance: &mut Instance,
    device: &str,
    ifindex: u32,
    mode: XdpMode,
    pin_dir: &Path,
) -> Result<Attached, KernelError> {
    let pin = pin(&links_dir(pin_dir), device, Hook::Xdp);
    if let Some(link) = adopt(&pin, ifindex)? {
        let program = instance.program();
        let link = XdpLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?;
        let id = program.attach_to_link(link).map_err(|error| refused(device, mode, &error))?;
        // The pin keeps the link; what aya holds of it must not detach anything when it is dropped.
        forget(program.take_link(id), device)?;
        return Ok(Attached::Replaced);
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
    pin_link(link, &pin, device)?;
    Ok(Attached::New)
}

/// Drops our hold on a pinned link without detaching it: closing the descriptor leaves the pin's reference.
fn forget(link: Result<XdpLink, ProgramError>, device: &str) -> Result<(), KernelError> {
    let link = link.map_err(|error| KernelError::new(Kind::Other, format!("{device}: {error}"), ""))?;
    drop(FdLink::try_from(link));
    Ok(())
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
