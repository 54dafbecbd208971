//! Names → ids that persist: a class, link or endpoint keeps its id as long as anything pinned may name it.

use std::collections::{BTreeMap, BTreeSet};

use burst_common::limits::{MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS};
use burst_common::meta::{self, NAMES, Name};
use burst_common::slot::EndpointId;
use bytemuck::Zeroable;

use crate::config::model::Config;

/// What an id is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A class.
    Class,
    /// A link.
    Link,
    /// An endpoint.
    Endpoint,
}

impl Kind {
    /// Ids of this kind are below this; id 0 is never given.
    const fn limit(self) -> usize {
        match self {
            Self::Class => MAX_CLASSES,
            // The last one stands for links that are waited for (`burst_common::endpoint::HELD`).
            Self::Link => MAX_LINKS - 1,
            Self::Endpoint => MAX_ENDPOINTS,
        }
    }

    const fn row(self, id: usize) -> usize {
        match self {
            Self::Class => meta::class_name(id),
            Self::Link => meta::link_name(id),
            Self::Endpoint => meta::endpoint_name(id),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Link => "link",
            Self::Endpoint => "endpoint",
        }
    }
}

/// The rows of the pinned names map, [`NAMES`] of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    rows: Vec<Name>,
}

impl Default for Names {
    fn default() -> Self {
        Self { rows: vec![Name::zeroed(); NAMES] }
    }
}

impl Names {
    /// From the rows of the map, in order. Rows that are missing are free, rows beyond [`NAMES`] are ignored.
    #[must_use]
    pub fn new(mut rows: Vec<Name>) -> Self {
        rows.resize(NAMES, Name::zeroed());
        Self { rows }
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[Name] {
        &self.rows
    }

    /// Name of a class, retired or not.
    #[must_use]
    pub fn class(&self, id: u8) -> Option<&str> {
        self.text(Kind::Class, id.into())
    }

    /// Name of a link, retired or not.
    #[must_use]
    pub fn link(&self, id: u8) -> Option<&str> {
        self.text(Kind::Link, id.into())
    }

    /// Name of an endpoint, `class/tier/address` or `class/tier`, retired or not.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&str> {
        self.text(Kind::Endpoint, id.into())
    }

    /// Writes rows, as [`Ids::writes`] names them. A row beyond [`NAMES`] is ignored.
    pub fn apply(&mut self, writes: &[(usize, Name)]) {
        for &(row, name) in writes {
            if let Some(place) = self.rows.get_mut(row) {
                *place = name;
            }
        }
    }

    fn text(&self, kind: Kind, id: usize) -> Option<&str> {
        if id == 0 || id >= kind.limit() { None } else { self.rows[kind.row(id)].text() }
    }
}

/// The ids of everything a configuration names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ids {
    /// By class name: 1–63.
    pub classes: BTreeMap<String, u8>,
    /// By link name: 1–63.
    pub links: BTreeMap<String, u8>,
    /// By `class/tier/address`, or `class/tier` for `nexthop`: 1–4095.
    pub endpoints: BTreeMap<String, EndpointId>,
    /// Rows of the names map that change: new names, names that are configured again, names that are retired.
    pub writes: Vec<(usize, Name)>,
}

/// Why a name gets no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdsError {
    /// All ids are held.
    #[error(
        "no id is left for {kind} `{name}`: {held} are held, {retired} of them by names that are no longer configured; \
         drain and `burst detach`, then start again to free those"
    )]
    NoneFree {
        /// "class", "link" or "endpoint".
        kind: &'static str,
        /// The name.
        name: String,
        /// Ids in use.
        held: usize,
        /// Ids held by names that are no longer configured.
        retired: usize,
    },
    /// The name does not fit a row.
    #[error("the name of {kind} `{name}` is longer than {max} bytes", max = meta::NAME_LEN)]
    TooLong {
        /// "class", "link" or "endpoint".
        kind: &'static str,
        /// The name.
        name: String,
    },
}

/// Name of an endpoint among all classes.
#[must_use]
pub fn endpoint_key(class: &str, in_class: &str) -> String {
    format!("{class}/{in_class}")
}

impl Ids {
    /// Gives every class, link and endpoint of `config` its id: the one it has in `existing`, else the lowest that
    /// nothing holds there. Rows that are retired or that burst cannot read are held.
    ///
    /// # Errors
    /// When the ids of a kind are used up.
    pub fn assign(config: &Config, existing: &Names) -> Result<Self, IdsError> {
        let mut writes = Vec::new();
        let classes = assign(
            Kind::Class,
            config.classes.iter().map(|class| class.name.clone()).collect(),
            existing,
            &mut writes,
        )?;
        let links =
            assign(Kind::Link, config.links.iter().map(|link| link.name.clone()).collect(), existing, &mut writes)?;
        let endpoints = config.classes.iter().flat_map(|class| {
            let tiers = class.burst.iter().flat_map(|burst| &burst.tiers);
            tiers.flat_map(|tier| tier.endpoint_names()).map(|name| endpoint_key(&class.name, &name))
        });
        let endpoints = assign(Kind::Endpoint, endpoints.collect(), existing, &mut writes)?;
        // Class and link ids are below 64, endpoint ids below 4096 (`Kind::limit`).
        let byte = |(name, id): (String, usize)| (name, id as u8);
        Ok(Self {
            classes: classes.into_iter().map(byte).collect(),
            links: links.into_iter().map(byte).collect(),
            endpoints: endpoints.into_iter().map(|(name, id)| (name, id as EndpointId)).collect(),
            writes,
        })
    }
}

/// What is behind the name of an endpoint's former life: no name of a configuration has it.
const FORMER: &str = "~";

/// A new id for an endpoint that died under `dead`, and the rows to write, in order: the new id has the name before the
/// old one loses it. An id of a former life of the same endpoint is taken again where `forgotten` says that nothing names it
/// any more, else the lowest that nothing holds.
///
/// # Errors
/// When the ids are used up, or `dead` is none.
pub fn succeed(
    names: &Names,
    dead: EndpointId,
    forgotten: impl Fn(EndpointId) -> bool,
) -> Result<(EndpointId, [(usize, Name); 2]), IdsError> {
    let kind = Kind::Endpoint;
    let name = names.endpoint(dead).map(str::to_owned).unwrap_or_default();
    let former = format!("{name}{FORMER}");
    let mut ids = 1..MAX_ENDPOINTS as EndpointId;
    let again = ids.clone().find(|&id| id != dead && names.endpoint(id) == Some(&former) && forgotten(id));
    let free = |id: &EndpointId| names.rows[kind.row(usize::from(*id))] == Name::zeroed();
    let Some(id) = again.or_else(|| ids.find(free)) else {
        let (held, word) = (MAX_ENDPOINTS - 1, kind.word());
        let retired = names.rows[kind.row(1)..].iter().take(held).filter(|row| row.is_retired()).count();
        return Err(IdsError::NoneFree { kind: word, name, held, retired });
    };
    let (Some(new), Some(old)) = (Name::new(&name), Name::new(&former)) else {
        return Err(IdsError::TooLong { kind: kind.word(), name });
    };
    Ok((id, [(kind.row(usize::from(id)), new), (kind.row(usize::from(dead)), old.retire(true))]))
}

fn assign(
    kind: Kind,
    wanted: Vec<String>,
    existing: &Names,
    writes: &mut Vec<(usize, Name)>,
) -> Result<BTreeMap<String, usize>, IdsError> {
    let configured: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut known = BTreeMap::new();
    let mut free = Vec::new();
    let mut retired = 0;
    for id in 1..kind.limit() {
        let row = existing.rows[kind.row(id)];
        if row == Name::zeroed() {
            free.push(id);
            continue;
        }
        match row.text() {
            // A name that stands there twice keeps its lowest id; the other row stays held.
            Some(text) if configured.contains(text) && !known.contains_key(text) => {
                if row.is_retired() {
                    writes.push((kind.row(id), row.retire(false)));
                }
                known.insert(text.to_owned(), id);
            }
            _ => {
                retired += 1;
                if row.text().is_some() && !row.is_retired() {
                    writes.push((kind.row(id), row.retire(true)));
                }
            }
        }
    }
    let held = kind.limit() - 1 - free.len();
    let mut free = free.into_iter();
    for name in wanted {
        if known.contains_key(&name) {
            continue;
        }
        let Some(id) = free.next() else {
            return Err(IdsError::NoneFree { kind: kind.word(), name, held, retired });
        };
        let Some(row) = Name::new(&name) else {
            return Err(IdsError::TooLong { kind: kind.word(), name });
        };
        writes.push((kind.row(id), row));
        known.insert(name, id);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str, hosts: &[u8]) -> Config {
        let endpoints: Vec<_> = hosts.iter().map(|host| format!("\"10.20.0.{host}\"")).collect();
        let text = format!(
            r#"
            version = 1
            edge = {{ name = "a", client = ["eth0"], seed = "s" }}
            link = [{{ name = "dx-1", device = "eth1", next_hop = "10.64.0.1" }}]
            [class.{extra}]
            match = [{{ dst = ["203.0.113.20"], proto = "tcp", ports = [443] }}]
            when_full = "local"
            local = {{ capacity = "1k flows/s" }}
            [[class.{extra}.tier]]
            name = "flat"
            mode = "nexthop"
            links = ["dx-1"]
            capacity = "1k flows/s"
            [[class.{extra}.tier]]
            name = "reserved"
            mode = "dnat"
            endpoints = [{}]
            links = ["dx-1"]
            capacity = "1k flows/s"
            "#,
            endpoints.join(", ")
        );
        crate::config::parse(&text, "test").unwrap_or_else(|refused| panic!("{refused}")).config
    }

    /// Ids of `config` with the names of `names`, which are then those of the map after the writes.
    fn step(config: &Config, names: &mut Names) -> Ids {
        let ids = Ids::assign(config, names).unwrap();
        names.apply(&ids.writes);
        ids
    }

    fn endpoints(ids: &Ids) -> Vec<(&str, u16)> {
        ids.endpoints.iter().map(|(name, id)| (name.as_str(), *id)).collect()
    }

    #[test]
    fn ids_start_at_one_and_the_names_say_whose_they_are() {
        let mut names = Names::default();
        let ids = step(&config("promo", &[10, 11]), &mut names);
        assert_eq!(
            endpoints(&ids),
            [("promo/flat", 1), ("promo/reserved/10.20.0.10", 2), ("promo/reserved/10.20.0.11", 3)]
        );
        assert_eq!((ids.classes["promo"], ids.links["dx-1"]), (1, 1));
        assert_eq!(
            (names.class(1), names.link(1), names.endpoint(3)),
            (Some("promo"), Some("dx-1"), Some("promo/reserved/10.20.0.11"))
        );
        assert_eq!((names.class(0), names.link(2), names.endpoint(4), names.class(64)), (None, None, None, None));
        let again = step(&config("promo", &[10, 11]), &mut names);
        assert_eq!(again, Ids { writes: Vec::new(), ..ids }, "nothing changes, nothing is written");
    }

    #[test]
    fn an_id_is_not_given_to_another_while_its_name_is_retired() {
        let mut names = Names::default();
        step(&config("promo", &[10, 11]), &mut names);
        let ids = step(&config("promo", &[12, 11]), &mut names);
        assert_eq!(
            endpoints(&ids),
            [("promo/flat", 1), ("promo/reserved/10.20.0.11", 3), ("promo/reserved/10.20.0.12", 4)]
        );
        assert!(names.rows()[meta::endpoint_name(2)].is_retired());
        assert_eq!(names.endpoint(2), Some("promo/reserved/10.20.0.10"));
        let ids = step(&config("promo", &[10]), &mut names);
        assert_eq!(
            endpoints(&ids),
            [("promo/flat", 1), ("promo/reserved/10.20.0.10", 2)],
            "configured again: its own id again"
        );
        let retired = |id| names.rows()[meta::endpoint_name(id)].is_retired();
        assert_eq!((retired(2), retired(3), retired(4)), (false, true, true));
    }

    #[test]
    fn who_died_gets_another_id_and_keeps_it_over_a_restart() {
        let mut names = Names::default();
        let config = config("promo", &[10, 11]);
        step(&config, &mut names);
        let never = |_: EndpointId| false;
        let (id, writes) = succeed(&names, 2, never).unwrap();
        assert_eq!(id, 4);
        names.apply(&writes[..1]);
        assert_eq!((names.endpoint(4), names.endpoint(2)), (Some("promo/reserved/10.20.0.10"), names.endpoint(4)));
        names.apply(&writes[1..]);
        assert_eq!(names.endpoint(2), Some("promo/reserved/10.20.0.10~"));
        let ids = step(&config, &mut names);
        assert_eq!(
            endpoints(&ids),
            [("promo/flat", 1), ("promo/reserved/10.20.0.10", 4), ("promo/reserved/10.20.0.11", 3)]
        );
        assert_eq!(ids.writes, []);
        // It dies again: its first id is taken again once it is forgotten, another endpoint's former one never.
        let (other, writes) = succeed(&names, 3, never).unwrap();
        names.apply(&writes);
        assert_eq!(other, 5);
        assert_eq!(succeed(&names, 4, never).unwrap().0, 6);
        let (id, writes) = succeed(&names, 4, |_| true).unwrap();
        names.apply(&writes);
        assert_eq!(
            (id, names.endpoint(2), names.endpoint(4)),
            (2, Some("promo/reserved/10.20.0.10"), Some("promo/reserved/10.20.0.10~"))
        );
        assert!(
            names.rows()[meta::endpoint_name(4)].is_retired() && !names.rows()[meta::endpoint_name(2)].is_retired()
        );
    }

    #[test]
    fn who_died_gets_no_id_where_all_are_held() {
        let mut rows = vec![Name::zeroed(); NAMES];
        for id in 1..MAX_ENDPOINTS {
            rows[meta::endpoint_name(id)] = Name::new(&format!("c/t/{id}")).unwrap();
        }
        rows[meta::endpoint_name(9)] = Name::new("c/t/7~").unwrap().retire(true);
        let names = Names::new(rows);
        let error = succeed(&names, 7, |_| false).unwrap_err();
        assert_eq!(error, IdsError::NoneFree { kind: "endpoint", name: "c/t/7".to_owned(), held: 4095, retired: 1 });
        assert_eq!(succeed(&names, 7, |_| true).unwrap().0, 9);
    }

    #[test]
    fn another_class_takes_another_id_and_its_endpoints_too() {
        let mut names = Names::default();
        step(&config("promo", &[10]), &mut names);
        let ids = step(&config("other", &[10]), &mut names);
        assert_eq!(ids.classes["other"], 2);
        assert_eq!(endpoints(&ids), [("other/flat", 3), ("other/reserved/10.20.0.10", 4)]);
        assert!(names.rows()[meta::class_name(1)].is_retired());
    }

    #[test]
    fn a_row_that_cannot_be_read_is_not_given_away() {
        let mut bytes = [0u8; size_of::<Name>()];
        bytes[..2].copy_from_slice(&999u16.to_ne_bytes());
        let mut rows = vec![Name::zeroed(); meta::class_name(1) + 1];
        rows[meta::class_name(1)] = bytemuck::cast(bytes);
        let ids = step(&config("promo", &[10]), &mut Names::new(rows));
        assert_eq!(ids.classes["promo"], 2);
        assert!(ids.writes.iter().all(|(row, _)| *row != meta::class_name(1)), "and it is left as it is");
    }

    #[test]
    fn ids_run_out_with_words() {
        let mut rows = vec![Name::zeroed(); NAMES];
        for id in 1..MAX_CLASSES {
            rows[meta::class_name(id)] = Name::new(&format!("old-{id}")).unwrap().retire(true);
        }
        let error = Ids::assign(&config("promo", &[10]), &Names::new(rows.clone())).unwrap_err();
        assert_eq!(error, IdsError::NoneFree { kind: "class", name: "promo".to_owned(), held: 63, retired: 63 });
        rows[meta::class_name(63)] = Name::zeroed();
        assert_eq!(Ids::assign(&config("promo", &[10]), &Names::new(rows)).unwrap().classes["promo"], 63);
    }
}
