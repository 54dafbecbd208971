//! A virtual machine that boots a kernel, runs one script and ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::debian::Suite;
use super::kernel::Kernel;
use crate::run::{Needs, is_installed, say};

/// What a machine is made with, besides its kernel: packages, and the program for which this machine's own would do.
const TOOLS: [(&str, Option<&str>); 4] =
    [("qemu-system-x86", None), ("busybox-static", None), ("xz-utils", Some("xz")), ("zstd", Some("zstd"))];
/// The kernel's command line. Its messages stay out of what the tests write.
const APPEND: &str = "console=ttyS0 quiet loglevel=3 panic=-1 nokaslr mitigations=off audit=0 apparmor=0 \
                      random.trust_cpu=on no_timer_check rcupdate.rcu_expedited=1";
/// Longest life of a machine, in seconds.
const LIMIT: &str = "2700";

/// How instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as it goes, on two processors.
    Fast,
    /// One instruction a nanosecond, on one processor whose features are the same everywhere.
    Counted,
}

/// Programs that machines are run with, unpacked below `target/vm`.
pub(crate) struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Gets them where they are missing. Nothing is installed.
    ///
    /// # Errors
    /// [`Needs`] on another architecture; else what could not be had.
    pub(crate) fn get(dir: &Path) -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!(Needs("virtual machines are made for x86_64 only".to_owned()));
        }
        let root = dir.join("tools");
        if !root.join("unpacked").is_file() {
            let suite = Suite::open(dir, &codename()?)?;
            let wanted = TOOLS.iter().filter(|(_, program)| !program.is_some_and(is_installed));
            let packages = suite.missing(&wanted.map(|(package, _)| *package).collect::<Vec<_>>())?;
            suite.unpack(&packages, &root)?;
            fs::write(root.join("unpacked"), packages.join(" "))?;
        }
        Ok(Self { root })
    }

    /// An archive with what every machine needs: a shell, the first process, and the kernel's modules.
    ///
    /// # Errors
    /// When something cannot be read.
    pub(crate) fn archive(&self, kernel: &Kernel) -> Result<Archive> {
        let mut archive = Archive::new();
        let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| self.root.join(path));
        let busybox = busybox.into_iter().find(|path| path.is_file()).unwrap_or_else(|| "/bin/busybox".into());
        archive.file("/bin/busybox", &fs::read(&busybox).with_context(|| format!("reading {}", busybox.display()))?);
        archive.file("/init", include_bytes!("init.sh"));
        archive.link("/bin/sh", "busybox");
        for module in &kernel.modules {
            let name = module.file_name().context("a module without a name")?;
            archive.file(Path::new("/modules").join(name), &fs::read(module)?);
        }
        Ok(archive)
    }

    /// Boots a kernel on an archive, hands each line that the machine writes to `line`, and returns the status of its
    /// `/payload/run`.
    ///
    /// # Errors
    /// When the machine does not start, or ends without a status.
    pub(crate) fn boot(
        &self,
        kernel: &Kernel,
        archive: Archive,
        pace: Pace,
        mut line: impl FnMut(&str),
    ) -> Result<i32> {
        let ram = kernel.image.with_file_name(format!("initrd-{}", std::process::id()));
        fs::write(&ram, archive.finish()).with_context(|| format!("writing {}", ram.display()))?;
        let outcome = self.command(kernel, &ram, pace).and_then(|mut command| {
            let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run timeout and qemu")?;
            let mut status = None;
            let output = BufReader::new(child.stdout.take().context("the machine's output is not piped")?);
            for bytes in output.split(b'\n') {
                let text = String::from_utf8_lossy(&bytes?).trim_end_matches('\r').to_owned();
                if let Some(code) = text.strip_prefix("burst-vm: exit ") {
                    status = code.trim().parse().ok();
                }
                line(&text);
            }
            let ended = child.wait()?;
            status.with_context(|| format!("the machine ended without saying how its tests did ({ended})"))
        });
        fs::remove_file(&ram)?;
        outcome
    }

    fn command(&self, kernel: &Kernel, ram: &Path, pace: Pace) -> Result<Command> {
        let mut command = Command::new("timeout");
        let qemu = self.root.join("usr/bin/qemu-system-x86_64");
        let qemu = if qemu.is_file() { qemu } else { "qemu-system-x86_64".into() };
        command.args(["--kill-after=5", LIMIT]).arg(qemu);
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| self.root.join(path));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
        for firmware in ["usr/share/seabios", "usr/share/qemu", "usr/share/ipxe/qemu"] {
            command.arg("-L").arg(self.root.join(firmware));
        }
        command.args(["-M", "q35", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-serial", "stdio", "-m", "2048"]);
        match pace {
            Pace::Fast => command.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2"]),
            Pace::Counted => command.args([
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-cpu",
                "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+movbe,+bmi1,+bmi2",
                "-smp",
                "1",
            ]),
        };
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(ram).args(["-append", APPEND]);
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// The name of the Debian that this machine runs.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let Some(name) = name else {
        bail!(Needs("virtual machines are made of Debian's packages: run this on Debian".to_owned()));
    };
    say(format_args!("vm: tools of Debian {name}"));
    Ok(name.trim_matches('"').to_owned())
}
