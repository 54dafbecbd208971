//! What is pinned, when another configuration or version comes to it, and when it is taken away: devices and maps are
//! the kernel's, packets play no part.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burst::config::model::XdpMode;
use burst::kernel::{self, Attached, Device, KernelError, Kind, Plan};
use burst::object;
use burst::policy::compile::Compiled;
use burst_tests::dir::RunDir;
use burst_tests::foreign::{ARRAY, Layout, pass, pin_map};
use burst_tests::link::{End, veth};
use burst_tests::netns::Namespace;
use burst_tests::topology::{DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_DX_MAC, SECOND_DX_DEVICE};

const SEED: u64 = 7;

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

    /// Installs and attaches to devices, as a daemon does that then ends. Says of each device what was done.
    fn install(&self, mode: XdpMode, devices: &[&str]) -> Result<Result<Vec<Attached>, KernelError>> {
        let device = |name: &&str| -> Result<Device> {
            Ok(Device {
                name: (*name).to_owned(),
                ifindex: self.edge.ifindex(name)?,
                mac: [0; 6],
                client: false,
                links: vec![(1, 0)],
            })
        };
        let devices = devices.iter().map(device).collect::<Result<Vec<_>>>()?;
        let plan = Plan { object: object::get()?, pin_dir: &self.pin_dir, mode, trace: false };
        self.edge.run(|| {
            let mut installation = kernel::install(&plan, SEED)?;
            let nothing = Compiled {
                policy: bytemuck::Zeroable::zeroed(),
                large: None,
                guard: bytemuck::Zeroable::zeroed(),
                guard_large: None,
                returns: Vec::new(),
                endpoints: Vec::new(),
                rules: Vec::new(),
            };
            let (attached, _) = installation.attach(&plan, &nothing, &devices)?;
            Ok(attached.into_iter().map(|attachment| attachment.attached).collect())
        })
    }

    /// Where the program on a device runs, in the words of `ip link`: "xdp" or "xdpgeneric".
    fn runs(&self, device: &str) -> Result<Option<String>> {
        let text = self.edge.exec("ip", &["link", "show", "dev", device])?;
        Ok(text.split_whitespace().find(|word| word.starts_with("xdp")).map(str::to_owned))
    }

    fn pins(&self) -> Result<Vec<String>> {
        let pins = std::fs::read_dir(self.pin_dir.join("links")).context("the pinned links")?;
        pins.map(|pin| Ok(pin?.file_name().to_string_lossy().into_owned())).collect()
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
    assert_eq!(host.pins()?, [DX_DEVICE]);
    assert_eq!(host.install(XdpMode::Native, &[])??, []);
    assert_eq!((host.pins()?, host.runs(DX_DEVICE)?), (vec![], None));
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
