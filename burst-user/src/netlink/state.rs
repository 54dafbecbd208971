//! The devices and neighbours that matter, and what follows from them for links; for client devices it is in `clients`. Pure:
//! events in, state out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use crate::config::model::Link;

use super::clients::{ClientState, ClientVlan, Gateway};
use super::device::{Device, Vlan};
use super::neighbour::{Neighbour, Resolution};
use super::routed::{Routed, Targets};

/// The state of every configured link and client device, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetState {
    /// Links.
    pub links: Vec<LinkState>,
    /// Client devices.
    pub clients: Vec<ClientState>,
    /// VLAN devices on client devices, by index.
    pub vlans: Vec<ClientVlan>,
    /// How replies find their way to the clients, of IPv4 and IPv6.
    pub gateways: [Gateway; 2],
}

impl NetState {
    /// Name of the device that a link's frames leave by, by its index.
    #[must_use]
    pub fn device_of(&self, ifindex: u32) -> Option<String> {
        self.links.iter().find(|link| link.ifindex == ifindex && ifindex != 0).map(|link| link.device.clone())
    }
}

/// What a link can do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Name of the link.
    pub name: String,
    /// Name of the device that frames leave by.
    pub device: String,
    /// Device that frames leave by (of a VLAN, the parent); 0 when it does not exist.
    pub ifindex: u32,
    /// Device that the next hop is a neighbour on: the VLAN device, or the device itself; 0 when it does not exist.
    pub neighbour_ifindex: u32,
    /// MAC address of the device that frames leave by; zero when unknown.
    pub mac: [u8; 6],
    /// Source MAC address of its frames: that of the device the next hop is a neighbour on. Zero when unknown.
    pub device_mac: [u8; 6],
    /// MAC address of the next hop, while it can be used.
    pub next_hop_mac: Option<[u8; 6]>,
    /// Whether packets can be sent now. Implies that `ifindex` is known, and where there is a next hop also `device_mac` and
    /// `next_hop_mac`.
    pub up: bool,
    /// Why it is up or not.
    pub why: Why,
    /// Largest IP packet in bytes: the smallest of what the configuration, the device and the VLAN device say.
    pub mtu: u16,
    /// Where the routing table picks the way: the endpoints that it does not send by the device. They are out of reach over
    /// this link, also while it is up.
    pub elsewhere: Vec<IpAddr>,
}

/// Why a link or client device is up or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Packets can be sent.
    Up,
    /// The device does not exist (any more).
    NoDevice,
    /// It is no Ethernet device.
    NotEthernet,
    /// It is itself a VLAN device; burst writes tags by itself and needs the parent.
    IsVlan,
    /// The device was set down.
    DeviceDown,
    /// Cable out, far side off, or held back by 802.1X.
    NoCarrier,
    /// There is no device for the link's VLAN id on the parent.
    NoVlanDevice,
    /// The VLAN device was set down.
    VlanDeviceDown,
    /// The device takes off the VLAN tags of what it receives: replies could not be told from others.
    TagsStripped,
    /// The next hop was asked for and has not answered yet.
    Resolving,
    /// The next hop does not answer.
    NoAnswer,
    /// The routing table, which picks the way, sends none of the link's endpoints by its device.
    NotRouted,
    /// The device does not forward: replies could not be routed to clients.
    ForwardingOff,
    /// A client device does not forward: the kernel would not send on what it is to send by this link.
    ClientForwardingOff,
}

impl Device {
    /// Whether it carries packets, in words.
    pub(super) fn carries(&self) -> Why {
        match (self.up, self.carrier) {
            (false, _) => Why::DeviceDown,
            (true, false) => Why::NoCarrier,
            (true, true) => Why::Up,
        }
    }
}

impl Why {
    /// In a few words, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoDevice => "device does not exist",
            Self::NotEthernet => "not an Ethernet device",
            Self::IsVlan => "is a VLAN device: name its parent, and vlan",
            Self::DeviceDown => "device is set down",
            Self::NoCarrier => "no carrier",
            Self::NoVlanDevice => "no VLAN device with this id on the parent",
            Self::VlanDeviceDown => "VLAN device is set down",
            Self::TagsStripped => "device takes VLAN tags off (ethtool -K DEVICE rxvlan off)",
            Self::Resolving => "next hop is being resolved",
            Self::NoAnswer => "next hop does not answer",
            Self::NotRouted => "the routing table sends no endpoint by the device",
            Self::ForwardingOff => "forwarding is off on the device (sysctl)",
            Self::ClientForwardingOff => "forwarding is off on a client device (sysctl)",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// What is known of the kernel's devices and of the neighbours that are next hops.
#[derive(Debug, Default)]
pub(super) struct Table {
    devices: HashMap<u32, Device>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    /// Next hops of links and routers to the clients.
    next_hops: HashSet<IpAddr>,
    /// Devices that were asked whether they take VLAN tags off, and the answer.
    strips_tags: HashMap<u32, bool>,
    /// What the routing table does with endpoints.
    pub(super) routed: Routed,
}

impl Table {
    /// Knows nothing yet; neighbours other than the links' next hops will not be looked at, unless [`Self::look_at`] says so.
    pub(super) fn new(links: &[Link], targets: &Targets) -> Self {
        let next_hops = links.iter().filter_map(|link| link.next_hop).collect();
        Self { next_hops, routed: Routed::new(targets), ..Self::default() }
    }

    /// Looks at the neighbours of another address, too.
    pub(super) fn look_at(&mut self, address: IpAddr) {
        self.next_hops.insert(address);
    }

    /// What a device does with the VLAN tags of frames it receives.
    pub(super) fn put_strips_tags(&mut self, ifindex: u32, strips: bool) {
        self.strips_tags.insert(ifindex, strips);
    }

    /// Devices whose treatment of VLAN tags matters: index and name.
    pub(super) fn trunks(&self, links: &[Link], clients: &[String]) -> Vec<(u32, String)> {
        let tagged = links.iter().filter(|link| link.vlan.is_some()).map(|link| &link.device);
        let carries =
            |name: &&String| self.named(name).is_some_and(|device| self.vlans_on(device.ifindex).next().is_some());
        let names: BTreeSet<&String> = tagged.chain(clients.iter().filter(carries)).collect();
        names.into_iter().filter_map(|name| Some((self.named(name)?.ifindex, name.clone()))).collect()
    }

    /// VLAN devices on a device.
    pub(super) fn vlans_on(&self, parent: u32) -> impl Iterator<Item = (&Device, Vlan)> {
        self.devices
            .values()
            .filter_map(move |device| Some((device, device.vlan.filter(|vlan| vlan.parent == parent)?)))
    }

    /// Whether a device carries packets, and what it stands on, if anything, does, too.
    pub(super) fn carries(&self, ifindex: u32) -> bool {
        let carries = |device: &Device| device.carries() == Why::Up;
        self.device(ifindex).is_some_and(|device| {
            carries(device) && device.vlan.is_none_or(|vlan| self.device(vlan.parent).is_some_and(carries))
        })
    }

    /// The device of an index.
    pub(super) fn device(&self, ifindex: u32) -> Option<&Device> {
        self.devices.get(&ifindex)
    }

    /// All devices anew.
    pub(super) fn set_devices(&mut self, devices: Vec<Device>) {
        self.devices = devices.into_iter().map(|device| (device.ifindex, device)).collect();
        self.neighbours.retain(|(ifindex, _), _| self.devices.contains_key(ifindex));
        self.strips_tags.retain(|ifindex, _| self.devices.contains_key(ifindex));
    }

    /// A device appeared or changed.
    pub(super) fn put_device(&mut self, device: Device) {
        self.devices.insert(device.ifindex, device);
    }

    /// A device is gone, and its neighbours with it.
    pub(super) fn remove_device(&mut self, ifindex: u32) {
        self.devices.remove(&ifindex);
        self.neighbours.retain(|(of, _), _| *of != ifindex);
        self.strips_tags.remove(&ifindex);
    }

    /// The neighbour, if known.
    pub(super) fn neighbour(&self, ifindex: u32, address: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(&(ifindex, address))
    }

    /// A neighbour as it is now; `None`: it has no entry. Addresses that are no next hop are not kept.
    pub(super) fn put_neighbour(&mut self, ifindex: u32, address: IpAddr, neighbour: Option<Neighbour>) {
        match neighbour {
            Some(neighbour) if self.next_hops.contains(&address) => {
                self.neighbours.insert((ifindex, address), neighbour);
            }
            _ => {
                self.neighbours.remove(&(ifindex, address));
            }
        }
    }

    /// The device of a name.
    pub(super) fn named(&self, name: &str) -> Option<&Device> {
        self.devices.values().find(|device| device.name == name)
    }

    fn vlan_of(&self, parent: u32, id: u16) -> Option<&Device> {
        let of = self.vlans_on(parent).filter(|(_, vlan)| vlan.id == id);
        // Two devices for one VLAN (one per VLAN protocol is all the kernel allows) do not occur; be definite anyway.
        of.map(|(device, _)| device).min_by_key(|device| device.ifindex)
    }

    /// The state of one link.
    pub(super) fn link(&self, link: &Link) -> LinkState {
        let device = self.named(&link.device);
        let upper = match (device, link.vlan) {
            (Some(device), Some(id)) => self.vlan_of(device.ifindex, id),
            (device, _) => device,
        };
        let neighbour = upper.zip(link.next_hop).and_then(|(upper, hop)| self.neighbour(upper.ifindex, hop));
        let (elsewhere, nowhere) = self.routed.elsewhere(&link.name, device.map_or(0, |device| device.ifindex));
        let why = match (device, upper) {
            (None, _) => Why::NoDevice,
            // Where the routing table picks the way, the kernel resolves and tags by itself, if there is anything to.
            (Some(device), _) if link.next_hop.is_none() && device.carries() != Why::Up => device.carries(),
            (Some(_), _) if link.next_hop.is_none() && nowhere => Why::NotRouted,
            (Some(_), _) if link.next_hop.is_none() => Why::Up,
            (Some(device), _) if device.vlan.is_some() => Why::IsVlan,
            (Some(device), _) if device.mac.is_none() => Why::NotEthernet,
            (Some(device), _) if link.vlan.is_some() && self.strips(device) => Why::TagsStripped,
            (Some(_), None) => Why::NoVlanDevice,
            (Some(device), _) if device.carries() != Why::Up => device.carries(),
            (Some(_), Some(upper)) if !upper.up => Why::VlanDeviceDown,
            (Some(_), Some(upper)) if !upper.carrier => Why::NoCarrier,
            (Some(_), Some(upper)) if upper.mac.is_none() => Why::NotEthernet,
            _ => match neighbour.map(|neighbour| neighbour.resolution) {
                Some(Resolution::Resolved) => Why::Up,
                Some(Resolution::Failed) => Why::NoAnswer,
                Some(Resolution::Incomplete) | None => Why::Resolving,
            },
        };
        let mtu = [device, upper].into_iter().flatten().map(|device| device.mtu).min();
        LinkState {
            name: link.name.clone(),
            device: link.device.clone(),
            ifindex: device.map_or(0, |device| device.ifindex),
            neighbour_ifindex: upper.map_or(0, |upper| upper.ifindex),
            mac: device.and_then(|device| device.mac).unwrap_or_default(),
            device_mac: upper.and_then(|upper| upper.mac).unwrap_or_default(),
            next_hop_mac: neighbour.and_then(|neighbour| neighbour.mac),
            up: why == Why::Up,
            why,
            mtu: mtu.map_or(link.mtu, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX).min(link.mtu)),
            elsewhere,
        }
    }

    /// Whether a device takes VLAN tags off, as far as it was asked.
    pub(super) fn strips(&self, device: &Device) -> bool {
        self.strips_tags.get(&device.ifindex).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Owner;

    const PARENT: u32 = 3;
    const TAGGED: u32 = 9;
    const PARENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x03];
    const TAGGED_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x09];
    const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xff];

    fn device(ifindex: u32, name: &str, mac: [u8; 6], mtu: u32, vlan: Option<Vlan>) -> Device {
        Device { ifindex, name: name.into(), mac: Some(mac), mtu, up: true, carrier: true, vlan }
    }

    fn parent() -> Device {
        device(PARENT, "eth1", PARENT_MAC, 9000, None)
    }

    fn tagged() -> Device {
        device(TAGGED, "dx101", TAGGED_MAC, 8900, Some(Vlan { parent: PARENT, id: 101 }))
    }

    fn link(vlan: Option<u16>) -> Link {
        Link {
            name: "dx-1".into(),
            device: "eth1".into(),
            vlan,
            next_hop: "10.64.0.1".parse().ok(),
            mtu: 8500,
            fallback: false,
            source4: None,
            source6: None,
            out_bps: None,
            in_bps: None,
        }
    }

    fn router(ifindex: u32, resolution: Resolution) -> Neighbour {
        let mac = (resolution == Resolution::Resolved).then_some(ROUTER_MAC);
        Neighbour {
            ifindex,
            address: link(None).next_hop.unwrap(),
            mac,
            resolution,
            managed: true,
            owner: Owner::Added,
        }
    }

    fn table(devices: impl IntoIterator<Item = Device>, neighbours: impl IntoIterator<Item = Neighbour>) -> Table {
        let mut table = Table::new(&[link(None)], &Targets::new());
        table.set_devices(devices.into_iter().collect());
        for neighbour in neighbours {
            table.put_neighbour(neighbour.ifindex, neighbour.address, Some(neighbour));
        }
        table
    }

    #[test]
    fn each_thing_that_can_be_wrong_is_named() {
        let resolved = || router(PARENT, Resolution::Resolved);
        for (why, device, neighbour) in [
            (Why::Up, parent(), Some(resolved())),
            (Why::IsVlan, Device { vlan: Some(Vlan { parent: 1, id: 5 }), ..parent() }, Some(resolved())),
            (Why::NotEthernet, Device { mac: None, ..parent() }, Some(resolved())),
            (Why::DeviceDown, Device { up: false, ..parent() }, Some(resolved())),
            (Why::NoCarrier, Device { carrier: false, ..parent() }, Some(resolved())),
            (Why::NoAnswer, parent(), Some(router(PARENT, Resolution::Failed))),
            (Why::Resolving, parent(), Some(router(PARENT, Resolution::Incomplete))),
            (Why::Resolving, parent(), None),
            (Why::NoDevice, Device { name: "eth2".into(), ..parent() }, Some(resolved())),
        ] {
            let state = table([device], neighbour).link(&link(None));
            assert_eq!((state.why, state.up), (why, why == Why::Up));
        }
    }

    #[test]
    fn a_vlan_link_sends_by_the_parent_and_resolves_on_the_vlan_device() {
        let state = table([parent(), tagged()], [router(TAGGED, Resolution::Resolved)]).link(&link(Some(101)));
        assert_eq!(
            state,
            LinkState {
                name: "dx-1".into(),
                device: "eth1".into(),
                ifindex: PARENT,
                neighbour_ifindex: TAGGED,
                mac: PARENT_MAC,
                device_mac: TAGGED_MAC,
                next_hop_mac: Some(ROUTER_MAC),
                up: true,
                why: Why::Up,
                mtu: 8500,
                elsewhere: vec![],
            }
        );
        for (why, devices, neighbour) in [
            (Why::NoVlanDevice, vec![parent()], PARENT),
            (Why::VlanDeviceDown, vec![parent(), Device { up: false, ..tagged() }], TAGGED),
            (Why::NoCarrier, vec![parent(), Device { carrier: false, ..tagged() }], TAGGED),
            (Why::NoCarrier, vec![Device { carrier: false, ..parent() }, tagged()], TAGGED),
            (Why::Resolving, vec![parent(), tagged()], PARENT),
        ] {
            let state = table(devices, [router(neighbour, Resolution::Resolved)]).link(&link(Some(101)));
            assert_eq!((state.why, state.up), (why, false));
        }
        let mut table = table([parent(), tagged()], [router(TAGGED, Resolution::Resolved)]);
        assert_eq!(table.link(&link(Some(102))).why, Why::NoVlanDevice);
        assert_eq!(table.trunks(&[link(Some(101)), link(None)], &[]), [(PARENT, "eth1".to_owned())]);
        table.put_strips_tags(PARENT, true);
        assert_eq!(table.link(&link(Some(101))).why, Why::TagsStripped);
        table.put_strips_tags(PARENT, false);
        assert_eq!(table.link(&link(Some(101))).why, Why::Up);
    }

    #[test]
    fn a_link_that_the_kernel_picks_needs_a_device_that_carries() {
        let vpn = Link { device: "wg0".into(), next_hop: None, mtu: 1420, ..link(None) };
        let tunnel = || Device { name: "wg0".into(), mac: None, mtu: 1400, ..parent() };
        let state = table([tunnel()], []).link(&vpn);
        assert_eq!((state.ifindex, state.why, state.mtu), (PARENT, Why::Up, 1400));
        assert_eq!((state.device_mac, state.next_hop_mac), ([0; 6], None));
        let tagged = Device { vlan: Some(Vlan { parent: 1, id: 5 }), ..tunnel() };
        assert_eq!(table([tagged], []).link(&vpn).why, Why::Up, "a VLAN device, too");
        for (why, device) in [
            (Why::DeviceDown, Device { up: false, ..tunnel() }),
            (Why::NoCarrier, Device { carrier: false, ..tunnel() }),
        ] {
            assert_eq!(table([device], []).link(&vpn).why, why);
        }
        assert_eq!(table([parent()], []).link(&vpn).why, Why::NoDevice);
    }

    #[test]
    fn the_smallest_mtu_counts() {
        for (parent_mtu, tagged_mtu, mtu) in
            [(9000, 8900, 8500), (9000, 1500, 1500), (1400, 8900, 1400), (70000, 70000, 8500)]
        {
            let devices = [Device { mtu: parent_mtu, ..parent() }, Device { mtu: tagged_mtu, ..tagged() }];
            assert_eq!(table(devices, []).link(&link(Some(101))).mtu, mtu);
        }
    }

    #[test]
    fn a_device_takes_its_neighbours_with_it() {
        let mut table = table([parent()], [router(PARENT, Resolution::Resolved)]);
        table.remove_device(PARENT);
        let state = table.link(&link(None));
        assert_eq!((state.why, state.ifindex, state.next_hop_mac), (Why::NoDevice, 0, None));
        table.put_device(parent());
        assert_eq!(table.link(&link(None)).why, Why::Resolving, "the new device has no neighbours yet");
    }

    #[test]
    fn neighbours_that_are_no_next_hop_are_not_kept() {
        let mut table = table([parent()], []);
        let other: IpAddr = "10.64.0.77".parse().unwrap();
        table.put_neighbour(PARENT, other, Some(Neighbour { address: other, ..router(PARENT, Resolution::Resolved) }));
        assert_eq!(table.neighbour(PARENT, other), None);
    }
}
