//! The fuzz targets over their committed corpus: what fuzzing once found, and a way into every corner that it knows.
//! `cargo xtask fuzz` looks for more.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::path::PathBuf;

/// Runs a target over the files of its corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let listing = std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut files = 0;
    for entry in listing {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| target(&data)) {
            eprintln!("it is {}", path.display());
            std::panic::resume_unwind(panic);
        }
        files += 1;
    }
    assert!(files > 3, "{files} files in {}", corpus.display());
}

#[test]
fn captures() {
    replay("capture", targets::capture);
}

#[test]
fn configurations() {
    replay("config", targets::config);
}

#[test]
fn answers_of_haproxy() {
    replay("haproxy", targets::haproxy);
}

#[test]
fn metrics() {
    replay("metrics", targets::metrics);
}
