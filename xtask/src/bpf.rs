//! Builds the BPF object: finds a Rust toolchain that can compile `core` for BPF, points bpf-linker at the LLVM
//! of that toolchain, and runs its cargo.
//!
//! Shared by `xtask` and, through `#[path]`, by `burst-user/build.rs`: it uses the standard library alone. It
//! installs nothing; `setup` does.
//!
//! `core` takes tens of seconds to compile and cargo keeps it per target directory, so everybody uses the same one,
//! `target/bpf`, whatever the profile of the host build. Cargo's own lock makes that safe at the same time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, error, fmt, fs, io};

/// Version of bpf-linker that is built and used.
pub(crate) const LINKER_VERSION: &str = "0.10.3";
/// Major version of the LLVM that this bpf-linker is written for (its `llvm-sys` dependency).
const LLVM_MAJOR: u32 = 22;
/// The package of burst's own program.
pub(crate) const PROGRAM: &str = "burst-ebpf";
/// The target whose `core` is built: little-endian, as all hosts burst runs on are.
const TARGET: &str = "bpfel-unknown-none";
/// Names a prefix (as `rustc --print sysroot` prints it) to build with, and no other.
pub(crate) const TOOLCHAIN_VAR: &str = "BURST_BPF_TOOLCHAIN";
/// Names a finished BPF object to embed; nothing is compiled then.
pub(crate) const OBJECT_VAR: &str = "BURST_BPF_OBJECT";
/// Where Debian's packages put Rust.
const DEBIAN: &str = "/usr";

/// Why there is no BPF object.
#[derive(Debug)]
pub(crate) enum Error {
    /// No toolchain can build `core` for BPF: each one looked at, and what it lacks.
    NoToolchain(Vec<(PathBuf, String)>),
    /// The toolchain named by [`TOOLCHAIN_VAR`] cannot: its prefix, and what it lacks.
    BadToolchain(PathBuf, String),
    /// bpf-linker is not where `setup` puts it.
    NoLinker(PathBuf),
    /// A file could not be read or written: what was tried, and the cause.
    Io(String, io::Error),
    /// Cargo ran and failed; it has said why itself.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain(tried) => {
                write!(f, "no Rust toolchain can compile the BPF program")?;
                for (sysroot, lacks) in tried {
                    write!(f, "; {}: {lacks}", sysroot.display())?;
                }
                write!(
                    f,
                    "; run `cargo xtask setup`, or `rustup toolchain install nightly --component rust-src`, or on \
                     Debian `apt-get install rustc-web cargo-web rust-web-src`, or name a toolchain's prefix in \
                     {TOOLCHAIN_VAR}, or a finished object in {OBJECT_VAR}"
                )
            }
            Self::BadToolchain(sysroot, lacks) => {
                write!(f, "{TOOLCHAIN_VAR} names {}, which {lacks}: name another prefix, or none", sysroot.display())
            }
            Self::NoLinker(path) => write!(f, "{} is missing: run `cargo xtask setup`", path.display()),
            Self::Io(what, cause) => write!(f, "{what}: {cause}"),
            Self::Failed(what) => write!(f, "{what}"),
        }
    }
}

impl error::Error for Error {}

/// A Rust toolchain that can compile `core` for BPF.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its prefix.
    pub(crate) sysroot: PathBuf,
    /// What it calls itself.
    pub(crate) version: String,
    /// The shared LLVM its rustc uses. The bitcode of one LLVM is not safe to read with an older one.
    llvm: PathBuf,
}

/// The first usable toolchain: the one named by [`TOOLCHAIN_VAR`], else rustup's nightly, else Debian's.
///
/// # Errors
/// [`Error::BadToolchain`] or [`Error::NoToolchain`], with what each one lacks.
pub(crate) fn toolchain() -> Result<Toolchain, Error> {
    if let Some(named) = env::var_os(TOOLCHAIN_VAR) {
        let sysroot = PathBuf::from(named);
        return inspect(&sysroot).map_err(|lacks| Error::BadToolchain(sysroot, lacks));
    }
    let mut tried = Vec::new();
    for sysroot in rustup_nightlies().into_iter().chain([PathBuf::from(DEBIAN)]) {
        match inspect(&sysroot) {
            Ok(toolchain) => return Ok(toolchain),
            Err(lacks) => tried.push((sysroot, lacks)),
        }
    }
    Err(Error::NoToolchain(tried))
}

/// Where rustup keeps nightly, looked up in its directory: asking rustup itself may make it download.
fn rustup_nightlies() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let Some(home) = home else { return Vec::new() };
    ["gnu", "musl"]
        .iter()
        .map(|libc| home.join(format!("toolchains/nightly-{}-unknown-linux-{libc}", env::consts::ARCH)))
        .filter(|sysroot| sysroot.is_dir())
        .collect()
}

/// The toolchain at a prefix, or what it lacks.
fn inspect(sysroot: &Path) -> Result<Toolchain, String> {
    for (needed, name) in [
        ("bin/rustc", "rustc"),
        ("bin/cargo", "cargo"),
        ("lib/rustlib/src/rust/library/core/Cargo.toml", "the sources of core (rust-src)"),
    ] {
        if !sysroot.join(needed).is_file() {
            return Err(format!("has no {name}"));
        }
    }
    let output = Command::new(sysroot.join("bin/rustc"))
        .arg("-vV")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .map_err(|cause| format!("its rustc does not run: {cause}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().unwrap_or_default().to_owned();
    let llvm = text.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or_default();
    let mut numbers = llvm.split('.').map(|number| number.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return Err("its rustc does not tell its LLVM version".to_owned());
    };
    if major != LLVM_MAJOR {
        return Err(format!("brings LLVM {major}, and bpf-linker {LINKER_VERSION} needs LLVM {LLVM_MAJOR}"));
    }
    let llvm = shared_llvm(sysroot, major, minor)
        .ok_or_else(|| format!("has no shared library of LLVM {major}.{minor} under its lib directory"))?;
    Ok(Toolchain { sysroot: sysroot.to_owned(), version, llvm })
}

/// The file of a toolchain's shared LLVM. Its name is not one that bpf-linker looks for.
fn shared_llvm(sysroot: &Path, major: u32, minor: u32) -> Option<PathBuf> {
    /// Smaller files of such a name are linker scripts.
    const LEAST_BYTES: u64 = 1 << 20;
    let names = [format!("libLLVM.so.{major}.{minor}"), format!("libLLVM-{major}")];
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    let mut found: Vec<PathBuf> = ["lib", &multiarch, "lib64"]
        .iter()
        .filter_map(|dir| fs::read_dir(sysroot.join(dir)).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| {
            let name = entry.file_name();
            names.iter().any(|known| name.to_string_lossy().starts_with(known.as_str()))
        })
        .filter_map(|entry| fs::canonicalize(entry.path()).ok())
        .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > LEAST_BYTES))
        .collect();
    found.sort();
    found.into_iter().next()
}

/// Where bpf-linker and the link to its LLVM live.
pub(crate) fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// bpf-linker, where `setup` puts it.
pub(crate) fn linker(root: &Path) -> PathBuf {
    tools(root).join("bin/bpf-linker")
}

/// Makes `target/tools/lib/libLLVM.so` name the toolchain's LLVM: bpf-linker opens the first `libLLVM*.so` in `../lib`
/// of an entry of `PATH`, so there must be exactly one and it must be the right one.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn link_llvm(root: &Path, toolchain: &Toolchain) -> Result<(), Error> {
    let lib = tools(root).join("lib");
    let link = lib.join("libLLVM.so");
    if fs::read_link(&link).is_ok_and(|target| target == toolchain.llvm) {
        return Ok(());
    }
    // A rename, so that a linker at work beside us sees the old link or the new one, never none.
    let fresh = lib.join(format!(".libLLVM.{}", std::process::id()));
    fs::create_dir_all(&lib)
        .and_then(|()| std::os::unix::fs::symlink(&toolchain.llvm, &fresh))
        .and_then(|()| fs::rename(&fresh, &link))
        .map_err(|cause| Error::Io(format!("cannot link {} to {}", link.display(), toolchain.llvm.display()), cause))
}

/// A cargo command (`program` is `cargo` or `cargo-clippy`, `subcommand` its first argument) on BPF programs, for
/// a host of architecture `arch` (as `CARGO_CFG_TARGET_ARCH` spells it: register names in tracing contexts differ).
/// The caller names the packages.
pub(crate) fn command(root: &Path, toolchain: &Toolchain, program: &str, subcommand: &str, arch: &str) -> Command {
    let bin = toolchain.sysroot.join("bin");
    let mut command = Command::new(bin.join(program));
    command.current_dir(root).arg(subcommand).args(["--release", "--target", TARGET]);
    command.args(["-Z", "build-std=core", "--target-dir"]).arg(root.join("target/bpf"));

    // What an outer cargo, rustup or the caller set for the host must not reach this build.
    for (name, _) in env::vars_os() {
        if !is_kept(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [tools(root).join("bin"), bin.clone()].into_iter().chain(env::split_paths(&path));
    if let Ok(path) = env::join_paths(path) {
        command.env("PATH", path);
    }
    let flags = ["-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf", &format!("--cfg=bpf_target_arch=\"{arch}\"")]
        .join("\u{1f}");
    command
        .env("CARGO", bin.join("cargo"))
        .env("RUSTC", bin.join("rustc"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // `-Z build-std` on a toolchain that is not a nightly.
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Whether a variable of the caller's environment reaches the build of the BPF program.
fn is_kept(name: &str) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_BUILD_JOBS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUST_BACKTRACE",
    ];
    // Cargo's own, and what it sets for build scripts: aya-ebpf's reads HOST, and would be compiled anew each time one of
    // xtask and a build script follows the other.
    const STRIPPED: [&str; 16] = [
        "AYA_",
        "CARGO",
        "CLIPPY",
        "DEBUG",
        "DEP_",
        "HOST",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUST",
        "TARGET",
        "__CARGO",
    ];
    KEPT.iter().any(|kept| name.starts_with(kept)) || !STRIPPED.iter().any(|stripped| name.starts_with(stripped))
}

/// Builds the BPF object of a package (release, whatever the host's profile) and says where it is.
///
/// # Errors
/// [`Error::NoLinker`], [`Error::Io`], or [`Error::Failed`] after cargo has printed why.
pub(crate) fn build(root: &Path, toolchain: &Toolchain, package: &str, arch: &str) -> Result<PathBuf, Error> {
    let linker = linker(root);
    if !linker.is_file() {
        return Err(Error::NoLinker(linker));
    }
    link_llvm(root, toolchain)?;
    let mut cargo = command(root, toolchain, "cargo", "build", arch);
    cargo.args(["--package", package]);
    let status = cargo.status().map_err(|cause| Error::Io(format!("cannot run {cargo:?}"), cause))?;
    if !status.success() {
        let version = &toolchain.version;
        return Err(Error::Failed(format!("{package} does not build with {version} ({status}); see above")));
    }
    Ok(root.join("target/bpf").join(TARGET).join("release").join(package))
}
