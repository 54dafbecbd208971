//! Whether a configuration fits what is pinned: what would send flows that are placed where their connections are not known.
//! It is asked before anything is written, by a start, by `burst reload` and by `burst plan`; it changes nothing.

use std::collections::BTreeSet;

use burst_common::limits::MAX_CLASS_SLOTS;
use burst_common::meta::{self, MODE_ACTIVE, MODE_SHADOW, shape};
use burst_common::pin::{Pin, PinKey};
use burst_common::slot::{EndpointId, LOCAL, Slot, State, base};

use crate::config::model::{Affinity, Config};
use crate::kernel::{KernelError, Kind, Maps};
use crate::policy::compile::Compiled;
use crate::policy::ids::{Ids, Names};

/// How to make room for what is refused.
const DRAIN: &str = "bring the flows home first (`burst override CLASS --offsite 0% …`, and wait until `burst status` shows no slot in \
                     transition and no pins)";

/// What slots and pins name.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Ids of the classes with a slot that is not stable and local, or a pin elsewhere.
    classes: BTreeSet<u8>,
    /// Endpoints that are named.
    endpoints: BTreeSet<EndpointId>,
}

impl Placed {
    /// Reads slots and pins, of classes with names.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn read(names: &Names, maps: &Maps) -> Result<Self, KernelError> {
        if maps.mode()? == MODE_SHADOW {
            // Every flow is local, wherever the slots say.
            return Ok(Self::default());
        }
        let pins = maps.pins.read().map_err(|error| KernelError::os("reading the pins", &error))?;
        let classes = (1..64).filter(|&id| names.class(id).is_some());
        let words = classes.flat_map(|id| {
            let first = base(id, 4) as usize;
            (first..first + 2 * MAX_CLASS_SLOTS).map(move |index| (id, maps.slot(index)))
        });
        Ok(Self::of(words, &pins))
    }

    fn of(words: impl Iterator<Item = (u8, Slot)>, pins: &[(PinKey, Pin)]) -> Self {
        let mut placed = Self::default();
        for (class, slot) in words {
            if (slot.current(), slot.previous(), slot.state()) != (LOCAL, LOCAL, State::Stable) {
                placed.classes.insert(class);
                placed.endpoints.extend([slot.current(), slot.previous()]);
            }
        }
        for (_, pin) in pins.iter().filter(|(_, pin)| pin.endpoint != LOCAL) {
            placed.classes.extend(u8::try_from(pin.class));
            placed.endpoints.insert(pin.endpoint);
        }
        placed.endpoints.remove(&LOCAL);
        placed
    }

    /// Whether flows of a class are placed offsite, or may be.
    pub(super) fn class(&self, id: u8) -> bool {
        self.classes.contains(&id)
    }

    /// The endpoints that flows are placed at, or may be.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.endpoints.iter().copied()
    }

    /// Flows at these endpoints.
    #[cfg(test)]
    pub(super) fn at(endpoints: impl IntoIterator<Item = EndpointId>) -> Self {
        Self { classes: BTreeSet::new(), endpoints: endpoints.into_iter().collect() }
    }

    /// Whether flows are placed at an endpoint, or may be.
    pub(super) fn endpoint(&self, id: EndpointId) -> bool {
        self.endpoints.contains(&id)
    }
}

/// What a configuration is held against.
pub(super) struct Ground<'a> {
    /// The pinned names, as they are before this configuration.
    pub(super) names: &'a Names,
    /// What slots and pins name.
    pub(super) placed: &'a Placed,
    /// The maps.
    pub(super) maps: &'a Maps,
}

/// Everything for which the configuration cannot take over what is pinned; nothing, when it can.
///
/// # Errors
/// When the kernel refuses to be asked.
pub(super) fn refusals(
    config: &Config,
    ids: &Ids,
    compiled: &Compiled,
    ground: &Ground<'_>,
) -> Result<Vec<KernelError>, KernelError> {
    let mut found = stranded(config, ground);
    found.extend(shapes(config, ids, ground.maps)?);
    found.extend(endpoints(compiled, ground));
    let wanted = if config.edge.shadow { MODE_SHADOW } else { MODE_ACTIVE };
    let away = ids.classes.values().any(|&id| ground.placed.class(id));
    if (ground.maps.mode()?, wanted) == (MODE_ACTIVE, MODE_SHADOW) && away {
        found.push(KernelError::new(
            Kind::State,
            "`edge.mode` is \"shadow\" now, but flows are placed offsite: the local servers would reset them",
            format!("stay with \"active\" and {DRAIN}, then change the mode"),
        ));
    }
    Ok(found)
}

/// Another name is another class: what was placed by the former one would be nobody's.
fn stranded(config: &Config, ground: &Ground<'_>) -> Vec<KernelError> {
    let gone = (1..64).filter_map(|id| {
        let name = ground.names.class(id)?;
        let retired = ground.names.rows()[meta::class_name(id.into())].is_retired();
        let configured = config.classes.iter().any(|class| class.name == name);
        (!retired && !configured && ground.placed.class(id)).then_some(name)
    });
    gone.map(|name| {
        KernelError::new(
            Kind::State,
            format!("class `{name}` is not in the configuration, but flows of it are placed offsite: the local servers would reset them"),
            format!("restore the class, under this name; or {DRAIN}"),
        )
    })
    .collect()
}

/// Another number of slots, or another choice among them, moves every flow.
fn shapes(config: &Config, ids: &Ids, maps: &Maps) -> Result<Vec<KernelError>, KernelError> {
    let mut found = Vec::new();
    for class in &config.classes {
        let (Some(burst), Some(&id)) = (&class.burst, ids.classes.get(&class.name)) else { continue };
        let wanted = shape(burst.slots, burst.affinity == Affinity::Client);
        if ![0, wanted].contains(&maps.shape(id)?) {
            found.push(Maps::other_shape(&class.name));
        }
    }
    Ok(found)
}

/// An endpoint's flows know it by its mode and ports.
fn endpoints(compiled: &Compiled, ground: &Ground<'_>) -> Vec<KernelError> {
    let differs = compiled.endpoints.iter().filter(|endpoint| {
        let mut former = ground.maps.endpoint(endpoint.id);
        // Neither is known to a flow: which links are up, and how much room they leave.
        (former.links, former.room) = (0, endpoint.row.room);
        former.mode != 0 && former != endpoint.row && ground.placed.endpoint(endpoint.id)
    });
    differs
        .map(|endpoint| {
            KernelError::new(
                Kind::State,
                format!(
                    "endpoint `{}`: `mode`, `port` or `ports` differ from those its running flows were placed by",
                    endpoint.name
                ),
                format!("restore the former values; or {DRAIN}"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slot_that_is_stable_and_local_holds_nobody() {
        for (slot, classes, endpoints) in [
            (Slot::stable(LOCAL), &[][..], &[][..]),
            (Slot::new(0, 0, State::Stable, 9), &[], &[]),
            (Slot::new(0, 0, State::Pins, 9), &[7], &[]),
            (Slot::new(0, 5, State::Transition, 9), &[7], &[5]),
            (Slot::new(5, 6, State::Transition, 9), &[7], &[5, 6]),
            (Slot::stable(5), &[7], &[5]),
        ] {
            let placed = Placed::of([(7, slot)].into_iter(), &[]);
            assert!(placed.classes.iter().eq(classes), "{slot:?}: {placed:?}");
            assert!(placed.endpoints.iter().eq(endpoints), "{slot:?}: {placed:?}");
        }
        let key = PinKey::of(4, 6, ([1; 4], 1), ([2; 4], 2));
        let pin = |endpoint| (key, Pin { endpoint, class: 7, epoch: 0 });
        assert!(!Placed::of([].into_iter(), &[pin(LOCAL)]).class(7), "at home");
        assert!(Placed::of([].into_iter(), &[pin(3)]).endpoint(3));
    }
}
