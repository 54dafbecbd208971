//! `burst explain`: every step of one packet, from the real object: with maps made from a configuration, and with copies of
//! those that a daemon left. Looking changes nothing: every pinned map is held against what it was.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use burst::kernel::Mapped;
use burst_common::counter::{CLASS_ROWS, Counter, Counts};
use burst_common::limits::{MAX_REASONS, MAX_SLOTS};
use burst_common::tables::Tables;
use burst_tests::capture;
use burst_tests::daemon::{self, Daemon, Settings};
use burst_tests::dir::RunDir;
use burst_tests::host;
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, CLOUD_PORT, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX_MAC, FIRST_CLIENT,
    Family, PAYMENT, SHOP, Topology,
};
use serde_json::Value;

/// What an explanation is asked about.
fn question(src: std::net::SocketAddr, dst: std::net::SocketAddr, more: &[&str]) -> Vec<String> {
    let (src, dst) = (src.to_string(), dst.to_string());
    let basis = ["explain", "--json", "--proto", "tcp", "--src", &src, "--dst", &dst];
    basis.iter().chain(more).map(ToString::to_string).collect()
}

fn answer(output: &Output) -> Result<Value> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The steps in words, each as `step: words`.
fn steps(explained: &Value) -> Vec<String> {
    let steps = explained["steps"].as_array().cloned().unwrap_or_default();
    let text =
        |step: &Value| format!("{}: {}", step["step"].as_str().unwrap_or("?"), step["says"].as_str().unwrap_or("?"));
    steps.iter().map(text).collect()
}

fn client(port: u16) -> std::net::SocketAddr {
    (FIRST_CLIENT.of(Family::V4), port).into()
}

const CONFIG: &str = r#"version = 1
edge = { name = "edge-a1", client = ["client0"], seed = "explain", mode = "active", pin_dir = "/nonexistent/pins" }

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1400

[class.payment]
keep = true
match = [
  { src = ["192.0.2.128/25"] },
  { dst = ["203.0.113.10"], proto = "tcp", ports = [443] },
]

[class.shop]
match = [{ dst = ["203.0.113.20"], proto = "tcp", ports = [80] }]
affinity = "client"
slots = 64
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.shop.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10"]
ports = { 80 = 8080 }
links = ["dx-1"]
capacity = "1k flows/s"
"#;

/// Asks with maps made from a configuration.
fn made(config: &Path, src: std::net::SocketAddr, dst: std::net::SocketAddr, more: &[&str]) -> Result<Value> {
    let mut command = Command::new(host::burst_binary()?);
    answer(&command.args(question(src, dst, more)).arg("-c").arg(config).env_remove("BURST_LOG").output()?)
}

#[test]
fn every_step_of_a_packet_that_leaves_is_told() -> Result<()> {
    let dir = RunDir::new()?;
    let config = dir.write("burst.toml", CONFIG)?;
    let family = Family::V4;
    let more = ["--syn", "--offsite", "shop=100%", "--neighbour", "dx-1=00:00:5e:00:53:22"];
    let explained = made(&config, client(40_000), SHOP.at(family), &more)?;
    assert_eq!((&explained["source"]["maps"], &explained["direction"]), (&"configuration".into(), &"forward".into()));
    assert_eq!(explained["packet"]["len"], 54);
    let class = &explained["class"];
    assert_eq!((&class["name"], &class["keep"], &class["rule"]), (&"shop".into(), &false.into(), &1.into()));
    assert_eq!(class["asks"], "dst 203.0.113.20/32, tcp 80");
    let slot = &explained["slot"];
    assert_eq!((&slot["of"], &slot["by"], &slot["state"]), (&64.into(), &"client".into(), &"stable".into()));
    assert_eq!(slot["current"], "reserved/10.20.0.10");
    assert_eq!(explained["pin"], Value::Null, "a stable slot asks for none");
    assert_eq!(explained["endpoint"]["mode"], "dnat");
    let link = &explained["link"];
    assert_eq!((&link["name"], &link["device"], &link["mtu"]), (&"dx-1".into(), &"dx0".into(), &1400.into()));
    assert_eq!(link["next_hop"], "00:00:5e:00:53:22");
    // The checksums are those of the packet, whatever it was built with: all but them is named here.
    let changes = explained["changes"].as_array().context("changes")?;
    let changes: BTreeMap<_, _> = changes
        .iter()
        .filter(|change| change["field"].as_str().is_some_and(|field| !field.ends_with("checksum")))
        .map(|change| (change["field"].as_str().unwrap_or("?"), (change["before"].clone(), change["after"].clone())))
        .collect();
    let wanted: BTreeMap<_, (Value, Value)> = [
        ("ethernet.destination", ("02:00:00:00:00:02".into(), "00:00:5e:00:53:22".into())),
        ("ethernet.source", ("02:00:00:00:00:04".into(), "02:00:00:00:00:02".into())),
        ("ipv4.destination", (SHOP.address.v4.to_string().into(), "10.20.0.10".into())),
        ("ipv4.ttl", ("64".into(), "63".into())),
        ("tcp.destination", ("80".into(), "8080".into())),
    ]
    .into();
    assert_eq!(changes, wanted);
    let verdict = &explained["verdict"];
    assert_eq!(
        (&verdict["action"], &verdict["reason"], &verdict["device"]),
        (&"redirect".into(), &"shifted".into(), &"dx0".into())
    );
    let counters =
        serde_json::json!([{ "class": "shop", "counter": "shifted", "packets": 1, "bytes": 54, "openers": 1 }]);
    assert_eq!(explained["counters"], counters);
    let names: Vec<_> = steps(&explained).iter().map(|step| step.split(':').next().unwrap_or("?").to_owned()).collect();
    assert_eq!(names[..6], ["packet", "direction", "class", "slot", "endpoint", "link"]);
    assert!(
        names[6..].iter().rev().skip(1).all(|name| name == "rewrite")
            && names.last().is_some_and(|name| name == "verdict")
    );

    // For people the same words.
    let mut command = Command::new(host::burst_binary()?);
    let mut words = question(client(40_000), SHOP.at(family), &more);
    words.retain(|word| word != "--json");
    let output = command.args(words).arg("-c").arg(&config).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for step in steps(&explained) {
        let says = step.split_once(": ").map_or("", |(_, says)| says);
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(text.ends_with("counted: shifted of class shop\nnothing live was changed, nothing was sent\n"), "{text}");
    Ok(())
}

#[test]
fn what_stays_is_told_with_its_reason() -> Result<()> {
    let dir = RunDir::new()?;
    let config = dir.write("burst.toml", CONFIG)?;
    let (shop, payment) = (SHOP.at(Family::V4), PAYMENT.at(Family::V4));
    let card = (std::net::Ipv4Addr::new(192, 0, 2, 200), 40_000).into();
    let elsewhere = (FIRST_CLIENT.plus(1).of(Family::V4), 443).into();
    for (src, dst, more, reason, words) in [
        (
            client(1),
            payment,
            &[][..],
            "keep",
            "class: payment, by rule 2 (dst 203.0.113.10/32, tcp 443): kept on premises",
        ),
        (
            card,
            shop,
            &["--offsite", "shop=100%"],
            "keep",
            "class: payment, by rule 1 (src 192.0.2.128/25): kept on premises",
        ),
        (client(1), elsewhere, &[], "no-match", "class: no rule matches"),
        (client(1), shop, &[], "local", "by client hash: stable, every flow goes to local"),
    ] {
        let explained = made(&config, src, dst, more)?;
        assert_eq!(explained["verdict"]["reason"], reason, "{dst} {more:?}");
        assert!(steps(&explained).iter().any(|step| step.contains(words)), "{words}: {:?}", steps(&explained));
        assert_eq!(explained["changes"], Value::Array(vec![]), "nothing changes in what stays");
    }
    // A packet that does not fit its link is answered, and the answer is shown; one byte less fits.
    let explained = made(&config, client(1), shop, &["--offsite", "shop=100%", "--payload", "1361"])?;
    let verdict = &explained["verdict"];
    assert_eq!((&verdict["reason"], &verdict["device"]), (&"too-big-answered".into(), &CLIENT_DEVICE.into()));
    let told = steps(&explained);
    assert!(told.iter().any(|step| step.contains("mtu 1400")), "{told:?}");
    assert!(told.iter().any(|step| step == "rewrite: icmp.mtu: 1400, new"), "{told:?}");
    let explained = made(&config, client(1), shop, &["--offsite", "shop=100%", "--payload", "1360"])?;
    assert_eq!(explained["verdict"]["reason"], "shifted");
    // And a question that makes no sense is no defect.
    for (arguments, said) in [
        (&["--proto", "udp", "--syn", "--src", "198.51.100.7:1", "--dst", "203.0.113.20:80"][..], "--syn is for TCP"),
        (&["--proto", "tcp", "--src", "198.51.100.7:1", "--dst", "[2001:db8::1]:80"], "two address families"),
        (&["--proto", "tcp", "--src", "198.51.100.7", "--dst", "203.0.113.20:80"], "invalid socket address"),
        (&["--proto", "tcp", "--src", "198.51.100.7:1", "--dst", "203.0.113.20:80", "--vlan", "5000"], "at most 4094"),
    ] {
        let mut command = Command::new(host::burst_binary()?);
        let output = command.arg("explain").args(arguments).arg("-c").arg(&config).output()?;
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    Ok(())
}

/// Every pinned map, as bpftool reads it. Of the counters those of packets of no class are left out: the kernel's own
/// neighbour discovery moves them.
fn pinned(topology: &Topology) -> Result<BTreeMap<String, Vec<Value>>> {
    let dir = daemon::pin_dir(topology).join("maps");
    let mut maps = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
        if name == "EVENTS" {
            // A ring buffer has no entries to read.
            continue;
        }
        if let Some(words) = words(&name)? {
            // Hundreds of thousands of them: read as the daemon does.
            let mapped = Mapped::<u64>::new(MapData::from_pin(&path)?.fd().as_fd(), words)?;
            let kept = (0..words).filter(|word| name != "COUNTS" || !of_no_class(*word));
            maps.insert(name.clone(), kept.map(|n| mapped.read(n).into()).collect());
            continue;
        }
        let output =
            Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&path).output().context("bpftool")?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).with_context(|| name.clone())?;
        maps.insert(name, rows);
    }
    Ok(maps)
}

/// Words of a map that is mapped into memory.
fn words(map: &str) -> Result<Option<usize>> {
    let bytes = match map {
        "SLOTS" => MAX_SLOTS * 8,
        "TABLES" => size_of::<Tables>(),
        "COUNTS" => size_of::<Counts>() * aya::util::nr_cpus().map_err(|(_, error)| error)?,
        _ => return Ok(None),
    };
    Ok(Some(bytes / 8))
}

/// Whether a word of the counters is of packets of no class.
fn of_no_class(word: usize) -> bool {
    word * 8 % size_of::<Counts>() < MAX_REASONS * size_of::<Counter>()
}

/// Asks on EDGE, about the pins there.
fn live(topology: &Topology, src: std::net::SocketAddr, dst: std::net::SocketAddr, more: &[&str]) -> Result<Value> {
    let pins = daemon::pin_dir(topology).display().to_string();
    let mut command = topology.edge.command(host::burst_binary()?);
    command.args(question(src, dst, more)).args(["--pin-dir", &pins]).env_remove("BURST_LOG");
    answer(&command.output()?)
}

fn replayed(topology: &Topology, capture: &Path, more: &[&str]) -> Result<Vec<Value>> {
    let pins = daemon::pin_dir(topology).display().to_string();
    let mut command = topology.edge.command(host::burst_binary()?);
    command.arg("replay").arg(capture).args(["--json", "--pin-dir", &pins]).args(more).env_remove("BURST_LOG");
    let output = command.output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn requests(topology: &Topology) -> Result<PathBuf> {
    let frames: Vec<_> = (40_000..40_100)
        .map(|port| Frame::tcp(client(port), SHOP.at(Family::V4), flag::SYN).macs(CLIENT_MAC, EDGE_CLIENT_MAC).build())
        .collect();
    let packets = capture::of_frames(frames.iter().map(Vec::as_slice));
    topology.dir.write("requests.pcap", capture::write(&packets))
}

#[test]
fn live_maps_are_copied_and_nothing_live_changes() -> Result<()> {
    let topology = Topology::new()?;
    // Long transitions: the test looks at slots while they are in one.
    let settings = Settings { idle_timeout: std::time::Duration::from_secs(600), ..Settings::default() };
    let mut daemon = Daemon::start(&topology, &settings)?;
    let shop = SHOP.at(Family::V4);
    let at_home = live(&topology, client(40_000), shop, &["--syn"])?;
    assert_eq!((&at_home["source"]["maps"], &at_home["verdict"]["reason"]), (&"live".into(), &"local".into()));
    assert_eq!(at_home["packet"]["in"], CLIENT_DEVICE);

    daemon.shift(100.0)?;
    // Pins, control, slots and all stay as the daemon leaves them, and counters with them.
    daemon.stop()?;
    let before = pinned(&topology)?;
    assert!(before["SLOTS"].len() == MAX_SLOTS && before["COUNTS"].len() >= CLASS_ROWS - MAX_REASONS);
    assert!(before["SLOTS"].iter().any(|word| *word != 0), "the dump says something");

    // New flows leave, older ones are where they were: on premises. Both would be pinned.
    let slot = |explained: &Value| explained["slot"]["state"].clone();
    for _ in 0..2 {
        let new = live(&topology, client(40_000), shop, &["--syn"])?;
        let endpoint = new["endpoint"]["name"].as_str().context("an endpoint")?.to_owned();
        assert_eq!((slot(&new), &new["slot"]["previous"]), ("transition".into(), &"local".into()));
        assert_eq!(new["pin"], serde_json::json!({ "found": null, "made": endpoint, "refused": false }));
        assert_eq!((&new["verdict"]["reason"], &new["verdict"]["device"]), (&"shifted".into(), &DX_DEVICE.into()));
        let counted = new["counters"].as_array().context("counters")?;
        assert!(counted.iter().any(|count| count["counter"] == "pinned"), "{counted:?}");
        let macs = [&new["link"]["next_hop"], &new["link"]["source"]].map(|mac| mac.as_str().unwrap_or("?").to_owned());
        assert_eq!(
            macs,
            [DIRECT_CONNECT_MAC, EDGE_DX_MAC].map(burst::api::types::mac),
            "the next hop as it was resolved"
        );
        let old = live(&topology, client(40_000), shop, &[])?;
        assert_eq!((&old["pin"]["made"], &old["verdict"]["reason"]), (&"local".into(), &"local".into()));
    }
    assert_eq!(live(&topology, client(40_000), PAYMENT.at(Family::V4), &["--syn"])?["verdict"]["reason"], "keep");

    // A reply of the endpoint, by the routing table that is there.
    let endpoint = (topology.endpoints(Family::V4)[0], CLOUD_PORT).into();
    let reply = live(&topology, endpoint, client(40_000), &["--in", DX_DEVICE])?;
    assert_eq!((&reply["direction"], &reply["class"]["name"]), (&"return".into(), &SHOP.name.into()));
    assert!(
        ["returned", "no-neighbour"].contains(&reply["verdict"]["reason"].as_str().unwrap_or("?")),
        "{}",
        reply["verdict"]
    );
    let source = reply["changes"].as_array().context("changes")?.iter().find(|change| change["field"] == "ipv4.source");
    assert_eq!(source.context("a new source")?["after"], SHOP.address.v4.to_string());

    let capture = requests(&topology)?;
    let lines = replayed(&topology, &capture, &[])?;
    assert!(lines[..100].iter().all(|line| line["reason"] == "shifted"), "{}", lines[0]);
    assert_eq!(lines[100]["summary"]["source"]["maps"], "live");

    let after = pinned(&topology)?;
    for (name, dump) in &before {
        assert!(dump == &after[name], "{name} changed");
    }
    assert_eq!(before.len(), after.len());
    // What was looked at goes on: a new daemon takes it over, and only what a packet really does is counted.
    daemon.start_again()?;
    assert_eq!((daemon.openers("local")?, daemon.openers("shifted")?), (0, 0));
    Ok(())
}

#[test]
fn a_flows_pin_decides_and_is_found() -> Result<()> {
    let topology = Topology::new()?;
    let settings = Settings { idle_timeout: std::time::Duration::from_secs(600), ..Settings::default() };
    let daemon = Daemon::start(&topology, &settings)?;
    let server = burst_tests::servers::LocalSite::start(&topology, burst_tests::servers::Limits::default())?;
    daemon.shift(100.0)?;
    daemon.shift(0.0)?;
    // Slots are in transition to local, older flows are local: whatever is asked for now is local, and pinned so.
    let source = topology.clients(Family::V4)[0];
    let moved = burst_tests::client::download(&topology.client, Some(source), SHOP.at(Family::V4))?;
    assert_eq!(moved.site, Some(burst_tests::servers::Site::Local));
    let pins = daemon::pin_dir(&topology).join("maps/PINS");
    let output = Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&pins).output()?;
    let dump: Value = serde_json::from_slice(&output.stdout)?;
    let pin = dump.as_array().and_then(|pins| pins.first()).context("a pin")?;
    let port = pin["formatted"]["key"]["src_port"].as_u64().context("its source port")? as u16;
    let flow = std::net::SocketAddr::new(source, u16::from_be(port));
    let explained = live(&topology, flow, SHOP.at(Family::V4), &[])?;
    assert_eq!(explained["pin"], serde_json::json!({ "found": "local", "made": null, "refused": false }));
    assert!(steps(&explained).contains(&"pin: the flow is pinned to local".to_owned()), "{:?}", steps(&explained));
    drop(server);
    Ok(())
}

#[test]
fn the_configuration_is_asked_unless_it_is_what_runs() -> Result<()> {
    let topology = Topology::new()?;
    let settings = Settings::default();
    let mut daemon = Daemon::start(&topology, &settings)?;
    daemon.shift(100.0)?;
    daemon.stop()?;
    let file = topology.dir.file("burst.toml");
    let ask = |config: &Path, more: &[&str]| -> Result<Value> {
        let mut command = topology.edge.command(host::burst_binary()?);
        command.args(question(client(40_000), SHOP.at(Family::V4), more)).arg("-c").arg(config).env_remove("BURST_LOG");
        answer(&command.output()?)
    };
    let same = ask(&file, &["--syn"])?;
    assert_eq!((&same["source"]["maps"], &same["verdict"]["reason"]), (&"live".into(), &"shifted".into()));
    // Shares by hand change the copy.
    let by_hand = ask(&file, &["--syn", "--offsite", &format!("{}=0%", SHOP.name)])?;
    assert_eq!((&by_hand["source"]["maps"], &by_hand["verdict"]["reason"]), (&"live".into(), &"local".into()));
    assert_eq!(by_hand["slot"]["state"], "stable");
    assert_eq!(ask(&file, &["--syn"])?["verdict"]["reason"], "shifted");

    let other =
        daemon::config(&topology, &settings).replace("class.payment]\nkeep  = true", "class.money]\nkeep  = true");
    let other = topology.dir.write("other.toml", other)?;
    let other = ask(&other, &["--syn"])?;
    assert_eq!((&other["source"]["maps"], &other["verdict"]["reason"]), (&"configuration".into(), &"local".into()));
    assert!(other["source"]["why"].as_str().is_some_and(|why| why.starts_with("what runs was told something else")));
    Ok(())
}

#[test]
fn it_is_asked_where_the_daemons_devices_are() -> Result<()> {
    let topology = Topology::new()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.stop()?;
    let pins = daemon::pin_dir(&topology).display().to_string();
    let arguments = question(client(1), SHOP.at(Family::V4), &["--pin-dir", &pins]);
    let output = topology.client.command(host::burst_binary()?).args(&arguments).output()?;
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{err}");
    assert!(err.contains("ask in the network namespace that the daemon runs in"), "{err}");
    let output = topology.edge.command(host::burst_binary()?).args(&arguments).args(["--in", "eth9"]).output()?;
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains(&format!("there is no device `eth9`; there are: {CLIENT_DEVICE}, {DX_DEVICE}")), "{err}");
    // The tiers and their order are in the configuration alone.
    let output =
        topology.edge.command(host::burst_binary()?).args(&arguments).args(["--offsite", "shop=10%"]).output()?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--offsite needs the configuration"));
    Ok(())
}
