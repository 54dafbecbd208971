//! A VPN between EDGE and DIRECT_CONNECT: on each side a device without an Ethernet header, and in between this process, which
//! carries what one side sends to the other, as a VPN's daemon does, but in the clear. It says what passed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::topology::Topology;

/// The device, in EDGE and in DIRECT_CONNECT.
pub const VPN_DEVICE: &str = "vpn0";
/// Its MTU in bytes of IP packet: what a tunnel in a packet of 1500 bytes leaves.
pub const VPN_MTU: u16 = 1400;

/// The endpoints' nets as EDGE routes them by the VPN: narrower than by the line, so that these routes go first.
pub const VPN_NETS: [&str; 2] = ["10.20.0.0/27", "fd00:20::/120"];

/// What the devices leave for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: each packet is a segment with its checksum, as a plain VPN sees it.
    None,
    /// Segments are merged and their checksum is not computed yet, where the kernel likes it so (`CHECKSUM_PARTIAL`, GSO).
    All,
}

/// What passed in one direction.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// Packets that were several segments in one.
    pub merged: u64,
    /// Packets whose checksum was yet to be computed.
    pub partial: u64,
    /// Packets by source and destination.
    pub packets: BTreeMap<(IpAddr, IpAddr), u64>,
}

impl Passed {
    /// Packets from or to an address for which something holds.
    pub fn of(&self, holds: impl Fn(IpAddr) -> bool) -> u64 {
        let of = |((from, to), _): &(&(IpAddr, IpAddr), &u64)| holds(*from) || holds(*to);
        self.packets.iter().filter(of).map(|(_, packets)| packets).sum()
    }
}

/// The VPN. Dropping it takes its devices away.
#[derive(Debug)]
pub struct Vpn<'a> {
    topology: &'a Topology,
    /// Towards the cloud, and from there.
    passed: [Arc<Mutex<Passed>>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl<'a> Vpn<'a> {
    /// Makes the devices, with addresses and routes: EDGE reaches the endpoints by it before all else, the router reaches the
    /// clients by it when the lines are down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(topology: &'a Topology, offload: Offload) -> Result<Self> {
        let sides = [&topology.edge, &topology.direct_connect];
        let [edge, router] = sides.map(|side| open(side, offload));
        let (edge, router) = (Arc::new(edge?), Arc::new(router?));
        let address = |last: u8| {
            format!(
                "address add 10.64.2.{last}/30 dev {VPN_DEVICE}\naddress add fd00:64:2::{last}/64 dev {VPN_DEVICE} nodad\n\
                 link set {VPN_DEVICE} mtu {VPN_MTU} up\n"
            )
        };
        topology.edge.ip(&address(2))?;
        topology.direct_connect.ip(&address(1))?;
        let passed = <[Arc<Mutex<Passed>>; 2]>::default();
        let ways = [(&edge, &router), (&router, &edge)];
        let threads = ways.into_iter().zip(&passed).map(|((from, to), passed)| {
            let (from, to, passed) = (Arc::clone(from), Arc::clone(to), Arc::clone(passed));
            let work = move || carry(&from, &to, offload, &passed);
            std::thread::Builder::new().name(VPN_DEVICE.to_owned()).spawn(work).context("a thread")
        });
        let vpn = Self { topology, passed: passed.clone(), threads: threads.collect::<Result<_>>()? };
        for net in VPN_NETS {
            vpn.route("add", net)?;
        }
        let clients = ["198.51.100.0/24", "2001:db8:51::/64"];
        let back = clients.map(|net| format!("route add {net} dev {VPN_DEVICE} metric 2000\n"));
        topology.direct_connect.ip(&back.concat())?;
        Ok(vpn)
    }

    /// Adds or deletes EDGE's route to a net by the VPN.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn route(&self, what: &str, net: &str) -> Result<()> {
        self.topology.edge.ip(&format!("route {what} {net} dev {VPN_DEVICE}"))
    }

    /// What passed towards the cloud, and from there.
    #[must_use]
    pub fn passed(&self) -> [Passed; 2] {
        self.passed.each_ref().map(|passed| passed.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Vpn<'_> {
    fn drop(&mut self) {
        // Without its device, who reads is told so.
        for side in [&self.topology.edge, &self.topology.direct_connect] {
            if let Err(error) = side.ip(&format!("link delete {VPN_DEVICE}")) {
                eprintln!("testbed: {error:#}");
            }
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// `struct virtio_net_hdr`: flags, kind of merging, and lengths (include/uapi/linux/virtio_net.h).
pub const HEADER: usize = 10;

/// Carries packets until the device they come from is gone.
fn carry(mut from: &File, mut to: &File, offload: Offload, passed: &Mutex<Passed>) {
    let header = if offload == Offload::All { HEADER } else { 0 };
    let mut packet = vec![0; HEADER + (1 << 16)];
    while let Ok(length) = from.read(&mut packet) {
        let packet = &packet[..length];
        if let Some(addresses) = packet.get(header..).and_then(addresses) {
            let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
            *passed.packets.entry(addresses).or_default() += 1;
            // VIRTIO_NET_HDR_F_NEEDS_CSUM; VIRTIO_NET_HDR_GSO_NONE is 0.
            passed.partial += u64::from(header != 0 && packet[0] & 1 != 0);
            passed.merged += u64::from(header != 0 && packet[1] != 0);
        }
        // A line that is down loses what is sent over it.
        drop(to.write(packet));
    }
}

/// Source and destination of an IP packet.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?).into());
    let v6 = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).into());
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// Makes the device in a namespace; it is not up, and goes with the file. With [`Offload::All`], a [`HEADER`] stands before
/// each packet.
///
/// # Errors
/// When the kernel refuses.
pub fn open(namespace: &Namespace, offload: Offload) -> Result<File> {
    namespace.run(|| open_here(offload))?
}

/// As [`open`], in the network namespace of the calling thread.
fn open_here(offload: Offload) -> Result<File> {
    // include/uapi/linux/if_tun.h.
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
    const TUN_F_CSUM_TSO4_TSO6: libc::c_ulong = 1 | 2 | 4;
    let file = File::options().read(true).write(true).open("/dev/net/tun").context("opening /dev/net/tun")?;
    let headers = if offload == Offload::All { libc::IFF_VNET_HDR } else { 0 };
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI | headers) as u16;
    // struct ifreq: the name, then flags.
    let mut request = [0u8; 40];
    request[..VPN_DEVICE.len()].copy_from_slice(VPN_DEVICE.as_bytes());
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the descriptor is open, and the buffer as long as the structure the kernel reads and writes.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    ensure!(made == 0, "making {VPN_DEVICE}: {}", Error::last_os_error());
    if offload == Offload::All {
        // SAFETY: the descriptor is open; the argument is a number.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, TUN_F_CSUM_TSO4_TSO6) };
        ensure!(set == 0, "offloads of {VPN_DEVICE}: {}", Error::last_os_error());
    }
    Ok(file)
}
