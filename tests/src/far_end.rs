//! The far end of burst's tunnels, as Linux has it: tunnel devices in CLOUD, over either family and for both, plain or in UDP.

use anyhow::{Result, bail};

use crate::daemon::Tunnel;
use crate::topology::{EDGE_DX, FIRST_ENDPOINT, Family, SHOP, Topology, owns};

/// The device that takes IPv4 to the clients; over IPv6, IPv6 as well.
pub const FAR_DEVICE: &str = "far0";
/// The device that takes IPv6 to the clients where the tunnel's own packets are IPv4.
pub const FAR_DEVICE_6: &str = "far6";
/// `gue`'s default port.
const GUE_PORT: u16 = 6080;

/// Fails where the running kernel lacks a module: not every kernel has tunnels or VLANs, and a test that ran without them would
/// have tested nothing.
///
/// # Errors
/// Names the first that is missing, and what to do.
pub fn require_modules(modules: &[&str]) -> Result<()> {
    for module in modules {
        // A module that is built in and has no parameters has no directory: none of those asked for here is ever built in.
        if !std::path::Path::new("/sys/module").join(module).is_dir() {
            bail!(
                "this kernel ({}) has not loaded the module {module}: these tests run in virtual machines, by `cargo xtask vm`",
                std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()
            );
        }
    }
    Ok(())
}

/// Makes CLOUD the far end of a tunnel to EDGE: it owns the shop's addresses, takes tunnels at its first endpoint's address, and
/// sends what is for the clients back the same way. `limit`: IPv6 headers carry the option that limits nesting (RFC 2473,
/// section 4.1.1), as they do by default.
///
/// # Errors
/// When the kernel has no such tunnels.
pub fn make(topology: &Topology, tunnel: Tunnel, outer: Family, limit: bool) -> Result<()> {
    let cloud = &topology.cloud;
    let (local, remote) = (FIRST_ENDPOINT.of(outer), EDGE_DX.of(outer));
    let encap = match tunnel {
        Tunnel::Gue => {
            let family = if outer == Family::V4 { "-4" } else { "-6" };
            cloud.exec("ip", &[family, "fou", "add", "port", &GUE_PORT.to_string(), "gue"])?;
            format!("encap gue encap-sport auto encap-dport {GUE_PORT}")
        }
        Tunnel::Ipip => String::new(),
    };
    let limit = if limit { "" } else { "encaplimit none" };
    let mut script = owns("lo", SHOP.address, 32, 128);
    script += &match outer {
        Family::V4 => format!(
            "link add {FAR_DEVICE} type ipip local {local} remote {remote} ttl 64 {encap}\n\
             link add {FAR_DEVICE_6} type sit mode ip6ip local {local} remote {remote} ttl 64 {encap}\n\
             link set {FAR_DEVICE_6} up\n"
        ),
        Family::V6 => {
            format!("link add {FAR_DEVICE} type ip6tnl mode any local {local} remote {remote} {limit} {encap}\n")
        }
    };
    let to6 = if outer == Family::V4 { FAR_DEVICE_6 } else { FAR_DEVICE };
    script += &format!(
        "link set {FAR_DEVICE} up\nroute add 198.51.100.0/24 dev {FAR_DEVICE} src {}\n\
         route add 2001:db8:51::/64 dev {to6} src {}\n",
        SHOP.address.v4, SHOP.address.v6
    );
    cloud.ip(&script)
}
