//! The state of a moment: slots, links, bypass. By name, so that a shrinker may take the configuration apart under it.

use std::collections::BTreeMap;

use burst::config::model::Config;

use super::dice::Dice;
use super::edge::{PORTS, routes};
use crate::model::world::{Device, Line, Place, State, World};

/// What is not in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// `burst bypass on`.
    pub bypass: bool,
    /// The way to the clients' gateway is cached.
    pub cached: bool,
    /// Links that are not up.
    pub links: BTreeMap<String, State>,
    /// Slots that are not local: (class, IPv6, slot) → tier and number of its endpoint; `None` is one that is not there.
    pub slots: BTreeMap<(String, bool, u32), Option<(String, usize)>>,
}

/// MAC address of a link's next hop.
#[must_use]
pub const fn next_hop_mac(number: usize) -> [u8; 6] {
    [0x00, 0x00, 0x5e, 0x00, 0x53, 0x80 + number as u8]
}

/// A moment by chance.
#[must_use]
pub fn moment(dice: &mut Dice, config: &Config) -> Moment {
    let mut moment = Moment { bypass: dice.chance(4), cached: dice.chance(50), ..Moment::default() };
    for link in &config.links {
        if dice.chance(10) {
            moment.links.insert(link.name.clone(), *dice.pick(&[State::Down, State::Out]));
        }
    }
    for class in &config.classes {
        let Some(burst) = &class.burst else { continue };
        for v6 in [false, true] {
            // Whether the tier has endpoints for packets of this family is not asked: some slots are wrong.
            let all: Vec<(String, usize)> = burst
                .tiers
                .iter()
                .flat_map(|tier| (0..tier.endpoint_names().len()).map(|number| (tier.name.clone(), number)))
                .collect();
            let fits = |(name, number): &&(String, usize)| {
                let tier = burst.tiers.iter().find(|tier| tier.name == *name).expect("its own tier");
                tier.endpoints.get(*number).is_none_or(|address| address.is_ipv6() == v6)
            };
            let fitting: Vec<_> = all.iter().filter(fits).cloned().collect();
            let local = *dice.pick(&[0, 0, 10, 50]);
            for slot in 0..burst.slots {
                if dice.chance(local) {
                    continue;
                }
                let place = match dice.below(40) {
                    0 => None,
                    1 => Some(dice.pick(&all).clone()),
                    _ if fitting.is_empty() => continue,
                    _ => Some(dice.pick(&fitting).clone()),
                };
                moment.slots.insert((class.name.clone(), v6, slot), place);
            }
        }
    }
    moment
}

impl Moment {
    /// The host of a configuration at this moment. What the configuration has no more of is left out.
    #[must_use]
    pub fn world(&self, config: &Config) -> World {
        let devices = PORTS.iter().map(|port| Device {
            name: port.name,
            mac: port.mac,
            client: config.edge.client.iter().any(|client| client == port.name),
        });
        let lines = config.links.iter().enumerate().map(|(number, link)| {
            let port = PORTS.iter().find(|port| port.name == link.device).expect("a device of this host");
            Line {
                device: port.name,
                vlan: link.vlan.unwrap_or(0),
                macs: [next_hop_mac(number), port.mac],
                mtu: link.mtu,
                state: self.links.get(&link.name).copied().unwrap_or(State::Up),
                via_kernel: link.next_hop.is_none(),
                fallback: link.fallback,
                source4: link.source4,
                source6: link.source6,
            }
        });
        let slots = self.slots.iter().filter_map(|((class, v6, slot), place)| {
            let number = config.classes.iter().position(|found| found.name == *class)?;
            let burst = config.classes[number].burst.as_ref().filter(|burst| *slot < burst.slots)?;
            let place = match place {
                None => Place::Nowhere,
                Some((tier, address)) => {
                    let tier = burst.tiers.iter().position(|found| found.name == *tier)?;
                    (*address < burst.tiers[tier].endpoint_names().len()).then_some(Place::Endpoint(tier, *address))?
                }
            };
            Some(((number, *v6, *slot), place))
        });
        World {
            config: config.clone(),
            devices: devices.collect(),
            lines: lines.collect(),
            slots: slots.collect(),
            bypass: self.bypass,
            cached: self.cached,
            routes: routes(),
        }
    }
}
