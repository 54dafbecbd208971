//! A configuration on top of a former one's state: what is written before the first instance is loaded.

use burst_common::limits::MAX_RETURNS;
use burst_common::meta::{MODE_ACTIVE, MODE_SHADOW};
use burst_common::returns::Return;

use super::error::Error;
use super::returns::{CLOSED, plan};
use crate::config::model::Config;
use crate::kernel::{KernelError, Maps};
use crate::policy::compile::Compiled;
use crate::slots::Table;

/// Makes the state ready for the new configuration, which was held against it ([`super::fits`]).
///
/// # Errors
/// When the kernel refuses.
pub(super) fn adopt(config: &Config, compiled: &Compiled, table: &mut Table, maps: &mut Maps) -> Result<(), Error> {
    mode(config, table, maps)?;
    returns(&compiled.returns, maps);
    Ok(())
}

/// In shadow every flow is local, wherever the slots say: a change of the mode is a change of where flows are.
fn mode(config: &Config, table: &mut Table, maps: &mut Maps) -> Result<(), KernelError> {
    let wanted = if config.edge.shadow { MODE_SHADOW } else { MODE_ACTIVE };
    if (maps.mode()?, wanted) == (MODE_SHADOW, MODE_ACTIVE) {
        tracing::info!("shadow before, active now: all flows are local, and all slots begin so");
        forget(table, maps)?;
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
