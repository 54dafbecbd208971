//! Readings → one load: value ÷ limit of each source, what cannot be trusted left out, the largest of the rest.

use std::fmt;
use std::time::Duration;

use super::observation::Reading;
use crate::config::model::LoadSource;

/// A load beyond this is a broken source, not a busy backend.
const ABSURD: f64 = 1000.0;
/// A reading older than so many pauses of its source is stale.
const STALE: u32 = 3;
/// Time constant of the smoothed load.
const SMOOTH: f64 = 1.0;

/// A load that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Loaded {
    /// The largest of all sources now; 1 is the limit.
    pub(super) value: f64,
    /// The same, smoothed over about a second.
    pub(super) smooth: f64,
    /// Age of the reading it is from.
    pub(super) age: Duration,
}

/// Memory of the smoothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    smooth: Option<f64>,
}

impl Load {
    /// The load of this tick; `None` when every source is stale, missing or talks nonsense.
    pub(super) fn update(
        &mut self,
        elapsed: Duration,
        readings: &[Option<Reading>],
        sources: &[LoadSource],
    ) -> Option<Loaded> {
        let trusted = sources.iter().zip(readings).filter_map(|(source, reading)| trust((*reading)?, source).ok());
        let Some((value, age)) = trusted.max_by(|a, b| a.0.total_cmp(&b.0)) else {
            self.smooth = None;
            return None;
        };
        let before = self.smooth.unwrap_or(value);
        let span = elapsed.as_secs_f64();
        let smooth = before + (value - before) * span / (SMOOTH + span);
        self.smooth = Some(smooth);
        Some(Loaded { value, smooth, age })
    }
}

/// Why a reading is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It is no number.
    NotANumber,
    /// It is below zero.
    Negative,
    /// It is a load that nothing can have.
    Absurd,
    /// It is older than three times `every`.
    Stale,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber => f.write_str("not a number"),
            Self::Negative => f.write_str("negative"),
            Self::Absurd => write!(f, "absurd, more than {ABSURD} times its limit"),
            Self::Stale => f.write_str("stale"),
        }
    }
}

/// Load and age of a reading; or why it does not count.
///
/// # Errors
/// When it is stale, negative, not a number or absurd.
pub fn trust(reading: Reading, source: &LoadSource) -> Result<(f64, Duration), Distrust> {
    let load = reading.value / source.limit;
    match load {
        load if load.is_nan() => Err(Distrust::NotANumber),
        load if load < 0.0 => Err(Distrust::Negative),
        load if load > ABSURD => Err(Distrust::Absurd),
        _ if reading.age > source.every.saturating_mul(STALE) => Err(Distrust::Stale),
        load => Ok((load.abs(), reading.age)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::LoadKind;

    fn source(limit: f64) -> LoadSource {
        let kind = LoadKind::Haproxy {
            socket: "/h".into(),
            proxy: "p".into(),
            server: "BACKEND".into(),
            field: "scur".into(),
        };
        LoadSource { kind, limit, timeout: Duration::from_millis(200), every: Duration::from_millis(250) }
    }

    #[test]
    fn the_largest_that_can_be_trusted_counts() {
        let sources = [source(100.0), source(1.0)];
        let at = |value, age| Some(Reading { value, age: Duration::from_millis(age) });
        let rows = [
            ("both", [at(50.0, 0), at(0.7, 0)], Some(0.7)),
            ("the first is larger", [at(90.0, 0), at(0.7, 0)], Some(0.9)),
            ("one is missing", [at(50.0, 0), None], Some(0.5)),
            ("at the edge of age", [at(50.0, 750), None], Some(0.5)),
            ("too old", [at(50.0, 751), None], None),
            ("not a number", [at(f64::NAN, 0), at(0.2, 0)], Some(0.2)),
            ("infinite", [at(f64::INFINITY, 0), None], None),
            ("negative", [at(-1.0, 0), None], None),
            ("negative zero is zero", [at(-0.0, 0), None], Some(0.0)),
            ("absurd", [at(100_001.0, 0), None], None),
            ("high, not absurd", [at(100_000.0, 0), None], Some(1000.0)),
            ("none", [None, None], None),
        ];
        for (name, readings, expected) in rows {
            let load = Load::default().update(Duration::ZERO, &readings, &sources).map(|load| load.value);
            assert_eq!(load.map(f64::to_bits), expected.map(f64::to_bits), "{name}");
        }
    }

    #[test]
    fn what_is_not_used_says_why() {
        let source = source(100.0);
        for (value, age, said) in [
            (f64::NAN, 0, "not a number"),
            (-1.0, 0, "negative"),
            (f64::INFINITY, 0, "absurd, more than 1000 times its limit"),
            (100_001.0, 0, "absurd, more than 1000 times its limit"),
            (50.0, 751, "stale"),
        ] {
            let error = trust(Reading { value, age: Duration::from_millis(age) }, &source).unwrap_err();
            assert_eq!(error.to_string(), said, "{value}");
        }
        assert!(trust(Reading { value: 50.0, age: Duration::from_millis(750) }, &source).is_ok());
    }

    #[test]
    fn smoothing_follows_within_seconds() {
        let (mut load, sources) = (Load::default(), [source(1.0)]);
        let mut at = |value| {
            let reading = [Some(Reading { value, age: Duration::ZERO })];
            load.update(Duration::from_millis(250), &reading, &sources).unwrap().smooth
        };
        assert_eq!(at(0.2), 0.2);
        let first = at(1.0);
        assert!((0.3..0.4).contains(&first), "{first}");
        assert!((0..20).map(|_| at(1.0)).last().unwrap() > 0.98);
    }
}
