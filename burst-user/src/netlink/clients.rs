//! What stands between burst and the clients: client devices, VLAN devices on them, and the router to the clients. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::device::Vlan;
use super::gateway::{Lookup, ToClients};
use super::state::{Table, Why};

/// What a client device is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientState {
    /// Its name.
    pub name: String,
    /// Its index; 0 when it does not exist. Another index than before means another device of the same name: what was
    /// attached to the old one is gone.
    pub ifindex: u32,
    /// Its MAC address; zero when unknown.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes; 0 when it does not exist.
    pub mtu: u32,
    /// Whether it carries packets now.
    pub up: bool,
    /// Why it is up or not.
    pub why: Why,
    /// Whether it takes off the tags of VLANs that there are devices for: frames of a VLAN look untagged then.
    pub strips_tags: bool,
}

/// A VLAN device on a client device: what the routing table may name as the way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientVlan {
    /// Its index.
    pub ifindex: u32,
    /// Its MAC address; zero when unknown.
    pub mac: [u8; 6],
    /// Parent and VLAN id.
    pub vlan: Vlan,
}

/// How replies of a family find their way to the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// By one router, whatever the client, but for some destinations.
    Cached(Box<Router>),
    /// The routing table is asked about each.
    Lookup(Lookup),
}

impl Default for Gateway {
    fn default() -> Self {
        Self::Lookup(Lookup::Reading)
    }
}

/// The router to the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The client device that frames leave by; of a VLAN, the parent.
    pub device: String,
    /// Index of that device.
    pub ifindex: u32,
    /// Source MAC address of the frames.
    pub device_mac: [u8; 6],
    /// VLAN id; 0 is untagged.
    pub vlan: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Destinations that take another way, at most [`burst_common::limits::GATEWAY_EXCEPTIONS`].
    pub except: Vec<IpNet>,
}

impl Table {
    /// The state of one client device.
    pub(super) fn client(&self, name: &str) -> ClientState {
        let device = self.named(name);
        let why = match device {
            None => Why::NoDevice,
            Some(device) if device.mac.is_none() => Why::NotEthernet,
            Some(device) => device.carries(),
        };
        ClientState {
            name: name.to_owned(),
            ifindex: device.map_or(0, |device| device.ifindex),
            mac: device.and_then(|device| device.mac).unwrap_or_default(),
            mtu: device.map_or(0, |device| device.mtu),
            up: why == Why::Up,
            why,
            strips_tags: device
                .is_some_and(|device| self.strips(device) && self.vlans_on(device.ifindex).next().is_some()),
        }
    }

    /// The VLAN devices on client devices, by index.
    pub(super) fn client_vlans(&self, clients: &[String]) -> Vec<ClientVlan> {
        let parents = clients.iter().filter_map(|name| self.named(name));
        let vlans = parents.flat_map(|parent| self.vlans_on(parent.ifindex));
        let mut vlans: Vec<_> = vlans
            .map(|(device, vlan)| ClientVlan { ifindex: device.ifindex, mac: device.mac.unwrap_or_default(), vlan })
            .collect();
        vlans.sort_unstable_by_key(|vlan| vlan.ifindex);
        vlans
    }

    /// The router to the clients as frames reach it, when that is the way.
    pub(super) fn gateway(&self, clients: &[String], way: &Result<ToClients, Lookup>) -> Gateway {
        match self.router(clients, way) {
            Ok(router) => Gateway::Cached(Box::new(router)),
            Err(why) => Gateway::Lookup(why),
        }
    }

    fn router(&self, clients: &[String], way: &Result<ToClients, Lookup>) -> Result<Router, Lookup> {
        let way = way.as_ref().map_err(|why| *why)?;
        let upper = self.device(way.oif).ok_or(Lookup::Elsewhere)?;
        let (device, vlan) = match upper.vlan {
            Some(vlan) => (self.device(vlan.parent).ok_or(Lookup::Elsewhere)?, vlan.id),
            None => (upper, 0),
        };
        if !clients.contains(&device.name) {
            return Err(Lookup::Elsewhere);
        }
        if !self.carries(upper.ifindex) {
            return Err(Lookup::Down);
        }
        let mac = self.neighbour(upper.ifindex, way.gateway).and_then(|neighbour| neighbour.mac);
        let mtu = upper.mtu.min(device.mtu).min(way.mtu.unwrap_or(u32::MAX));
        Ok(Router {
            address: way.gateway,
            mac: mac.ok_or(Lookup::Unresolved)?,
            device: device.name.clone(),
            ifindex: device.ifindex,
            device_mac: upper.mac.ok_or(Lookup::Elsewhere)?,
            vlan,
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            except: way.except.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Device, Neighbour, Owner, Resolution};

    const CLIENTS: u32 = 3;
    const TAGGED: u32 = 9;
    const OTHER: u32 = 5;
    const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x03];
    const TAGGED_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x09];
    const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xff];

    fn device(ifindex: u32, name: &str, mac: [u8; 6], mtu: u32, vlan: Option<Vlan>) -> Device {
        Device { ifindex, name: name.into(), mac: Some(mac), mtu, up: true, carrier: true, vlan }
    }

    fn clients() -> Device {
        device(CLIENTS, "eth0", MAC, 9000, None)
    }

    fn tagged() -> Device {
        device(TAGGED, "eth0.7", TAGGED_MAC, 1500, Some(Vlan { parent: CLIENTS, id: 7 }))
    }

    fn router() -> IpAddr {
        "192.0.2.2".parse().unwrap()
    }

    fn table(devices: Vec<Device>, resolved: &[u32]) -> Table {
        let mut table = Table::default();
        table.look_at(router());
        table.set_devices(devices);
        for &ifindex in resolved {
            let (resolution, owner) = (Resolution::Resolved, Owner::Added);
            let entry =
                Neighbour { ifindex, address: router(), mac: Some(ROUTER_MAC), resolution, managed: true, owner };
            table.put_neighbour(ifindex, router(), Some(entry));
        }
        table
    }

    fn way(oif: u32, mtu: Option<u32>) -> Result<ToClients, Lookup> {
        Ok(ToClients { gateway: router(), oif, mtu, except: vec!["10.0.0.0/8".parse().unwrap()] })
    }

    fn gateway(table: &Table, way: &Result<ToClients, Lookup>) -> Gateway {
        table.gateway(&["eth0".to_owned()], way)
    }

    #[test]
    fn a_client_device_needs_no_neighbour() {
        let table = table(vec![clients()], &[]);
        let up = ClientState {
            name: "eth0".into(),
            ifindex: CLIENTS,
            mac: MAC,
            mtu: 9000,
            up: true,
            why: Why::Up,
            strips_tags: false,
        };
        assert_eq!(table.client("eth0"), up);
        assert_eq!(table.client("eth1").why, Why::NoDevice);
    }

    #[test]
    fn a_router_on_a_client_device_or_a_vlan_of_it_is_reached_without_a_lookup() {
        let expected = Router {
            address: router(),
            mac: ROUTER_MAC,
            device: "eth0".into(),
            ifindex: CLIENTS,
            device_mac: MAC,
            vlan: 0,
            mtu: 9000,
            except: vec!["10.0.0.0/8".parse().unwrap()],
        };
        let table = table(vec![clients(), tagged()], &[CLIENTS, TAGGED]);
        assert_eq!(gateway(&table, &way(CLIENTS, None)), Gateway::Cached(Box::new(expected.clone())));
        let narrow = Router { mtu: 1400, ..expected.clone() };
        assert_eq!(gateway(&table, &way(CLIENTS, Some(1400))), Gateway::Cached(Box::new(narrow)));
        let tagged = Router { vlan: 7, mtu: 1500, device_mac: TAGGED_MAC, ..expected };
        assert_eq!(gateway(&table, &way(TAGGED, None)), Gateway::Cached(Box::new(tagged)));
    }

    #[test]
    fn whatever_stands_in_the_way_is_named() {
        let down = |device: Device| Device { up: false, ..device };
        for (why, devices, resolved, way) in [
            (Lookup::Unresolved, vec![clients()], &[][..], way(CLIENTS, None)),
            (Lookup::Unresolved, vec![clients(), tagged()], &[CLIENTS], way(TAGGED, None)),
            (Lookup::Down, vec![down(clients())], &[CLIENTS], way(CLIENTS, None)),
            (Lookup::Down, vec![down(clients()), tagged()], &[TAGGED], way(TAGGED, None)),
            (Lookup::Down, vec![clients(), down(tagged())], &[TAGGED], way(TAGGED, None)),
            (Lookup::Elsewhere, vec![clients(), device(OTHER, "eth1", MAC, 1500, None)], &[OTHER], way(OTHER, None)),
            (Lookup::Elsewhere, vec![clients()], &[TAGGED], way(TAGGED, None)),
            (Lookup::Elsewhere, vec![Device { mac: None, ..clients() }], &[CLIENTS], way(CLIENTS, None)),
            (Lookup::NoDefault, vec![clients()], &[CLIENTS], Err(Lookup::NoDefault)),
        ] {
            assert_eq!(gateway(&table(devices, resolved), &way), Gateway::Lookup(why));
        }
    }

    #[test]
    fn vlan_devices_on_client_devices_are_found_and_what_hides_them_too() {
        let elsewhere = device(11, "eth1.7", MAC, 1500, Some(Vlan { parent: OTHER, id: 7 }));
        let other = device(OTHER, "eth1", MAC, 1500, None);
        let mut table = table(vec![elsewhere, tagged(), other, clients()], &[]);
        let names = ["eth0".to_owned()];
        let vlan = ClientVlan { ifindex: TAGGED, mac: TAGGED_MAC, vlan: Vlan { parent: CLIENTS, id: 7 } };
        assert_eq!(table.client_vlans(&names), [vlan]);
        assert_eq!(table.trunks(&[], &names), [(CLIENTS, "eth0".to_owned())]);
        table.put_strips_tags(CLIENTS, true);
        assert!(table.client("eth0").strips_tags);
        table.remove_device(TAGGED);
        assert!(!table.client("eth0").strips_tags, "no VLAN, nothing hidden");
        assert!(table.trunks(&[], &names).is_empty() && table.client_vlans(&names).is_empty());
    }
}
