//! A network namespace with nothing in it but stand-ins for the devices of a configuration, and one way to the clients. It
//! belongs to the thread that made it and goes with it, however that ends: it has no name and no mount.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkDummy, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::kernel::{KernelError, Kind, PRIVILEGES, leave_network};

/// MAC address of a link's next hop, unless another is named. All of these are locally administered (IEEE 802, section 8.4).
pub(super) const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of every stand-in.
pub(super) const DEVICE: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// MAC address of the router that all clients are behind.
pub(super) const CLIENTS: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// Its addresses. Nothing is sent to them (192.0.2.0/24 is for documentation, RFC 5737).
pub(super) const GATEWAYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1))];
/// Largest packet that the stand-ins take: the largest there is. What a link takes, its row says.
const MTU: u32 = 65_535;

/// Moves the calling thread, for good, into a new namespace in which `devices` exist and are up; every client is behind the
/// first of them. Returns their indices.
///
/// # Errors
/// When a privilege is missing, or the kernel cannot make such devices.
pub(super) fn enter(devices: &[&str]) -> Result<BTreeMap<String, u32>, KernelError> {
    let failed = |what: String, error: &io::Error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => KernelError::new(
            Kind::Permission,
            format!("{what}: {error}"),
            format!("{PRIVILEGES}, and CAP_SYS_ADMIN for a network namespace of its own"),
        ),
        _ => KernelError::new(
            Kind::Unsupported,
            format!("{what}: {error}"),
            "the kernel must have network namespaces and veth",
        ),
    };
    leave_network().map_err(|error| failed("a network namespace for stand-in devices".to_owned(), &error))?;
    for switch in ["net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding"] {
        let path = Path::new("/proc/sys").join(switch);
        fs::write(&path, "1").map_err(|error| failed(format!("switching on {}", path.display()), &error))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed("a runtime for netlink".to_owned(), &error))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| failed("a netlink socket".to_owned(), &error))?;
        tokio::spawn(connection);
        // Its address makes the table of local addresses, without which no gateway is one (net/ipv4/fib_frontend.c,
        // `__inet_dev_addr_type`).
        let up = handle.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await.map_err(errno);
        up.map_err(|error| failed("the loopback device".to_owned(), &error))?;
        let mut indices = BTreeMap::new();
        for (number, device) in devices.iter().enumerate() {
            let made = make(&handle, device, number).await;
            let index = made.map_err(|error| failed(format!("a stand-in for the device {device}"), &error))?;
            indices.insert((*device).to_owned(), index);
        }
        if let Some(clients) = devices.first().and_then(|device| indices.get(*device)) {
            let routed = route(&handle, *clients).await;
            routed.map_err(|error| failed("a way to the clients".to_owned(), &error))?;
        }
        Ok(indices)
    })
}

async fn make(handle: &Handle, device: &str, number: usize) -> io::Result<u32> {
    let veth = LinkVeth::new(device, &format!("far-end-{number}")).mtu(MTU).address(DEVICE.to_vec()).build();
    match handle.link().add(veth).execute().await.map_err(errno) {
        Ok(()) => {}
        // A kernel without veth may have the other kind.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let dummy = LinkDummy::new(device).mtu(MTU).address(DEVICE.to_vec()).build();
            handle.link().add(dummy).execute().await.map_err(errno)?;
        }
        Err(error) => return Err(error),
    }
    for name in [device.to_owned(), format!("far-end-{number}")] {
        let up = LinkUnspec::new_with_name(&name).up().build();
        match handle.link().set(up).execute().await.map_err(errno) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) && name != device => {}
            other => other?,
        }
    }
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(socket, device)?)
}

/// The default routes, and the neighbour that they lead to.
async fn route(handle: &Handle, device: u32) -> io::Result<()> {
    for gateway in GATEWAYS {
        let route = match gateway {
            IpAddr::V4(v4) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).output_interface(device).onlink().build()
            }
            IpAddr::V6(v6) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).output_interface(device).onlink().build()
            }
        };
        handle.route().add(route).execute().await.map_err(errno)?;
        let request = handle.neighbours().add(device, gateway).link_layer_address(&CLIENTS);
        request.state(NeighbourState::Permanent).replace().execute().await.map_err(errno)?;
    }
    Ok(())
}

fn errno(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
