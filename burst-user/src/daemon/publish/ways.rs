//! What the kernel and the probes say of devices, links and endpoints → programs, and the rows of links, endpoints and gateways.

use std::collections::BTreeSet;
use std::time::Duration;

use burst_common::endpoint::{Endpoint, HELD_LINKS, link_at};
use burst_common::gateway::Vlan;
use burst_common::limits::ENDPOINT_LINKS;
use burst_common::link::Link as LinkRow;
use burst_common::slot::EndpointId;

use super::Publisher;
use crate::daemon::{links, start};
use crate::kernel::{Attachment, Keep, KernelError, give_back_memory};
use crate::netlink::{Gateway, Lookup, NetState};
use crate::policy::compile::guard_of_both;

/// How often it is tried again to attach to a device that came back.
const RETRY: Duration = Duration::from_secs(2);

impl Publisher {
    /// Attaches in place of the programs of another configuration: sentinels know what both keep until the last is replaced.
    pub(in crate::daemon) fn attach_in_place_of(
        &mut self,
        former: &Self,
        net: &NetState,
    ) -> Result<Vec<Attachment>, KernelError> {
        let both = guard_of_both(&former.config, &self.config).map(|(guard, large)| Keep { guard, large });
        if both.is_none() {
            tracing::warn!(
                "both configurations keep more than 64 rules: sentinels know those of the new one alone meanwhile"
            );
        }
        self.attach_by(net, both.as_ref())
    }

    /// Attaches to the devices that are there, anew to those that came back.
    pub(in crate::daemon) fn attach(&mut self, net: &NetState) -> Result<Vec<Attachment>, KernelError> {
        self.attach_by(net, None)
    }

    fn attach_by(&mut self, net: &NetState, both: Option<&Keep>) -> Result<Vec<Attachment>, KernelError> {
        let devices = start::devices(&self.config, &self.links, net);
        let plan = start::plan(&self.config, self.object);
        let done = match both {
            None => self.installation.attach(&plan, &self.compiled, &devices),
            Some(both) => self.installation.attach_in_place(&plan, &self.compiled, &devices, both),
        };
        let (attached, mut instances) = done.inspect_err(|_| give_back_memory())?;
        if plan.trace {
            self.trace.follow(&mut instances);
        }
        drop(instances);
        give_back_memory();
        self.attached = devices.into_iter().map(|device| (device.name, device.ifindex, device.mac)).collect();
        Ok(attached)
    }

    /// Endpoints, by their number in the configuration, that are probed and had no flows at the start.
    pub(in crate::daemon) fn unproven(&self) -> &BTreeSet<usize> {
        &self.unproven
    }

    /// Says over which links, by id, which endpoints, by their number in the configuration, are not to be used from now on
    /// though they are up; [`Self::follow`] publishes it.
    pub(in crate::daemon) fn shut(&mut self, paths: BTreeSet<(usize, u8)>) {
        self.shut = paths;
    }

    /// Publishes what the kernel says of links and devices, and attaches to devices that came back. One that cannot be
    /// attached to is tried again: all others go on meanwhile.
    pub(in crate::daemon) fn follow(&mut self, now: Duration, net: &NetState) {
        self.follow_links(now, net);
        let devices = start::devices(&self.config, &self.links, net);
        if devices.iter().all(|device| self.attached.contains(&(device.name.clone(), device.ifindex, device.mac))) {
            self.trouble = None;
            return;
        }
        if self.trouble.as_ref().is_some_and(|(tried, _)| now.saturating_sub(*tried) < RETRY) {
            return;
        }
        match self.attach(net) {
            Ok(attached) => {
                for attachment in attached {
                    tracing::warn!(device = attachment.device, how = ?attachment.attached, "attached to a device that came back or changed");
                }
                self.trouble = None;
            }
            Err(error) => {
                if self.trouble.as_ref().is_none_or(|(_, before)| before.message != error.message) {
                    tracing::error!(%error, "a device that came back has no program; trying again");
                }
                self.trouble = Some((now, error));
            }
        }
    }

    /// Why a device that came back has no program.
    pub(in crate::daemon) fn trouble(&self) -> Option<&KernelError> {
        self.trouble.as_ref().map(|(_, error)| error)
    }

    /// Brings link, endpoint and gateway tables in line with what the kernel says.
    pub(in crate::daemon) fn follow_links(&mut self, now: Duration, net: &NetState) {
        self.follow_ways(net);
        let mut lost = std::mem::take(&mut self.lost);
        let maps = &self.installation.maps;
        for (link, state) in self.config.links.iter().zip(&net.links) {
            let (Some(&id), Some(row)) = (self.links.get(&link.name), links::row(link, state)) else { continue };
            if maps.link(id) != row {
                let next_hop = state.next_hop_mac.map(crate::api::types::mac);
                tracing::info!(link = link.name, next_hop, "link up");
                maps.set_link(id, &row);
            }
        }
        let mtu = |id| {
            let state = self.config.links.iter().zip(&net.links).find(|(link, _)| self.link_id(&link.name) == id);
            state.map_or(u16::MAX, |(_, state)| state.mtu)
        };
        let numbered = self.compiled.endpoints.iter().enumerate().map(|(number, endpoint)| (Some(number), endpoint));
        for (number, endpoint) in numbered.chain(self.former.iter().map(|endpoint| (None, endpoint))) {
            let former = maps.endpoint(endpoint.id);
            let carries = |id| match net.links.iter().find(|link| self.link_id(&link.name) == id) {
                Some(link) => {
                    number.is_none_or(|number| !self.shut.contains(&(number, id))) && links::carries(link, endpoint)
                }
                // A link that went with its endpoint: nobody says what became of it.
                None => (0..ENDPOINT_LINKS).any(|place| link_at(former.links, place) == id),
            };
            let mut row = links::reach(endpoint, carries, mtu);
            if row.links != 0 {
                lost.remove(&endpoint.id);
            } else if now.saturating_sub(*lost.entry(endpoint.id).or_insert(now)) < self.hold(endpoint.row.class) {
                row.links = HELD_LINKS;
            }
            if (Endpoint { links: row.links, ..former }) != row {
                maps.set_endpoint(endpoint.id, &row);
            } else if former.links != row.links {
                maps.set_endpoint_links(endpoint.id, row.links);
            }
        }
        for (link, state) in self.config.links.iter().zip(&net.links).filter(|(_, state)| !state.up) {
            let id = self.links.get(&link.name).copied().unwrap_or(0);
            let row = maps.link(id);
            if row.ifindex != 0 {
                tracing::error!(link = link.name, why = %state.why, "link down");
                maps.set_link(id, &LinkRow { ifindex: 0, ..row });
            }
        }
        self.lost = lost;
    }

    /// Publishes the way to the clients. A way that is none any more is taken out before anything else is done.
    fn follow_ways(&mut self, net: &NetState) {
        for (family, gateway) in [4, 6].into_iter().zip(&net.gateways) {
            let row = links::gateway(gateway);
            let former = Some(self.maps().gateway(family)).filter(|row| row.ifindex != 0);
            if row == former {
                continue;
            }
            self.maps().set_gateway(family, row.as_ref());
            match gateway {
                Gateway::Cached(way) => {
                    tracing::info!(family, router = %way.address, device = way.device, "replies take one way");
                }
                // Every change of a route passes through here, and is over in a moment.
                Gateway::Lookup(Lookup::Reading) => {}
                Gateway::Lookup(why) => tracing::info!(family, %why, "the routing table is asked for each reply"),
            }
        }
        let vlans =
            net.vlans.iter().map(|vlan| (vlan.ifindex, Vlan { parent: vlan.vlan.parent, vlan: vlan.vlan.id.into() }));
        let vlans: Vec<_> = vlans.collect();
        if self.vlans.as_ref() != Some(&vlans) {
            if let Err(error) = self.installation.maps.set_vlans(&vlans) {
                tracing::error!(%error, "replies to clients of some VLANs are left to the kernel");
            }
            self.vlans = Some(vlans);
        }
    }

    /// Leaves the way to the clients to the routing table, which needs nobody to follow it.
    pub(in crate::daemon) fn leave(&self) {
        for family in [4, 6] {
            self.maps().set_gateway(family, None);
        }
    }

    /// Whether an endpoint has a link that is up.
    pub(in crate::daemon) fn reachable(&self, endpoint: EndpointId) -> bool {
        Endpoint::reached(self.maps().endpoint(endpoint).links)
    }

    /// How long packets of a class are held when no link leads to their endpoint.
    fn hold(&self, class: u8) -> Duration {
        let number = self.classes.iter().position(|(id, _)| *id == class);
        let burst = number.and_then(|number| self.config.classes[number].burst.as_ref());
        burst.map_or(Duration::ZERO, |burst| burst.hold)
    }
}
