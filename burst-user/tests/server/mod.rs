//! A real server for one test: started with its own directory, ended with the test, also when that panics.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use burst::decide::Reading;
use burst::observe::Source;
use tokio::time::{Instant, timeout};

/// A running server.
pub(crate) struct Server {
    child: Child,
    log: std::path::PathBuf,
}

impl Server {
    /// Starts `program` of the Debian package of the same name; its output goes to a file in `directory`.
    pub(crate) fn start(program: &str, arguments: &[impl AsRef<OsStr>], directory: &Path) -> Self {
        let log = directory.join("output.log");
        let (out, err) = (File::create(&log).unwrap(), File::options().append(true).open(&log).unwrap());
        let path = format!("{}:/usr/sbin:/usr/bin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", path).stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("this test needs the real {program}, which does not start ({error}): apt-get install {program}")
        });
        Self { child, log }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("output of the server:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Waits, ten seconds at most, for a reading that is as expected.
pub(crate) async fn reading(source: &mut Source, expected: impl Fn(&Reading) -> bool) -> Reading {
    let wait = async {
        loop {
            source.changed().await;
            if let Some(reading) = source.reading(Instant::now()).filter(|reading| expected(reading)) {
                return reading;
            }
        }
    };
    let result = timeout(Duration::from_secs(10), wait).await;
    result.unwrap_or_else(|_| panic!("not within ten seconds: {:?}", source.status(Instant::now())))
}
