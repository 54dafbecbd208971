//! Medians, quartiles, and the order in which things are measured.

/// The middle of a sample and its quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// A quarter of the sample is below.
    pub p25: f64,
    /// A quarter of the sample is above.
    pub p75: f64,
}

impl Spread {
    /// Of a sample of at least one finite number.
    ///
    /// # Panics
    /// Of none.
    #[must_use]
    pub fn of(sample: &[f64]) -> Self {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            // Between neighbours where the place is between them.
            let place = share * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Self { median: at(0.5), p25: at(0.25), p75: at(0.75) }
    }
}

/// Numbers that look like chance, the same in every run.
pub struct Shuffle(u64);

impl Shuffle {
    /// Begins with a seed other than 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The numbers below `count`, in another order each time.
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
        order
    }

    /// Marsaglia's xorshift.
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_between_neighbours() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.5, p25: 1.75, p75: 3.25 });
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, p25: 7.0, p75: 7.0 });
    }

    #[test]
    fn an_order_has_every_number_once_and_is_not_the_last_one() {
        let mut shuffle = Shuffle::new(1);
        let (first, second) = (shuffle.order(40), shuffle.order(40));
        assert_ne!(first, second);
        for order in [first, second] {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..40).collect::<Vec<_>>());
            assert_ne!(order, sorted);
        }
    }
}
