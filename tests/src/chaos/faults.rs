//! Does to the testbed what the schedule says, and remembers what it did and when. What is broken by that is for `oracle`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;

use super::schedule::{End, Line, Step, Variant};
use crate::daemon::{self, PATIENCE, Said, Settings};
use crate::host;
use crate::link::{mac_text, packet_socket};
use crate::packet::{Frame, flag};
use crate::poll;
use crate::process::Process;
use crate::topology::{
    CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX, EDGE_DX_MAC, FIRST_CLIENT, FIRST_ENDPOINT,
    Family, PAYMENT, Pair, SECOND_DX_DEVICE, SECOND_EDGE_DX, SECOND_TO_EDGE, SHOP, TO_EDGE, Topology, mac,
};

/// Longer than what TCP waits until it sends again after a line was down for as long as the schedule says.
const IDLE: Duration = Duration::from_secs(12);

/// How many of each there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Orders of a share that the daemon took.
    pub shares: u64,
    /// Orders that nobody took: the daemon was not there.
    pub unheard: u64,
    /// SIGKILLs.
    pub kills: u64,
    /// Daemons that took over from one that ended in order.
    pub upgrades: u64,
    /// Reloads asked for, by SIGHUP or command; of those by command, all but refused ones.
    pub reloads: u64,
    /// Wrong files that were refused.
    pub refused: u64,
    /// Lines that went down or came up, and routers that changed their address.
    pub lines: u64,
    /// SYNs of the floods.
    pub flood: u64,
}

/// The edge host under test, and what is done to it.
pub(super) struct Faults<'a> {
    topology: &'a Topology,
    burst: Process,
    /// Whether it is meant to run.
    alive: bool,
    plain: String,
    begun: Instant,
    /// What was done, and when.
    pub(super) past: Vec<(Duration, String)>,
    pub(super) done: Done,
    floods: Vec<JoinHandle<Result<()>>>,
    macs: u8,
}

impl<'a> Faults<'a> {
    /// Starts burst on a testbed with two lines.
    pub(super) fn new(topology: &'a Topology) -> Result<Self> {
        for namespace in [&topology.edge, &topology.direct_connect] {
            // A device that is set down would lose its IPv6 addresses.
            namespace.sysctl(&[("net/ipv6/conf/all/keep_addr_on_down", "1")])?;
        }
        for device in [TO_EDGE, SECOND_TO_EDGE] {
            topology.direct_connect.sysctl(&[
                (&format!("net/ipv4/conf/{device}/arp_notify"), "1"),
                (&format!("net/ipv6/conf/{device}/ndisc_notify"), "1"),
            ])?;
        }
        let plain = daemon::config(topology, &Settings { idle_timeout: IDLE, ..Settings::default() });
        topology.dir.write("burst.toml", &plain)?;
        let mut faults = Self {
            topology,
            burst: spawn(topology)?,
            alive: true,
            plain,
            begun: Instant::now(),
            past: Vec::new(),
            done: Done::default(),
            floods: Vec::new(),
            macs: 0x80,
        };
        faults.wait_ready()?;
        Ok(faults)
    }

    /// Times are counted from here.
    pub(super) fn begin(&mut self) -> Instant {
        self.begun = Instant::now();
        self.begun
    }

    /// Waits until the daemon answers and has both lines.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let pid = self.burst.pid();
        self.burst.wait_ready("answering, all links up", PATIENCE, || {
            let status = daemon::status(self.topology).ok();
            Ok(status.filter(|status| status.pid == pid && status.links.iter().all(|link| link.up)).map(drop))
        })
    }

    /// The daemon's log so far, of all its lives.
    pub(super) fn log(&self) -> String {
        self.burst.log().unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Fails if the daemon ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.burst.ended()? {
            Some(status) if self.alive => Err(anyhow!("the daemon ended by itself: {status}")),
            _ => Ok(()),
        }
    }

    /// Does one step.
    pub(super) fn act(&mut self, step: Step) -> Result<()> {
        let begun = self.begun.elapsed();
        self.past.push((begun, step.to_string()));
        let outcome = self.step(step).with_context(|| format!("{step}"));
        let text = match &outcome {
            Ok(None) => return Ok(()),
            Ok(Some(text)) => text.clone(),
            Err(error) => format!("{error:#}"),
        };
        self.past.push((self.begun.elapsed(), format!("  {step}: {text}")));
        outcome.map(drop)
    }

    /// Does one step, and says what is worth saying.
    fn step(&mut self, step: Step) -> Result<Option<String>> {
        match step {
            Step::Share(percent) => return self.share(percent).map(Some),
            Step::Kill => self.kill()?,
            Step::ShareAndKill(percent, after) => {
                let order = order(percent);
                let mut command = self.topology.edge.command(host::burst_binary()?);
                command.arg("--socket").arg(self.topology.dir.file("burst.sock")).args(order.each_ref());
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let mut child = command.spawn().context("burst override")?;
                std::thread::sleep(Duration::from_millis(after.into()));
                let killed = self.kill();
                let told = child.wait().context("burst override")?;
                killed?;
                self.count_share(told.success());
                return Ok(Some(format!("override ended with {told}")));
            }
            Step::Start => {
                self.burst = spawn(self.topology)?;
                self.alive = true;
            }
            Step::Upgrade => {
                self.alive = false;
                let status = self.burst.stop()?;
                // One that still starts has no handler yet, and leaves as little behind as one that is killed.
                let starting = status.signal() == Some(Signal::TERM.as_raw());
                ensure!(status.success() || starting, "told to end, it ended with {status}");
                self.step(Step::Start)?;
                self.done.upgrades += 1;
            }
            Step::Hangup(variant) => {
                self.write(variant)?;
                self.burst.signal(Signal::HUP)?;
                self.done.reloads += 1;
            }
            Step::Reload(variant) => {
                self.write(variant)?;
                let Said { code, err, .. } = daemon::command(self.topology, &["reload"])?;
                // 7: it is not there yet; 8: another reload is on its way.
                ensure!([0, 7, 8].contains(&code), "a reload that changes little was refused with {code}: {err}");
                self.done.reloads += u64::from(code == 0);
                return Ok(Some(format!("{code} {}", err.trim_end())));
            }
            Step::BadReload => return self.bad_reload().map(Some),
            Step::Down(line, end) => self.down(line, end)?,
            Step::Up(line, end) => self.up(line, end)?,
            Step::NewMac(line) => {
                self.macs = self.macs.checked_add(1).unwrap_or(0x80);
                let (_, device) = devices(line);
                let address = mac_text(mac(self.macs));
                self.topology.direct_connect.ip(&format!("link set {device} address {address}"))?;
                self.done.lines += 1;
            }
            Step::Flood(number) => self.flood(number)?,
        }
        Ok(None)
    }

    /// Orders a share; says how that went.
    pub(super) fn share(&mut self, percent: u8) -> Result<String> {
        let order = order(percent);
        let said = daemon::command(self.topology, &order.each_ref().map(String::as_str))?;
        self.count_share(said.code == 0);
        Ok(format!("{} {}", said.code, said.err.trim_end()))
    }

    const fn count_share(&mut self, taken: bool) {
        if taken {
            self.done.shares += 1;
        } else {
            self.done.unheard += 1;
        }
    }

    fn kill(&mut self) -> Result<()> {
        self.alive = false;
        self.done.kills += 1;
        self.burst.kill().map(drop)
    }

    fn write(&self, variant: Variant) -> Result<()> {
        let replaced = |from: &str, to: &str| -> Result<String> {
            ensure!(self.plain.contains(from), "{from:?} is not in the configuration");
            Ok(self.plain.replacen(from, to, 1))
        };
        let text = match variant {
            Variant::Plain => self.plain.clone(),
            Variant::KeepingMore => replaced(
                "keep  = true\nmatch = [",
                "keep  = true\nmatch = [{ dst = [\"203.0.113.99/32\"], proto = \"tcp\" }, ",
            )?,
            Variant::FewerEndpoints => {
                let second = FIRST_ENDPOINT.plus(1);
                let text = replaced(&format!(", \"{}\"", second.v4), "")?;
                text.replacen(&format!(", \"{}\"", second.v6), "", 1)
            }
        };
        self.put(&text)
    }

    /// Replaces the configuration, whole: it may be read at any moment.
    fn put(&self, text: &str) -> Result<()> {
        let new = self.topology.dir.write("burst.toml.new", text)?;
        std::fs::rename(new, self.topology.dir.file("burst.toml")).context("replacing the configuration")
    }

    fn bad_reload(&mut self) -> Result<String> {
        // One that starts meanwhile would rightly refuse to.
        if daemon::status(self.topology).map_or(0, |status| status.pid) != self.burst.pid() {
            return Ok("not there yet".to_owned());
        }
        let path = self.topology.dir.file("burst.toml");
        let good = std::fs::read_to_string(&path).context("the configuration")?;
        self.put(&good.replacen("mtu ", "mtv ", 1))?;
        let said = daemon::command(self.topology, &["reload"]);
        self.put(&good)?;
        let Said { code, err, .. } = said?;
        ensure!([3, 7, 8].contains(&code), "a wrong file ended with {code}: {err}");
        self.done.refused += u64::from(code == 3);
        Ok(format!("{code}"))
    }

    fn down(&mut self, line: Line, end: End) -> Result<()> {
        let (ours, theirs) = devices(line);
        match end {
            End::Edge => self.topology.edge.ip(&format!("link set {ours} down"))?,
            End::Router => self.topology.direct_connect.ip(&format!("link set {theirs} down"))?,
        }
        self.done.lines += 1;
        Ok(())
    }

    fn up(&mut self, line: Line, end: End) -> Result<()> {
        let (ours, theirs) = devices(line);
        match end {
            End::Edge => self.topology.edge.ip(&format!("link set {ours} up"))?,
            End::Router => {
                self.topology.direct_connect.ip(&format!("link set {theirs} up"))?;
                // Routes go with their device.
                let (edge, metric) = if line == 0 { (EDGE_DX, 100) } else { (SECOND_EDGE_DX, 2000) };
                let routes = self.topology.routes_to_edge(edge, &format!("metric {metric}"));
                self.topology.direct_connect.ip(&routes.replace("route add", "route replace"))?;
            }
        }
        self.done.lines += 1;
        Ok(())
    }

    /// Begins a flood that takes most of a second.
    fn flood(&mut self, number: u16) -> Result<()> {
        let device = self.topology.client.ifindex(TO_EDGE)?;
        let socket = self.topology.client.run(|| packet_socket(device))??;
        let first = self.done.flood;
        let frames = (first..first + u64::from(number)).map(syn).collect::<Vec<_>>();
        self.done.flood += u64::from(number);
        let send = move || -> Result<()> {
            let pieces = 80;
            for piece in frames.chunks(frames.len().div_ceil(pieces).max(1)) {
                for frame in piece {
                    send(&socket, frame)?;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        self.floods.push(std::thread::Builder::new().name("flood".to_owned()).spawn(send).context("a thread")?);
        Ok(())
    }

    /// Breaks what burst promises, as burst would not: what is offsite goes to the local stack, and a packet of payment's out on
    /// the first line.
    pub(super) fn sabotage(&mut self) -> Result<()> {
        let pins = daemon::pin_dir(self.topology).display().to_string();
        let said = daemon::command(self.topology, &["bypass", "on", "--yes", "--pin-dir", &pins])?;
        ensure!(said.code == 0, "burst bypass: {said:?}");
        let edge = &self.topology.edge;
        let device = edge.ifindex(DX_DEVICE)?;
        let socket = edge.run(|| packet_socket(device))??;
        let client = std::net::SocketAddr::new(FIRST_CLIENT.v4.into(), 40_000);
        let macs = (EDGE_DX_MAC, DIRECT_CONNECT_MAC);
        send(&socket, &Frame::tcp(client, PAYMENT.at(Family::V4), flag::ACK).macs(macs.0, macs.1).build())
    }

    /// Everything is up again: waits for the floods, for the daemon, and until no transition is left.
    pub(super) fn calm(&mut self) -> Result<Duration> {
        for flood in std::mem::take(&mut self.floods) {
            flood.join().map_err(|_| anyhow!("a flood panicked"))??;
        }
        self.wait_ready()?;
        self.share(50)?;
        let since = Instant::now();
        poll::until("transitions to end", 4 * IDLE, || {
            std::thread::sleep(Duration::from_millis(50));
            let classes = daemon::status(self.topology)?.classes;
            let mut bursts = classes.iter().filter_map(|class| class.burst.as_ref());
            Ok(bursts.all(|burst| burst.slots.transition == 0).then_some(()))
        })?;
        Ok(since.elapsed())
    }
}

fn spawn(topology: &Topology) -> Result<Process> {
    let mut command = topology.edge.command(host::burst_binary()?);
    command.arg("run").arg("-c").arg(topology.dir.file("burst.toml"));
    Process::spawn("burst", command, &topology.dir)
}

fn order(percent: u8) -> [String; 8] {
    let offsite = format!("{percent}%");
    ["override", SHOP.name, "--offsite", &offsite, "--for", "5m", "--reason", "chaos"].map(str::to_owned)
}

/// EDGE's device of a line, and the router's.
const fn devices(line: Line) -> (&'static str, &'static str) {
    if line == 0 { (DX_DEVICE, TO_EDGE) } else { (SECOND_DX_DEVICE, SECOND_TO_EDGE) }
}

/// Whether an address is of a flood's sources: in the clients' networks, but nobody's.
pub(super) fn is_flood(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets()[..3] == [198, 51, 100] && v4.octets()[3] >= 128,
        std::net::IpAddr::V6(v6) => v6.segments()[..7] == [0x2001, 0xdb8, 0x51, 0, 0, 0, 0xf00d],
    }
}

/// The SYN with this number.
fn syn(number: u64) -> Vec<u8> {
    let low = (number / 2) as u16;
    let source = Pair {
        v4: [198, 51, 100, 128 + (low % 120) as u8].into(),
        v6: [0x2001, 0xdb8, 0x51, 0, 0, 0, 0xf00d, low].into(),
    };
    let family = Family::ALL[(number % 2) as usize];
    let port = 1024 + (number / 2 % 60_000) as u16;
    let source = std::net::SocketAddr::new(source.of(family), port);
    Frame::tcp(source, SHOP.at(family), flag::SYN).macs(CLIENT_MAC, EDGE_CLIENT_MAC).mss(1460).build()
}

fn send(socket: &OwnedFd, frame: &[u8]) -> Result<()> {
    // SAFETY: the frame lives through the call and is as long as said.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    ensure!(sent > 0, "sending a frame: {}", std::io::Error::last_os_error());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::topology::CLIENTS;

    #[test]
    fn sources_of_a_flood_are_distinct_and_no_clients() {
        let distinct: BTreeSet<_> = (0..100_000).map(|number| syn(number)[26..].to_vec()).collect();
        assert_eq!(distinct.len(), 100_000);
        assert!(is_flood([198, 51, 100, 128].into()) && is_flood([0x2001, 0xdb8, 0x51, 0, 0, 0, 0xf00d, 7].into()));
        for family in Family::ALL {
            assert!((0..CLIENTS).all(|number| !is_flood(FIRST_CLIENT.plus(number).of(family))));
        }
    }
}
