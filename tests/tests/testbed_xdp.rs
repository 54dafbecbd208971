//! The links carry what XDP redirects: a five-instruction program makes EDGE a wire, and whole bodies go through it
//! in both directions. burst's own program is not needed for this, nor tested by it.

use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use burst_tests::client::{self, Connection, Kind, Page};
use burst_tests::link::mac_text;
use burst_tests::netns::Namespace;
use burst_tests::servers::{self, Limits, LocalSite, Site};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_DX, EDGE_INSIDE, EDGE_OUTSIDE, Family, LOCAL_DEVICE,
    LOCAL_MAC, Options, PAYMENT, SHOP, TO_EDGE, Topology,
};

/// `attr` of BPF_PROG_LOAD, as in the kernel's `include/uapi/linux/bpf.h`, up to the fields used here.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// `attr` of BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

const BPF_PROG_LOAD: i64 = 5;
const BPF_LINK_CREATE: i64 = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 4;
/// `bpf_redirect`.
const HELPER_REDIRECT: i32 = 23;

fn bpf<T>(command: i64, attributes: &T) -> Result<OwnedFd> {
    // SAFETY: the attributes live through the call, are as long as said, and point only to memory that does, too.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    let fd = i32::try_from(fd)?;
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("bpf command {command}"));
    }
    // SAFETY: both commands answer a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Redirects every frame that enters at `from` out of `to`, natively, until the answer is dropped.
fn wire(namespace: &Namespace, from: &str, to: &str) -> Result<OwnedFd> {
    let [from, to] = [from, to].map(|device| namespace.ifindex(device));
    let (from, to) = (from?, i32::try_from(to?)?);
    let instruction = |code: u8, registers: u8, immediate: i32| {
        u64::from(code) | u64::from(registers) << 8 | u64::from(immediate.cast_unsigned()) << 32
    };
    // r1 = to; r2 = 0; r0 = bpf_redirect(r1, r2); return r0.
    let instructions = [
        instruction(0xb7, 1, to),
        instruction(0xb7, 2, 0),
        instruction(0x85, 0, HELPER_REDIRECT),
        instruction(0x95, 0, 0),
    ];
    let program = bpf(
        BPF_PROG_LOAD,
        &ProgramLoad {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: u32::try_from(instructions.len())?,
            instructions: instructions.as_ptr().addr() as u64,
            license: c"GPL".as_ptr().addr() as u64,
            attach_type: BPF_XDP,
            ..ProgramLoad::default()
        },
    )?;
    let program = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&program)).map(|number| (program, number))?;
    let link = LinkCreate { program: program.1, ifindex: from, attach_type: BPF_XDP, flags: XDP_FLAGS_DRV_MODE };
    namespace.run(|| bpf(BPF_LINK_CREATE, &link))?
}

/// Makes `namespace` send what goes to `next_hop` to another MAC than its own, so that EDGE can be a wire.
fn point(namespace: &Namespace, device: &str, next_hop: burst_tests::topology::Pair, mac: [u8; 6]) -> Result<()> {
    let script: String = Family::ALL
        .map(|family| {
            let (address, mac) = (next_hop.of(family), mac_text(mac));
            format!("neighbour replace {address} lladdr {mac} dev {device} nud permanent\n")
        })
        .concat();
    namespace.ip(&script)
}

#[test]
fn whole_bodies_cross_the_edge_by_redirect_alone_on_the_premises_side() -> Result<()> {
    let topology = Topology::new()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    point(&topology.client, TO_EDGE, EDGE_OUTSIDE, LOCAL_MAC)?;
    point(&topology.local, TO_EDGE, EDGE_INSIDE, CLIENT_MAC)?;
    let _out = wire(&topology.edge, CLIENT_DEVICE, LOCAL_DEVICE)?;
    let _back = wire(&topology.edge, LOCAL_DEVICE, CLIENT_DEVICE)?;
    for family in Family::ALL {
        for service in [PAYMENT, SHOP] {
            let source = topology.clients(family).first().copied();
            let down = client::download(&topology.client, source, service.at(family))?;
            let up = client::upload(&topology.client, source, service.at(family))?;
            assert_eq!((down.site, up.site), (Some(Site::Local), Some(Site::Local)));
        }
    }
    // The kernel of EDGE had no part in it.
    topology.edge.sysctl(&[("net/ipv4/ip_forward", "0"), ("net/ipv6/conf/all/forwarding", "0")])?;
    client::download(&topology.client, None, SHOP.at(Family::V6))?;
    client::download(&topology.client, None, SHOP.at(Family::V4))?;
    Ok(())
}

#[test]
fn whole_bodies_cross_the_edge_by_redirect_alone_over_direct_connect_if_the_peer_is_ready() -> Result<()> {
    let topology = Topology::with(Options { shop_in_cloud: true, ..Options::default() })?;
    let cloud = servers::start_cloud(&topology)?;
    point(&topology.client, TO_EDGE, EDGE_OUTSIDE, DIRECT_CONNECT_MAC)?;
    point(&topology.direct_connect, TO_EDGE, EDGE_DX, CLIENT_MAC)?;
    let _out = wire(&topology.edge, CLIENT_DEVICE, DX_DEVICE)?;
    let _back = wire(&topology.edge, DX_DEVICE, CLIENT_DEVICE)?;
    let source = |family| topology.clients(family).last().copied();
    for family in Family::ALL {
        let down = client::download(&topology.client, source(family), SHOP.at(family))?;
        let up = client::upload(&topology.client, source(family), SHOP.at(family))?;
        assert_eq!((down.site, up.site), (Some(Site::Cloud), Some(Site::Cloud)));
    }
    assert_eq!(cloud.counts(SHOP.name)?.requests, 8);

    // Without GRO the peer has no queue that XDP could put a frame on: this is what `link::veth` is careful about.
    topology.direct_connect.exec("ethtool", &["-K", TO_EDGE, "gro", "off"])?;
    for family in Family::ALL {
        let outcome = client::run(&topology.client, async {
            let patience = Duration::from_millis(500);
            let mut connection = Connection::open(source(family), SHOP.at(family), patience).await?;
            connection.get(Page::Small, true, patience).await
        })?;
        assert_eq!(outcome.map_err(|failure| failure.kind), Err(Kind::ConnectTimeout), "{family:?}");
    }
    Ok(())
}
