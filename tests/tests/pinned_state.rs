//! What is pinned, when another configuration or version comes to it, and when it is taken away: devices and maps are
//! the kernel's, packets play no part.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Map, MapData};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use burst::config::model::XdpMode;
use burst::kernel::{self, Attached, Attachment, Device, Hook, Installation, KernelError, Kind, Plan};
use burst::object;
use burst::policy::compile::Compiled;
use burst_tests::dir::RunDir;
use burst_tests::foreign::{ARRAY, Layout, egress, ingress, pass, pin_map};
use burst_tests::link::{End, veth};
use burst_tests::netns::Namespace;
use burst_tests::poll;
use burst_tests::topology::{DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_DX_MAC, SECOND_DX_DEVICE};

const SEED: u64 = 7;
/// How long the kernel may take to let go of a link.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host with two links, each a pair of devices.
struct Host {
    edge: Namespace,
    far: Namespace,
    pin_dir: PathBuf,
    dir: RunDir,
}

impl Host {
    fn new() -> Result<Self> {
        let (edge, far, dir) = (Namespace::new("edge")?, Namespace::new("far")?, RunDir::new()?);
        let host = Self { edge, far, pin_dir: dir.subdir("bpf")?, dir };
        host.plug(DX_DEVICE)?;
        host.plug(SECOND_DX_DEVICE)?;
        Ok(host)
    }

    fn plug(&self, device: &str) -> Result<()> {
        let edge = End { namespace: &self.edge, device, mac: EDGE_DX_MAC };
        veth(edge, End { namespace: &self.far, device, mac: DIRECT_CONNECT_MAC }, 1500)
    }

    /// A device with one link.
    fn link(&self, name: &str) -> Result<Device> {
        Ok(Device {
            name: name.to_owned(),
            ifindex: self.edge.ifindex(name)?,
            mac: EDGE_DX_MAC,
            other_macs: false,
            client: false,
            links: vec![(1, 0)],
            via_kernel: false,
        })
    }

    /// A device without an Ethernet header, with a link that the routing table picks.
    fn vpn(&self) -> Result<Device> {
        self.edge.ip("tuntap add dev vpn0 mode tun\nlink set vpn0 up")?;
        Ok(Device { mac: [0; 6], via_kernel: true, links: vec![(2, 0)], ..self.link("vpn0")? })
    }

    /// Installs and attaches to links' devices, as a daemon does that then ends. Says of each device's entry what was done.
    fn install(&self, mode: XdpMode, devices: &[&str]) -> Result<Result<Vec<Attached>, KernelError>> {
        let devices = devices.iter().map(|name| self.link(name)).collect::<Result<Vec<_>>>()?;
        let entry = |attachment: Attachment| (attachment.hook == Hook::Xdp).then_some(attachment.attached);
        Ok(self.install_on(mode, &devices)?.map(|attached| attached.into_iter().filter_map(entry).collect()))
    }

    /// As [`Self::install`], on devices of any kind. Says all that was done.
    fn install_on(&self, mode: XdpMode, devices: &[Device]) -> Result<Result<Vec<Attachment>, KernelError>> {
        self.install_as(mode, devices, |installation| installation)
    }

    fn install_as(
        &self,
        mode: XdpMode,
        devices: &[Device],
        change: impl FnOnce(Installation) -> Installation + Send,
    ) -> Result<Result<Vec<Attachment>, KernelError>> {
        let plan = Plan { object: object::get()?, pin_dir: &self.pin_dir, mode, trace: false };
        self.edge.run(|| {
            let mut installation = change(kernel::install(&plan, SEED)?);
            let nothing = Compiled {
                policy: bytemuck::Zeroable::zeroed(),
                large: None,
                guard: bytemuck::Zeroable::zeroed(),
                guard_large: None,
                returns: Vec::new(),
                endpoints: Vec::new(),
                rules: Vec::new(),
            };
            Ok(installation.attach(&plan, &nothing, devices)?.0)
        })
    }

    /// Where the program on a device runs, in the words of `ip link`: "xdp" or "xdpgeneric".
    fn runs(&self, device: &str) -> Result<Option<String>> {
        let text = self.edge.exec("ip", &["link", "show", "dev", device])?;
        Ok(text.split_whitespace().find(|word| word.starts_with("xdp")).map(str::to_owned))
    }

    fn pins(&self) -> Result<Vec<String>> {
        let pins = std::fs::read_dir(self.pin_dir.join("links")).context("the pinned links")?;
        let mut pins: Vec<_> =
            pins.map(|pin| Ok(pin?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
        pins.sort();
        Ok(pins)
    }

    /// Programs of traffic control on a side of a device, in the order in which they run: names and ids.
    fn classifiers(&self, device: &str, side: TcAttachType) -> Result<Vec<(String, u32)>> {
        let (_, programs) = self.edge.run(|| SchedClassifier::query_tcx(device, side))??;
        let name = |program: &ProgramInfo| (program.name_as_str().unwrap_or_default().to_owned(), program.id());
        Ok(programs.iter().map(name).collect())
    }

    /// The devmap: programs by device, 0 where there is none.
    fn devmap(&self) -> Result<BTreeMap<u32, u32>> {
        let map = Map::DevMapHash(MapData::from_pin(self.pin_dir.join("maps/DEVICES"))?);
        let devices: DevMapHash<&MapData> = DevMapHash::try_from(&map)?;
        let rows = devices.iter().map(|row| row.map(|(index, value)| (index, value.prog_id.map_or(0, u32::from))));
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn detach_as_nobody(pin_dir: &Path) -> Result<Vec<String>, KernelError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // This thread only: other tests of this process go on as root.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may become nobody");
            kernel::detach(pin_dir)
        });
        thread.join().expect("the thread ends")
    })
}

#[test]
fn another_attach_mode_is_refused_until_burst_is_detached() -> Result<()> {
    for (first, other, runs) in
        [(XdpMode::Native, XdpMode::Generic, "xdp"), (XdpMode::Generic, XdpMode::Native, "xdpgeneric")]
    {
        let host = Host::new()?;
        assert_eq!(host.install(first, &[DX_DEVICE])??, [Attached::New]);
        let refused = host.install(other, &[DX_DEVICE])?.expect_err("another mode");
        assert_eq!(refused.kind, Kind::State, "{refused}");
        assert!(refused.message.contains("edge.xdp") && refused.fix.contains("burst detach"), "{refused}");
        assert_eq!(host.runs(DX_DEVICE)?.as_deref(), Some(runs));
        assert_eq!(host.install(first, &[DX_DEVICE])??, [Attached::Replaced], "the same mode goes on");
        assert_eq!(kernel::detach(&host.pin_dir)?, [DX_DEVICE]);
        assert_eq!(host.install(other, &[DX_DEVICE])??, [Attached::New]);
        assert_ne!(host.runs(DX_DEVICE)?.as_deref(), Some(runs));
    }
    Ok(())
}

#[test]
fn a_mode_that_no_link_has_any_more_is_free_to_change() -> Result<()> {
    let host = Host::new()?;
    assert_eq!(host.install(XdpMode::Native, &[DX_DEVICE])??, [Attached::New]);
    host.edge.ip(&format!("link del {DX_DEVICE}"))?;
    host.plug(DX_DEVICE)?;
    assert_eq!(host.install(XdpMode::Generic, &[DX_DEVICE])??, [Attached::New]);
    assert_eq!(host.runs(DX_DEVICE)?.as_deref(), Some("xdpgeneric"));
    Ok(())
}

#[test]
fn pins_of_devices_that_are_gone_or_not_configured_go() -> Result<()> {
    let host = Host::new()?;
    assert_eq!(host.install(XdpMode::Native, &[DX_DEVICE, SECOND_DX_DEVICE])??, [Attached::New; 2]);
    host.edge.ip(&format!("link del {SECOND_DX_DEVICE}"))?;
    assert_eq!(host.install(XdpMode::Native, &[DX_DEVICE])??, [Attached::Replaced]);
    assert_eq!(host.pins()?, [DX_DEVICE.to_owned(), format!("{DX_DEVICE}:egress")]);
    assert_eq!(host.install(XdpMode::Native, &[])??, []);
    assert_eq!((host.pins()?, host.runs(DX_DEVICE)?), (vec![], None));
    assert_eq!(host.classifiers(DX_DEVICE, TcAttachType::Egress)?, []);
    Ok(())
}

#[test]
fn a_link_device_has_a_sentinel_on_both_ways_out_before_anything_else() -> Result<()> {
    let host = Host::new()?;
    let foreign = egress(&host.edge, DX_DEVICE)?;
    let (link, clients) =
        (host.link(DX_DEVICE)?, Device { client: true, links: vec![], ..host.link(SECOND_DX_DEVICE)? });
    let devices = [clients.clone(), link.clone()];
    let order =
        |attached: Vec<Attachment>| attached.into_iter().map(|a| (a.device, a.hook, a.attached)).collect::<Vec<_>>();
    let expected = |how| {
        let dx = |hook| (DX_DEVICE.to_owned(), hook, how);
        vec![dx(Hook::Egress), dx(Hook::Xdp), (SECOND_DX_DEVICE.to_owned(), Hook::Xdp, how)]
    };
    assert_eq!(order(host.install_on(XdpMode::Native, &devices)??), expected(Attached::New));
    let (first, devmap) = (host.classifiers(DX_DEVICE, TcAttachType::Egress)?, host.devmap()?);
    assert_eq!(
        first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["sentinel_tc", "foreign"],
        "ours first"
    );
    assert_eq!(devmap.keys().copied().collect::<Vec<_>>().len(), 2);
    assert_eq!(
        (devmap[&clients.ifindex], devmap[&link.ifindex] != 0),
        (0, true),
        "replies to clients pass no sentinel"
    );
    assert_eq!(host.classifiers(SECOND_DX_DEVICE, TcAttachType::Egress)?, []);

    assert_eq!(order(host.install_on(XdpMode::Native, &devices)??), expected(Attached::Replaced));
    let (second, replaced) = (host.classifiers(DX_DEVICE, TcAttachType::Egress)?, host.devmap()?);
    assert_eq!((second.len(), &second[1]), (2, &first[1]), "in the place of the former one, and nobody else's");
    assert_ne!(second[0].1, first[0].1);
    assert!(![0, devmap[&link.ifindex]].contains(&replaced[&link.ifindex]));

    assert_eq!(kernel::detach(&host.pin_dir)?, [DX_DEVICE, SECOND_DX_DEVICE]);
    assert_eq!(host.classifiers(DX_DEVICE, TcAttachType::Egress)?, [first[1].clone()], "what is not burst's stays");
    drop(foreign);
    Ok(())
}

#[test]
fn where_there_are_no_links_of_traffic_control_a_filter_stands_before_others() -> Result<()> {
    let host = Host::new()?;
    let link = host.link(DX_DEVICE)?;
    let filters = || host.edge.exec("tc", &["filter", "show", "dev", DX_DEVICE, "egress"]);
    let ours =
        |text: &str| text.lines().filter(|line| line.contains("sentinel_tc")).map(str::to_owned).collect::<Vec<_>>();
    host.edge.exec("tc", &["qdisc", "add", "dev", DX_DEVICE, "clsact"])?;
    // Classic BPF: return 0, no match.
    let bytecode = ["protocol", "all", "bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1"];
    host.edge.exec("tc", &[&["filter", "add", "dev", DX_DEVICE, "egress", "pref", "7"][..], &bytecode].concat())?;
    let before = filters()?;
    let install = || host.install_as(XdpMode::Native, std::slice::from_ref(&link), Installation::without_tcx);
    assert_eq!(done(install()??), [(Hook::Egress, Attached::New), (Hook::Xdp, Attached::New)]);
    let first = filters()?;
    assert!(first.starts_with("filter protocol all pref 1 bpf"), "{first}");
    assert_eq!(ours(&first).len(), 1, "{first}");
    assert_eq!(done(install()??), [(Hook::Egress, Attached::Replaced), (Hook::Xdp, Attached::Replaced)]);
    let second = filters()?;
    assert_eq!(ours(&second).len(), 1, "{second}");
    assert_ne!(ours(&second), ours(&first), "another program");

    // Where the device is: a filter is found by its device alone.
    assert_eq!(host.edge.run(|| kernel::detach(&host.pin_dir))??, [DX_DEVICE]);
    assert!(!host.pin_dir.exists());
    assert_eq!(filters()?, before, "what is not burst's stays");
    Ok(())
}

fn done(attached: Vec<Attachment>) -> Vec<(Hook, Attached)> {
    attached.into_iter().map(|attachment| (attachment.hook, attachment.attached)).collect()
}

#[test]
fn a_device_that_the_routing_table_picks_has_a_sentinel_and_a_way_back_before_anything_else() -> Result<()> {
    let host = Host::new()?;
    let vpn = host.vpn()?;
    let foreign = [ingress(&host.edge, "vpn0")?, egress(&host.edge, "vpn0")?];
    let sides = || -> Result<[Vec<(String, u32)>; 2]> {
        Ok([host.classifiers("vpn0", TcAttachType::Ingress)?, host.classifiers("vpn0", TcAttachType::Egress)?])
    };
    let names = |side: &[(String, u32)]| side.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let before = sides()?;
    let install = || host.install_on(XdpMode::Native, std::slice::from_ref(&vpn));

    assert_eq!(done(install()??), [(Hook::Egress, Attached::New), (Hook::Ingress, Attached::New)]);
    let first = sides()?;
    assert_eq!(first.each_ref().map(|side| names(side)), [["burst_return", "foreign"], ["sentinel_tc", "foreign"]]);
    assert_eq!((host.pins()?, host.runs("vpn0")?), (vec!["vpn0:egress".to_owned(), "vpn0:ingress".to_owned()], None));
    assert_eq!(host.devmap()?, BTreeMap::new(), "nothing is redirected there");

    assert_eq!(done(install()??), [(Hook::Egress, Attached::Replaced), (Hook::Ingress, Attached::Replaced)]);
    let second = sides()?;
    for (first, second) in first.iter().zip(&second) {
        assert_eq!((second.len(), &second[1]), (2, &first[1]), "in the place of the former one, and nobody else's");
        assert_ne!(second[0].1, first[0].1);
    }

    // The device is made anew: its programs went with it.
    host.edge.ip("link del vpn0")?;
    let again = host.vpn()?;
    let attached = host.install_on(XdpMode::Native, std::slice::from_ref(&again))??;
    assert_eq!(done(attached), [(Hook::Egress, Attached::New), (Hook::Ingress, Attached::New)]);
    assert_eq!(sides()?.each_ref().map(|side| names(side)), [["burst_return"], ["sentinel_tc"]]);

    // The link is configured no more.
    let foreign_again = [ingress(&host.edge, "vpn0")?, egress(&host.edge, "vpn0")?];
    assert_eq!(done(host.install_on(XdpMode::Native, &[])??), []);
    let others_only = || {
        let left = sides()?.each_ref().map(|side| names(side));
        Ok((left == [["foreign"], ["foreign"]]).then_some(()))
    };
    // A link ends a moment after its pin: the kernel waits for who may still look at the pin (RCU).
    poll::until("burst's programs to be gone, and nobody else's", PATIENCE, others_only)?;
    assert_eq!(host.pins()?, [""; 0]);
    host.install_on(XdpMode::Native, std::slice::from_ref(&again))??;
    assert_eq!(kernel::detach(&host.pin_dir)?, ["vpn0"]);
    poll::until("what is not burst's to be all that is left", PATIENCE, others_only)?;
    assert_eq!(before.each_ref().map(|side| names(side)), [["foreign"], ["foreign"]]);
    drop((foreign, foreign_again));
    Ok(())
}

#[test]
fn vlans_on_a_device_do_not_make_its_ethernet_header_disappear() -> Result<()> {
    let host = Host::new()?;
    // What the verifier leaves of the program depends on whether there is a header to be made.
    let size = |device: &Device| -> Result<u32> {
        host.install_on(XdpMode::Native, std::slice::from_ref(device))??;
        let (_, programs) = host.edge.run(|| SchedClassifier::query_tcx(&device.name, TcAttachType::Ingress))??;
        let program = programs.first().context("burst_return")?;
        program.size_translated().context("its size")
    };
    let ethernet = Device { via_kernel: true, ..host.link(DX_DEVICE)? };
    let plain = size(&ethernet)?;
    assert_eq!(size(&Device { other_macs: true, ..ethernet })?, plain);
    assert_ne!(size(&host.vpn()?)?, plain, "a device without one");
    Ok(())
}

#[test]
fn where_there_are_no_links_of_traffic_control_the_way_back_is_a_filter_before_others() -> Result<()> {
    let host = Host::new()?;
    let vpn = host.vpn()?;
    host.edge.exec("tc", &["qdisc", "add", "dev", "vpn0", "clsact"])?;
    let bytecode = ["protocol", "all", "bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1"];
    host.edge.exec("tc", &[&["filter", "add", "dev", "vpn0", "ingress", "pref", "7"][..], &bytecode].concat())?;
    let filters = || host.edge.exec("tc", &["filter", "show", "dev", "vpn0", "ingress"]);
    let ours =
        |text: &str| text.lines().filter(|line| line.contains("burst_return")).map(str::to_owned).collect::<Vec<_>>();
    let before = filters()?;
    let install = || host.install_as(XdpMode::Native, std::slice::from_ref(&vpn), Installation::without_tcx);

    assert_eq!(done(install()??), [(Hook::Egress, Attached::New), (Hook::Ingress, Attached::New)]);
    let first = filters()?;
    assert!(first.starts_with("filter protocol all pref 1 bpf"), "{first}");
    assert_eq!(ours(&first).len(), 1, "{first}");
    assert_eq!(done(install()??), [(Hook::Egress, Attached::Replaced), (Hook::Ingress, Attached::Replaced)]);
    let second = filters()?;
    assert_eq!(ours(&second).len(), 1, "{second}");
    assert_ne!(ours(&second), ours(&first), "another program");
    assert_eq!(host.edge.run(|| kernel::detach(&host.pin_dir))??, ["vpn0"]);
    assert_eq!(filters()?, before, "what is not burst's stays");
    Ok(())
}

#[test]
fn a_failed_attach_takes_back_all_that_was_new() -> Result<()> {
    let host = Host::new()?;
    let _foreign = pass(&host.edge, SECOND_DX_DEVICE)?;
    let clients = Device { client: true, links: vec![], ..host.link(SECOND_DX_DEVICE)? };
    let devices = [host.link(DX_DEVICE)?, host.vpn()?, clients];
    let refused = host.install_on(XdpMode::Native, &devices)?.expect_err("a foreign program");
    assert_eq!(refused.kind, Kind::Device, "{refused}");
    assert_eq!((host.pins()?, host.runs(DX_DEVICE)?), (vec![], None));
    assert_eq!(host.classifiers("vpn0", TcAttachType::Ingress)?, []);
    assert_eq!(host.classifiers(DX_DEVICE, TcAttachType::Egress)?, []);
    assert_eq!(host.devmap()?, BTreeMap::new());
    Ok(())
}

#[test]
fn a_failed_attach_names_the_devices_that_run_the_new_program() -> Result<()> {
    let host = Host::new()?;
    assert_eq!(host.install(XdpMode::Native, &[DX_DEVICE])??, [Attached::New]);
    let _foreign = pass(&host.edge, SECOND_DX_DEVICE)?;
    let refused = host.install(XdpMode::Native, &[DX_DEVICE, SECOND_DX_DEVICE])?.expect_err("a foreign program");
    assert_eq!(refused.kind, Kind::Device, "{refused}");
    assert!(refused.message.ends_with(&format!("the new program already runs on {DX_DEVICE}")), "{refused}");
    Ok(())
}

#[test]
fn detaching_says_when_it_may_not_look_and_is_done_when_there_is_nothing() -> Result<()> {
    let host = Host::new()?;
    assert_eq!(host.install(XdpMode::Native, &[DX_DEVICE])??, [Attached::New]);
    // First the directory above cannot be searched; then it can, and the pins cannot be listed.
    for mode in [0o700, 0o755] {
        std::fs::set_permissions(host.dir.path(), std::fs::Permissions::from_mode(mode))?;
        let refused = detach_as_nobody(&host.pin_dir).expect_err("nobody may look");
        assert_eq!(refused.kind, Kind::Permission, "{refused}");
    }
    assert_eq!(kernel::detach(&host.pin_dir)?, [DX_DEVICE]);
    assert_eq!(kernel::detach(&host.pin_dir)?, [""; 0]);
    Ok(())
}

#[test]
fn detaching_removes_the_maps_of_other_versions_and_nothing_of_others() -> Result<()> {
    let map = Layout { kind: ARRAY, key: 4, value: 8, entries: 1, flags: 0 };
    let host = Host::new()?;
    host.install(XdpMode::Native, &[DX_DEVICE])??;
    pin_map(map, &host.pin_dir.join("maps/OF_ANOTHER_VERSION"))?;
    assert_eq!(kernel::detach(&host.pin_dir)?, [DX_DEVICE]);
    assert!(!host.pin_dir.exists());
    // A directory that burst never used.
    let shared = host.dir.bpffs("shared")?;
    std::fs::create_dir(shared.join("maps"))?;
    pin_map(map, &shared.join("maps/of_a_neighbour"))?;
    assert_eq!(kernel::detach(&shared).expect_err("something foreign lies in it").kind, Kind::State);
    assert!(shared.join("maps/of_a_neighbour").exists());
    Ok(())
}

#[test]
fn a_pinned_map_of_another_layout_is_refused() -> Result<()> {
    let host = Host::new()?;
    host.install(XdpMode::Native, &[DX_DEVICE])??;
    let slots = host.pin_dir.join("maps/SLOTS");
    std::fs::remove_file(&slots)?;
    pin_map(Layout { kind: ARRAY, key: 4, value: 4, entries: 1 << 19, flags: 1 << 10 }, &slots)?;
    let refused = host.install(XdpMode::Native, &[DX_DEVICE])?.expect_err("a narrow map");
    assert_eq!(refused.kind, Kind::State, "{refused}");
    assert!(refused.message.contains("SLOTS has another layout"), "{refused}");
    Ok(())
}
