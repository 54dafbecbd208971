//! An instance that nobody else knows: maps of its own, no pin, no device. Packets are put to it one by one
//! (`BPF_PROG_TEST_RUN`: nothing is sent), and it reports what became of each. What is in its maps, others decide.

use std::os::fd::AsFd;

use aya::programs::{TestRun, TestRunOptions};
use burst_common::report::Report;

use super::error::{KernelError, Kind, PRIVILEGES, errno, with_causes};
use super::load::{Instance, Told, load_alone};
use super::mapped::Mapped;
use super::maps::Maps;

/// Bytes that a packet may grow by: XDP_PACKET_HEADROOM (include/uapi/linux/bpf.h).
const GROWTH: usize = 256;

/// What the program answered (include/uapi/linux/bpf.h, `enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `XDP_PASS`: on to the kernel.
    Pass,
    /// `XDP_TX`: back out of the device it came from.
    Tx,
    /// `XDP_REDIRECT`: out of a device.
    Redirect,
    /// `XDP_DROP` or `XDP_ABORTED`.
    Drop,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// The program's answer.
    pub action: Action,
    /// Bytes of the frame afterwards.
    pub len: usize,
    /// What the program reported.
    pub report: Report,
}

/// A second instance.
pub struct Alone {
    instance: Instance,
    /// Its maps.
    pub maps: Maps,
    report: Mapped<Report>,
}

impl Alone {
    /// Loads an instance. Its maps are empty.
    ///
    /// # Errors
    /// When a privilege is missing, or verifier or kernel refuse.
    pub fn load(object: &[u8], told: &Told<'_>) -> Result<Self, KernelError> {
        let cpus = super::cpus()?;
        let instance = load_alone(object, cpus, told)?;
        let maps = Maps::of(&instance, cpus)?;
        let report = Mapped::new(instance.map("REPORT")?.as_fd(), 1)
            .map_err(|error| KernelError::os("mapping REPORT into memory", &error))?;
        Ok(Self { instance, maps, report })
    }

    pub(super) const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Puts a frame of at least fourteen bytes to the program, as if it had arrived on the device `ifindex` of this network
    /// namespace. `out` becomes the frame as it goes on.
    ///
    /// # Errors
    /// When the kernel refuses the run, or the program does not report of it.
    pub fn put(&mut self, ifindex: u32, frame: &[u8], out: Option<&mut Vec<u8>>) -> Result<Ran, KernelError> {
        let before = self.report.read(0).packets;
        let mut context = [0; 24];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
        let mut options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::new() };
        let mut none = Vec::new();
        let room = out.is_some();
        let out = out.unwrap_or(&mut none);
        if room {
            out.resize(frame.len() + GROWTH, 0);
            options.data_out = Some(&mut out[..]);
        }
        let result = self.instance.program().test_run(options).map_err(|error| refused(&error, frame.len()))?;
        let len = result.data_size_out as usize;
        if room {
            out.truncate(len);
        }
        let report = self.report.read(0);
        let action = match result.return_value {
            0 | 1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            other => return Err(defect(format!("the program answered {other}, which is no XDP action"))),
        };
        if report.packets != before + 1 {
            return Err(defect(format!("the program reported {} packets for one", report.packets - before)));
        }
        Ok(Ran { action, len, report })
    }
}

fn defect(what: String) -> KernelError {
    KernelError::new(Kind::Other, what, "a defect of burst: report it, with the packet")
}

fn refused(error: &(dyn std::error::Error + 'static), bytes: usize) -> KernelError {
    let message = format!("running a packet of {bytes} bytes through the program: {}", with_causes(error));
    match errno(error) {
        Some(libc::EPERM | libc::EACCES) => KernelError::new(Kind::Permission, message, PRIVILEGES),
        Some(libc::ENODEV) => {
            KernelError::new(Kind::Device, message, "the device went away, or is in another network namespace")
        }
        Some(libc::EINVAL) => KernelError::new(
            Kind::Unsupported,
            message,
            "the kernel takes Ethernet frames from 14 bytes to 64 kB, and more than one page only from Linux 5.18 on",
        ),
        _ => KernelError::new(Kind::Other, message, ""),
    }
}
