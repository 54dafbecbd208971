//! `cargo xtask setup`: what building, checking and testing need, installed where it is missing.
//!
//! What is there is left alone, and looking costs next to nothing, so every command calls this first. How packages
//! are installed is in `packages.rs`; how the BPF toolchain is found is in `bpf.rs`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::bpf::{self, Toolchain};
use crate::packages::{self, Package};
use crate::run::{Needs, cargo, is_installed, root, run, say};

/// What the machine is set up for; each includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    /// Compiling everything.
    Build,
    /// Lints, for BPF too.
    Check,
    /// The root tests and the demo, with the servers and tools they use.
    Test,
}

/// The servers and tools of the root tests, each with the program that shows it is there.
const TEST_PACKAGES: &[Package] = &[
    Package { name: "iproute2", program: "ip", service: None },
    Package { name: "ethtool", program: "ethtool", service: None },
    Package { name: "tcpdump", program: "tcpdump", service: None },
    Package { name: "bpftool", program: "bpftool", service: None },
    Package { name: "nftables", program: "nft", service: Some("nftables") },
    Package { name: "nginx-light", program: "nginx", service: Some("nginx") },
    Package { name: "haproxy", program: "haproxy", service: Some("haproxy") },
    Package { name: "prometheus", program: "prometheus", service: Some("prometheus") },
];

/// Certificates, for downloads.
const CERTIFICATES: Package = Package { name: "ca-certificates", program: "update-ca-certificates", service: None };

/// The linker driver that rustc calls.
const CC: Package = Package { name: "gcc", program: "cc", service: None };

/// Debian's Rust, which brings the sources of core.
const DEBIAN_RUST: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// Installs what is missing for a purpose.
///
/// # Errors
/// [`Needs`] when the machine is not one we can install on; else what failed.
pub(crate) fn setup(purpose: For) -> Result<()> {
    let mut packages = Vec::new();
    if purpose >= For::Test {
        packages.extend(TEST_PACKAGES.iter().filter(|package| !is_installed(package.program)));
    }
    packages.extend([&CC, &CERTIFICATES].into_iter().filter(|package| !is_installed(package.program)));
    packages::install(&packages)?;

    let (toolchain, mut changed) = match bpf::toolchain() {
        Ok(toolchain) => (toolchain, false),
        Err(lack @ bpf::Error::NoToolchain(_)) => (install_toolchain(&lack)?, true),
        Err(other) => return Err(other.into()),
    };
    changed |= install_linker()?;
    bpf::link_llvm(root(), &toolchain)?;
    if changed {
        say(format_args!("setup: BPF is built with {} in {}", toolchain.version, toolchain.sysroot.display()));
        // burst-user's build script watches this directory: it now finds what it lacked before.
        let note = bpf::linker(root()).with_file_name("toolchain.txt");
        fs::write(&note, format!("{}\n{}\n", toolchain.sysroot.display(), toolchain.version))
            .with_context(|| format!("cannot write {}", note.display()))?;
    }
    if purpose >= For::Check {
        install_clippy(&toolchain)?;
    }
    if purpose == For::Test && !changed && packages.is_empty() {
        say("setup: complete");
    }
    Ok(())
}

/// Gets a toolchain that can build `core` for BPF: Debian's packages on Debian, else rustup's nightly.
fn install_toolchain(lack: &bpf::Error) -> Result<Toolchain> {
    if packages::can_install() {
        match packages::install_names(DEBIAN_RUST) {
            Err(error) if is_installed("rustup") => say(format_args!("setup: {error:#}; trying rustup")),
            outcome => {
                outcome?;
                return bpf::toolchain().context("installed, but still not usable");
            }
        }
    }
    if !is_installed("rustup") {
        bail!(Needs(lack.to_string()));
    }
    say("setup: installing the sources of core and clippy for rustup's nightly");
    if run(&mut rustup(&["component", "add", "--toolchain", "nightly", "rust-src", "clippy"])).is_err() {
        let install = ["toolchain", "install", "nightly", "--no-self-update", "--profile", "minimal"];
        run(rustup(&install).args(["--component", "rust-src", "--component", "clippy"]))?;
    }
    bpf::toolchain().context("installed, but still not usable")
}

/// A rustup command, bounded: a download without a network may hang.
fn rustup(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "600", "rustup"]).args(arguments).stdin(Stdio::null());
    command
}

/// Builds bpf-linker under `target/tools` unless the right version is there; whether it did.
fn install_linker() -> Result<bool> {
    let linker = bpf::linker(root());
    if linker_version(&linker).is_some_and(|version| version == bpf::LINKER_VERSION) {
        return Ok(false);
    }
    say(format_args!("setup: building bpf-linker {} (about a minute) into target/tools", bpf::LINKER_VERSION));
    let mut install = cargo("install");
    install.args(["bpf-linker", "--version", bpf::LINKER_VERSION, "--locked", "--force", "--quiet", "--root"]);
    run(install.arg(bpf::tools(root())).stdin(Stdio::null()))?;
    Ok(true)
}

/// The version of a bpf-linker; `None` when it is absent or does not run.
fn linker_version(linker: &Path) -> Option<String> {
    let output = Command::new(linker).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("bpf-linker ").map(str::to_owned)
}

/// Gets the clippy of the BPF toolchain.
fn install_clippy(toolchain: &Toolchain) -> Result<()> {
    let clippy = toolchain.sysroot.join("bin/cargo-clippy");
    if clippy.is_file() {
        return Ok(());
    }
    if toolchain.sysroot != Path::new("/usr") {
        bail!(Needs(format!("{} is missing: add clippy to that toolchain", clippy.display())));
    }
    packages::install_names(&["rust-web-clippy"])
}
