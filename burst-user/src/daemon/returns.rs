//! From one return table to another under live replies: the writes, in an order that is safe in between.
//!
//! A key that is answered before and after is answered all the while. Rows of endpoints that are no longer configured
//! stay, because their flows may still run.

use std::collections::HashMap;

use burst_common::returns::{Return, ReturnKey};
use bytemuck::Zeroable;

/// Protocol of a row that answers nothing but is not free either: readers go on past it (255, "Reserved" at IANA).
pub(super) const CLOSED: u8 = u8::MAX;

/// What to write, in order; and the rows of former endpoints that there was no room for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) writes: Vec<(usize, Return)>,
    pub(super) lost: Vec<Return>,
}

/// The writes that lead from `former` (occupied rows, closed ones left out) to `wanted`.
pub(super) fn plan(former: &HashMap<usize, Return>, wanted: &[(usize, Return)]) -> Plan {
    let goal: HashMap<usize, Return> = wanted.iter().copied().collect();
    let configured = |key: &ReturnKey| wanted.iter().any(|(_, row)| row.key() == *key);
    let mut now = former.clone();
    let mut plan = Plan::default();
    let mut write = |now: &mut HashMap<usize, Return>, row: usize, entry: Return| {
        now.insert(row, entry);
        plan.writes.push((row, entry));
    };
    // Rows that are free answer nothing yet: no reader misses anything.
    for &(row, entry) in wanted.iter().filter(|(row, _)| !former.contains_key(row)) {
        write(&mut now, row, entry);
    }
    // Who is about to lose a row, and is answered by no other, gets another one first.
    let mut stands_in = Vec::new();
    for (&row, entry) in former.iter().filter(|(row, entry)| goal.get(row).is_some_and(|new| new.key() != entry.key()))
    {
        let key = entry.key();
        if now.iter().any(|(&other, answer)| other != row && answer.key() == key) {
            continue;
        }
        match key.rows().find(|place| !now.contains_key(place) && !goal.contains_key(place)) {
            Some(free) => {
                write(&mut now, free, *entry);
                if configured(&key) {
                    stands_in.push(free);
                }
            }
            None => plan.lost.push(*entry),
        }
    }
    let mut write = |row: usize, entry: Return| plan.writes.push((row, entry));
    for &(row, entry) in wanted.iter().filter(|(row, entry)| former.get(row).is_some_and(|old| old != entry)) {
        write(row, entry);
    }
    // Stand-ins, and former places of keys that moved, would answer in place of the row that is meant.
    let moved = former.iter().filter(|(row, entry)| !goal.contains_key(row) && configured(&entry.key()));
    for row in moved.map(|(row, _)| *row).chain(stands_in) {
        write(row, Return { proto: CLOSED, ..Return::zeroed() });
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use burst_common::limits::MAX_RETURNS;
    use proptest::prelude::*;

    /// A table as the program sees it, and its lookup.
    #[derive(Clone, Default)]
    struct Table(HashMap<usize, Return>);

    impl Table {
        fn find(&self, key: &ReturnKey) -> Option<Return> {
            for row in key.rows() {
                let entry = self.0.get(&row)?;
                if entry.answers(key) {
                    return Some(*entry);
                }
            }
            None
        }

        /// First free, as the compiler places them.
        fn place(keys: &[(u32, u16)]) -> Option<Vec<(usize, Return)>> {
            let mut taken = HashMap::new();
            for &(endpoint, service) in keys {
                let entry =
                    Return { address: [endpoint, 0, 0, 0], proto: 6, service_port: service, ..Return::zeroed() };
                let free = entry.key().rows().find(|row| !taken.contains_key(row))?;
                taken.insert(free, entry);
            }
            Some(taken.into_iter().collect())
        }
    }

    /// Addresses whose keys begin at few rows, so that they collide.
    fn crowd() -> Vec<u32> {
        let first = |address: u32| ReturnKey { address: [address, 0, 0, 0], port: 0, proto: 6 }.first();
        (1..4_000_000).filter(|&address| first(address) < 6 && first(address) < MAX_RETURNS).take(12).collect()
    }

    proptest! {
        #[test]
        fn whoever_is_answered_before_and_after_is_answered_all_the_while(
            old in proptest::sample::subsequence((0..12).collect::<Vec<usize>>(), 0..6).prop_shuffle(),
            new in proptest::sample::subsequence((0..12).collect::<Vec<usize>>(), 0..6).prop_shuffle(),
        ) {
            let crowd = crowd();
            let keys = |all: &[usize], service| all.iter().map(|&n| (crowd[n], service)).collect::<Vec<_>>();
            let (Some(old), Some(new)) = (Table::place(&keys(&old, 1)), Table::place(&keys(&new, 2))) else { return Ok(()) };
            let before: HashMap<_, _> = old.into_iter().collect();
            let plan = plan(&before, &new);
            let mut table = Table(before.clone());
            for (row, entry) in &plan.writes {
                table.0.insert(*row, *entry);
                for former in before.values().filter(|former| !plan.lost.contains(former)) {
                    prop_assert!(table.find(&former.key()).is_some(), "after row {row}: {former:?}");
                }
            }
            for (_, entry) in &new {
                prop_assert_eq!(table.find(&entry.key()), Some(*entry));
            }
        }
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let rows = Table::place(&[(1, 1), (2, 1), (3, 1)]).unwrap();
        assert_eq!(plan(&rows.iter().copied().collect(), &rows), Plan::default());
    }
}
