//! burst with no more than it asks for: four capabilities, no root, and no way to get more. It shifts, is killed and started again,
//! reloads and is ordered about by its group; without any one of the four it begins nothing.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use burst_tests::body::BIG;
use burst_tests::client;
use burst_tests::daemon::{self, PATIENCE, Said, Settings, pin_dir, program_on, refusal, status};
use burst_tests::host;
use burst_tests::load::{Held, HeldPlan};
use burst_tests::poll;
use burst_tests::process::Process;
use burst_tests::servers::{self, Limits, LocalSite, Site};
use burst_tests::topology::{CLIENT_DEVICE, DX_DEVICE, Family, PAYMENT, SHOP, Topology};

/// As capabilities(7) has them, and their bits.
const CAPABILITIES: [(&str, u32); 4] = [("bpf", 39), ("perfmon", 38), ("net_admin", 12), ("net_raw", 13)];

/// A user and its group; no account of the host has these numbers.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// The daemon's.
const DAEMON: User = User { uid: 61_001, gid: 61_002 };
/// One who is in its group.
const MEMBER: User = User { uid: 61_003, gid: 61_002 };
/// One who is not.
const STRANGER: User = User { uid: 61_004, gid: 61_005 };

/// burst in EDGE as a user with these capabilities and none that it could ever get.
fn confined(topology: &Topology, user: User, capabilities: &[&str]) -> Result<Command> {
    let list = capabilities.iter().fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
    let mut command = topology.edge.command("setpriv");
    command.args([
        "--reuid",
        &user.uid.to_string(),
        "--regid",
        &user.gid.to_string(),
        "--clear-groups",
        "--no-new-privs",
    ]);
    command.args(["--inh-caps", &list, "--ambient-caps", &list, "--bounding-set", &list]);
    command.arg(host::burst_binary()?);
    Ok(command)
}

fn all() -> Vec<&'static str> {
    CAPABILITIES.iter().map(|(name, _)| *name).collect()
}

/// A testbed with the bpffs mounted, and a directory for the socket, both the daemon's.
fn testbed() -> Result<Topology> {
    host::require_programs(&[("setpriv", "util-linux")])?;
    let topology = Topology::new()?;
    let pins = topology.dir.bpffs("pins")?;
    let run = topology.dir.path().to_owned();
    for path in [&pins, &run] {
        chown(path, Some(DAEMON.uid), Some(DAEMON.gid)).with_context(|| path.display().to_string())?;
    }
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o711))?;
    Ok(topology)
}

/// Starts burst with the four, and waits until it answers and all its links are up.
fn start(topology: &Topology, settings: &Settings) -> Result<Process> {
    let file = topology.dir.write("burst.toml", daemon::config(topology, settings))?;
    let mut command = confined(topology, DAEMON, &all())?;
    command.arg("run").arg("-c").arg(file);
    let mut process = Process::spawn("burst", command, &topology.dir)?;
    let pid = process.pid();
    process.wait_ready("answering, all links up", PATIENCE, || {
        let ready = status(topology).ok().filter(|now| now.pid == pid && now.links.iter().all(|link| link.up));
        Ok(ready.map(drop))
    })?;
    Ok(process)
}

/// A command of a user without any capability.
fn by(topology: &Topology, user: User, arguments: &[&str]) -> Result<Said> {
    let mut command = confined(topology, user, &[])?;
    command.arg("--socket").arg(topology.dir.file("burst.sock")).args(arguments);
    Ok(command.output().context("running burst")?.into())
}

fn done(said: &Said) -> Result<()> {
    ensure!(said.code == 0, "{said:?}");
    Ok(())
}

/// Orders a share of the shop's flows offsite, and waits until it is in force.
fn shift(topology: &Topology, percent: f64) -> Result<()> {
    let offsite = format!("{percent}%");
    let order = ["override", SHOP.name, "--offsite", &offsite, "--for", "5m", "--reason", "a test of privileges"];
    done(&by(topology, MEMBER, &order)?)?;
    poll::until("the shop's flows to leave", PATIENCE, || {
        let classes = status(topology)?.classes;
        let shop = classes.into_iter().find_map(|class| class.burst).context("a class")?;
        Ok(((shop.local.share.wanted - (1.0 - percent / 100.0)).abs() < 1e-9).then_some(()))
    })
}

/// Whole bodies of both families: the shop's from `site`, payment's from here.
fn served(topology: &Topology, site: Site) -> Result<()> {
    for family in Family::ALL {
        for (service, site) in [(SHOP, site), (PAYMENT, Site::Local)] {
            let down = client::download(&topology.client, None, service.at(family))?;
            assert_eq!((down.site, down.length), (Some(site), BIG), "{family:?} {}", service.name);
        }
    }
    Ok(())
}

/// Connections to the shop in the cloud, which stay open.
fn hold(topology: &Topology) -> Result<Vec<Held>> {
    let open = |family: Family| -> Result<Held> {
        let plan = HeldPlan { connections: 2, ..HeldPlan::of(topology, SHOP, family) };
        let held = Held::open(&topology.client, plan)?;
        assert!(held.lines().iter().all(|line| line.site == Some(Site::Cloud)), "{:?}", held.lines());
        Ok(held)
    };
    Family::ALL.into_iter().map(open).collect()
}

/// The process has what it was given and nothing else.
fn has_the_four_alone(process: &Process) -> Result<()> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let row = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).context("a row");
    let four = CAPABILITIES.iter().fold(0_u64, |set, (_, bit)| set | 1 << bit);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(row(set)?, 16)?, four, "{set}");
    }
    assert_eq!(row("NoNewPrivs:")?, "1");
    assert_eq!(row("Uid:")?.split_whitespace().collect::<Vec<_>>(), ["61001"; 4]);
    Ok(())
}

#[test]
fn four_capabilities_are_enough() -> Result<()> {
    let topology = testbed()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let _cloud = servers::start_cloud(&topology)?;
    let mut settings = Settings::default();
    let mut process = start(&topology, &settings)?;
    has_the_four_alone(&process)?;
    assert!(program_on(&topology, CLIENT_DEVICE)?.is_some() && program_on(&topology, DX_DEVICE)?.is_some());
    served(&topology, Site::Local)?;

    done(&by(&topology, MEMBER, &["status"])?)?;
    let said = by(&topology, STRANGER, &["status"])?;
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("no permission to use"), "{said:?}");
    shift(&topology, 100.0)?;
    served(&topology, Site::Cloud)?;
    let held = hold(&topology)?;
    let exchange = || held.iter().try_for_each(Held::exchange);

    process.kill()?;
    served(&topology, Site::Cloud)?;
    exchange()?;
    process = start(&topology, &settings)?;
    has_the_four_alone(&process)?;
    exchange()?;
    shift(&topology, 100.0)?;
    served(&topology, Site::Cloud)?;

    settings.link_mtu = Some(1400);
    topology.dir.write("burst.toml", daemon::config(&topology, &settings))?;
    let generation = status(&topology)?.config.generation;
    done(&by(&topology, MEMBER, &["reload"])?)?;
    assert_eq!(status(&topology)?.config.generation, generation + 1);
    exchange()?;
    served(&topology, Site::Cloud)?;

    done(&by(&topology, MEMBER, &["bypass", "on", "--yes"])?)?;
    served(&topology, Site::Local)?;
    done(&by(&topology, MEMBER, &["bypass", "off"])?)?;
    assert!(!status(&topology)?.bypass);
    let ended = process.stop()?;
    assert!(ended.success(), "{ended}: {}", process.log()?);
    Ok(())
}

#[test]
fn without_any_one_of_the_four_nothing_is_begun() -> Result<()> {
    let topology = testbed()?;
    let config = daemon::config(&topology, &Settings::default());
    for (missing, _) in CAPABILITIES {
        let others: Vec<_> = all().into_iter().filter(|name| *name != missing).collect();
        let said = refusal(&topology, confined(&topology, DAEMON, &others)?, &config)?;
        assert_eq!(said.code, 4, "{said:?}");
        let name = format!("CAP_{}", missing.to_uppercase());
        let message = format!("burst lacks {name}; run as root, or give it what is missing");
        assert!(said.err.contains(&message), "{said:?}");
        assert_eq!(program_on(&topology, CLIENT_DEVICE)?, None);
        assert!(!pin_dir(&topology).join("maps").exists(), "nothing is pinned");
    }
    // With all four the same start succeeds.
    start(&topology, &Settings::default())?.stop()?;
    Ok(())
}
