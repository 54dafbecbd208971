//! The return table, filled: open addressing as the packet path probes it.

use std::collections::BTreeMap;

use burst_common::flow::wide;
use burst_common::limits::RETURN_PROBES;
use burst_common::returns::{Return, proto};

use super::translate::Translation;

/// Rows of the return table that are in use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReturnTable {
    rows: BTreeMap<usize, Return>,
}

/// No row is free where the packet path would look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the return table is full: {rows} rows are taken, and none of the {RETURN_PROBES} that could take this one is free"
)]
pub struct Full {
    /// Rows in use.
    pub rows: usize,
}

impl ReturnTable {
    /// Adds the row of a translation; one that is there already is not added again.
    ///
    /// # Errors
    /// When no row is free.
    pub fn insert(&mut self, translation: &Translation, class: u8, endpoint: u16) -> Result<(), Full> {
        let row = Return {
            address: wide(translation.endpoint),
            service: wide(translation.service),
            port: translation.port.to_be(),
            service_port: translation.service_port.to_be(),
            endpoint,
            proto: proto(if translation.endpoint.is_ipv6() { 6 } else { 4 }, translation.proto),
            class,
        };
        for index in row.key().rows() {
            match self.rows.get(&index) {
                Some(there) if *there == row => return Ok(()),
                Some(_) => {}
                None => {
                    self.rows.insert(index, row);
                    return Ok(());
                }
            }
        }
        Err(Full { rows: self.rows.len() })
    }

    /// The rows in use, by number.
    #[must_use]
    pub fn into_rows(self) -> Vec<(usize, Return)> {
        self.rows.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burst_common::returns::ReturnKey;

    fn translation(host: u8, port: u16) -> Translation {
        Translation {
            endpoint: [10, 20, 0, host].into(),
            port,
            proto: 6,
            service: [203, 0, 113, host].into(),
            service_port: port,
        }
    }

    #[test]
    fn every_row_is_found_where_the_packet_path_looks() {
        let mut table = ReturnTable::default();
        let all: Vec<_> = (1..=40).flat_map(|host| (8000..8050).map(move |port| translation(host, port))).collect();
        for translation in &all {
            table.insert(translation, 3, 7).unwrap();
            table.insert(translation, 3, 7).unwrap();
        }
        let rows: BTreeMap<_, _> = table.into_rows().into_iter().collect();
        assert_eq!(rows.len(), all.len(), "the same row is not added twice");
        for translation in &all {
            let key = ReturnKey { address: wide(translation.endpoint), port: translation.port.to_be(), proto: 6 };
            let found: Vec<_> = key.rows().filter_map(|n| rows.get(&n)).filter(|row| row.answers(&key)).collect();
            assert_eq!(found.len(), 1);
            assert_eq!(
                (found[0].service, found[0].service_port),
                (wide(translation.service), translation.service_port.to_be())
            );
        }
        let absent = ReturnKey { address: wide([10, 20, 0, 41].into()), port: 8000u16.to_be(), proto: 6 };
        assert!(absent.rows().filter_map(|n| rows.get(&n)).all(|row| !row.answers(&absent)));
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = ReturnTable::default();
        let full = (1..=255u8).flat_map(|host| (1..=1000).map(move |port| translation(host, port)));
        let error = full.map(|translation| table.insert(&translation, 1, 1)).find_map(Result::err).unwrap();
        assert!(error.rows > 2000, "{error}");
    }
}
