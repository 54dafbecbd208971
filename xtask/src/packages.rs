//! Installing Debian packages without starting what they bring. What is wanted is decided in `setup.rs`.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{Needs, is_installed, is_root, run, say};

/// A Debian package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: &'static str,
    /// A program it brings; where that is, whoever brought it, nothing is installed.
    pub(crate) program: &'static str,
    /// The service it would start, now and at every boot.
    pub(crate) service: Option<&'static str>,
}

/// Installs the packages named by its arguments, with no service started.
const INSTALL: &str = include_str!("install.sh");

/// Whether this is Debian and we are root.
pub(crate) fn can_install() -> bool {
    is_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default()) && is_root() && is_installed("apt-get")
}

/// Whether an os-release file says Debian itself: derivatives name and split packages differently.
fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| matches!(line, "ID=debian" | "ID=\"debian\""))
}

/// Installs packages, and keeps the services they bring from starting now or at the next boot.
///
/// # Errors
/// [`Needs`], with what to install, where we cannot; else apt's failure, after it has said why.
pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !can_install() {
        let wanted: Vec<_> = packages.iter().map(|p| format!("  {} (Debian: {})", p.program, p.name)).collect();
        bail!(Needs(format!(
            "these programs are missing, and setup installs packages only on Debian, as root:\n{}\nInstall them and run \
             this again.",
            wanted.join("\n")
        )));
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    install_names(&names)?;
    for service in packages.iter().filter_map(|package| package.service) {
        keep_off(service)?;
    }
    Ok(())
}

/// Installs packages that bring no service.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_names(names: &[&str]) -> Result<()> {
    if !can_install() {
        bail!(Needs(format!(
            "setup installs packages only on Debian, as root. Install what these Debian packages bring: {}",
            names.join(" ")
        )));
    }
    say(format_args!("setup: installing {}", names.join(" ")));
    let mut sh = Command::new("sh");
    sh.args(["-c", INSTALL, "setup"]).args(names).stdin(Stdio::null());
    let status = sh.status().context("cannot run sh")?;
    if status.code() == Some(3) {
        bail!(Needs("a policy-rc.d of this machine's own stands in the way; see above".to_owned()));
    }
    if !status.success() {
        bail!("installing {} failed ({status}); see above", names.join(" "));
    }
    Ok(())
}

/// A service that came with a package: not at the next boot either.
fn keep_off(service: &str) -> Result<()> {
    if is_installed("systemctl") {
        run(Command::new("systemctl").args(["--quiet", "disable", service]).stderr(Stdio::null()))
    } else if is_installed("update-rc.d") {
        run(Command::new("update-rc.d").args([service, "disable"]))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_debian;

    #[test]
    fn debian_is_told_from_its_derivatives() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n"));
        assert!(is_debian("ID=\"debian\"\n"));
        assert!(!is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(!is_debian(""));
    }
}
