//! The three layers that keep payment here, one at a time: the others are told wrong things, by the same object. An instance is
//! told its policy and what the guard consults apart from each other, and the sentinel is told by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};

use super::sentinel::Sentinel;
use super::{Bed, Entry};
use crate::sniffer::Sniffer;

impl Bed {
    /// Tells all instances that are loaded from now on that the rules of keep classes are those of another class, which may leave.
    /// What guard and sentinel consult stays, and so does all else.
    pub fn mislead(&mut self, class: &str) {
        let class = self.class(class) as u8;
        let policy = &mut self.compiled.policy;
        for (rule, of) in policy.rule_class.iter_mut().enumerate() {
            if policy.keep & 1 << rule != 0 {
                *of = class;
            }
        }
        policy.keep = 0;
        self.instances.clear();
    }

    /// Gives all instances that are loaded from now on a guard that knows no rule.
    pub fn blind_guard(&mut self) {
        (self.compiled.guard, self.compiled.guard_large) = (bytemuck::Zeroable::zeroed(), None);
        self.instances.clear();
    }

    /// Lets packets be redirected out of a device, through the sentinel if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reach_through(&mut self, device: &str, sentinel: Option<&mut Sentinel>) -> Result<()> {
        let index = self.indices[device];
        let program = match sentinel {
            Some(sentinel) => {
                let program = sentinel.instance().ebpf().program_mut("sentinel").context("no sentinel")?;
                let program: &mut Xdp = program.try_into()?;
                Some(program.fd()?.try_clone()?)
            }
            None => None,
        };
        self.edge.run(|| self.devices.insert(index, index, program.as_ref(), 0))??;
        self.reachable.insert(index);
        Ok(())
    }

    /// Sends a frame through an entry's program as if its device had received it, `count` times, each time for real.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send(&mut self, entry: Entry, frame: &[u8], count: u32) -> Result<()> {
        let context = self.context(entry, frame.len())?;
        self.instance(entry)?;
        let (edge, instances) = (&self.edge, &mut self.instances);
        let program = instances.get_mut(&entry).context("it was just loaded")?.program();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        };
        edge.run(|| program.test_run(options))??;
        Ok(())
    }
}

/// Waits until a sniffer has seen `count` TCP packets come in, and a little longer.
///
/// # Errors
/// When it saw more, or fewer in time.
pub fn arrived(sniffer: &Sniffer, count: u64) -> Result<()> {
    let seen = || -> u64 {
        let flows = sniffer.flows();
        flows.iter().filter(|(flow, _)| flow.incoming && flow.protocol == 6).map(|(_, packets)| packets).sum()
    };
    let until = Instant::now() + Duration::from_secs(5);
    while seen() < count && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(150));
    ensure!(seen() == count, "{} TCP packets arrived, not {count}", seen());
    Ok(())
}
