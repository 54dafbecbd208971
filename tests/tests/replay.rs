//! `burst replay`: a capture through the real binary, held against the same frames through the real object in the golden
//! bed; and everything that can be wrong with its input.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use burst_common::link::Link;
use burst_common::policy::ROLE_CLIENT;
use burst_common::slot::{Slot, base};
use burst_tests::capture::{self, Captured};
use burst_tests::dir::RunDir;
use burst_tests::golden::{Bed, Entry};
use burst_tests::host;
use burst_tests::packet::diff::diff;
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX_MAC, FIRST_CLIENT,
    FIRST_ENDPOINT, Family, PAYMENT, SECOND_DX_DEVICE, SHOP,
};
use serde_json::Value;

/// Payment and a shop; the shop has two lines and an endpoint of each family.
const CONFIG: &str = r#"version = 1
edge = { name = "edge-a1", client = ["client0"], seed = "replay", mode = "active", pin_dir = "/nonexistent/pins" }

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500

[[link]]
name = "dx-2"
device = "dx1"
next_hop = "10.64.1.1"
mtu = 1400

[class.payment]
keep = true
match = [{ dst = ["203.0.113.10", "2001:db8:113::10"], proto = "tcp", ports = [443] }]

[class.shop]
match = [
  { dst = ["203.0.113.20"], proto = "tcp", ports = [443] },
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = [80] },
]
slots = 64
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.shop.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "fd00:20::10"]
ports = { 80 = 8443, 443 = 8444 }
links = ["dx-1", "dx-2"]
capacity = "1k flows/s"
"#;

/// MAC addresses of stand-ins, as documented.
const STAND_IN: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENTS_ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 3];

struct Place {
    dir: RunDir,
    config: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        let dir = RunDir::new()?;
        let config = dir.write("burst.toml", CONFIG)?;
        Ok(Self { dir, config })
    }

    fn capture(&self, name: &str, packets: &[Captured]) -> Result<PathBuf> {
        self.dir.write(name, capture::write(packets))
    }

    fn burst(&self, file: &Path, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(host::burst_binary()?);
        command.arg("replay").arg(file).args(arguments).env_remove("BURST_LOG");
        command.output().context("running burst")
    }

    /// Runs it with the configuration; gives the lines of its JSON.
    fn replay(&self, file: &Path, arguments: &[&str]) -> Result<Vec<Value>> {
        let config = self.config.display().to_string();
        let output = self.burst(file, &[&["-c", &config, "--json"], arguments].concat())?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}: {err}", output.status);
        ensure!(err.is_empty(), "it wrote to standard error: {err}");
        out.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

fn client(port: u16, family: Family) -> std::net::SocketAddr {
    (FIRST_CLIENT.of(family), port).into()
}

fn from_client(frame: Frame) -> Vec<u8> {
    frame.macs(CLIENT_MAC, EDGE_CLIENT_MAC).build()
}

/// Frames from clients, of every kind that there is a verdict for.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for family in Family::ALL {
        for port in 40_000..40_040 {
            frames.push(from_client(Frame::tcp(client(port, family), SHOP.at(family), flag::SYN)));
            frames.push(from_client(Frame::tcp(client(port, family), SHOP.at(family), flag::ACK).payload(b"GET /")));
        }
        frames.push(from_client(Frame::tcp(client(1, family), PAYMENT.at(family), flag::SYN)));
        frames.push(from_client(Frame::tcp(client(2, family), SHOP.at(family), flag::ACK).ttl(1)));
        frames.push(from_client(Frame::tcp(client(3, family), SHOP.at(family), flag::SYN | flag::ACK)));
        frames.push(from_client(Frame::udp(client(4, family), SHOP.at(family))));
        frames.push(from_client(Frame::tcp(client(5, family), SHOP.at(family), flag::ACK).fragment(0, true)));
        frames.push(from_client(Frame::tcp(client(6, family), SHOP.at(family), flag::ACK).vlans(&[7])));
        frames.push(from_client(Frame::other(FIRST_CLIENT.of(family), SHOP.address.of(family), 132)));
        let large = Frame::tcp(client(7, family), SHOP.at(family), flag::ACK).payload(&[7; 1420]);
        frames.push(from_client(large));
    }
    let mut cut_short = from_client(Frame::tcp(client(8, Family::V4), SHOP.at(Family::V4), flag::ACK));
    cut_short.truncate(30);
    frames.push(cut_short);
    frames.push([&[0xff; 6][..], &CLIENT_MAC, &[0x08, 0x06], &[0; 46]].concat());
    frames
}

/// The bed of the same configuration, with the same MAC addresses and the shop wholly in the cloud.
fn bed() -> Result<Bed> {
    let bed = Bed::new(CONFIG)?;
    for (link, device, mtu) in [("dx-1", DX_DEVICE, 1500), ("dx-2", SECOND_DX_DEVICE, 1400)] {
        let id = bed.link(link);
        let row = bed.maps().link(id);
        let macs = Link::macs(DIRECT_CONNECT_MAC, STAND_IN);
        assert_eq!((row.ifindex, row.mtu), (bed.ifindex(device), mtu));
        bed.maps().set_link(id, &Link { macs, ..row });
    }
    let class = bed.class("shop") as u8;
    for (family, name) in [(4, "shop/reserved/10.20.0.10"), (6, "shop/reserved/fd00:20::10")] {
        let endpoint = bed.endpoint(name);
        (0..64).for_each(|n| bed.maps().set_slot(base(class, family) as usize + n, Slot::stable(endpoint)));
    }
    Ok(bed)
}

/// Number of an action, as the kernel has it (include/uapi/linux/bpf.h, `enum xdp_action`).
fn number(action: &Value) -> Option<u32> {
    match action.as_str()? {
        "drop" => Some(1),
        "pass" => Some(2),
        "tx" => Some(3),
        "redirect" => Some(4),
        _ => None,
    }
}

#[test]
fn every_packet_comes_out_as_in_the_golden_bed() -> Result<()> {
    let (place, mut bed, frames) = (Place::new()?, bed()?, frames());
    let packets = capture::of_frames(frames.iter().map(Vec::as_slice));
    let file = place.capture("in.pcap", &packets)?;
    let out = place.dir.file("out.pcap");
    let out_name = out.display().to_string();
    let mac = "=00:00:5e:00:53:22";
    let neighbours = [format!("dx-1{mac}"), format!("dx-2{mac}")];
    assert_eq!(DIRECT_CONNECT_MAC, [0, 0, 0x5e, 0, 0x53, 0x22]);
    let arguments =
        ["--offsite", "shop=100%", "--neighbour", &neighbours[0], "--neighbour", &neighbours[1], "--write", &out_name];
    let lines = place.replay(&file, &arguments)?;
    assert_eq!(lines.len(), frames.len() + 1, "one object for each packet, and the summary");
    let written = capture::read(&std::fs::read(&out)?)?;
    let mut written = written.into_iter();

    let entry = Entry { device: CLIENT_DEVICE, role: ROLE_CLIENT, link: 0 };
    let devices = [CLIENT_DEVICE, DX_DEVICE, SECOND_DX_DEVICE];
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for (n, (packet, line)) in packets.iter().zip(&lines).enumerate() {
        let name = format!("packet {}: {line}", n + 1);
        assert_eq!(line["n"], n as u64 + 1, "{name}");
        let golden = bed.run(entry, &packet.bytes, &devices)?;
        assert_eq!(number(&line["action"]), Some(golden.action), "{name}");
        assert_eq!(line["len_in"], packet.bytes.len() as u64, "{name}");
        *reasons.entry(line["reason"].as_str().context("a reason")?.to_owned()).or_default() += 1;
        if golden.action == 1 {
            assert_eq!(line["len_out"], 0, "{name}");
            continue;
        }
        assert_eq!(line["len_out"], golden.frame.len() as u64, "{name}");
        let written = written.next().with_context(|| format!("not written: {name}"))?;
        assert_eq!((written.time, written.original as usize), (packet.time, golden.frame.len()), "{name}");
        assert_eq!(diff(&golden.frame, &written.bytes), None, "{name}");
    }
    assert_eq!(written.next(), None, "and nothing else is written");

    // What the frames were made to be.
    for (reason, least) in
        [("keep", 2), ("shifted", 160), ("ttl-expired", 2), ("syn-ack", 2), ("no-match", 2), ("truncated", 1)]
    {
        assert!(reasons.get(reason).is_some_and(|count| *count >= least), "{reason}: {reasons:?}");
    }
    let summary = &lines[frames.len()]["summary"];
    assert_eq!(summary["packets"], frames.len() as u64);
    let counted = summary["classes"].as_array().context("classes")?.iter().map(|class| &class["reasons"]);
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for reasons in counted.chain([&summary["other"]]) {
        for (reason, count) in reasons.as_object().context("reasons")? {
            *sums.entry(reason.clone()).or_default() += count["packets"].as_u64().context("packets")?;
        }
    }
    assert_eq!(sums, reasons);
    Ok(())
}

#[test]
fn each_object_says_where_the_packet_belongs() -> Result<()> {
    let place = Place::new()?;
    let family = Family::V4;
    let frames = [
        from_client(Frame::tcp(client(40_000, family), SHOP.at(family), flag::SYN)),
        from_client(Frame::tcp(client(40_000, family), PAYMENT.at(family), flag::ACK)),
        from_client(Frame::tcp(client(40_000, family), (FIRST_CLIENT.plus(1).of(family), 443), flag::ACK)),
        vec![7; 9],
    ];
    let file = place.capture("in.pcap", &capture::of_frames(frames.iter().map(Vec::as_slice)))?;
    let lines = place.replay(&file, &["--offsite", "shop=100"])?;
    let keys = ["action", "class", "endpoint", "len_in", "len_out", "link", "n", "reason", "rule", "slot"];
    for line in &lines[..4] {
        let object = line.as_object().context("an object")?;
        assert_eq!(object.keys().map(String::as_str).collect::<Vec<_>>(), keys);
    }
    let said = |n: usize, key: &str| lines[n][key].clone();
    assert_eq!((said(0, "class"), said(0, "rule")), ("shop".into(), 2.into()), "rules are numbered as in the file");
    assert_eq!((said(0, "action"), said(0, "reason")), ("redirect".into(), "shifted".into()));
    assert_eq!(said(0, "endpoint"), "reserved/10.20.0.10");
    assert!(said(0, "slot").as_u64().is_some_and(|slot| slot < 64), "{}", lines[0]);
    assert!(["dx-1", "dx-2"].contains(&said(0, "link").as_str().context("a link")?));
    assert_eq!((said(1, "class"), said(1, "rule"), said(1, "reason")), ("payment".into(), 1.into(), "keep".into()));
    for key in ["slot", "endpoint", "link"] {
        assert_eq!(said(1, key), Value::Null, "{key}");
    }
    assert_eq!((said(2, "reason"), said(2, "class"), said(2, "rule")), ("no-match".into(), Value::Null, Value::Null));
    // Too short for any wire, and for the kernel: it is said as the program would say it, and that it was not asked.
    assert_eq!(
        (said(3, "action"), said(3, "reason"), said(3, "len_in")),
        ("pass".into(), "truncated".into(), 9.into())
    );
    assert_eq!(lines[4]["summary"]["shorter_than_ethernet"], 1);
    Ok(())
}

#[test]
fn slots_are_filled_as_the_controller_fills_them() -> Result<()> {
    let place = Place::new()?;
    let ports = 20_000..24_000;
    let frames: Vec<_> =
        ports.map(|port| from_client(Frame::tcp(client(port, Family::V4), SHOP.at(Family::V4), flag::SYN))).collect();
    let file = place.capture("in.pcap", &capture::of_frames(frames.iter().map(Vec::as_slice)))?;
    let mut before: Option<Vec<bool>> = None;
    for (offsite, low, high) in [("0", 0, 0), ("25%", 500, 1500), ("50%", 1400, 2600), ("100%", 4000, 4000)] {
        let lines = place.replay(&file, &["--offsite", &format!("shop={offsite}")])?;
        let away: Vec<bool> = lines[..4000].iter().map(|line| line["reason"] == "shifted").collect();
        let count = away.iter().filter(|away| **away).count();
        // Of 64 slots; six standard deviations of a binomial.
        assert!((low..=high).contains(&count), "{offsite}: {count} of 4000");
        // Whoever is away with less is away with more: rendezvous hashing moves no others.
        if let Some(before) = &before {
            assert!(before.iter().zip(&away).all(|(before, now)| !before || *now), "{offsite}");
        }
        let summary = &lines[4000]["summary"]["classes"][0];
        assert_eq!((&summary["class"], &summary["flows"]), (&"shop".into(), &4000.into()));
        let place = |name: &str| {
            let places = summary["places"].as_array().cloned().unwrap_or_default();
            places
                .into_iter()
                .find(|place| place["place"] == name)
                .map_or(0, |place| place["flows"].as_u64().unwrap_or(0))
        };
        assert_eq!((place("reserved/10.20.0.10"), place("local")), (count as u64, 4000 - count as u64));
        before = Some(away);
    }
    Ok(())
}

#[test]
fn replies_come_home_and_the_direction_is_the_devices() -> Result<()> {
    let place = Place::new()?;
    let mut frames = Vec::new();
    let mut wanted = Vec::new();
    for family in Family::ALL {
        let endpoint = (FIRST_ENDPOINT.of(family), 8443);
        let reply = |from: (std::net::IpAddr, u16), ttl| {
            Frame::tcp(from, client(40_000, family), flag::ACK).payload(b"ok").ttl(ttl)
        };
        frames.push(reply(endpoint, 60).macs(DIRECT_CONNECT_MAC, EDGE_DX_MAC).build());
        let service = (SHOP.address.of(family), SHOP.port);
        wanted.push(reply(service, 59).macs(STAND_IN, CLIENTS_ROUTER).build());
    }
    let file = place.capture("in.pcap", &capture::of_frames(frames.iter().map(Vec::as_slice)))?;
    let out = place.dir.file("out.pcap");
    let lines = place.replay(&file, &["--in", DX_DEVICE, "--write", &out.display().to_string()])?;
    for (line, endpoint) in lines.iter().zip(["reserved/10.20.0.10", "reserved/fd00:20::10"]) {
        assert_eq!((&line["action"], &line["reason"]), (&"redirect".into(), &"returned".into()), "{line}");
        assert_eq!(
            (&line["class"], &line["endpoint"], &line["link"]),
            (&"shop".into(), &endpoint.into(), &"dx-1".into())
        );
        assert_eq!(line["rule"], Value::Null);
    }
    for (written, wanted) in capture::read(&std::fs::read(&out)?)?.iter().zip(&wanted) {
        assert_eq!(diff(wanted, &written.bytes), None);
    }
    // The same frames from a client's device are no replies.
    let lines = place.replay(&file, &[])?;
    assert!(lines[..2].iter().all(|line| line["reason"] == "no-match"), "{lines:?}");
    Ok(())
}

#[test]
fn cut_packets_have_the_verdicts_of_whole_ones() -> Result<()> {
    let place = Place::new()?;
    let family = Family::V4;
    let whole: Vec<_> = (0..200_u16)
        .map(|n| Frame::tcp(client(30_000 + n, family), SHOP.at(family), flag::ACK).payload(&[1; 600]))
        .map(from_client)
        .collect();
    let all = capture::of_frames(whole.iter().map(Vec::as_slice));
    let cut = |to: usize| -> Vec<_> {
        all.iter().map(|packet| Captured { bytes: packet.bytes[..to].to_vec(), ..packet.clone() }).collect()
    };
    let out = place.dir.file("out.pcap");
    let arguments = ["--offsite", "shop=50%", "--write", &out.display().to_string()];
    let lines = place.replay(&place.capture("whole.pcap", &all)?, &arguments)?;
    let whole_out = capture::read(&std::fs::read(&out)?)?;
    let cut_lines = place.replay(&place.capture("cut.pcap", &cut(60))?, &arguments)?;
    let cut_out = capture::read(&std::fs::read(&out)?)?;
    assert_eq!(lines[..200], cut_lines[..200]);
    assert!(lines[..200].iter().any(|line| line["action"] == "redirect" && line["len_out"] == 654));
    for (whole, cut) in whole_out.iter().zip(&cut_out) {
        // Only bytes that were captured are written, and they are the same.
        assert_eq!((cut.bytes.len(), cut.original, cut.time), (60, whole.original, whole.time));
        assert_eq!(cut.bytes, whole.bytes[..60]);
    }
    assert_eq!(
        (&cut_lines[200]["summary"]["cut"], &cut_lines[200]["summary"]["cut_in_headers"]),
        (&200.into(), &0.into())
    );
    // Without its ports nothing is said of a packet that is not so.
    let headless = place.replay(&place.capture("headless.pcap", &cut(34))?, &["--offsite", "shop=50%"])?;
    let unread =
        |line: &Value| line["class"].is_null() && (line["reason"] == "truncated" || line["reason"] == "bad-length");
    assert!(headless[..200].iter().all(unread), "{}", headless[0]);
    assert_eq!(headless[200]["summary"]["cut_in_headers"], 200);
    Ok(())
}

#[test]
fn flows_that_would_break_are_named() -> Result<()> {
    let place = Place::new()?;
    let family = Family::V4;
    let packet = |port: u16, flags: u8| from_client(Frame::tcp(client(port, family), SHOP.at(family), flags));
    // A packet that is larger than its link is lost; a flow whose other packets leave does not go on without it.
    let large = |port: u16| Frame::tcp(client(port, family), SHOP.at(family), flag::ACK).payload(&[0; 1500]);
    let frames = [packet(1, flag::SYN), packet(2, flag::ACK), from_client(large(1)), packet(1, flag::ACK)];
    let file = place.capture("in.pcap", &capture::of_frames(frames.iter().map(Vec::as_slice)))?;
    let lines = place.replay(&file, &["--offsite", "shop=100%"])?;
    let summary = &lines[4]["summary"];
    let said = |key: &str| summary[key].as_u64();
    assert_eq!(
        (said("flows"), said("flows_broken"), said("flows_stalled"), said("flows_under_way")),
        (Some(2), Some(0), Some(1), Some(1))
    );

    let config = place.config.display().to_string();
    let output = place.burst(&file, &["-c", &config, "--offsite", "shop=100%"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "4 packets, ",
        "arriving on client0\n",
        "flows that would break: none\n",
        "flows that lost a packet because it is too big for the link: 1\n",
        "flows that were under way when the capture began, and are shifted here: 1;",
        "packets are often merged",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_the_input_has_its_own_code_and_words() -> Result<()> {
    let place = Place::new()?;
    let frame = from_client(Frame::tcp(client(1, Family::V4), SHOP.at(Family::V4), flag::SYN));
    let packets = capture::of_frames([frame.as_slice(), &frame]);
    let good = place.capture("good.pcap", &packets)?;
    let file = capture::write(&packets);
    let broken = place.dir.write("broken.pcap", &file[..file.len() - 7])?;
    let text = place.dir.write("text.pcap", "no capture at all, but some text\n")?;
    let mut usb = file.clone();
    usb[20] = 189;
    let usb = place.dir.write("usb.pcap", usb)?;
    let missing = place.dir.file("missing.pcap");
    let config = place.config.display().to_string();
    let with =
        |more: &[&str]| [&["-c", &config][..], more].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let itself = good.display().to_string();
    for (file, arguments, code, said) in [
        (&missing, with(&[]), 11, "cannot read the capture"),
        (&place.dir.file(""), with(&[]), 11, "cannot read the capture"),
        (&text, with(&[]), 12, "is neither pcap nor pcapng"),
        (&usb, with(&[]), 12, "packet 1 has link type 189"),
        (&broken, with(&[]), 13, "ends in the middle of packet 2; the packets before it are whole"),
        (&good, with(&["--write", "/nonexistent/out.pcap"]), 14, "cannot write /nonexistent/out.pcap"),
        (&good, with(&["--write", &itself]), 2, "that is the capture itself"),
        (&good, with(&["--offsite", "news=10%"]), 2, "there is no class that may leave `news`; there are: shop"),
        (&good, with(&["--offsite", "payment=10%"]), 2, "there is no class that may leave `payment`"),
        (&good, with(&["--offsite", "shop=101%"]), 2, "between 0% and 100%"),
        (&good, with(&["--offsite", "shop"]), 2, "write CLASS=PERCENT"),
        (&good, with(&["--neighbour", "dx-9=02:00:00:00:00:09"]), 2, "there is no link `dx-9`; there are: dx-1, dx-2"),
        (&good, with(&["--neighbour", "dx-1=02:00"]), 2, "six bytes"),
        (&good, with(&["--in", "eth9"]), 2, "there is no device `eth9`; there are: client0, dx0, dx1"),
        (&good, vec!["-c".into(), "/nonexistent/burst.toml".into()], 3, "cannot read the configuration"),
        (
            &good,
            vec!["--pin-dir".into(), "/nonexistent/pins".into()],
            7,
            "no daemon has left state in /nonexistent/pins",
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = place.burst(file, &arguments)?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    // What came before the break is there, in both forms.
    let output = place.burst(&broken, &["-c", &config])?;
    assert!(String::from_utf8_lossy(&output.stdout).contains(": 1 packets, "));
    let output = place.burst(&broken, &["-c", &config, "--json"])?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    let error: Value = serde_json::from_slice(&output.stderr)?;
    assert_eq!((&error["error"]["exit"], &error["error"]["code"]), (&13.into(), &"damaged".into()));
    assert_eq!(std::fs::read(&good)?, file, "the capture is as it was");
    Ok(())
}

#[test]
fn without_privileges_it_says_which_are_missing() -> Result<()> {
    let place = Place::new()?;
    let frame = from_client(Frame::tcp(client(1, Family::V4), SHOP.at(Family::V4), flag::SYN));
    let good = place.capture("good.pcap", &capture::of_frames([frame.as_slice()]))?;
    // What nobody may read is no privilege of burst's.
    for path in [&good, &place.config] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    }
    std::fs::set_permissions(place.dir.file(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new(host::burst_binary()?);
    // 65534 is `nobody`.
    let output = command.arg("replay").arg(&good).arg("-c").arg(&place.config).uid(65_534).gid(65_534).output()?;
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("fix: run as root, or with CAP_BPF, CAP_PERFMON"), "{err}");
    Ok(())
}

#[test]
fn the_role_of_a_device_is_that_of_the_configuration() -> Result<()> {
    // One device for clients and link: the source tells the direction.
    let place = Place::new()?;
    let one_arm = CONFIG.replace("client = [\"client0\"]", "client = [\"dx0\"]");
    std::fs::write(&place.config, one_arm)?;
    let family = Family::V4;
    let frames = [
        from_client(Frame::tcp(client(1, family), SHOP.at(family), flag::SYN)),
        Frame::tcp((FIRST_ENDPOINT.of(family), 8443), client(1, family), flag::ACK)
            .macs(DIRECT_CONNECT_MAC, EDGE_DX_MAC)
            .build(),
    ];
    let file = place.capture("in.pcap", &capture::of_frames(frames.iter().map(Vec::as_slice)))?;
    let lines = place.replay(&file, &["--offsite", "shop=100%"])?;
    assert_eq!((&lines[0]["reason"], &lines[1]["reason"]), (&"shifted".into(), &"returned".into()));
    assert_eq!(lines[2]["summary"]["in"], "dx0");
    assert_eq!(lines[2]["summary"]["replies"], 1);
    Ok(())
}
