//! `burst bypass` as the daemon does it: one bit of the pinned control word. What is in force is the word, whoever wrote it:
//! `burst bypass` writes it itself where the daemon does not answer in time.

use super::Core;
use crate::api::types::{BypassRequest, BypassResponse};
use crate::api::{ApiError, Code, Peer};

impl Core {
    /// Turns it on or off.
    pub(super) fn bypass(&mut self, request: BypassRequest, peer: Peer) -> Result<BypassResponse, ApiError> {
        let (uid, pid) = (peer.uid, peer.pid);
        if request.lapses_s.zip(since_boot_s()).is_some_and(|(lapses, now)| now > lapses) {
            tracing::warn!(on = request.on, uid, pid, "bypass: who asked has stopped waiting; nothing is done");
            return Err(ApiError::new(Code::Unavailable, "it was asked for too long ago", "ask again"));
        }
        let failed = |error: crate::kernel::KernelError| ApiError::new(Code::Internal, error.message, error.fix);
        let was = self.publisher.bypass(request.on).map_err(failed)?;
        self.bypass = request.on;
        match (request.on, was) {
            (true, false) => {
                tracing::warn!(uid, pid, "bypass is on: everything passes; connections in the cloud break")
            }
            (false, true) => {
                tracing::warn!(uid, pid, "bypass is off: all flows are local, and new ones are shifted again")
            }
            (on, _) => tracing::info!(uid, pid, on, "bypass is as it was"),
        }
        Ok(BypassResponse { on: request.on, was })
    }

    /// Says when somebody turned it on or off who did not ask the daemon.
    pub(super) fn hear_of_bypass(&mut self) {
        let on = self.publisher.maps().control().bypass != 0;
        if on != self.bypass {
            self.bypass = on;
            tracing::warn!(on, "bypass: found in the pinned control word, not set by this daemon");
        }
    }
}

/// Whole seconds since boot, as the command line reads them, too; `None` where they cannot be read.
pub(crate) fn since_boot_s() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    text.split('.').next()?.parse().ok()
}
