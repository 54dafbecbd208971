//! A network device as the kernel describes it.

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, VlanProtocol,
};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index: what the kernel knows it by, never 0.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; `None` when it is no Ethernet device.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Whether the administrator set it up (`IFF_UP`).
    pub up: bool,
    /// Whether it can carry frames now: the driver sees a carrier and nothing above it (802.1X, for one) still holds
    /// it back (`IFF_LOWER_UP` and `IFF_RUNNING`).
    pub carrier: bool,
    /// `Some` when it is an 802.1Q VLAN device of this network namespace.
    pub vlan: Option<Vlan>,
}

/// What an 802.1Q VLAN device is of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the parent device.
    pub parent: u32,
    /// VLAN id, 1–4094.
    pub id: u16,
}

impl Device {
    /// From a link message; what the message leaves out (notifications of wireless devices do) is taken from `known`.
    /// `None` when the message is not about a whole device: bridges speak of their ports in the same words.
    pub(super) fn parse(message: &LinkMessage, known: Option<&Self>) -> Option<Self> {
        let header = &message.header;
        if header.interface_family != AddressFamily::Unspec || header.index == 0 {
            return None;
        }
        let ethernet = header.link_layer_type == LinkLayerType::Ether;
        let mut device = Self {
            ifindex: header.index,
            name: known.map_or_else(String::new, |known| known.name.clone()),
            mac: known.and_then(|known| known.mac).filter(|_| ethernet),
            mtu: known.map_or(0, |known| known.mtu),
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp | LinkFlags::Running),
            vlan: known.and_then(|known| known.vlan),
        };
        let (mut parent, mut foreign_parent, mut info) = (None, false, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
                LinkAttribute::Address(mac) if ethernet => device.mac = mac.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Link(ifindex) => parent = Some(*ifindex),
                LinkAttribute::LinkNetNsId(_) => foreign_parent = true,
                LinkAttribute::LinkInfo(link_info) => info = Some(link_info),
                _ => {}
            }
        }
        if let Some(info) = info {
            device.vlan =
                parent.filter(|_| !foreign_parent).and_then(|parent| vlan_id(info).map(|id| Vlan { parent, id }));
        }
        (!device.name.is_empty()).then_some(device)
    }
}

/// VLAN id of an 802.1Q device; `None` for any other kind, 802.1ad included.
fn vlan_id(info: &[LinkInfo]) -> Option<u16> {
    if !info.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Vlan))) {
        return None;
    }
    let data = info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    if data.iter().any(|item| matches!(item, InfoVlan::Protocol(VlanProtocol::Ieee8021Ad))) {
        return None;
    }
    data.iter().find_map(|item| match item {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::LinkHeader;

    const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

    fn message(flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header = LinkHeader { index: 7, link_layer_type: LinkLayerType::Ether, flags, ..LinkHeader::default() };
        message.attributes = attributes;
        message
    }

    fn vlan_device(protocol: VlanProtocol, more: Option<LinkAttribute>) -> LinkMessage {
        let mut attributes = vec![
            LinkAttribute::IfName("eth1.101".into()),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(101), InfoVlan::Protocol(protocol)])),
            ]),
        ];
        attributes.extend(more);
        message(LinkFlags::Up, attributes)
    }

    #[test]
    fn carrier_needs_the_driver_and_the_operational_state() {
        let attributes = || vec![LinkAttribute::IfName("eth1".into()), LinkAttribute::Address(MAC.to_vec())];
        for (flags, up, carrier) in [
            (LinkFlags::empty(), false, false),
            (LinkFlags::Up, true, false),
            (LinkFlags::Up | LinkFlags::LowerUp, true, false),
            (LinkFlags::Up | LinkFlags::Running, true, false),
            (LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running, true, true),
        ] {
            let device = Device::parse(&message(flags, attributes()), None).unwrap();
            assert_eq!((device.up, device.carrier, device.mac), (up, carrier, Some(MAC)), "{flags:?}");
        }
    }

    #[test]
    fn only_an_8021q_device_with_its_parent_in_this_namespace_is_a_vlan() {
        let vlan = |message| Device::parse(&message, None).unwrap().vlan;
        assert_eq!(vlan(vlan_device(VlanProtocol::Ieee8021Q, None)), Some(Vlan { parent: 3, id: 101 }));
        assert_eq!(vlan(vlan_device(VlanProtocol::Ieee8021Ad, None)), None);
        assert_eq!(vlan(vlan_device(VlanProtocol::Ieee8021Q, Some(LinkAttribute::LinkNetNsId(0)))), None);
    }

    #[test]
    fn what_a_short_notification_leaves_out_stays_known() {
        let known = Device::parse(&vlan_device(VlanProtocol::Ieee8021Q, Some(LinkAttribute::Mtu(8500))), None).unwrap();
        let later = message(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running, vec![]);
        assert_eq!(Device::parse(&later, Some(&known)), Some(Device { carrier: true, ..known.clone() }));
        assert_eq!(Device::parse(&later, None), None, "a device without a name is not a device");
    }

    #[test]
    fn what_a_bridge_says_of_its_port_is_not_about_the_device() {
        let mut port = vlan_device(VlanProtocol::Ieee8021Q, None);
        port.header.interface_family = AddressFamily::Bridge;
        assert_eq!(Device::parse(&port, None), None);
    }

    #[test]
    fn what_is_not_ethernet_has_no_mac() {
        let mut tunnel = message(
            LinkFlags::Up,
            vec![LinkAttribute::IfName("wg0".into()), LinkAttribute::Address(vec![192, 0, 2, 1])],
        );
        tunnel.header.link_layer_type = LinkLayerType::Netlink;
        assert_eq!(Device::parse(&tunnel, None).unwrap().mac, None);
    }
}
