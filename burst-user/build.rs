//! Builds the BPF object and leaves it in `OUT_DIR` for `src/object.rs` to embed.
//!
//! Without a BPF toolchain the crate still builds, so that checks and host tests need nothing but stable Rust: it then
//! has `cfg(burst_no_object)` and says at run time what is missing. A toolchain that is there and fails is an error.

#[path = "../xtask/src/bpf.rs"]
mod bpf;

use std::path::{Path, PathBuf};
use std::{env, fs};

/// What the object is made from, relative to the workspace's root.
const INPUTS: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "burst-common/Cargo.toml",
    "burst-common/src",
    "burst-ebpf/Cargo.toml",
    "burst-ebpf/src",
    "xtask/src/bpf.rs",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("this crate lies in the workspace's root directory")?;
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("burst-ebpf");

    watch(root)?;
    match object(root) {
        Ok(object) => {
            let bytes = fs::read(&object).map_err(|cause| format!("cannot read {}: {cause}", object.display()))?;
            fs::write(&embedded, bytes).map_err(|cause| format!("cannot write {}: {cause}", embedded.display()))?;
        }
        Err(error @ (bpf::Error::NoToolchain(_) | bpf::Error::NoLinker(_))) => {
            println!("cargo::rustc-cfg=burst_no_object");
            println!("cargo::warning=burst is built without its BPF object and cannot be run: {error}");
        }
        Err(error @ (bpf::Error::BadToolchain(..) | bpf::Error::Io(..) | bpf::Error::Failed(_))) => {
            println!("cargo::error={error}");
        }
    }
    Ok(())
}

/// The object to embed: the one the environment names, else a fresh one.
fn object(root: &Path) -> Result<PathBuf, bpf::Error> {
    if let Some(named) = env::var_os(bpf::OBJECT_VAR) {
        return Ok(PathBuf::from(named));
    }
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    bpf::build(root, &bpf::toolchain()?, bpf::PROGRAM, &arch)
}

/// Tells cargo when to run this again.
fn watch(root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for variable in [bpf::OBJECT_VAR, bpf::TOOLCHAIN_VAR] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Some(named) = env::var_os(bpf::OBJECT_VAR) {
        println!("cargo::rerun-if-changed={}", named.display());
    }
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    // `setup` changes this directory when it installs something. It must exist: cargo takes an absent path for a
    // changed one, and would compile this crate anew each time.
    let tools = bpf::linker(root).with_file_name("");
    fs::create_dir_all(&tools)?;
    println!("cargo::rerun-if-changed={}", tools.display());
    Ok(())
}
