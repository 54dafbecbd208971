//! The archive that a kernel unpacks as its first root directory (cpio(5), "New ASCII Format").

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::is_elf;

/// An archive in the making.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    /// What is in it.
    names: BTreeSet<PathBuf>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl Archive {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self { bytes: Vec::new(), names: BTreeSet::new(), entries: 0 }
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        let path = Path::new(path);
        self.parents(path);
        self.entry(path, LINK, target.as_bytes());
    }

    /// A file that may be run.
    pub(crate) fn file(&mut self, path: impl AsRef<Path>, content: &[u8]) {
        self.parents(path.as_ref());
        self.entry(path.as_ref(), PROGRAM, content);
    }

    /// A file of this machine under the name `path`; of a program, its shared libraries, too.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn copy(&mut self, from: &Path, path: impl AsRef<Path>) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(path, &content);
        if is_elf(&content) {
            for library in libraries(from)? {
                if !self.names.contains(&library) {
                    let content = fs::read(&library).with_context(|| format!("reading {}", library.display()))?;
                    self.file(&library, &content);
                }
            }
        }
        Ok(())
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.bytes
    }

    /// The directories above a path.
    fn parents(&mut self, path: &Path) {
        let above: Vec<_> = path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        for directory in above.into_iter().rev() {
            if !self.names.contains(directory) {
                self.entry(directory, DIRECTORY, &[]);
            }
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.names.insert(path.to_owned());
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        self.entries += 1;
        // Number, mode, user, group, links, time, size, four device numbers, length of the name, check sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The shared libraries of a program, and what loads them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "name => /path (address)", or "/path (address)". Of a static program, neither.
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_aligned_and_directories_come_first() {
        let mut archive = Archive::new();
        archive.file("/a/b", b"xyz");
        archive.link("/a/c", "b");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let starts: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        let names: Vec<_> = starts.iter().map(|at| text[at + 110..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["a", "a/b", "a/c", "TRAILER!!!"]);
        // Mode and size are the second and the seventh field.
        let field = |entry: usize, number: usize| &text[starts[entry] + 6 + number * 8..][..8];
        assert_eq!((field(0, 1), field(1, 1), field(1, 6)), ("000041ed", "000081ed", "00000003"));
        assert!(text[starts[1]..].starts_with(&format!("{}a/b\0\0\0xyz\0", &text[starts[1]..starts[1] + 110])));
    }
}
