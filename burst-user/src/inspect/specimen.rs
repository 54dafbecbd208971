//! The second instance, ready to be asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burst_common::reason::Reason;
use burst_common::report::Report;
use serde::Serialize;

use super::tables::{self, Tables};
use crate::kernel::{Action, Alone, KernelError};

/// Why an instance cannot be had, or an answer not be trusted.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Neither state nor configuration.
    #[error(
        "no daemon has left state in {}, and no configuration is named; name it with -c FILE, or the directory of the pins \
         with --pin-dir", pin_dir.display()
    )]
    Nothing {
        /// Where state would be.
        pin_dir: PathBuf,
    },
    /// A name on the command line that nothing has.
    #[error("{option}: there is no {kind} `{name}`; there are: {}", there(known))]
    Unknown {
        /// The option.
        option: &'static str,
        /// What is meant.
        kind: &'static str,
        /// The name.
        name: String,
        /// Names there are.
        known: Vec<String>,
    },
    /// Something on the command line that is not possible here.
    #[error("{0}")]
    Usage(String),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Ids.
    #[error(transparent)]
    Ids(#[from] crate::policy::ids::IdsError),
    /// The compiler.
    #[error(transparent)]
    Compile(#[from] crate::policy::compile::CompileError),
    /// There is no object.
    #[error(transparent)]
    NoObject(#[from] crate::object::NoObject),
    /// Program and tables say different things.
    #[error("internal error, please report it: {}", .0.join("; "))]
    Disagree(Vec<String>),
}

fn there(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// Where the maps of the instance come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "maps", rename_all = "kebab-case")]
pub enum Source {
    /// Copies of what is pinned, and the policy of the program that runs.
    Live {
        /// The pin directory.
        pin_dir: PathBuf,
    },
    /// A configuration: endpoints healthy, links up.
    Configuration {
        /// The file.
        file: PathBuf,
        /// Why not what is pinned, if something is.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
}

impl Source {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Live { pin_dir } => {
                format!("copies of the live maps in {}, and the policy that runs", pin_dir.display())
            }
            Self::Configuration { file, why } => {
                let why = why.as_ref().map_or_else(String::new, |why| format!("; {why}"));
                format!("made from {}: endpoints healthy, links up{why}", file.display())
            }
        }
    }
}

/// An instance that nobody else knows.
pub struct Specimen {
    pub(super) alone: Alone,
    /// What it goes by.
    pub tables: Tables,
    /// Where its maps come from.
    pub source: Source,
    /// The device that packets arrive on.
    pub device: String,
    /// Its index.
    pub(super) ifindex: u32,
    /// Devices by index.
    pub(super) devices: BTreeMap<u32, String>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The program's answer.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Bytes of the frame afterwards.
    pub len: usize,
    /// What the program reported.
    pub report: Report,
}

impl Specimen {
    /// Puts a frame to the program; `out` becomes the frame as it goes on.
    ///
    /// # Errors
    /// When the kernel refuses, or the program's answer is not that of its reason.
    pub fn ask(&mut self, frame: &[u8], out: Option<&mut Vec<u8>>) -> Result<Answer, InspectError> {
        let ran = self.alone.put(self.ifindex, frame, out)?;
        let Some(reason) = tables::reason(&ran.report) else {
            return Err(InspectError::Disagree(vec![format!("the program gave the reason {}", ran.report.reason)]));
        };
        let expected = match reason.action() {
            burst_common::reason::Action::Pass => Action::Pass,
            burst_common::reason::Action::Drop => Action::Drop,
            burst_common::reason::Action::Redirect => Action::Redirect,
        };
        if ran.action != expected {
            let said = format!("the program answered {:?} for the reason {}", ran.action, reason.text());
            return Err(InspectError::Disagree(vec![said]));
        }
        Ok(Answer { action: ran.action, reason, len: ran.len, report: ran.report })
    }

    /// Counters of all classes: row `class * MAX_REASONS + reason`.
    #[must_use]
    pub fn counters(&self) -> crate::kernel::ClassCounters {
        self.alone.maps.class_counters()
    }

    /// Name of a device by its index.
    #[must_use]
    pub fn device_name(&self, ifindex: u32) -> Option<&str> {
        self.devices.get(&ifindex).map(String::as_str)
    }
}
