//! A configuration on top of a former one's state: what may change under running flows, and what may not.

use burst_common::limits::MAX_RETURNS;
use burst_common::meta::{MODE_ACTIVE, MODE_SHADOW};
use burst_common::returns::Return;
use burst_common::slot::{Slot, State};

use super::error::Error;
use super::returns::{CLOSED, plan};
use crate::config::model::Config;
use crate::kernel::{KernelError, Kind, Maps};
use crate::policy::compile::Compiled;
use crate::slots::Table;

/// Holds the new configuration against the state, and makes the state ready for it.
///
/// # Errors
/// When it would send running flows where their connections are not known.
pub(super) fn adopt(config: &Config, compiled: &Compiled, table: &mut Table, maps: &mut Maps) -> Result<(), Error> {
    endpoints(compiled, table, maps)?;
    mode(config, table, maps)?;
    returns(&compiled.returns, maps);
    Ok(())
}

/// An endpoint's flows know it by its mode and ports.
fn endpoints(compiled: &Compiled, table: &Table, maps: &Maps) -> Result<(), KernelError> {
    for endpoint in &compiled.endpoints {
        let mut former = maps.endpoint(endpoint.id);
        // Neither is known to a flow: which links are up, and how much room they leave.
        (former.links, former.room) = (0, endpoint.row.room);
        if former.mode != 0 && former != endpoint.row && table.names(endpoint.id) {
            return Err(KernelError::new(
                Kind::State,
                format!(
                    "endpoint `{}`: `mode`, `port` or `ports` differ from those its running flows were placed by",
                    endpoint.name
                ),
                "restore the former values; or bring the flows home first (`burst override CLASS --offsite 0% …`, and wait \
                 for the class's `idle_timeout`)",
            ));
        }
    }
    Ok(())
}

/// In shadow every flow is local, wherever the slots say: a change of the mode is a change of where flows are.
fn mode(config: &Config, table: &mut Table, maps: &mut Maps) -> Result<(), KernelError> {
    let wanted = if config.edge.shadow { MODE_SHADOW } else { MODE_ACTIVE };
    let home = |slot: Slot| slot.state() == State::Stable && slot == Slot::new(0, 0, State::Stable, slot.generation());
    match (maps.mode()?, wanted) {
        (MODE_ACTIVE, MODE_SHADOW) if !table.words().all(|(_, slot)| home(slot)) => {
            return Err(KernelError::new(
                Kind::State,
                "`edge.mode` is \"shadow\" now, but flows are placed offsite: the local servers would reset them",
                "start with \"active\", bring the flows home (`burst override CLASS --offsite 0% …`, and wait until `burst \
                 status` shows no slot in transition and no pins), then change the mode",
            ));
        }
        (MODE_SHADOW, MODE_ACTIVE) => {
            tracing::info!("shadow before, active now: all flows are local, and all slots begin so");
            forget(table, maps)?;
        }
        _ => {}
    }
    maps.set_mode(wanted)
}

/// Forgets where flows were placed: for state under which every flow that lives is local. Pins go first, so that none is
/// looked up that belongs to nobody.
///
/// # Errors
/// When the kernel refuses; then what is left names nothing that was not named before.
pub(super) fn forget(table: &mut Table, maps: &mut Maps) -> Result<(), KernelError> {
    maps.pins.clear()?;
    for (index, slot) in table.reset() {
        maps.set_slot(index as usize, slot);
    }
    Ok(())
}

/// Writes the return table.
fn returns(rows: &[(usize, Return)], maps: &Maps) {
    let former = (0..MAX_RETURNS).map(|row| (row, maps.returns(row)));
    let former = former.filter(|(_, entry)| ![0, CLOSED].contains(&entry.proto)).collect();
    let plan = plan(&former, rows);
    for (row, entry) in plan.writes {
        maps.set_return(row, &entry);
    }
    for entry in plan.lost {
        let (port, endpoint) = (u16::from_be(entry.port), entry.endpoint);
        tracing::warn!(endpoint, port, "no room for the replies of an endpoint that was removed: its flows are lost");
    }
}
