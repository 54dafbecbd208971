//! The reference topology, with role names for all its addresses, and the sites on it.
//!
//! ```text
//!            client0      local0
//!  CLIENT ──────────  EDGE  ────────── LOCAL     HAProxy before nginx; owns the services' addresses
//!                    dx0│ │dx1 (second line, optional)
//!                       │ │
//!                 DIRECT_CONNECT ───── CLOUD     nginx; owns the endpoints' addresses
//! ```
//!
//! Without burst, EDGE is a plain router: every service is reached on premises.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};

use crate::dir::RunDir;
use crate::link::{End, mac_text, veth};
use crate::netns::Namespace;

/// Both address families are equals: most tests run once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// An address in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The address of a family.
    #[must_use]
    pub const fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// Its `number`th successor (counted in the last byte, which must not overflow).
    #[must_use]
    pub const fn plus(self, number: u8) -> Self {
        let [a, b, c, d] = self.v4.octets();
        let mut v6 = self.v6.octets();
        v6[15] += number;
        Self { v4: Ipv4Addr::new(a, b, c, d + number), v6: Ipv6Addr::from_octets(v6) }
    }
}

/// A service: addresses and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name of the service, as the servers log it and say it in `X-Service`.
    pub name: &'static str,
    /// Addresses.
    pub address: Pair,
    /// TCP port. What is spoken is plain HTTP, whatever the port.
    pub port: u16,
}

impl Service {
    /// Address and port in a family.
    #[must_use]
    pub const fn at(self, family: Family) -> SocketAddr {
        SocketAddr::new(self.address.of(family), self.port)
    }
}

const fn pair(v4: [u8; 4], v6: [u16; 8]) -> Pair {
    let [a, b, c, d] = v4;
    let [s, t, u, v, w, x, y, z] = v6;
    Pair { v4: Ipv4Addr::new(a, b, c, d), v6: Ipv6Addr::new(s, t, u, v, w, x, y, z) }
}

/// The payment service: never leaves.
pub const PAYMENT: Service =
    Service { name: "payment", address: pair([203, 0, 113, 10], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10]), port: 443 };
/// The promotion's shop: may leave.
pub const SHOP: Service =
    Service { name: "promotion", address: pair([203, 0, 113, 20], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x20]), port: 80 };
/// Port on which the cloud's servers take the shop's traffic in mode `dnat`.
pub const CLOUD_PORT: u16 = 8080;

/// The first client address; the others follow it.
pub const FIRST_CLIENT: Pair = pair([198, 51, 100, 10], [0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x10]);
/// How many client addresses there are: 60,000 ports on each of them outlast any test.
pub const CLIENTS: u8 = 32;

/// EDGE on the link to CLIENT, when the clients are behind a gateway (CLIENT is that gateway, too).
pub const EDGE_OUTSIDE: Pair = pair([192, 0, 2, 1], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]);
/// The clients' gateway.
pub const GATEWAY: Pair = pair([192, 0, 2, 2], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 2]);
/// EDGE on the link to CLIENT, when the clients are on it themselves.
pub const EDGE_ON_LINK: Pair = pair([198, 51, 100, 1], [0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1]);

/// EDGE on the link to LOCAL.
pub const EDGE_INSIDE: Pair = pair([10, 1, 0, 1], [0xfd00, 1, 0, 0, 0, 0, 0, 1]);
/// LOCAL on the link to EDGE: the servers' status and metrics are here.
pub const LOCAL: Pair = pair([10, 1, 0, 2], [0xfd00, 1, 0, 0, 0, 0, 0, 2]);

/// The Direct Connect router on the first line: the link's next hop.
pub const DIRECT_CONNECT: Pair = pair([10, 64, 0, 1], [0xfd00, 0x64, 0, 0, 0, 0, 0, 1]);
/// EDGE on the first line.
pub const EDGE_DX: Pair = pair([10, 64, 0, 2], [0xfd00, 0x64, 0, 0, 0, 0, 0, 2]);
/// The Direct Connect router on the second line.
pub const SECOND_DIRECT_CONNECT: Pair = pair([10, 64, 1, 1], [0xfd00, 0x64, 1, 0, 0, 0, 0, 1]);
/// EDGE on the second line.
pub const SECOND_EDGE_DX: Pair = pair([10, 64, 1, 2], [0xfd00, 0x64, 1, 0, 0, 0, 0, 2]);

/// The Direct Connect router on the cloud's net.
const CLOUD_ROUTER: Pair = pair([10, 20, 0, 1], [0xfd00, 0x20, 0, 0, 0, 0, 0, 1]);
/// The first endpoint in the cloud; the others follow it. In IPv6, `fd00:20::10` and so on.
pub const FIRST_ENDPOINT: Pair = pair([10, 20, 0, 10], [0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10]);

/// EDGE's device on the clients' side.
pub const CLIENT_DEVICE: &str = "client0";
/// EDGE's device on the premises' side.
pub const LOCAL_DEVICE: &str = "local0";
/// EDGE's device on the first Direct Connect line.
pub const DX_DEVICE: &str = "dx0";
/// EDGE's device on the second Direct Connect line.
pub const SECOND_DX_DEVICE: &str = "dx1";
/// The device towards EDGE in CLIENT, LOCAL and DIRECT_CONNECT (there, of the first line).
pub const TO_EDGE: &str = "edge0";
/// DIRECT_CONNECT's device towards EDGE on the second line.
pub const SECOND_TO_EDGE: &str = "edge1";
/// DIRECT_CONNECT's device towards CLOUD.
pub const TO_CLOUD: &str = "cloud0";
/// CLOUD's device.
pub const CLOUD_DEVICE: &str = "dx0";

/// A MAC address from the range for documentation (RFC 7042 section 2.1.1).
pub(crate) const fn mac(last: u8) -> [u8; 6] {
    [0x00, 0x00, 0x5e, 0x00, 0x53, last]
}

/// MAC of EDGE's `client0`.
pub const EDGE_CLIENT_MAC: [u8; 6] = mac(0x01);
/// MAC of CLIENT's `edge0`.
pub const CLIENT_MAC: [u8; 6] = mac(0x02);
/// MAC of EDGE's `local0`.
pub const EDGE_LOCAL_MAC: [u8; 6] = mac(0x11);
/// MAC of LOCAL's `edge0`.
pub const LOCAL_MAC: [u8; 6] = mac(0x12);
/// MAC of EDGE's `dx0`.
pub const EDGE_DX_MAC: [u8; 6] = mac(0x21);
/// MAC of DIRECT_CONNECT's `edge0`.
pub const DIRECT_CONNECT_MAC: [u8; 6] = mac(0x22);
/// MAC of EDGE's `dx1`.
pub const SECOND_EDGE_DX_MAC: [u8; 6] = mac(0x31);
/// MAC of DIRECT_CONNECT's `edge1`.
pub const SECOND_DIRECT_CONNECT_MAC: [u8; 6] = mac(0x32);

/// Where the clients are, seen from EDGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Behind one gateway, as clients from the internet are.
    BehindGateway,
    /// On EDGE's own link: each is a neighbour of its own.
    OnLink,
}

/// What differs from test to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the clients are.
    pub clients: Clients,
    /// Endpoints in the cloud, 1–16.
    pub endpoints: u8,
    /// CLOUD owns SHOP's addresses, too, as mode `nexthop` needs it.
    pub shop_in_cloud: bool,
    /// A second Direct Connect line; the router uses it to EDGE when the first is down.
    pub second_line: bool,
    /// MTU of the Direct Connect lines and of the cloud's net, in bytes of IP packet.
    pub dx_mtu: u16,
    /// Permanent neighbour entries on EDGE for GATEWAY, LOCAL and the router, instead of ARP and ND.
    pub static_neighbours: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients: Clients::BehindGateway,
            endpoints: 2,
            shop_in_cloud: false,
            second_line: false,
            dx_mtu: 1500,
            static_neighbours: false,
        }
    }
}

/// The namespaces, linked, addressed and routed. Everything goes on drop.
#[derive(Debug)]
pub struct Topology {
    /// The clients, all of them.
    pub client: Namespace,
    /// The edge host.
    pub edge: Namespace,
    /// The premises.
    pub local: Namespace,
    /// The Direct Connect router.
    pub direct_connect: Namespace,
    /// The cloud.
    pub cloud: Namespace,
    /// Logs, configurations, sockets.
    pub dir: RunDir,
    /// What it was made with.
    pub options: Options,
}

impl Topology {
    /// The topology with default [`Options`].
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn new() -> Result<Self> {
        Self::with(Options::default())
    }

    /// The topology with these options.
    ///
    /// # Errors
    /// Without root or without the programs it needs (saying what to do), or when the kernel refuses a part.
    pub fn with(options: Options) -> Result<Self> {
        ensure!((1..=16).contains(&options.endpoints), "endpoints: {} is not within 1–16", options.endpoints);
        let topology = Self {
            dir: RunDir::new()?,
            client: Namespace::new("client")?,
            edge: Namespace::new("edge")?,
            local: Namespace::new("local")?,
            direct_connect: Namespace::new("dx")?,
            cloud: Namespace::new("cloud")?,
            options,
        };
        topology.set_sysctls()?;
        topology.link()?;
        topology.address()?;
        if options.second_line {
            topology.add_second_line()?;
        }
        if options.shop_in_cloud {
            topology.put_shop_in_cloud()?;
        }
        if options.static_neighbours {
            topology.fix_neighbours()?;
        }
        Ok(topology)
    }

    /// All client addresses of a family.
    #[must_use]
    pub fn clients(&self, family: Family) -> Vec<IpAddr> {
        (0..CLIENTS).map(|number| FIRST_CLIENT.plus(number).of(family)).collect()
    }

    /// All endpoints' addresses of a family.
    #[must_use]
    pub fn endpoints(&self, family: Family) -> Vec<IpAddr> {
        (0..self.options.endpoints).map(|number| FIRST_ENDPOINT.plus(number).of(family)).collect()
    }

    fn set_sysctls(&self) -> Result<()> {
        let router = [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // The effective value is the larger of `all` and the device's: both 0, for devices made later, too.
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            // A route over a line without carrier is no route: the second line's takes over.
            ("net/ipv4/conf/all/ignore_routes_with_linkdown", "1"),
            ("net/ipv6/conf/all/ignore_routes_with_linkdown", "1"),
        ];
        self.edge.sysctl(&router)?;
        self.direct_connect.sysctl(&router)?;
        let end = [
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/ip_local_port_range", "1024 65535"),
            ("net/core/somaxconn", "16384"),
            ("net/ipv4/tcp_max_syn_backlog", "16384"),
        ];
        for namespace in [&self.client, &self.local, &self.cloud] {
            namespace.sysctl(&end)?;
        }
        Ok(())
    }

    fn link(&self) -> Result<()> {
        let edge = |device, mac| End { namespace: &self.edge, device, mac };
        let router = |device, mac| End { namespace: &self.direct_connect, device, mac };
        let mtu = self.options.dx_mtu;
        veth(
            edge(CLIENT_DEVICE, EDGE_CLIENT_MAC),
            End { namespace: &self.client, device: TO_EDGE, mac: CLIENT_MAC },
            1500,
        )?;
        veth(
            edge(LOCAL_DEVICE, EDGE_LOCAL_MAC),
            End { namespace: &self.local, device: TO_EDGE, mac: LOCAL_MAC },
            1500,
        )?;
        veth(edge(DX_DEVICE, EDGE_DX_MAC), router(TO_EDGE, DIRECT_CONNECT_MAC), mtu)?;
        veth(router(TO_CLOUD, mac(0x41)), End { namespace: &self.cloud, device: CLOUD_DEVICE, mac: mac(0x42) }, mtu)
    }

    fn address(&self) -> Result<()> {
        let mut client = String::new();
        let mut edge = String::new();
        match self.options.clients {
            Clients::BehindGateway => {
                client += &owns(TO_EDGE, GATEWAY, 30, 64);
                client += &(0..CLIENTS).map(|n| owns("lo", FIRST_CLIENT.plus(n), 32, 128)).collect::<String>();
                client += &default_route(EDGE_OUTSIDE);
                edge += &owns(CLIENT_DEVICE, EDGE_OUTSIDE, 30, 64);
                edge += &default_route(GATEWAY);
            }
            Clients::OnLink => {
                client += &(0..CLIENTS).map(|n| owns(TO_EDGE, FIRST_CLIENT.plus(n), 24, 64)).collect::<String>();
                client += &default_route(EDGE_ON_LINK);
                edge += &owns(CLIENT_DEVICE, EDGE_ON_LINK, 24, 64);
            }
        }
        edge += &owns(LOCAL_DEVICE, EDGE_INSIDE, 30, 64);
        edge += &owns(DX_DEVICE, EDGE_DX, 30, 64);
        edge += &route("203.0.113.0/24", "2001:db8:113::/64", LOCAL, "");
        edge += &route("10.20.0.0/24", "fd00:20::/64", DIRECT_CONNECT, "");
        self.client.ip(&client)?;
        self.edge.ip(&edge)?;

        let mut local = owns(TO_EDGE, LOCAL, 30, 64);
        local += &owns("lo", PAYMENT.address, 32, 128);
        local += &owns("lo", SHOP.address, 32, 128);
        local += &default_route(EDGE_INSIDE);
        self.local.ip(&local)?;

        let mut router = owns(TO_EDGE, DIRECT_CONNECT, 30, 64);
        router += &owns(TO_CLOUD, CLOUD_ROUTER, 24, 64);
        router += &self.routes_to_edge(EDGE_DX, "metric 100");
        self.direct_connect.ip(&router)?;

        let endpoints = 0..self.options.endpoints;
        let mut cloud: String = endpoints.map(|n| owns(CLOUD_DEVICE, FIRST_ENDPOINT.plus(n), 24, 64)).collect();
        cloud += &default_route(CLOUD_ROUTER);
        self.cloud.ip(&cloud)
    }

    /// The router's routes to the clients and to the transit net between EDGE and their gateway.
    pub(crate) fn routes_to_edge(&self, edge: Pair, metric: &str) -> String {
        route("198.51.100.0/24", "2001:db8:51::/64", edge, metric)
            + &route("192.0.2.0/30", "2001:db8:2::/64", edge, metric)
    }

    fn add_second_line(&self) -> Result<()> {
        veth(
            End { namespace: &self.edge, device: SECOND_DX_DEVICE, mac: SECOND_EDGE_DX_MAC },
            End { namespace: &self.direct_connect, device: SECOND_TO_EDGE, mac: SECOND_DIRECT_CONNECT_MAC },
            self.options.dx_mtu,
        )?;
        let mut edge = owns(SECOND_DX_DEVICE, SECOND_EDGE_DX, 30, 64);
        edge += &route("10.20.0.0/24", "fd00:20::/64", SECOND_DIRECT_CONNECT, "metric 2000");
        self.edge.ip(&edge)?;
        let mut router = owns(SECOND_TO_EDGE, SECOND_DIRECT_CONNECT, 30, 64);
        router += &self.routes_to_edge(SECOND_EDGE_DX, "metric 2000");
        self.direct_connect.ip(&router)
    }

    fn put_shop_in_cloud(&self) -> Result<()> {
        self.cloud.ip(&owns("lo", SHOP.address, 32, 128))?;
        let Pair { v4, v6 } = SHOP.address;
        self.direct_connect.ip(&route(&format!("{v4}/32"), &format!("{v6}/128"), FIRST_ENDPOINT, ""))
    }

    fn fix_neighbours(&self) -> Result<()> {
        let mut script = neighbour(LOCAL_DEVICE, LOCAL, LOCAL_MAC);
        script += &neighbour(DX_DEVICE, DIRECT_CONNECT, DIRECT_CONNECT_MAC);
        match self.options.clients {
            Clients::BehindGateway => script += &neighbour(CLIENT_DEVICE, GATEWAY, CLIENT_MAC),
            Clients::OnLink => {
                for number in 0..CLIENTS {
                    script += &neighbour(CLIENT_DEVICE, FIRST_CLIENT.plus(number), CLIENT_MAC);
                }
            }
        }
        if self.options.second_line {
            script += &neighbour(SECOND_DX_DEVICE, SECOND_DIRECT_CONNECT, SECOND_DIRECT_CONNECT_MAC);
        }
        self.edge.ip(&script)
    }
}

/// `ip` commands that give a device a pair of addresses.
pub(crate) fn owns(device: &str, address: Pair, prefix4: u8, prefix6: u8) -> String {
    let Pair { v4, v6 } = address;
    format!("address add {v4}/{prefix4} dev {device}\naddress add {v6}/{prefix6} dev {device} nodad\n")
}

/// `ip` commands for a route in each family.
pub(crate) fn route(net4: &str, net6: &str, via: Pair, rest: &str) -> String {
    format!("route add {net4} via {} {rest}\nroute add {net6} via {} {rest}\n", via.v4, via.v6)
}

pub(crate) fn default_route(via: Pair) -> String {
    route("0.0.0.0/0", "::/0", via, "")
}

/// `ip` commands for a permanent neighbour in each family.
fn neighbour(device: &str, address: Pair, mac: [u8; 6]) -> String {
    let (Pair { v4, v6 }, mac) = (address, mac_text(mac));
    let line = |address: IpAddr| format!("neighbour replace {address} lladdr {mac} dev {device} nud permanent\n");
    line(v4.into()) + &line(v6.into())
}
