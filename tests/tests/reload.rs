//! Another policy under traffic: new program instances take the place of running ones, and no packet is lost, is judged by
//! half a policy, or passes by the program.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use burst::config;
use burst::kernel::Keep;
use burst::policy::compile::{Compiled, compile, guard_of_both};
use burst::policy::ids::{Ids, Names};
use burst_common::reason::Reason;
use burst_common::slot::Slot;
use burst_tests::foreign;
use burst_tests::golden::Bed;
use burst_tests::link::packet_socket;
use burst_tests::packet::{Frame, flag};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX_MAC, FIRST_CLIENT,
    FIRST_ENDPOINT, PAYMENT, SHOP,
};

/// Payment and a shop; `more` stands among the keep rules.
fn policy(more: &str) -> String {
    format!(
        r#"
version = 1
edge = {{ name = "edge-a1", client = ["client0"], seed = "reload", mode = "active" }}

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500

[class.payment]
keep = true
match = [
  {{ dst = ["203.0.113.10"], proto = "tcp", ports = [443] }},
{more}]

[class.promo]
match = [{{ dst = ["203.0.113.20"], proto = "tcp", ports = [80, 443] }}]
when_full = "local"
local = {{ capacity = "1k flows/s" }}

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10"]
links = ["dx-1"]
capacity = "1k flows/s"
"#
    )
}

/// 10,000 destinations that are kept: more than are matched inline.
fn many() -> String {
    let prefixes: Vec<_> = (0..10_000).map(|n| format!("\"10.{}.{}.0/24\"", 128 + n / 256, n % 256)).collect();
    format!("  {{ dst = [{}], proto = \"tcp\", ports = [443] }},\n", prefixes.join(", "))
}

fn compiled(text: &str) -> Result<Compiled> {
    let config = config::parse(text, "reload.toml").map_err(|refused| anyhow!("{refused}"))?.config;
    Ok(compile(&config, &Ids::assign(&config, &Names::default())?)?)
}

/// Sends frames out of the far end of the clients' device until it is told to stop.
struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Sender {
    fn start(socket: OwnedFd, frames: Vec<Vec<u8>>) -> Result<Self> {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                for frame in &frames {
                    // SAFETY: the frame is live and as long as is said.
                    let wrote = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
                    ensure!(wrote == frame.len() as isize, "sending: {}", std::io::Error::last_os_error());
                }
                count.fetch_add(frames.len() as u64, Ordering::Relaxed);
                // About 100,000 packets a second, where the machine is quick enough.
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("sender".to_owned()).spawn(work)?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().context("it runs")?.join().map_err(|_| anyhow!("the sender panicked"))??;
        Ok(self.sent())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_hundred_reloads_lose_and_misjudge_no_packet() -> Result<()> {
    let small = policy("");
    let mut bed = Bed::new(&small)?;
    let few = policy("  { dst = [\"203.0.113.11\"], src = [\"192.0.2.0/24\"], proto = \"tcp\", ports = [443] },\n");
    let policies = [compiled(&small)?, compiled(&few)?, compiled(&policy(&many()))?];
    let large = policies.each_ref().map(|policy| policy.large.is_some());
    ensure!(large == [false, false, true], "two inline, one through maps");
    bed.attach(&policies[0])?;
    bed.reach(&[CLIENT_DEVICE, DX_DEVICE])?;
    bed.fill("promo", Slot::stable(bed.endpoint(&format!("promo/reserved/{}", FIRST_ENDPOINT.v4))));

    let client = std::net::SocketAddr::new(FIRST_CLIENT.v4.into(), 40_000);
    let frame = |to: std::net::Ipv4Addr| {
        let to = std::net::SocketAddr::new(to.into(), 443);
        Frame::tcp(client, to, flag::ACK).macs(CLIENT_MAC, EDGE_CLIENT_MAC).payload(&[7; 32])
    };
    let (payment, promo) = (frame(PAYMENT.address.v4).build(), frame(SHOP.address.v4));
    // With an option, it is the second program's.
    let (promo, rare) = (promo.build(), promo.ip_options(&[148, 4, 0, 0]).build());
    // Two to one, so that they cannot be taken for each other.
    let frames: Vec<_> = (0..8).flat_map(|_| [payment.clone(), promo.clone(), rare.clone()]).collect();
    let line = Sniffer::start(bed.far(), DX_DEVICE)?;
    let device = bed.far().ifindex(CLIENT_DEVICE)?;
    let socket = bed.far().run(|| packet_socket(device))??;
    let before = bed.maps().class_counters();
    let started = std::time::Instant::now();
    let sender = Sender::start(socket, frames)?;
    while sender.sent() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    for number in 1..=100 {
        let mark = sender.sent();
        // Ten thousand prefixes take a while to fill in: every tenth time.
        bed.attach(&policies[if number % 10 == 0 { 2 } else { number % 2 }])?;
        // Every instance sees packets.
        while sender.sent() < mark + 48 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let sent = sender.finish()?;
    // What the far end's device could not hand over, because the edge's queue was full, never met a program.
    let dropped = || -> Result<u64> {
        let said = bed.far().exec("ip", &["-s", "-j", "link", "show", "dev", CLIENT_DEVICE])?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        said[0]["stats64"]["tx"]["dropped"].as_u64().context("`ip` counts drops")
    };
    // The last packets may still be in that queue.
    let (class, promo) = (bed.class("payment"), bed.class("promo"));
    let judged = || {
        let now = bed.maps().class_counters();
        let all = |of: &burst::kernel::ClassCounters| {
            of.get(class, Reason::Keep.number()).packets + of.get(promo, Reason::Shifted.number()).packets
        };
        all(&now) - all(&before)
    };
    let lost = dropped()?;
    for _ in 0..200 {
        if judged() + lost == sent {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let flows = line.finish()?;

    let after = bed.maps().class_counters();
    let moved = |class: usize, reason: Reason| {
        after.get(class, reason.number()).packets - before.get(class, reason.number()).packets
    };
    let (kept, shifted) = (moved(bed.class("payment"), Reason::Keep), moved(bed.class("promo"), Reason::Shifted));
    println!("{:.0} packets/s", sent as f64 / started.elapsed().as_secs_f64());
    println!("{sent} packets through 100 reloads: {kept} kept, {shifted} shifted, {lost} lost before the edge");
    assert_eq!(kept + shifted + lost, sent, "each packet is judged once");
    assert!(kept <= sent / 3 && shifted <= sent / 3 * 2, "none is taken for another");
    for reason in Reason::ALL.iter().filter(|reason| !matches!(reason, Reason::Keep | Reason::Shifted)) {
        for class in ["payment", "promo"] {
            assert_eq!(moved(bed.class(class), *reason), 0, "{class} {}", reason.text());
        }
    }
    assert_eq!(moved(0, Reason::NoMatch), 0, "a policy was not there yet");
    assert_eq!(moved(0, Reason::Unready), 0, "a second program was not there");
    let tcp = flows.iter().filter(|(flow, _)| flow.protocol == 6);
    let (mut arrived, endpoint) = (0, FIRST_ENDPOINT.v4);
    for (flow, packets) in tcp {
        assert_eq!(flow.destination.ip(), endpoint, "only what was rewritten is on the line: {flow:?}");
        arrived += packets;
    }
    assert!(arrived > 0, "the line carried the shop");
    Ok(())
}

#[test]
fn sentinels_hold_back_what_both_policies_keep_until_the_last_program_is_replaced() -> Result<()> {
    let keeping = |address: &str| {
        let more = format!("  {{ dst = [\"{address}\"], proto = \"tcp\", ports = [443] }},\n");
        policy(&more).replace("mode = \"active\"", "mode = \"active\", sentinel = \"enforce\"")
    };
    let (former, new) = (keeping("203.0.113.11"), keeping("203.0.113.12"));
    let mut bed = Bed::new(&former)?;
    bed.attach(&compiled(&former)?)?;
    let config = |text: &str| config::parse(text, "reload.toml").map_err(|refused| anyhow!("{refused}"));
    let both = guard_of_both(&config(&former)?.config, &config(&new)?.config).context("few rules")?;
    let both = Keep { guard: both.0, large: both.1 };

    // What the edge's own kernel sends to the link: by these destinations, which arrive there.
    let device = bed.edge().ifindex(DX_DEVICE)?;
    let socket = bed.edge().run(|| packet_socket(device))??;
    let arrive = |bed: &Bed| -> Result<Vec<u8>> {
        let line = Sniffer::start(bed.far(), DX_DEVICE)?;
        for last in [10, 11, 12, 13] {
            let to = std::net::SocketAddr::new(std::net::Ipv4Addr::new(203, 0, 113, last).into(), 443);
            let from = std::net::SocketAddr::new(FIRST_CLIENT.v4.into(), 40_000);
            let frame = Frame::tcp(from, to, flag::ACK).macs(EDGE_DX_MAC, DIRECT_CONNECT_MAC).build();
            // SAFETY: the frame is live and as long as is said. What a program stops is an error (ENOBUFS), or none.
            let _ = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        }
        std::thread::sleep(Duration::from_millis(60));
        let last = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => Some(address.octets()[3]),
            std::net::IpAddr::V6(_) => None,
        };
        let flows = line.finish()?;
        let mut seen: Vec<_> =
            flows.keys().filter(|flow| flow.protocol == 6).filter_map(|flow| last(flow.destination.ip())).collect();
        seen.sort_unstable();
        Ok(seen)
    };
    assert_eq!(arrive(&bed)?, [12, 13], "the former policy");
    // Stopped in the middle: the links' programs are replaced, the clients' cannot be.
    bed.detach_client()?;
    let foreign = foreign::pass(bed.edge(), CLIENT_DEVICE)?;
    let refused = bed.attach_in_place(&compiled(&new)?, &both).expect_err("a foreign program is there").to_string();
    assert!(refused.contains("not burst's"), "{refused}");
    assert_eq!(arrive(&bed)?, [13], "both");
    drop(foreign);
    bed.attach_in_place(&compiled(&new)?, &both)?;
    assert_eq!(arrive(&bed)?, [11, 13], "the new policy alone");
    Ok(())
}

#[test]
fn a_device_that_refuses_leaves_no_programs_behind() -> Result<()> {
    let small = policy("");
    let mut bed = Bed::new(&small)?;
    let policy = compiled(&small)?;
    assert_eq!(bed.second_programs()?, 0);
    bed.attach(&policy)?;
    assert_eq!(bed.second_programs()?, 2, "one for each device");
    bed.detach_client()?;
    let foreign = foreign::pass(bed.edge(), CLIENT_DEVICE)?;
    for _ in 0..10 {
        let refused = bed.attach(&policy).expect_err("a foreign program is there").to_string();
        assert!(refused.contains("not burst's"), "{refused}");
        // The link's new one, and what the clients' device had.
        assert!(bed.second_programs()? <= 2, "{}", bed.second_programs()?);
    }
    drop(foreign);
    bed.attach(&policy)?;
    assert_eq!(bed.second_programs()?, 2);
    Ok(())
}
