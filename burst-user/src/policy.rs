//! Validated configuration → what the packet path is told: ids, rule tables, endpoint rows, return rows.
//!
//! Pure: it opens nothing and writes nothing. The loader puts the results into the program and its maps.

pub mod ids;
pub mod translate;
// `returns` places what `translate` lists; `dimensions` turns rules into bitmaps; `compile` puts all together.
pub mod compile;
pub mod dimensions;
pub mod matcher;
pub mod returns;
