//! `edge.trace`: what the program logs of each packet of a class, put into the daemon's log. It costs the packet path nothing when it
//! is off: the level is a load-time constant, and the verifier removes the code.

use std::time::Duration;

use aya_log::EbpfLogger;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::kernel::Instance;

/// How often the ring buffers are emptied; each holds about a thousand packets' lines.
const PERIOD: Duration = Duration::from_millis(20);

/// Follows the logs of program instances until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Trace {
    tasks: JoinSet<()>,
}

impl Trace {
    /// Follows `instances` in place of those before. Must be called within a tokio runtime.
    pub(super) fn follow(&mut self, instances: &mut [Instance]) {
        self.tasks.abort_all();
        for instance in instances {
            match EbpfLogger::init(instance.ebpf()) {
                Ok(logger) => drop(self.tasks.spawn(read(logger))),
                Err(error) => tracing::error!(%error, "packets of one device will not be traced"),
            }
        }
    }
}

async fn read(mut logger: EbpfLogger<&'static dyn log::Log>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        logger.flush();
    }
}
