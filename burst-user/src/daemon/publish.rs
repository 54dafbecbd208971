//! Decision → map writes, in an order that is safe at every point in between.
//!
//! A link's row is complete before an endpoint names it, an endpoint's before a slot names it; on the way down it is the
//! other way round. A slot is one compare-and-swap, for the program changes slots, too. What is heard of devices, links and
//! endpoints is published in [`ways`], the death of an endpoint in [`burial`]; what is over ends in [`pins`].

mod burial;
mod orphans;
mod pins;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use burst_common::control::HOME_STEPS;
use burst_common::gateway::Vlan;
use burst_common::hash;
use burst_common::reason::Note;
use burst_common::slot::{EndpointId, LOCAL, base};

use burial::Graves;

use super::admission::{Admissions, Guarded};
use super::adopt::{adopt, forget};
use super::error::Error;
use super::trace::Trace;
use super::weights::{is_drawn_by, of_family};
use crate::config::model::{Affinity, Burst, Config};
use crate::decide::{ClassDecision, Decision};
use crate::kernel::{Events, Installation, KernelError, Maps};
use crate::policy::compile::{Compiled, CompiledEndpoint};
use crate::policy::ids::{Ids, Names, endpoint_key};
use crate::slots::{Candidate, Group, GroupId, Table, Write, assign, key, space};

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
    /// Per class: whether the slots are as another publisher left them, and nothing was published since.
    first: Vec<bool>,
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
        let graves = Graves::of(&Names::new(maps.names()?), now);
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
            first: vec![installation.adopted; count],
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
            graves,
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
        self.table.keep_windows(&former.table);
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
            let adopted = std::mem::take(&mut self.first[index]);
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

    /// Renews the lease: the program may trust what it was told for so long from `now`, which is the program's time.
    pub(super) fn renew(&self, now: Duration) {
        let until = now.saturating_add(self.config.edge.lease.lasts);
        self.maps().set_lease(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
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
