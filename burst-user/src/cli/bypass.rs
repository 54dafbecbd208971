//! `burst bypass`: everything passes, or not any more. Through the daemon where it answers at once, else by the pinned control
//! word itself.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::api::types::{BypassRequest, Status};
use crate::api::{Client, ClientError, Code};
use crate::exit::{Exit, Failure};
use crate::kernel::{Bypass, Standing};
use crate::{config, daemon, object};

use super::render::{bits, count};

/// How long the daemon has to answer before it is done without it: the whole is to be over within a second.
const AT_ONCE: Duration = Duration::from_millis(400);

/// Arguments of `burst bypass`.
#[derive(Clone, Debug, Args)]
pub struct BypassArgs {
    /// Let everything pass, or end that.
    pub state: Switch,
    /// Do not ask before connections are broken.
    #[arg(short, long)]
    pub yes: bool,
    /// The daemon's configuration, which names its socket and its pins.
    #[arg(short, long, value_name = "FILE", conflicts_with = "pin_dir")]
    pub config: Option<PathBuf>,
    /// The directory of the pins; /run/burst/bpf when neither is given.
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Everything passes.
    On,
    /// Flows are placed again.
    Off,
}

/// What was done, for programs.
#[derive(Debug, Serialize)]
struct Done {
    bypass: bool,
    was: bool,
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    placed: Option<Vec<Placed>>,
}

/// What is known of the flows of a class that are offsite.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Placed {
    class: String,
    /// Remembered one by one.
    pinned: u64,
    slots_offsite: u32,
    slots: u32,
    /// Opened offsite since the maps were made.
    opened: u64,
    /// Opened there per second now; only a daemon knows.
    opened_fps: Option<f64>,
    /// Going there per second now; likewise.
    out_bps: Option<f64>,
}

/// Where it is asked and done.
struct Ways {
    client: Client,
    pin_dir: PathBuf,
    json: bool,
}

/// Turns the bypass on or off.
///
/// # Errors
/// [`Exit::Unconfirmed`] when nobody says yes to what it breaks; when neither a daemon answers nor anything is pinned; the
/// kernel's.
pub async fn bypass(args: &BypassArgs, said: Option<&Path>, json: bool) -> Result<(), Failure> {
    let edge = args.config.as_deref().map(config::load).transpose()?.map(|loaded| loaded.config.edge);
    let socket = said.map(Path::to_owned).or_else(|| edge.as_ref().map(|edge| edge.socket.clone()));
    let pin_dir = args.pin_dir.clone().or_else(|| edge.map(|edge| edge.pin_dir));
    let patience = if args.state == Switch::On { AT_ONCE } else { super::DEADLINE };
    let ways = Ways {
        client: Client::new(socket.unwrap_or_else(|| super::SOCKET.into()), patience),
        pin_dir: pin_dir.unwrap_or_else(|| super::run::PIN_DIR.into()),
        json,
    };
    match args.state {
        Switch::On => ways.on(args.yes).await,
        Switch::Off => ways.off().await,
    }
}

/// Whether a daemon answered that it ends.
fn is_ending(error: &ClientError) -> bool {
    matches!(error, ClientError::Api(error) if error.code == Code::Unavailable)
}

impl Ways {
    async fn on(&self, yes: bool) -> Result<(), Failure> {
        let (answers, placed, was) = match self.client.status().await {
            Ok(status) => (true, Placed::by_status(&status), status.bypass),
            Err(error) => {
                let word = self.word(error)?;
                (false, word.standing()?.into_iter().map(Placed::from).collect(), word.is_on())
            }
        };
        if !was {
            let breaks = breaks(&placed);
            if !yes {
                confirmed(&breaks)?;
            } else if !self.json {
                super::print(&breaks)?;
            }
        }
        // A daemon that did not tell its status in time is not waited for again.
        let lapses_s = daemon::since_boot_s().map(|now| now + 1);
        let done = if answers { Some(self.client.bypass(&BypassRequest { on: true, lapses_s }).await) } else { None };
        let (was, by) = match done {
            Some(Ok(done)) => (done.was, "daemon"),
            // One that is ending does nothing any more.
            Some(Err(error @ ClientError::Api(_))) if !is_ending(&error) => return Err(error.into()),
            Some(Err(error)) => (self.word(error)?.on(), "pinned word"),
            None => (self.word(ClientError::NoSocket { path: self.client.path().to_owned() })?.on(), "pinned word"),
        };
        let text = match was {
            true => "bypass was on already: everything passes\n".to_owned(),
            false => format!("bypass is on: everything passes, nothing is shifted (set by the {by})\n"),
        };
        self.print(&Done { bypass: true, was, by, placed: Some(placed) }, &text)
    }

    async fn off(&self) -> Result<(), Failure> {
        let (was, by) = match self.client.bypass(&BypassRequest { on: false, lapses_s: None }).await {
            Ok(done) => (done.was, "daemon"),
            Err(error @ ClientError::Api(_)) => return Err(error.into()),
            Err(error) => {
                // Slots and pins change with it, which are a daemon's own while it lives.
                let late = format!("{error}");
                let off = self.word(error)?.off();
                let held = |error: crate::kernel::KernelError| {
                    match error.kind {
                    crate::kernel::Kind::Busy => Exit::NotRunning.because(anyhow::anyhow!(
                        "{late}\n  bypass stays as it is: to end it, slots and pins must change, and these are the daemon's while it lives; end \
                         its process, then call again"
                    )),
                    _ => error.into(),
                }
                };
                (off.map_err(held)?, "pinned word")
            }
        };
        let text = match was {
            false => "bypass was off\n".to_owned(),
            true => format!("bypass is off: all flows are local, new ones are shifted again (set by the {by})\n"),
        };
        self.print(&Done { bypass: false, was, by, placed: None }, &text)
    }

    /// What is pinned, for when the daemon did not answer; `error` is why.
    fn word(&self, error: ClientError) -> Result<Bypass, Failure> {
        let found =
            object::get().map_err(anyhow::Error::from).and_then(|object| Ok(Bypass::open(object, &self.pin_dir)?));
        let gone = || {
            let nothing = format!("nothing of burst's is pinned in {}", self.pin_dir.display());
            Exit::NotRunning.because(anyhow::Error::from(error).context(nothing))
        };
        found?.ok_or_else(gone)
    }

    fn print(&self, done: &Done, text: &str) -> Result<(), Failure> {
        if self.json { super::print_json(done) } else { super::print(text) }
    }
}

impl From<Standing> for Placed {
    fn from(standing: Standing) -> Self {
        let Standing { class, pinned, slots_offsite, slots, opened } = standing;
        Self { class, pinned, slots_offsite, slots, opened, opened_fps: None, out_bps: None }
    }
}

impl Placed {
    fn by_status(status: &Status) -> Vec<Self> {
        let placed = status.classes.iter().filter_map(|class| {
            let burst = class.burst.as_ref()?;
            let shifted = |reason: &str| ["shifted", "shifted-kernel"].contains(&reason);
            let opened = class.reasons.iter().filter(|row| shifted(&row.reason)).map(|row| row.openers).sum();
            let shares: Option<f64> = burst.tiers.iter().map(|tier| tier.share.achieved).sum();
            let endpoints = burst.tiers.iter().flat_map(|tier| &tier.endpoints);
            Some(Self {
                class: class.name.clone(),
                pinned: burst.pins_offsite,
                slots_offsite: burst.slots.offsite,
                slots: burst.slots.total,
                opened,
                opened_fps: shares.map(|share| share * burst.demand_fps),
                out_bps: Some(endpoints.map(|endpoint| endpoint.out.rate_bps).sum()),
            })
        });
        placed.collect()
    }
}

/// What breaks, in words, with what the numbers are and are not.
fn breaks(placed: &[Placed]) -> String {
    let mut text = "bypass breaks every connection that is in the cloud now:\n".to_owned();
    for Placed { class, pinned, slots_offsite, slots, opened, opened_fps, out_bps } in placed {
        text += &format!(
            "  {class}: {pinned} remembered one by one; {slots_offsite} of {slots} slots send offsite, whose connections nobody \
             counts; {opened} were opened there since the maps were made"
        );
        text += &opened_fps.map(|rate| format!(", {}/s now", count(rate))).unwrap_or_default();
        text += &out_bps.map(|rate| format!("; {} go there", bits(rate))).unwrap_or_default();
        text += "\n";
    }
    let (least, most) = placed.iter().fold((0, 0), |(least, most), row| (least + row.pinned, most + row.opened));
    text + &format!(
        "About {least} at least (remembered ones may be over: they are kept for idle_timeout), {most} at most (all that were ever \
         opened there). Payment and what is local go on.\n"
    )
}

/// Asks whether to go on.
fn confirmed(breaks: &str) -> Result<(), Failure> {
    let no = |why: &str| Err(Exit::Unconfirmed.because(anyhow::anyhow!("{why}; nothing was changed")));
    if !std::io::stdin().is_terminal() {
        return no(&format!("{breaks}This is no terminal to ask on: say --yes"));
    }
    let mut error = std::io::stderr();
    let asked = error.write_all(format!("{breaks}Turn bypass on? [y/N] ").as_bytes()).and_then(|()| error.flush());
    let mut answer = String::new();
    let heard = asked.and_then(|()| std::io::stdin().read_line(&mut answer));
    match heard.map(|_| answer.trim().to_lowercase()) {
        Ok(answer) if ["y", "yes"].contains(&answer.as_str()) => Ok(()),
        Ok(_) => no("not confirmed"),
        Err(error) => no(&format!("nobody could be asked: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_is_said_with_what_is_not_known() {
        let standing = Standing { class: "promo".into(), pinned: 12, slots_offsite: 4096, slots: 8192, opened: 812 };
        let quiet = Placed::from(standing);
        let live = Placed { opened_fps: Some(1200.0), out_bps: Some(3e9), ..quiet.clone() };
        let (quiet, live) = (breaks(&[quiet]), breaks(&[live]));
        for text in [&quiet, &live] {
            assert!(text.contains("promo: 12 remembered one by one; 4096 of 8192 slots send offsite"), "{text}");
            assert!(text.contains("About 12 at least") && text.contains("812 at most"), "{text}");
        }
        assert!(
            live.contains("812 were opened there since the maps were made, 1.20k/s now; 3.00 Gbit/s go there\n"),
            "{live}"
        );
        assert!(quiet.contains("since the maps were made\n"), "{quiet}");
    }
}
