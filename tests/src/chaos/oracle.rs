//! The traffic of a chaos run and the witnesses of it, and what they say: how much there was, and what of it broke.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::faults::is_flood;
use crate::client::Page;
use crate::load::{Held, HeldPlan, Load, Plan, Snapshot};
use crate::packet::checksum::layout;
use crate::packet::flag;
use crate::servers::Nginx;
use crate::sniffer::{Flows, Kept, Sniffer};
use crate::topology::{CLOUD_DEVICE, Family, PAYMENT, SECOND_TO_EDGE, SHOP, Service, TO_EDGE, Topology};

/// TCP sends again at growing intervals: what is not there after so long is lost.
const PATIENCE: Duration = Duration::from_secs(45);

/// How long a held connection stands still before it is worth a line.
const STALL: Duration = Duration::from_secs(3);

/// Everything that goes on while faults happen.
pub(super) struct Traffic {
    held: Vec<(&'static str, Held)>,
    loads: Vec<(&'static str, Load)>,
    /// What each held connection had when it moved last, and since when it stands.
    progress: Vec<(u64, Instant, bool)>,
    lines: Vec<Sniffer>,
    ends: Vec<(&'static str, Sniffer)>,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Connections held from the first to the last fault, or begun in between.
    pub connections: u64,
    /// Answers that were complete and right.
    pub answers: u64,
    /// Of those, bodies above 1 MiB.
    pub bodies: u64,
    /// Connections of payment.
    pub payments: u64,
    /// Packets on the Direct Connect lines.
    pub on_the_lines: u64,
    /// What broke, in words.
    pub broken: Vec<String>,
    /// Packets of payment's on the Direct Connect lines, or answered in the cloud.
    pub leaked: u64,
    /// Resets by a site's stack: it was sent a packet of a flow that is the other's.
    pub strays: Vec<String>,
}

impl Account {
    /// Whether nothing broke, leaked or went astray.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.leaked == 0 && self.strays.is_empty()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} connections ({} of payment), {} answers, {} of them bodies above 1 MiB; {} packets on the lines",
            self.connections, self.payments, self.answers, self.bodies, self.on_the_lines
        )?;
        for text in self.broken.iter().chain(&self.strays) {
            writeln!(f, "  {text}")?;
        }
        write!(
            f,
            "{} broken connections / {} payment packets on the lines / {} packets past the program",
            self.broken.len(),
            self.leaked,
            self.strays.len()
        )
    }
}

impl Traffic {
    /// Watches, before anything flows.
    pub(super) fn watch(topology: &Topology) -> Result<Self> {
        let line = |device| Sniffer::start(&topology.direct_connect, device);
        Ok(Self {
            held: Vec::new(),
            loads: Vec::new(),
            progress: Vec::new(),
            lines: vec![line(TO_EDGE)?, line(SECOND_TO_EDGE)?],
            ends: vec![
                ("local", Sniffer::keeping(&topology.local, TO_EDGE, is_reset)?),
                ("cloud", Sniffer::keeping(&topology.cloud, CLOUD_DEVICE, is_reset)?),
            ],
        })
    }

    /// Opens connections that are held to the end.
    pub(super) fn hold(&mut self, topology: &Topology, what: &'static str) -> Result<()> {
        let mut open = |service: Service, family, page, connections, pause| -> Result<()> {
            // A stream takes two minutes for each answer.
            let patience = if page == Page::Stream { 4 * PATIENCE } else { PATIENCE };
            let pause = Duration::from_millis(pause);
            let plan = HeldPlan { connections, page, pause, patience, ..HeldPlan::of(topology, service, family) };
            self.held.push((what, Held::open(&topology.client, plan)?));
            Ok(())
        };
        for family in Family::ALL {
            open(SHOP, family, Page::Small, 8, 100)?;
            open(SHOP, family, Page::Big, 1, 700)?;
            open(SHOP, family, Page::Stream, 2, 0)?;
            open(PAYMENT, family, Page::Small, 2, 100)?;
        }
        Ok(())
    }

    /// Begins what begins new connections all the time.
    pub(super) fn load(&mut self, topology: &Topology) -> Result<()> {
        let plan = |service: Service, page, rate, requests, pause| Plan {
            service: service.name.to_owned(),
            servers: Family::ALL.map(|family| service.at(family)).to_vec(),
            clients: Family::ALL.into_iter().flat_map(|family| topology.clients(family)).collect(),
            page,
            rate,
            requests,
            pause: Duration::from_millis(pause),
            patience: PATIENCE,
            most_open: 10_000,
        };
        for (what, plan) in [
            ("short", plan(SHOP, Page::Small, 25.0, 1, 0)),
            ("kept alive", plan(SHOP, Page::Small, 8.0, 40, 300)),
            ("bodies", plan(SHOP, Page::Big, 1.0, 4, 500)),
            ("payment", plan(PAYMENT, Page::Small, 8.0, 10, 300)),
        ] {
            self.loads.push((what, Load::start(&topology.client, plan)?));
        }
        Ok(())
    }

    /// Held connections that ask small pages and begin or cease to stand still for long, in words.
    pub(super) fn stalls(&mut self) -> Vec<String> {
        let now = Instant::now();
        let lines: Vec<_> = self.held.iter().flat_map(|(_, held)| held.lines()).collect();
        self.progress.resize(lines.len(), (0, now, false));
        let mut told = Vec::new();
        for (line, (answered, since, stands)) in lines.iter().zip(&mut self.progress) {
            // Streams take minutes.
            if line.answered == 0 || line.broken.is_some() {
                continue;
            }
            if line.answered != *answered {
                if *stands {
                    told.push(format!("{:?} at {:?} goes on after {:.1?}", line.local, line.site, now - *since));
                }
                (*answered, *since, *stands) = (line.answered, now, false);
            } else if !*stands && now - *since > STALL {
                *stands = true;
                told.push(format!("{:?} at {:?} has stood still for {:.1?}", line.local, line.site, now - *since));
            }
        }
        told
    }

    /// What is broken by now, in words.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (what, held) in &self.held {
            for line in held.lines() {
                let Some(failure) = &line.broken else { continue };
                let (from, site) = (line.local, line.site);
                all.push(format!("held ({what}), {from:?} at {site:?}, {} answers: {failure}", line.answered));
            }
        }
        for (what, load) in &self.loads {
            all.extend(failures(what, &load.snapshot()));
        }
        all
    }

    /// Each held connection carries data now, but streams, which are only known not to be broken.
    pub(super) fn exchange(&self) -> Result<()> {
        let lasting = |held: &&(&str, Held)| held.1.lines().iter().any(|line| line.answered > 0);
        self.held.iter().filter(lasting).try_for_each(|(_, held)| held.exchange())
    }

    /// Ends all, and gives the account of it.
    pub(super) fn finish(self, cloud: &Nginx) -> Result<Account> {
        let mut account = Account::default();
        let mut loads = Vec::new();
        for (what, load) in self.loads {
            loads.push((what, load.finish()?));
        }
        for (what, counted) in &loads {
            account.connections += counted.started;
            account.answers += counted.answered();
            account.payments += if *what == "payment" { counted.started } else { 0 };
            account.bodies += if *what == "bodies" { counted.answered() } else { 0 };
            account.broken.extend(failures(what, counted));
        }
        // Closing the held connections in the middle of an answer resets them: witnesses end first.
        for (site, witness) in self.ends {
            let resets = witness.finish_kept()?.into_iter().filter_map(|kept| reset(&kept));
            account.strays.extend(resets.map(|(from, to)| format!("{site} reset {from} → {to}")));
        }
        for (what, held) in self.held {
            let lines = held.lines();
            account.connections += lines.len() as u64;
            account.answers += lines.iter().map(|line| line.answered).sum::<u64>();
            account.broken.extend(lines.iter().filter_map(|line| {
                let failure = line.broken.as_ref()?;
                Some(format!("held ({what}), {:?} at {:?}: {failure}", line.local, line.site))
            }));
        }
        let seen = self.lines.into_iter().map(Sniffer::finish).collect::<Result<Vec<Flows>>>()?;
        let payment = |at: SocketAddr| Family::ALL.iter().any(|&family| at.ip() == PAYMENT.address.of(family));
        for (flow, packets) in seen.iter().flatten() {
            account.on_the_lines += packets;
            if payment(flow.source) || payment(flow.destination) {
                account.leaked += packets;
            }
        }
        account.leaked += cloud.counts(PAYMENT.name)?.requests;
        Ok(account)
    }
}

fn failures(what: &str, counted: &Snapshot) -> Vec<String> {
    // The first are kept in words; the rest are counted alone.
    let (number, texts) = (counted.failed() as usize, &counted.texts);
    (0..number).map(|at| format!("{what}: {}", texts.get(at).map_or("one more", String::as_str))).collect()
}

/// Flags of a TCP segment.
fn flags(frame: &[u8]) -> Option<u8> {
    let found = layout(frame).ok()?;
    (found.protocol == 6 && !found.fragment).then(|| frame.get(found.transport + 13).copied())?
}

fn is_reset(frame: &[u8]) -> bool {
    flags(frame).is_some_and(|flags| flags & flag::RST != 0)
}

/// Source and destination of a reset that a site sent to a client.
fn reset(kept: &Kept) -> Option<(SocketAddr, SocketAddr)> {
    if kept.incoming {
        return None;
    }
    let flow = crate::sniffer::flow(&kept.frame, kept.incoming)?;
    (!is_flood(flow.destination.ip())).then_some((flow.source, flow.destination))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Frame;
    use crate::topology::FIRST_CLIENT;

    #[test]
    fn only_resets_that_a_site_sends_to_a_client_are_strays() {
        for family in Family::ALL {
            let client = SocketAddr::new(FIRST_CLIENT.of(family), 40_000);
            let sent = |flags| Frame::tcp(SHOP.at(family), client, flags).build();
            assert!(is_reset(&sent(flag::RST | flag::ACK)) && !is_reset(&sent(flag::FIN | flag::ACK)));
            let kept = |incoming| Kept { incoming, frame: sent(flag::RST) };
            assert_eq!(reset(&kept(false)), Some((SHOP.at(family), client)));
            assert_eq!(reset(&kept(true)), None);
        }
    }
}
