//! Endpoints that a former process knew, that flows are placed at and that are configured no more: lines come and go for them, too.

use burst_common::endpoint::{Endpoint, MODE_NONE};
use burst_common::slot::EndpointId;

use super::Publisher;
use crate::daemon::fits::Placed;
use crate::policy::compile::CompiledEndpoint;
use crate::policy::ids::Names;

impl Publisher {
    /// Looks after what a former process left, at the start of this one.
    pub(in crate::daemon) fn look_after(&mut self, names: &Names, placed: &Placed) {
        let maps = &self.installation.maps;
        self.former = orphans(names, placed, &self.compiled.endpoints, |id| maps.endpoint(id));
    }
}

/// Who else is named by slots or pins. Their links are not written down anywhere: they are those of their tier, else of their
/// class. The dead have no links and get none; nor does who was waited for in vain.
fn orphans(
    names: &Names,
    placed: &Placed,
    configured: &[CompiledEndpoint],
    row: impl Fn(EndpointId) -> Endpoint,
) -> Vec<CompiledEndpoint> {
    let unknown = placed.endpoints().filter(|&id| configured.iter().all(|endpoint| endpoint.id != id));
    let orphan = |id| {
        let (name, row) = (names.endpoint(id)?, row(id));
        if row.mode == MODE_NONE || row.links == 0 {
            return None;
        }
        let kin = |parts| configured.iter().find(|endpoint| first(&endpoint.name, parts) == first(name, parts));
        let CompiledEndpoint { links, fallback, .. } = kin(2).or_else(|| kin(1))?.clone();
        Some(CompiledEndpoint { id, name: name.to_owned(), row: Endpoint { links: 0, ..row }, links, fallback })
    };
    unknown.filter_map(orphan).collect()
}

/// The first parts of `class/tier/address`.
fn first(name: &str, parts: usize) -> Vec<&str> {
    name.split('/').take(parts).collect()
}

#[cfg(test)]
mod tests {
    use burst_common::endpoint::{HELD_LINKS, MODE_DNAT};
    use burst_common::meta::{NAMES, Name, endpoint_name};
    use bytemuck::Zeroable;

    use super::*;

    fn endpoint(id: EndpointId, name: &str, links: &[u8], fallback: &[u8]) -> CompiledEndpoint {
        let (links, fallback) = (links.to_vec(), fallback.to_vec());
        CompiledEndpoint { id, name: name.to_owned(), row: Endpoint::zeroed(), links, fallback }
    }

    #[test]
    fn who_is_placed_and_not_configured_goes_by_the_links_of_its_tier_else_of_its_class() {
        let mut rows = vec![Name::zeroed(); NAMES];
        for (id, name) in [
            (1, "promo/reserved/10.20.0.10"),
            (2, "promo/reserved/10.20.0.11"),
            (3, "promo/gone/10.20.0.12"),
            (4, "other/reserved/10.20.0.13"),
            (5, "promo/elastic/10.20.8.10"),
            (6, "promo/elastic/10.20.8.11"),
            (7, "promo/elastic/10.20.8.12"),
        ] {
            rows[endpoint_name(id)] = Name::new(name).expect("a name");
        }
        let configured = [
            endpoint(1, "promo/reserved/10.20.0.10", &[1, 2], &[2]),
            endpoint(5, "promo/elastic/10.20.8.10", &[3], &[]),
        ];
        let row = |id| {
            // The sixth is dead, of the seventh there is no row.
            let links = if id == 6 { 0 } else { HELD_LINKS };
            Endpoint { mode: if id == 7 { MODE_NONE } else { MODE_DNAT }, links, ..Endpoint::zeroed() }
        };
        let found = orphans(&Names::new(rows), &Placed::at([1, 2, 3, 4, 6, 7]), &configured, row);
        let found: Vec<_> =
            found.iter().map(|one| (one.id, &one.links[..], &one.fallback[..], one.row.links)).collect();
        // The fourth is of a class that is not configured: a start is refused before it comes to this.
        assert_eq!(found, [(2, &[1, 2][..], &[2][..], 0), (3, &[1, 2], &[2], 0)]);
    }
}
