//! The burst binary.
fn main() {}
