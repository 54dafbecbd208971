//! Text → validated configuration, or errors that point into the file.

pub mod model;
