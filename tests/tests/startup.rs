//! What burst refuses to start with, and that it leaves alone what it refuses; what it removes, and that it removes
//! nothing else. Each refusal has its twin: the same start without the fault.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, MapInfo};
use burst_common::meta::{ABI, MAGIC, Meta};
use burst_tests::daemon::{self, Daemon, Said, Settings, pin_dir, program_on, refusal, remains, status};
use burst_tests::foreign::{self, ARRAY, Layout};
use burst_tests::host;
use burst_tests::topology::{CLIENT_DEVICE, DX_DEVICE, LOCAL_DEVICE, Topology};
use rustix::mount::{MountFlags, mount, mount_remount};

/// A layout that is none of burst's.
const FOREIGN: Layout = Layout { kind: ARRAY, key: 4, value: 12, entries: 3, flags: 0 };

fn config(topology: &Topology) -> String {
    daemon::config(topology, &Settings::default())
}

/// Starts burst with a configuration that is refused.
fn refused(topology: &Topology, config: &str) -> Result<Said> {
    refusal(topology, topology.edge.command(host::burst_binary()?), config)
}

/// The refusal's text, without what the log said before it.
fn message(said: &Said) -> &str {
    said.err.find("burst: ").map_or("", |at| said.err[at..].trim_end())
}

fn starts(topology: &Topology) -> Result<()> {
    let mut daemon = Daemon::start(topology, &Settings::default())?;
    assert!(program_on(topology, CLIENT_DEVICE)?.is_some());
    assert!(program_on(topology, DX_DEVICE)?.is_some());
    daemon.stop()
}

fn detach(topology: &Topology) -> Result<Said> {
    let pins = pin_dir(topology);
    daemon::command(topology, &["detach", "--pin-dir", pins.to_str().context("a path")?])
}

#[test]
fn a_foreign_program_on_a_device_is_refused_and_left_alone() -> Result<()> {
    for device in [CLIENT_DEVICE, DX_DEVICE] {
        let topology = Topology::new()?;
        let foreign = foreign::pass(&topology.edge, device)?;
        let before = program_on(&topology, device)?;
        assert!(before.is_some());
        let said = refused(&topology, &config(&topology))?;
        assert_eq!(said.code, 6, "{}", said.err);
        assert_eq!(
            message(&said),
            format!(
                "burst: {device} already has an XDP program that is not burst's; it was left alone\n  fix: see `ip link show \
                 dev {device}` and `bpftool net`, detach it, or take another device"
            )
        );
        assert_eq!(program_on(&topology, device)?, before, "the foreign program is where it was");
        for other in [CLIENT_DEVICE, DX_DEVICE, LOCAL_DEVICE].into_iter().filter(|other| *other != device) {
            assert_eq!(program_on(&topology, other)?, None, "nothing of a refused start stays on {other}");
        }
        drop(foreign);
        assert_eq!(program_on(&topology, device)?, None);
        starts(&topology)?;
    }
    Ok(())
}

#[test]
fn a_missing_device_is_named() -> Result<()> {
    let topology = Topology::new()?;
    for (device, what) in [(CLIENT_DEVICE, "edge.client"), (DX_DEVICE, "link `dx-1`")] {
        let said = refused(&topology, &config(&topology).replace(&format!("\"{device}\""), "\"nosuch9\""))?;
        assert_eq!(said.code, 6, "{}", said.err);
        assert_eq!(
            message(&said),
            format!(
                "burst: {what}: there is no device `nosuch9`\n  fix: see `ip link` in this network namespace, and correct the \
                 name or bring the device up"
            )
        );
        assert_eq!(program_on(&topology, CLIENT_DEVICE)?, None);
        assert!(!pin_dir(&topology).exists(), "nothing was made");
    }
    starts(&topology)
}

#[test]
fn a_link_device_that_does_not_forward_is_refused_with_the_switch_named() -> Result<()> {
    let topology = Topology::new()?;
    for family in ["ipv4", "ipv6"] {
        let switch = format!("net/{family}/conf/{DX_DEVICE}/forwarding");
        topology.edge.sysctl(&[(&switch, "0")])?;
        let said = refused(&topology, &config(&topology))?;
        assert_eq!(said.code, 6, "{}", said.err);
        assert_eq!(
            message(&said),
            format!(
                "burst: net.{family}.conf.{DX_DEVICE}.forwarding is 0: replies from the cloud could not be routed to \
                 clients\n  fix: sysctl -w net.{family}.conf.{DX_DEVICE}.forwarding=1"
            )
        );
        assert!(!pin_dir(&topology).exists(), "nothing was made");
        topology.edge.sysctl(&[(&switch, "1")])?;
    }
    starts(&topology)
}

#[test]
fn a_link_of_a_vlan_is_refused_with_the_command_for_what_is_missing() -> Result<()> {
    let topology = Topology::new()?;
    let device = format!("device   = \"{DX_DEVICE}\"");
    let tagged = config(&topology).replacen(&device, &format!("{device}\nvlan     = 101"), 1);
    let offload = |state| topology.edge.exec("ethtool", &["-K", DX_DEVICE, "rxvlan", state]);
    for (state, expected) in [
        (
            "on",
            format!(
                "burst: link `dx-1`: `{DX_DEVICE}` takes the VLAN tags off what it receives (rx-vlan-offload): replies could not \
                 be told apart\n  fix: ethtool -K {DX_DEVICE} rxvlan off"
            ),
        ),
        (
            "off",
            format!(
                "burst: link `dx-1`: there is no VLAN device with id 101 on `{DX_DEVICE}`: its next hop could not be resolved\n  \
                 fix: ip link add link {DX_DEVICE} name {DX_DEVICE}.101 type vlan id 101 && ip link set {DX_DEVICE}.101 up"
            ),
        ),
    ] {
        offload(state)?;
        let said = refused(&topology, &tagged)?;
        assert_eq!((said.code, message(&said)), (6, expected.as_str()), "{}", said.err);
        assert!(!pin_dir(&topology).exists(), "nothing was made");
    }
    // An untagged link does not ask for either.
    offload("on")?;
    starts(&topology)
}

/// The stamp of the pinned state.
fn stamp(topology: &Topology) -> Result<Meta> {
    let map = Map::Array(MapData::from_pin(pin_dir(topology).join("maps/META"))?);
    let array: Array<&MapData, [u8; size_of::<Meta>()]> = (&map).try_into()?;
    Ok(bytemuck::cast(array.get(&0, 0)?))
}

fn set_stamp(topology: &Topology, meta: Meta) -> Result<()> {
    let mut map = Map::Array(MapData::from_pin(pin_dir(topology).join("maps/META"))?);
    let mut array: Array<&mut MapData, [u8; size_of::<Meta>()]> = (&mut map).try_into()?;
    Ok(array.set(0, bytemuck::cast::<Meta, [u8; size_of::<Meta>()]>(meta), 0)?)
}

#[test]
fn pinned_state_of_another_abi_is_refused_and_goes_on_as_it_is() -> Result<()> {
    let topology = Topology::new()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(50.0)?;
    daemon.settle()?;
    daemon.stop()?;
    let (slots, names) = (daemon.slots()?, daemon.names()?);
    let own = stamp(&topology)?;
    assert_eq!((own.magic, own.abi), (MAGIC, ABI));
    let programs = || -> Result<_> { Ok([program_on(&topology, CLIENT_DEVICE)?, program_on(&topology, DX_DEVICE)?]) };
    let before = programs()?;
    for other in [Meta { abi: ABI + 1, ..own }, Meta { magic: MAGIC ^ 1, ..own }, Meta { cpus: own.cpus + 1, ..own }] {
        set_stamp(&topology, other)?;
        let said = refused(&topology, &config(&topology))?;
        assert_eq!(said.code, 9, "{}", said.err);
        let pins = pin_dir(&topology);
        let (pins, cpus) = (pins.display(), own.cpus);
        assert_eq!(
            message(&said),
            format!(
                "burst: the pinned state in {pins} has the stamp {:#x}, ABI {}, {} CPUs; this version has {MAGIC:#x}, ABI \
                 {ABI}, {cpus} CPUs\n  fix: run the version of burst that made it, or `burst detach --pin-dir {pins}` and \
                 start anew (placed flows are lost)",
                other.magic, other.abi, other.cpus
            )
        );
        assert_eq!(stamp(&topology)?, other);
        assert_eq!(programs()?, before);
    }
    assert!(daemon.slots()? == slots && daemon.names()? == names, "nothing was written");
    set_stamp(&topology, own)?;
    daemon.start_again()
}

#[test]
fn a_pinned_map_of_another_layout_is_refused_before_it_is_touched() -> Result<()> {
    let topology = Topology::new()?;
    let pins = topology.dir.bpffs("pins")?;
    topology.dir.subdir("pins/maps")?;
    let path = pins.join("maps/SLOTS");
    foreign::pin_map(FOREIGN, &path)?;
    let id = MapInfo::from_pin(&path)?.id();
    let said = refused(&topology, &config(&topology))?;
    assert_eq!(said.code, 9, "{}", said.err);
    let text = message(&said);
    assert!(text.starts_with(&format!("burst: the pinned map {} has another layout: ", path.display())), "{text}");
    assert!(text.contains("value: 12, entries: 3") && text.contains("value: 8, entries: 524288"), "{text}");
    assert!(text.contains(&format!("`burst detach --pin-dir {}` and start anew", pins.display())), "{text}");
    let info = MapInfo::from_pin(&path)?;
    assert_eq!((info.id(), info.value_size(), info.max_entries()), (id, 12, 3));
    assert_eq!(program_on(&topology, CLIENT_DEVICE)?, None);
    let names: Vec<_> = std::fs::read_dir(pins.join("maps"))?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["SLOTS"], "no map was made beside it");
    // The way out that the message names.
    assert_eq!(detach(&topology)?.code, 0);
    starts(&topology)
}

#[test]
fn a_pin_directory_that_cannot_be_used_is_refused_and_left_alone() -> Result<()> {
    let pins_text = |topology: &Topology| pin_dir(topology).display().to_string();
    let fix = "\n  fix: start burst as root once, or set `edge.pin_dir` to a directory that \
               can be written";

    // A file.
    let topology = Topology::new()?;
    topology.dir.write("pins", "not a directory")?;
    let said = refused(&topology, &config(&topology))?;
    assert_eq!(said.code, 9, "{}", said.err);
    let pins = pins_text(&topology);
    let wanted = format!("burst: the pin directory {pins}: cannot be made: File exists (os error 17){fix}");
    assert_eq!(message(&said), wanted);
    assert_eq!(std::fs::read_to_string(&pins)?, "not a directory");

    // A directory that somebody keeps files in.
    std::fs::remove_file(&pins)?;
    topology.dir.subdir("pins")?;
    topology.dir.write("pins/notes", "mine")?;
    let said = refused(&topology, &config(&topology))?;
    assert_eq!(said.code, 9, "{}", said.err);
    let wanted = format!(
        "burst: the pin directory {pins} is no bpffs and is not empty\n  fix: set `edge.pin_dir` to a directory of burst's own"
    );
    assert_eq!(message(&said), wanted);
    assert_eq!(std::fs::read_to_string(topology.dir.file("pins/notes"))?, "mine");
    std::fs::remove_file(topology.dir.file("pins/notes"))?;

    // A bpffs that may not be written.
    mount("bpf", &*topology.dir.file("pins"), "bpf", MountFlags::empty(), Some(c"mode=0700"))?;
    mount_remount(topology.dir.file("pins"), MountFlags::RDONLY, "")?;
    let said = refused(&topology, &config(&topology))?;
    assert_eq!(said.code, 9, "{}", said.err);
    let wanted =
        format!("burst: the pin directory {pins}: cannot be written: Read-only file system (os error 30){fix}");
    assert_eq!(message(&said), wanted);
    assert_eq!(program_on(&topology, CLIENT_DEVICE)?, None);
    mount_remount(topology.dir.file("pins"), MountFlags::empty(), "")?;
    starts(&topology)
}

/// burst with all capabilities dropped but those named.
fn with_capabilities(topology: &Topology, kept: &str) -> Result<Command> {
    let mut command = topology.edge.command("setpriv");
    command.arg(format!("--bounding-set=-all{kept}")).arg(host::burst_binary()?);
    Ok(command)
}

#[test]
fn without_privileges_the_refusal_says_which_are_needed() -> Result<()> {
    let topology = Topology::new()?;
    let all = ",+net_admin,+net_raw,+bpf,+perfmon";
    // Without CAP_SYS_ADMIN there is no mount; with it made beforehand, each of the others is missed in its turn.
    let said = refusal(&topology, with_capabilities(&topology, all)?, &config(&topology))?;
    assert_eq!(said.code, 4, "{}", said.err);
    let pins = pin_dir(&topology);
    let wanted = format!("burst: the pin directory {}: cannot be mounted: Operation not permitted", pins.display());
    assert!(message(&said).starts_with(&wanted), "{}", said.err);
    assert!(message(&said).contains("fix: start burst as root once"), "{}", said.err);

    topology.dir.bpffs("pins")?;
    for (kept, lacks) in [
        ("", "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_RAW"),
        (",+net_admin,+net_raw", "CAP_BPF, CAP_PERFMON"),
        (",+net_raw,+bpf,+perfmon", "CAP_NET_ADMIN"),
    ] {
        let said = refusal(&topology, with_capabilities(&topology, kept)?, &config(&topology))?;
        assert_eq!(said.code, 4, "with {kept:?}: {}", said.err);
        let text = message(&said);
        assert_eq!(text, format!("burst: burst lacks {lacks}; run as root, or give it what is missing"));
        assert_eq!(program_on(&topology, CLIENT_DEVICE)?, None);
    }

    // These four, and no other, are enough.
    let file = topology.dir.write("burst.toml", config(&topology))?;
    let mut command = with_capabilities(&topology, all)?;
    command.arg("run").arg("-c").arg(file);
    let mut process = burst_tests::process::Process::spawn("burst", command, &topology.dir)?;
    process.wait_ready("answering", daemon::PATIENCE, || Ok(status(&topology).ok()))?;
    assert!(program_on(&topology, CLIENT_DEVICE)?.is_some());
    assert!(process.stop()?.success());
    Ok(())
}

#[test]
fn a_second_daemon_on_the_socket_is_refused_and_the_first_goes_on() -> Result<()> {
    let topology = Topology::new()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    let before = program_on(&topology, CLIENT_DEVICE)?;
    let said = refused(&topology, &config(&topology))?;
    assert_eq!(said.code, 10, "{}", said.err);
    let socket = topology.dir.file("burst.sock");
    assert_eq!(
        message(&said),
        format!("burst: another burst daemon is running: it answers on {}; stop it first", socket.display())
    );
    assert_eq!(program_on(&topology, CLIENT_DEVICE)?, before);
    assert_eq!(daemon.status()?.pid, daemon.process.pid());
    // Nor does another socket help: the pins are what two must not share.
    let said = refused(&topology, &config(&topology).replace("burst.sock", "other.sock"))?;
    assert_eq!(said.code, 10, "{}", said.err);
    assert!(message(&said).starts_with("burst: another burst daemon works with the pins in "), "{}", said.err);
    assert_eq!(program_on(&topology, CLIENT_DEVICE)?, before);
    // Nor are programs taken away under a running daemon.
    let said = detach(&topology)?;
    assert_eq!(said.code, 10, "{}", said.err);
    assert_eq!(program_on(&topology, CLIENT_DEVICE)?, before);
    // What a dead one left of its socket is no obstacle.
    daemon.kill()?;
    assert!(socket.exists());
    daemon.start_again()
}

#[test]
fn a_bad_configuration_is_refused_with_file_and_line() -> Result<()> {
    let topology = Topology::new()?;
    let good = config(&topology);
    let said = refused(&topology, &good.replace("when_full    = \"local\"\n", ""))?;
    assert_eq!(said.code, 3, "{}", said.err);
    let file = topology.dir.file("refused.toml").display().to_string();
    let line = good.lines().position(|line| line.starts_with("[class.promotion]")).context("the class")? + 1;
    assert!(said.err.contains("when_full") && said.err.contains(&format!("{file}:{line}")), "{}", said.err);
    assert!(!pin_dir(&topology).exists(), "nothing was made");
    starts(&topology)
}

#[test]
fn another_seed_is_refused_while_flows_are_placed_by_the_old_one() -> Result<()> {
    let topology = Topology::new()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.stop()?;
    let before = (stamp(&topology)?, program_on(&topology, CLIENT_DEVICE)?);
    let said = refused(&topology, &config(&topology).replace("one-string-for-all-edges", "another"))?;
    assert_eq!(said.code, 9, "{}", said.err);
    assert_eq!(
        message(&said),
        format!(
            "burst: `edge.seed` differs from the one the running flows were placed by: every flow would move\n  fix: restore \
             the former seed, or drain and `burst detach --pin-dir {}` first",
            pin_dir(&topology).display()
        )
    );
    assert_eq!((stamp(&topology)?, program_on(&topology, CLIENT_DEVICE)?), before);
    daemon.start_again()
}

/// Id of a pinned map.
fn map_id(path: &Path) -> Result<u32> {
    Ok(MapInfo::from_pin(path)?.id())
}

#[test]
fn detach_after_a_crash_removes_all_that_is_bursts_and_nothing_else() -> Result<()> {
    let topology = Topology::new()?;
    let elsewhere = topology.dir.bpffs("others")?.join("SLOTS");
    foreign::pin_map(FOREIGN, &elsewhere)?;
    let foreign = foreign::pass(&topology.edge, LOCAL_DEVICE)?;
    let others = (map_id(&elsewhere)?, program_on(&topology, LOCAL_DEVICE)?);
    topology.edge.ip("neighbour add 10.64.0.77 dev dx0 lladdr 02:00:00:00:00:77 nud permanent")?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    daemon.kill()?;
    assert!(program_on(&topology, CLIENT_DEVICE)?.is_some());

    let said = detach(&topology)?;
    assert_eq!((said.code, &*said.out), (0, "detached from client0\ndetached from dx0\n"), "{}", said.err);
    assert_eq!(remains(&topology)?, [format!("an XDP program on \"{LOCAL_DEVICE}\"")]);
    assert_eq!((map_id(&elsewhere)?, program_on(&topology, LOCAL_DEVICE)?), others);
    assert!(
        topology.edge.exec("ip", &["neigh", "show"])?.contains("10.64.0.77 dev dx0 lladdr 02:00:00:00:00:77 PERMANENT")
    );

    // Again: there is nothing to do, and that is no failure.
    let said = detach(&topology)?;
    assert_eq!(said.code, 0, "{}", said.err);
    let pins = pin_dir(&topology);
    let wanted = format!("burst was not attached here (its pins would be in {})\n", pins.display());
    assert_eq!(said.out, wanted);
    drop(foreign);
    starts(&topology)
}

#[test]
fn detach_leaves_what_somebody_else_put_into_the_pin_directory() -> Result<()> {
    let topology = Topology::new()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.kill()?;
    let theirs = pin_dir(&topology).join("theirs");
    foreign::pin_map(FOREIGN, &theirs)?;
    let id = map_id(&theirs)?;
    let said = detach(&topology)?;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(map_id(&theirs)?, id);
    for device in [CLIENT_DEVICE, DX_DEVICE] {
        assert_eq!(program_on(&topology, device)?, None);
    }
    for ours in ["maps", "links"] {
        assert!(!pin_dir(&topology).join(ours).exists(), "{ours}");
    }
    // Once it is gone, nothing is left.
    std::fs::remove_file(&theirs)?;
    assert_eq!(detach(&topology)?.code, 0);
    assert_eq!(remains(&topology)?, Vec::<String>::new());
    Ok(())
}
