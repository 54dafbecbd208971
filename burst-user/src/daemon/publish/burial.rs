//! The death of an endpoint: its flows go where its slots are drawn without it, and its name lives on under another id. And
//! who is not known to live, at the start.
//!
//! One way: what died is never named again as long as anything may remember it. The order is safe at every point in between:
//! the new id has name and row before anything names it, no slot names the old one before its row loses its links.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use burst_common::endpoint::Endpoint;
use burst_common::pin::{Pin, PinKey};
use burst_common::slot::EndpointId;

use super::Publisher;
use crate::config::model::Config;
use crate::daemon::error::Error;
use crate::decide::Decision;
use crate::kernel::Maps;
use crate::policy::compile::Compiled;
use crate::policy::ids::{Names, succeed};
use crate::slots::Table;

/// How long nothing may have named a dead id before it is given again, to the same endpoint.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The dead, and when a slot or pin named each of them last.
#[derive(Debug, Default)]
pub(super) struct Graves(BTreeMap<EndpointId, Duration>);

impl Graves {
    /// Those of a former publisher: named until it ended, perhaps.
    pub(super) fn of(names: &Names, now: Duration) -> Self {
        let dead = |id: &EndpointId| names.endpoint(*id).is_some_and(|name| name.ends_with('~'));
        Self((1..burst_common::limits::MAX_ENDPOINTS as EndpointId).filter(dead).map(|id| (id, now)).collect())
    }

    /// Whether an endpoint is dead.
    pub(super) fn holds(&self, id: EndpointId) -> bool {
        self.0.contains_key(&id)
    }

    /// Takes note of who is still named by a pin.
    pub(super) fn visit(&mut self, now: Duration, pins: &[(PinKey, Pin)]) {
        if self.0.is_empty() {
            return;
        }
        for (_, pin) in pins {
            if let Some(named) = self.0.get_mut(&pin.endpoint) {
                *named = now;
            }
        }
    }
}

/// Endpoints, by their number in the configuration, that are probed and that no flow can be with: none of their links was in
/// use, as of one that is new or died under a former daemon, and no slot names them.
pub(super) fn unproven(config: &Config, compiled: &Compiled, table: &Table, maps: &Maps) -> BTreeSet<usize> {
    let tiers = config.classes.iter().filter_map(|class| class.burst.as_ref()).flat_map(|burst| &burst.tiers);
    let probed = tiers.flat_map(|tier| tier.endpoint_names().into_iter().map(|_| tier.health.is_some()));
    let numbered = probed.zip(&compiled.endpoints).enumerate();
    let idle = |id| !Endpoint::reached(maps.endpoint(id).links) && !table.names(id);
    numbered.filter(|(_, (probed, endpoint))| *probed && idle(endpoint.id)).map(|(number, _)| number).collect()
}

impl Publisher {
    /// Buries an endpoint, by its place in the class: every slot that names it goes where `decision`, which gives it no
    /// weight, draws it. Its pins are given up by the sweep that is due then.
    ///
    /// # Errors
    /// When it gets no other id: nothing was changed then, and its flows stay with it.
    pub(in crate::daemon) fn bury(
        &mut self,
        now: Duration,
        (class, place): (usize, usize),
        decision: &Decision,
    ) -> Result<(), Error> {
        let dead = self.classes[class].1[place];
        let names = Names::new(self.installation.maps.names()?);
        let (table, graves) = (&self.table, &self.graves.0);
        let forgotten =
            |id| graves.get(&id).is_some_and(|named| now.saturating_sub(*named) >= FORGOTTEN) && !table.names(id);
        let (id, [new, old]) = succeed(&names, dead, forgotten)?;
        self.installation.maps.set_names(&[new])?;
        self.graves.0.remove(&id);
        self.installation.maps.set_names(&[old])?;
        self.graves.0.insert(dead, now);
        for endpoint in self.compiled.endpoints.iter_mut().filter(|endpoint| endpoint.id == dead) {
            endpoint.id = id;
            // Without links: it is given some when it is alive.
            self.installation.maps.set_endpoint(id, &endpoint.row);
        }
        self.classes[class].1[place] = id;
        for (group, assignment) in self.drawn(class, decision) {
            let writes = self.table.bury(group, dead, &assignment);
            self.store(now, &writes);
        }
        let maps = &self.installation.maps;
        maps.set_endpoint_links(dead, 0);
        // Replies to its last flows are given back as before, and counted as the new one's.
        for (row, entry) in self.compiled.returns.iter_mut().filter(|(_, entry)| entry.endpoint == dead) {
            entry.endpoint = id;
            maps.set_return_endpoint(*row, id);
        }
        self.swept = None;
        tracing::info!(endpoint = names.endpoint(dead), from = dead, to = id, "buried: it returns under another id");
        Ok(())
    }
}
