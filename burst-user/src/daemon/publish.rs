//! Decision → map writes, in an order that is safe at every point in between.
//!
//! A link's row is complete before an endpoint names it, an endpoint's before a slot names it; on the way down it is the
//! other way round. A slot is one store. The death of an endpoint is in [`burial`].

mod burial;
mod orphans;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use burst_common::control::HOME_STEPS;
use burst_common::endpoint::{Endpoint, HELD_LINKS, link_at};
use burst_common::gateway::Vlan;
use burst_common::hash;
use burst_common::limits::ENDPOINT_LINKS;
use burst_common::link::Link as LinkRow;
use burst_common::pin::{Pin, PinKey};
use burst_common::reason::Note;
use burst_common::slot::{EndpointId, LOCAL, base};

use burial::Graves;

use super::admission::{Admissions, Guarded};
use super::adopt::{adopt, forget};
use super::error::Error;
use super::links;
use super::start;
use super::trace::Trace;
use super::weights::{is_drawn_by, of_family};
use crate::config::model::{Affinity, Burst, Config};
use crate::decide::{ClassDecision, Decision};
use crate::kernel::{Attachment, Events, Installation, Keep, KernelError, Maps, give_back_memory};
use crate::netlink::{Gateway, Lookup, NetState};
use crate::policy::compile::{Compiled, CompiledEndpoint, guard_of_both};
use crate::policy::ids::{Ids, endpoint_key};
use crate::slots::{Candidate, Group, GroupId, Sweep, Table, Write, assign, key, space};

/// How often pins are read, while there are any to look after.
const SWEEP: Duration = Duration::from_secs(2);
/// Pins removed by one sweep: two system calls each, in the loop that also follows links.
const REMOVALS: usize = 4096;
/// The epoch of pins: one per second.
const EPOCH: Duration = Duration::from_secs(1);

/// How often it is tried again to attach to a device that came back.
const RETRY: Duration = Duration::from_secs(2);

/// The owner of the maps.
pub(super) struct Publisher {
    config: Arc<Config>,
    object: &'static [u8],
    installation: Installation,
    compiled: Compiled,
    /// Endpoints of former configurations, whose flows may live.
    former: Vec<CompiledEndpoint>,
    /// Per class of the configuration: its id, and the ids of its endpoints in the order of the tiers.
    classes: Vec<(u8, Vec<EndpointId>)>,
    links: BTreeMap<String, u8>,
    table: Table,
    seed: u64,
    /// Weights the slots were last filled for, per class.
    published: Vec<Vec<f64>>,
    /// Devices the program is attached to, with their indices and MAC addresses.
    attached: Vec<(String, u32, [u8; 6])>,
    /// When it was last tried in vain to attach to a device that came back, and why it failed.
    trouble: Option<(Duration, KernelError)>,
    epoch: (u32, Duration),
    swept: Option<Duration>,
    refused: Vec<u64>,
    /// Pins that the last sweep found, per class id: all, and those that name an endpoint.
    pins: BTreeMap<u16, (u64, u64)>,
    trace: Trace,
    admissions: Admissions,
    /// Endpoints that no link leads to, and since when.
    lost: BTreeMap<EndpointId, Duration>,
    /// The VLAN devices as they were last published.
    vlans: Option<Vec<(u32, Vlan)>>,
    /// Links that endpoints (by their number in the configuration) are not to be used over, though they are up.
    shut: BTreeSet<(usize, u8)>,
    /// Endpoints (by their number in the configuration) that are probed and had no flows at the start.
    unproven: BTreeSet<usize>,
    graves: Graves,
}

impl Publisher {
    pub(super) fn new(
        config: &Arc<Config>,
        object: &'static [u8],
        installation: Installation,
        compiled: Compiled,
        ids: &Ids,
        now: Duration,
    ) -> Result<Self, Error> {
        let mut installation = installation;
        let classes: Vec<_> = config
            .classes
            .iter()
            .map(|class| {
                let tiers = class.burst.iter().flat_map(|burst| &burst.tiers);
                let names = tiers.flat_map(|tier| tier.endpoint_names());
                let endpoints = names.filter_map(|name| ids.endpoints.get(&endpoint_key(&class.name, &name)).copied());
                (ids.classes[&class.name], endpoints.collect())
            })
            .collect();
        let groups: Vec<_> =
            config.classes.iter().zip(&classes).flat_map(|(class, (id, _))| groups(class, *id)).collect();
        let maps = &installation.maps;
        let seed = hash::seed(&config.edge.seed);
        let mut table = Table::adopt(now, seed, &groups, |index| maps.slot(index as usize).word());
        adopt(config, &compiled, &mut table, &mut installation.maps)?;
        let maps = &installation.maps;
        let unproven = burial::unproven(config, &compiled, &table, maps);
        let ways = |number: usize| compiled.endpoints[number].links.iter().map(move |&link| (number, link));
        let shut = unproven.iter().copied().flat_map(ways).collect();
        let control = maps.control();
        let counters = maps.class_counters();
        let refused = classes
            .iter()
            .map(|(id, _): &(u8, Vec<EndpointId>)| counters.get(usize::from(*id), Note::PinRefused.number()).packets);
        let count = config.classes.len();
        let home = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        maps.set_home(home(config.edge.lease.hold), home(config.edge.lease.home) / HOME_STEPS);
        Ok(Self {
            config: Arc::clone(config),
            object,
            compiled,
            former: Vec::new(),
            links: ids.links.clone(),
            table,
            seed,
            published: vec![Vec::new(); count],
            attached: Vec::new(),
            trouble: None,
            epoch: (control.epoch, now),
            swept: None,
            refused: refused.collect(),
            pins: BTreeMap::new(),
            trace: Trace::default(),
            admissions: Admissions::default(),
            lost: BTreeMap::new(),
            vlans: None,
            shut,
            unproven,
            graves: Graves::default(),
            classes,
            installation,
        })
    }

    /// What holds the maps.
    pub(super) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The maps, to read.
    pub(super) fn maps(&self) -> &Maps {
        &self.installation.maps
    }

    /// Id of a class of the configuration, and of its endpoints.
    pub(super) fn ids(&self, class: usize) -> (u8, &[EndpointId]) {
        let (id, endpoints) = &self.classes[class];
        (*id, endpoints)
    }

    /// Number of classes of the configuration.
    pub(super) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Ids of the links, in the order of the configuration.
    pub(super) fn link_ids(&self) -> impl Iterator<Item = u8> {
        self.config.links.iter().map(|link| self.link_id(&link.name))
    }

    /// The events of the program that were not read yet.
    pub(super) fn events(&self) -> Result<Events, KernelError> {
        self.installation.events()
    }

    /// Names of the links, by id.
    pub(super) fn link_names(&self) -> BTreeMap<u8, String> {
        self.links.iter().map(|(name, id)| (*id, name.clone())).collect()
    }

    /// Id of a link.
    pub(super) fn link_id(&self, name: &str) -> u8 {
        self.links.get(name).copied().unwrap_or(0)
    }

    /// Pins of a class at the last sweep: all, and those that name an endpoint.
    pub(super) fn pins(&self, class: usize) -> (u64, u64) {
        self.pins.get(&u16::from(self.classes[class].0)).copied().unwrap_or_default()
    }

    /// Sets the bypass; whether it was on before. When it ends, every flow that lives is local, whatever slots and pins say of
    /// it: it begins as after shadow mode.
    pub(super) fn bypass(&mut self, on: bool) -> Result<bool, KernelError> {
        if !on && self.maps().control().bypass != 0 {
            forget(&mut self.table, &mut self.installation.maps)?;
            self.published.iter_mut().for_each(Vec::clear);
        }
        Ok(self.maps().set_bypass(on))
    }

    /// The groups of a class, for what there is to see of them.
    pub(super) fn summaries(&self, class: usize) -> impl Iterator<Item = crate::slots::Summary> {
        let id = self.classes[class].0;
        [4, 6].into_iter().map(move |family| self.table.summary(GroupId { class: u16::from(id), family }))
    }

    /// The local share that the live slots have, per burst class: where a former daemon left it.
    pub(super) fn local_shares(&self) -> Vec<(usize, f64)> {
        let burst = self.config.classes.iter().enumerate().filter(|(_, class)| class.burst.is_some());
        burst
            .map(|(index, _)| {
                let (id, endpoints) = self.ids(index);
                let shifts = |family: &u8| endpoints.iter().any(|&endpoint| self.takes(endpoint, *family));
                let local = |family| {
                    let summary = self.table.summary(GroupId { class: u16::from(id), family });
                    summary.shares.get(&LOCAL).copied().unwrap_or(0.0)
                };
                // Of the families that can be shifted the more local one decides: coming home is the safe direction.
                let share = [4, 6].into_iter().filter(shifts).map(local).reduce(f64::max);
                (index, share.unwrap_or(1.0))
            })
            .collect()
    }

    /// Takes over from a publisher of a former configuration what this one says nothing of: endpoints whose flows may live, which go
    /// on by those of their links that are left; and what was found of those that are still there.
    pub(super) fn remember(&mut self, former: &Self) {
        let known = |endpoint: &&CompiledEndpoint| self.compiled.endpoints.iter().all(|now| now.id != endpoint.id);
        self.former = former.compiled.endpoints.iter().chain(&former.former).filter(known).cloned().collect();
        let now = |&(number, link): &(usize, u8)| {
            let id = former.compiled.endpoints.get(number)?.id;
            Some((self.compiled.endpoints.iter().position(|endpoint| endpoint.id == id)?, link))
        };
        let shut: Vec<_> = former.shut.iter().filter_map(now).collect();
        self.shut.extend(shut);
        self.lost = former.lost.clone();
    }

    /// Attaches in place of the programs of another configuration: sentinels know what both keep until the last is replaced.
    pub(super) fn attach_in_place_of(&mut self, former: &Self, net: &NetState) -> Result<Vec<Attachment>, KernelError> {
        let both = guard_of_both(&former.config, &self.config).map(|(guard, large)| Keep { guard, large });
        if both.is_none() {
            tracing::warn!(
                "both configurations keep more than 64 rules: sentinels know those of the new one alone meanwhile"
            );
        }
        self.attach_by(net, both.as_ref())
    }

    /// Attaches to the devices that are there, anew to those that came back.
    pub(super) fn attach(&mut self, net: &NetState) -> Result<Vec<Attachment>, KernelError> {
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
    pub(super) fn unproven(&self) -> &BTreeSet<usize> {
        &self.unproven
    }

    /// Says over which links, by id, which endpoints, by their number in the configuration, are not to be used from now on
    /// though they are up; [`Self::follow`] publishes it.
    pub(super) fn shut(&mut self, paths: BTreeSet<(usize, u8)>) {
        self.shut = paths;
    }

    /// Publishes what the kernel says of links and devices, and attaches to devices that came back. One that cannot be
    /// attached to is tried again: all others go on meanwhile.
    pub(super) fn follow(&mut self, now: Duration, net: &NetState) {
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
    pub(super) fn trouble(&self) -> Option<&KernelError> {
        self.trouble.as_ref().map(|(_, error)| error)
    }

    /// Brings link, endpoint and gateway tables in line with what the kernel says.
    pub(super) fn follow_links(&mut self, now: Duration, net: &NetState) {
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
    pub(super) fn leave(&self) {
        for family in [4, 6] {
            self.maps().set_gateway(family, None);
        }
    }

    /// Whether an endpoint has a link that is up.
    pub(super) fn reachable(&self, endpoint: EndpointId) -> bool {
        Endpoint::reached(self.maps().endpoint(endpoint).links)
    }

    /// How long packets of a class are held when no link leads to their endpoint.
    fn hold(&self, class: u8) -> Duration {
        let number = self.classes.iter().position(|(id, _)| *id == class);
        let burst = number.and_then(|number| self.config.classes[number].burst.as_ref());
        burst.map_or(Duration::ZERO, |burst| burst.hold)
    }

    /// Fills the slots as decided. Classes whose weights are as they were are left alone.
    /// Returns how many words were stored.
    pub(super) fn publish(&mut self, now: Duration, decision: &Decision) -> usize {
        let mut words = 0;
        self.reconcile(now);
        self.admit(decision);
        let config = Arc::clone(&self.config);
        for (index, (class, decided)) in config.classes.iter().zip(&decision.classes).enumerate() {
            let Some(burst) = &class.burst else { continue };
            let mut weights = vec![decided.local];
            weights.extend(&decided.weights);
            if self.published[index] == weights {
                continue;
            }
            let [v4, v6] = self.able(index, burst, decided);
            let id = u16::from(self.classes[index].0);
            // What a former daemon left is kept while it is as good as what would be drawn now: the exact weights that
            // it was drawn by are not known, and to draw by others would move slots for nothing.
            let adopted = self.installation.adopted && self.published[index].is_empty();
            let fits = |family, able: &[_]| self.fits(GroupId { class: id, family }, able);
            if adopted && fits(4, &v4) && fits(6, &v6) {
                self.published[index] = weights;
                continue;
            }
            let mut writes = Vec::new();
            for (group, assignment) in self.drawn(index, decision) {
                writes.extend(self.table.retarget(now, group, &assignment));
            }
            self.published[index] = weights;
            words += writes.len();
            self.store(now, &writes);
        }
        words
    }

    /// Tells the surge guard what was decided.
    fn admit(&mut self, decision: &Decision) {
        let mut admissions = std::mem::take(&mut self.admissions);
        for (index, (class, decided)) in self.config.classes.iter().zip(&decision.classes).enumerate() {
            let Some(burst) = &class.burst else { continue };
            let (id, endpoints) = self.ids(index);
            let names = burst.tiers.iter().flat_map(|tier| tier.endpoint_names());
            let candidates = endpoints.iter().zip(names).zip(&decided.overflow);
            let overflow = candidates.map(|((&id, name), &weight)| Candidate { id, key: key(&name), weight }).collect();
            let guarded = Guarded { id, name: &class.name, overflow };
            admissions.publish(self.maps(), self.seed, &guarded, decided, |id, family| self.takes(id, family));
        }
        self.admissions = admissions;
    }

    /// Whether a class's surge guard sent flows away not long ago.
    pub(super) fn surging(&self, class: usize) -> bool {
        self.admissions.surging(self.classes[class].0)
    }

    /// Takes over the slots that the program changed.
    fn reconcile(&mut self, now: Duration) {
        let maps = &self.installation.maps;
        for group in self.table.reconcile(now, |index| maps.slot(index as usize)) {
            self.redraw(group);
        }
    }

    /// Has the slots of a group drawn anew by the next publication.
    fn redraw(&mut self, group: GroupId) {
        if let Some(class) = self.classes.iter().position(|(id, _)| u16::from(*id) == group.class) {
            self.published[class].clear();
        }
    }

    /// The candidates that the slots of IPv4 and IPv6 of a class are drawn among.
    fn able(&self, class: usize, burst: &Burst, decided: &ClassDecision) -> [Vec<Candidate>; 2] {
        let names = burst.tiers.iter().flat_map(|tier| tier.endpoint_names());
        let candidates: Vec<_> = (self.classes[class].1.iter().zip(names).zip(&decided.weights))
            .map(|((&id, name), &weight)| Candidate { id, key: key(&name), weight })
            .collect();
        [4, 6].map(|family| of_family(decided.local, &candidates, |id| self.takes(id, family)))
    }

    /// Where a decision sends the slots of a class: of none, where there is none.
    fn drawn(&self, class: usize, decision: &Decision) -> Vec<(GroupId, Vec<EndpointId>)> {
        let configured = &self.config.classes[class];
        let (Some(burst), Some(decided)) = (&configured.burst, decision.classes.get(class)) else { return Vec::new() };
        let id = u16::from(self.classes[class].0);
        let draw = |(family, able): (u8, Vec<Candidate>)| {
            let assignment = assign(space(self.seed, &configured.name, family), burst.slots, &able);
            (GroupId { class: id, family }, assignment)
        };
        [4, 6].into_iter().zip(self.able(class, burst, decided)).map(draw).collect()
    }

    /// Whether the slots of a group are such as these weights give.
    fn fits(&self, group: GroupId, weights: &[Candidate]) -> bool {
        let slots = self.table.currents(group).count();
        is_drawn_by(&self.table.summary(group).shares, weights, slots)
    }

    /// Whether an endpoint can take packets of a family.
    fn takes(&self, id: EndpointId, family: u8) -> bool {
        let row = self.compiled.endpoints.iter().find(|endpoint| endpoint.id == id);
        row.is_none_or(|endpoint| endpoint.takes(family))
    }

    /// Publishes words. Where the program was first, its word is taken over, and the slot is drawn anew.
    fn store(&mut self, now: Duration, writes: &[Write]) {
        for &Write { index, old, new } in writes {
            if let Err(found) = self.installation.maps.swap_slot(index as usize, old, new) {
                self.table.learn(now, index, found);
                let group = self.table.group_of(index);
                group.into_iter().for_each(|group| self.redraw(group));
            }
        }
    }

    /// Renews the lease: the program may trust what it was told for so long from now.
    pub(super) fn renew(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
        let until = now.saturating_add(self.config.edge.lease.lasts);
        self.maps().set_lease(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts the epoch, sweeps pins and ends transitions that are over.
    pub(super) fn maintain(&mut self, now: Duration) {
        // By one at most, however long this daemon was stopped or slow: a pin that was hit meanwhile has the epoch that
        // was published then, and must not look old. To age too slowly only keeps pins longer.
        if now.saturating_sub(self.epoch.1) >= EPOCH {
            self.epoch = (self.epoch.0.wrapping_add(1), now);
            self.installation.maps.set_epoch(self.epoch.0);
        }
        self.reconcile(now);
        let busy = (0..self.classes.len()).any(|class| self.summaries(class).any(|s| s.moving + s.pinned > 0));
        let some = !self.pins.is_empty();
        let due = self.swept.is_none_or(|at| now.saturating_sub(at) >= SWEEP);
        let sweep = if due && (busy || some || self.swept.is_none()) { self.sweep(now) } else { None };
        // Asked after the sweep, which takes time: a refusal meanwhile must count before a transition ends.
        let refused = self.refused();
        let writes = self.table.tick(now, &|class| refused.contains(&class), sweep.as_ref());
        self.store(now, &writes);
        let classes = self.config.classes.iter().zip(&self.classes);
        let classes: Vec<_> = classes.map(|(class, (id, _))| (*id, class.name.as_str())).collect();
        self.admissions.tell(now, &self.installation.maps.class_counters(), &classes);
    }

    /// Classes that a pin was refused to since this was asked last.
    fn refused(&mut self) -> Vec<u16> {
        let counters = self.installation.maps.class_counters();
        let mut refused = Vec::new();
        for ((id, _), before) in self.classes.iter().zip(&mut self.refused) {
            let count = counters.get(usize::from(*id), Note::PinRefused.number()).packets;
            if count > *before {
                refused.push(u16::from(*id));
            }
            *before = count;
        }
        refused
    }

    /// Reads all pins, and removes those whose flows are over.
    fn sweep(&mut self, now: Duration) -> Option<Sweep> {
        self.swept = Some(now);
        let mark = self.table.begin_sweep();
        let pins = match self.installation.maps.pins.read() {
            Ok(pins) => pins,
            Err(error) => {
                tracing::error!(%error, "the pins could not be read; no slot becomes stable until they are");
                return None;
            }
        };
        self.pins.clear();
        for (_, pin) in &pins {
            let (all, offsite) = self.pins.entry(pin.class).or_default();
            *all += 1;
            *offsite += u64::from(pin.endpoint != LOCAL);
        }
        self.graves.visit(now, &pins);
        let sweep = self.table.sweep(mark, self.epoch.0, pins.iter().copied(), &|id| self.graves.holds(id));
        let former: HashMap<PinKey, Pin> = pins.into_iter().collect();
        // One that was hit since it was read is left to the next sweep, as are those beyond the bound.
        for key in sweep.expired.iter().take(REMOVALS) {
            let pins = &mut self.installation.maps.pins;
            let still = |found: &Pin| *found == former[key];
            let removed = match pins.get(key) {
                Ok(Some(found)) if still(&found) => pins.remove(key),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::error!(%error, "a pin could not be removed");
            }
        }
        Some(sweep)
    }
}

/// The slot groups of a class.
fn groups(class: &crate::config::model::Class, id: u8) -> Vec<Group> {
    let Some(burst) = &class.burst else { return Vec::new() };
    [4, 6]
        .into_iter()
        .map(|family| Group {
            id: GroupId { class: u16::from(id), family },
            base: base(id, family),
            slots: burst.slots,
            by_client: burst.affinity == Affinity::Client,
            idle_timeout: burst.idle_timeout,
        })
        .collect()
}
