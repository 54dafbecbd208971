//! Kernels to be had as Debian packages, and the modules that tests want, in the order in which they can be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::debian::Suite;
use crate::run::{say, words};

/// Suites that have kernels of other versions.
const SUITES: [&str; 3] = ["bookworm", "bookworm-security", "trixie-backports"];
/// What a package of a kernel for virtual machines is called: smaller than others, with all that tests need.
const FLAVOUR: &str = "-cloud-amd64";

/// Modules that tests may need and that are not part of every kernel. What they depend on is found.
const MODULES: [&str; 24] = [
    "veth",
    "dummy",
    "tun",
    "8021q",
    "ipip",
    "sit",
    "ip_gre",
    "ip6_tunnel",
    "fou",
    "fou6",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "sch_netem",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_chain_nat",
    "nft_hash",
    "nft_numgen",
    "nf_conntrack",
    "inet_diag",
    "tcp_diag",
    "af_packet",
];

/// A kernel, unpacked.
pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The file to boot.
    pub(crate) image: PathBuf,
    /// Its modules, in the order in which they can be loaded.
    pub(crate) modules: Vec<PathBuf>,
}

/// A kernel's package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    version: Vec<u32>,
    release: String,
    suite: usize,
}

/// The newest kernel of a version (`6.12`), or of all (`newest`), unpacked below `dir`.
///
/// # Errors
/// When there is none, or it cannot be had.
pub(crate) fn get(dir: &Path, wanted: &str) -> Result<Kernel> {
    get_from(dir, &SUITES, wanted)
}

/// As [`get`], from these suites.
///
/// # Errors
/// As [`get`].
pub(crate) fn get_from(dir: &Path, names: &[&str], wanted: &str) -> Result<Kernel> {
    let mut all = Vec::new();
    let mut suites = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let suite = Suite::open(dir, name)?;
        let packages = suite.names("linux-image-")?;
        all.extend(packages.iter().filter_map(|name| found(name, number)));
        suites.push(suite);
    }
    let Some(best) = all.iter().filter(|found| matches(&found.release, wanted)).max() else {
        let versions: BTreeSet<_> = all.iter().map(|found| series(&found.release)).collect();
        let versions = versions.into_iter().collect::<Vec<_>>().join(" ");
        bail!("no kernel {wanted} in {}; there are: newest {versions}", names.join(", "));
    };
    let suite = &suites[best.suite];
    let release = &best.release;
    let root = dir.join("kernels").join(release);
    if !root.join("unpacked").is_file() {
        // Up to 6.18 one package holds all; later ones come in parts.
        let mut packages = vec![format!("linux-image-{release}")];
        let parts = [format!("linux-binary-{release}"), format!("linux-modules-{release}")];
        if suite.names(&parts[0])?.contains(&parts[0]) {
            packages = parts.to_vec();
        }
        suite.unpack(&packages, &root)?;
        fs::write(root.join("unpacked"), packages.join(" "))?;
    }
    let image = files(&root)?
        .into_iter()
        .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    let image = image.with_context(|| format!("no kernel image below {}", root.display()))?;
    Ok(Kernel { release: release.clone(), image, modules: modules(dir, &root, release)? })
}

/// A package of a kernel, if it is one.
fn found(package: &str, suite: usize) -> Option<Found> {
    let release = package.strip_prefix("linux-image-")?;
    let version = release.strip_suffix(FLAVOUR)?;
    let numbers: Vec<u32> = version.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    // "linux-image-cloud-amd64" and the like name others.
    (version.starts_with(|c: char| c.is_ascii_digit()) && numbers.len() > 2).then(|| Found {
        version: numbers,
        release: release.to_owned(),
        suite,
    })
}

fn matches(release: &str, wanted: &str) -> bool {
    wanted == "newest" || release == wanted || series(release) == wanted
}

/// The first two numbers of a release.
fn series(release: &str) -> String {
    release.split(['.', '-', '+', '~']).take(2).collect::<Vec<_>>().join(".")
}

/// Puts the wanted modules, unpacked and in order, into a directory of their own, and lists them.
fn modules(dir: &Path, root: &Path, release: &str) -> Result<Vec<PathBuf>> {
    let target = root.join("ordered");
    let list = root.join("ordered.txt");
    if !fs::read_to_string(&list).is_ok_and(|text| text == MODULES.join("\n")) {
        let mut by_name = BTreeMap::new();
        for file in files(root)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((name, _)) = name.split_once(".ko") {
                by_name.insert(name.replace('-', "_"), file);
            }
        }
        ensure!(!by_name.is_empty(), "no modules below {}", root.display());
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::create_dir_all(&target)?;
        let tools = dir.join("tools/usr/bin");
        let mut order = Order { tools, by_name, done: BTreeSet::new(), target: target.clone() };
        let absent: Vec<_> =
            MODULES.into_iter().filter(|name| !order.by_name.contains_key(&name.replace('-', "_"))).collect();
        if !absent.is_empty() {
            say(format_args!("vm: {release} has no modules, or has them built in: {}", absent.join(" ")));
        }
        for name in MODULES {
            order.add(name)?;
        }
        fs::write(&list, MODULES.join("\n"))?;
    }
    let mut modules = files(&target)?;
    modules.sort();
    Ok(modules)
}

/// Modules after what they depend on.
struct Order {
    /// Where programs may be that this machine lacks.
    tools: PathBuf,
    by_name: BTreeMap<String, PathBuf>,
    done: BTreeSet<String>,
    target: PathBuf,
}

impl Order {
    fn add(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        let Some(file) = self.by_name.get(&name) else { return Ok(()) };
        if !self.done.insert(name.clone()) {
            return Ok(());
        }
        let module = self.unpacked(file)?;
        for needed in depends(&module) {
            self.add(&needed)?;
        }
        let number = fs::read_dir(&self.target)?.count();
        fs::write(self.target.join(format!("{number:03}-{name}.ko")), module)?;
        Ok(())
    }

    /// A module's bytes.
    fn unpacked(&self, file: &Path) -> Result<Vec<u8>> {
        let tool = match file.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            _ => return fs::read(file).with_context(|| format!("reading {}", file.display())),
        };
        let unpacked = self.tools.join(tool);
        let mut command = Command::new(if unpacked.is_file() { unpacked } else { tool.into() });
        let output = command.arg("-dc").arg(file).output().with_context(|| format!("cannot run {tool}"))?;
        ensure!(output.status.success(), "{} failed ({})", words(&command), output.status);
        Ok(output.stdout)
    }
}

/// What a module says it depends on: "depends=a,b" among its strings.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let rest = &module[at + KEY.len()..];
    let text = &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())];
    let names = String::from_utf8_lossy(text);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// All files below a directory.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{depends, found, matches, series};

    #[test]
    fn the_newest_of_a_version_is_chosen_by_its_numbers() {
        let old = found("linux-image-6.1.0-9-cloud-amd64", 0).unwrap();
        let new = found("linux-image-6.1.0-49-cloud-amd64", 1).unwrap();
        assert!(old < new);
        assert!(matches(&new.release, "6.1") && matches(&new.release, "newest"));
        let later = found("linux-image-6.12.57+deb12-cloud-amd64", 0).unwrap();
        assert!(!matches(&later.release, "6.1"));
        assert_eq!(series(&later.release), "6.12");
    }

    #[test]
    fn what_is_no_kernel_of_the_flavour_is_left_out() {
        for name in [
            "linux-image-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.1.0-49-amd64",
            "linux-image-6.1.0-49-cloud-amd64-unsigned",
            "linux-image-6.1.0-49-cloud-amd64-dbg",
        ] {
            assert_eq!(found(name, 0), None, "{name}");
        }
    }

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(depends(b"\0license=GPL\0depends=fou,udp_tunnel\0name=x\0"), ["fou", "udp_tunnel"]);
        assert_eq!(depends(b"\0depends=\0"), [""; 0]);
        assert_eq!(depends(b"nothing"), [""; 0]);
    }
}
