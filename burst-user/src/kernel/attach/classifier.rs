//! The programs of traffic control: what the kernel sends to links, and what comes back over those that it picks. By bpf_link
//! (tcx, Linux 6.6) where there is one, else as a filter of the device's clsact qdisc.
//!
//! A filter is no object that could be pinned: what is pinned in its place is the program, and says that the filter, known
//! by its number, is burst's.

use std::path::Path;
use std::{fs, io};

use aya::programs::links::{FdLink, Link};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramError};
use aya::util::KernelVersion;

use super::{Attached, Hook, adopt, foreign_link, pin, pin_link};
use crate::kernel::bpffs::{filters_dir, links_dir};
use crate::kernel::error::{KernelError, Kind, PRIVILEGES, errno, remedy, with_causes};
use crate::kernel::load::Instance;

/// What first had tcx.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// Where filters stand: before all others. Their number is "burs".
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0x6275, 0x7273);

/// The program of a hook.
pub(super) const fn program(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => "burst_return",
        Hook::Egress | Hook::Xdp => "sentinel_tc",
    }
}

const fn side(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress | Hook::Xdp => TcAttachType::Egress,
    }
}

/// Whether this kernel has links of traffic control.
pub(in crate::kernel) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= TCX)
}

/// Attaches the program of a hook by a link, before all others there, or replaces burst's own.
pub(super) fn by_link(
    instance: &mut Instance,
    device: &str,
    ifindex: u32,
    hook: Hook,
    pin_dir: &Path,
) -> Result<Attached, KernelError> {
    let program = instance.classifier(program(hook))?;
    let refused = |error: ProgramError| refused(device, hook, &error);
    let pin = pin(&links_dir(pin_dir), device, hook);
    let (id, attached) = match adopt(&pin, ifindex)? {
        Some(link) => {
            let link = SchedClassifierLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?;
            (program.attach_to_link(link).map_err(refused)?, Attached::Replaced)
        }
        None => {
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            (program.attach_with_options(device, side(hook), first).map_err(refused)?, Attached::New)
        }
    };
    let link = FdLink::try_from(program.take_link(id).map_err(refused)?);
    let link = link.map_err(|error| KernelError::new(Kind::Other, format!("{device}: {error}"), ""))?;
    match attached {
        Attached::New => pin_link(link, &pin, device)?,
        // The pin keeps the link; to close our descriptor detaches nothing.
        Attached::Replaced => drop(link),
    }
    Ok(attached)
}

/// Attaches the program of a hook as a filter, before all others there, or replaces burst's own.
pub(super) fn by_filter(
    instance: &mut Instance,
    device: &str,
    hook: Hook,
    pin_dir: &Path,
) -> Result<Attached, KernelError> {
    let program = instance.classifier(program(hook))?;
    let refused = |error: ProgramError| refused(device, hook, &error);
    match qdisc_add_clsact(device) {
        Err(error) if errno(&error) != Some(libc::EEXIST) => return Err(refused(error.into())),
        _ => {}
    }
    let options = || TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
    let (id, attached) = match program.attach_with_options(device, side(hook), options()) {
        Ok(id) => (id, Attached::New),
        // Burst's former one: nobody else has this number.
        Err(error) if errno(&error) == Some(libc::EEXIST) => {
            let former = SchedClassifierLink::attached(device, side(hook), PRIORITY, HANDLE, None)
                .map_err(|error| KernelError::os(device, &error))?;
            (program.attach_to_link(former).map_err(refused)?, Attached::Replaced)
        }
        Err(error) => return Err(refused(error)),
    };
    // It detaches when it is dropped; what it holds is a few numbers.
    std::mem::forget(program.take_link(id).map_err(refused)?);
    let dir = filters_dir(pin_dir);
    let pin = pin(&dir, device, hook);
    let made = fs::create_dir(&dir).or_else(|error| ignore(error, io::ErrorKind::AlreadyExists));
    made.map_err(|error| KernelError::os(dir.display(), &error))?;
    let former = fs::remove_file(&pin).or_else(|error| ignore(error, io::ErrorKind::NotFound));
    former.map_err(|error| KernelError::os(pin.display(), &error))?;
    program.pin(&pin).map_err(|error| {
        let message = format!("pinning the program of {device} at {}: {}", pin.display(), with_causes(&error));
        KernelError::new(Kind::State, message, "see that no other burst uses this `pin_dir`, and start again")
    })?;
    Ok(attached)
}

fn ignore(error: io::Error, kind: io::ErrorKind) -> io::Result<()> {
    if error.kind() == kind { Ok(()) } else { Err(error) }
}

/// Removes burst's filter from a device; one that is gone, with its device or without, is no error. The qdisc stays: others
/// may have filters there.
pub(super) fn remove_filter(device: &str, hook: Hook) -> Result<(), KernelError> {
    let link = match SchedClassifierLink::attached(device, side(hook), PRIORITY, HANDLE, None) {
        Ok(link) => link,
        // No such device.
        Err(_) => return Ok(()),
    };
    match link.detach() {
        Err(error) if ![Some(libc::ENOENT), Some(libc::ENODEV), Some(libc::EINVAL)].contains(&errno(&error)) => {
            Err(refused(device, hook, &error))
        }
        _ => Ok(()),
    }
}

fn refused(device: &str, hook: Hook, error: &ProgramError) -> KernelError {
    let side = if hook == Hook::Ingress { "ingress" } else { "egress" };
    let message = format!("attaching to the {side} of {device}: {}", with_causes(error));
    match errno(error) {
        Some(libc::ENODEV) => KernelError::new(
            Kind::Device,
            format!("the device {device} went away"),
            "bring it back, or correct the link's `device`",
        ),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT) => KernelError::new(
            Kind::Unsupported,
            message,
            "burst needs tcx (Linux 6.6), or CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF",
        ),
        Some(libc::EPERM | libc::EACCES) => KernelError::new(Kind::Permission, message, PRIVILEGES),
        errno => KernelError::new(Kind::Other, message, remedy(errno)),
    }
}
