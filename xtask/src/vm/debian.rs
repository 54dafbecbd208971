//! Debian packages for virtual machines: found, downloaded and unpacked under `target/vm`, never installed. The machine's
//! own package lists stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::run::{Needs, is_installed, run, say, words};

/// Package lists older than this are fetched again.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite with package lists of its own.
pub(super) struct Suite {
    name: String,
    dir: PathBuf,
}

impl Suite {
    /// Opens a suite below `dir`, and fetches its lists where they are missing or old. Where it is fetched from, the
    /// machine's own package sources say.
    ///
    /// # Errors
    /// [`Needs`] where this is no Debian; else what apt could not do.
    pub(super) fn open(dir: &Path, name: &str) -> Result<Self> {
        if !is_installed("apt-get") || !Path::new(KEYRING).is_file() {
            bail!(Needs("virtual machines are made of Debian's packages: run this on Debian".to_owned()));
        }
        let suite = Self { name: name.to_owned(), dir: dir.join("apt").join(name) };
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = suite.dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let done = suite.dir.join("updated");
        let age = fs::metadata(&done).and_then(|meta| meta.modified()).ok();
        let fresh = age.is_some_and(|then| SystemTime::now().duration_since(then).is_ok_and(|age| age < FRESH));
        if !fresh {
            say(format_args!("vm: package lists of {name}"));
            let source = format!("deb [signed-by={KEYRING}] {} {name} main\n", mirror(name.ends_with("-security"))?);
            fs::write(suite.dir.join("source.list"), source)?;
            run(suite.apt("apt-get", Path::new("/dev/null")).args(["-qq", "update"]))?;
            fs::write(&done, "")?;
        }
        Ok(suite)
    }

    /// An apt command with this suite's lists alone, on a machine with the packages that `status` lists.
    fn apt(&self, tool: &str, status: &Path) -> Command {
        let mut command = Command::new(tool);
        for (key, value) in [
            ("Dir::Etc::sourcelist", self.dir.join("source.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::Lists", self.dir.join("lists")),
            ("Dir::Cache", self.dir.join("cache")),
            ("Dir::State::status", status.to_owned()),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        command.args(["-o", "APT::Sandbox::User=root"]).stdin(Stdio::null());
        command
    }

    /// Its packages whose names begin with `prefix`.
    ///
    /// # Errors
    /// When apt fails.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let output = output(self.apt("apt-cache", Path::new("/dev/null")).args(["pkgnames", prefix]))?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// What would have to be installed here for these packages to work, themselves included.
    ///
    /// # Errors
    /// When apt sees no way.
    pub(super) fn missing(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut apt = self.apt("apt-get", Path::new("/var/lib/dpkg/status"));
        apt.args(["--simulate", "--no-install-recommends", "install"]).args(packages);
        let lines = output(&mut apt)?;
        let installed = lines.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        Ok(installed.map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them into `dir`.
    ///
    /// # Errors
    /// When one cannot be had.
    pub(super) fn unpack(&self, packages: &[String], dir: &Path) -> Result<()> {
        let debs = self.dir.join("debs");
        fs::create_dir_all(&debs)?;
        fs::create_dir_all(dir)?;
        say(format_args!("vm: downloading {} from {}", packages.join(" "), self.name));
        let mut download = self.apt("apt-get", Path::new("/dev/null"));
        run(download.args(["-qq", "download"]).args(packages).current_dir(&debs))?;
        for entry in fs::read_dir(&debs)? {
            run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(dir))?;
        }
        fs::remove_dir_all(&debs)?;
        Ok(())
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", words(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", words(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("what {} wrote", words(command)))
}

/// Where this machine gets Debian from, or its security updates.
fn mirror(security: bool) -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(listing) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(listing.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let mut sources = texts.flat_map(|text| sources(&text));
    let wanted =
        |suite: &String| CODENAMES.iter().any(|name| suite.starts_with(name)) && is_security(suite) == security;
    let found = sources.find(|(_, suites)| suites.iter().any(wanted));
    let what = if security { "security updates" } else { "packages" };
    found.map(|(uri, _)| uri).with_context(|| format!("no source of Debian's {what} in /etc/apt/sources.list.d"))
}

const CODENAMES: [&str; 3] = ["bookworm", "trixie", "forky"];

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security")
}

/// The sources in a file of either format (sources.list(5)): address and suites.
fn sources(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    // One line each: "deb [options] uri suite component…".
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, rest)| rest) } else { rest };
        let mut words = rest.split_whitespace().map(str::to_owned);
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            found.push((uri, vec![suite]));
        }
    }
    // Stanzas of "Key: value".
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let line = stanza.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        if let (Some(uris), Some(suites)) = (field("URIs:"), field("Suites:")) {
            found.extend(uris.into_iter().next().map(|uri| (uri, suites)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::sources;

    #[test]
    fn sources_are_read_in_both_formats() {
        let wanted = |suites: &[&str]| {
            vec![("https://deb.example/debian".to_owned(), suites.iter().map(|&suite| suite.to_owned()).collect())]
        };
        assert_eq!(sources("# deb x y\ndeb https://deb.example/debian bookworm main\n"), wanted(&["bookworm"]));
        assert_eq!(
            sources("deb [arch=amd64 signed-by=/k] https://deb.example/debian bookworm main\n"),
            wanted(&["bookworm"])
        );
        assert_eq!(
            sources(
                "Types: deb\nURIs: https://deb.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
            ),
            wanted(&["bookworm", "bookworm-updates"])
        );
        assert_eq!(sources("Types: deb\n\nSuites: bookworm\n"), []);
    }
}
