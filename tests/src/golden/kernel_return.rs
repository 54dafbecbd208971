//! The return side of links that the kernel routes, by test run: a socket buffer as it comes from the link, and what becomes
//! of it.

use std::io::Error;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result, anyhow};
use aya::programs::SchedClassifier;
use burst::kernel::{self, Instance, Told};
use burst::object;
use burst_common::policy::{DeviceLink, ROLE_LINK, Table, mac_word};

use super::{Bed, DEVICES, Outcome, Row, cpus};

/// `burst_return` of a device, loaded and attached nowhere.
pub struct KernelReturn {
    instance: Instance,
    ifindex: u32,
}

/// What the kernel knows of a packet's checksum (include/linux/skbuff.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Nothing.
    None,
    /// The sum over the whole packet: the kernel holds it against the packet when the program is done (Linux 6.16 and newer).
    Complete,
}

/// `union bpf_attr`, as of `BPF_PROG_TEST_RUN` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

const BPF_PROG_TEST_RUN: i32 = 10;
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;

impl Bed {
    /// Loads `burst_return` of a device that carries one link, as the daemon does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kernel_return(&self, device: &'static str, link: u8) -> Result<KernelReturn> {
        let mac = DEVICES.iter().find(|(name, ..)| *name == device).map_or([0; 6], |(_, mac, ..)| *mac);
        self.kernel_return_of(self.indices[device], mac, link)
    }

    /// The same of a device with this index and MAC address; without an Ethernet header that is zero.
    pub(super) fn kernel_return_of(&self, ifindex: u32, mac: [u8; 6], link: u8) -> Result<KernelReturn> {
        let mut policy = self.compiled.policy;
        policy.role = ROLE_LINK;
        let links = [DeviceLink { vlan: 0, link: link.into() }];
        policy.links = Table::new(0, &links).map_err(|_| anyhow!("too many links"))?;
        policy.mac = mac_word(mac);
        let told = Told {
            policy: &policy,
            large: self.compiled.large.as_ref(),
            guard: &self.compiled.guard,
            guard_large: self.compiled.guard_large.as_ref(),
            trace: false,
        };
        let mut instance = kernel::load(object::get()?, &self.pin_dir.join("maps"), cpus()?, &told)?;
        program(&mut instance)?.load().context("burst_return")?;
        Ok(KernelReturn { instance, ifindex })
    }

    /// Runs a row and holds what came of it against what was to come; `false` when this kernel knows no such checksum. A redirect
    /// is to wherever: MAC addresses are the kernel's affair, and the row's are those of the link.
    ///
    /// # Errors
    /// When the run itself fails.
    ///
    /// # Panics
    /// When verdict, bytes or counters differ, with the row's name and the differences.
    #[track_caller]
    pub fn check_return(&self, program: &mut KernelReturn, sum: Sum, row: &Row) -> Result<bool> {
        let before = self.counters.read();
        let outcome = self.edge.run(|| program.run(sum, &row.frame))?;
        match outcome {
            Ok(outcome) => self.judge(row, &outcome, &before),
            Err(error) if sum == Sum::Complete && error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("{} ({sum:?})", row.name)),
        }
        Ok(true)
    }
}

impl KernelReturn {
    /// Its program, for what the verifier says of it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn program(&mut self) -> Result<&mut SchedClassifier> {
        program(&mut self.instance)
    }

    /// Runs a packet through the program, in the namespace of its device.
    fn run(&mut self, sum: Sum, frame: &[u8]) -> Result<Outcome, Error> {
        // struct __sk_buff: ifindex is its eleventh word. The kernel refuses every other that is set here.
        let context: [u32; 48] = std::array::from_fn(|word| if word == 10 { self.ifindex } else { 0 });
        let mut out = vec![0xa5; frame.len() + 256];
        let program = self.program().map_err(Error::other)?;
        let mut run = TestRun {
            prog_fd: program.fd().map_err(Error::other)?.as_fd().as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_size_out: out.len() as u32,
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat: 1,
            ctx_size_in: size_of_val(&context) as u32,
            ctx_in: context.as_ptr() as u64,
            flags: if sum == Sum::Complete { BPF_F_TEST_SKB_CHECKSUM_COMPLETE } else { 0 },
            ..bytemuck::Zeroable::zeroed()
        };
        // SAFETY: the structure and the three buffers it names live through the call and are as long as it says.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut run, size_of::<TestRun>()) };
        if result != 0 {
            return Err(Error::last_os_error());
        }
        out.truncate(run.data_size_out as usize);
        // As the same verdict of an XDP program is numbered: TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT.
        let action = match run.retval {
            u32::MAX => 2,
            2 => 1,
            7 => 4,
            other => return Err(Error::other(format!("the program answers {other}"))),
        };
        Ok(Outcome { action, frame: out })
    }
}

fn program(instance: &mut Instance) -> Result<&mut SchedClassifier> {
    Ok(instance.ebpf().program_mut("burst_return").context("the object has no program burst_return")?.try_into()?)
}
