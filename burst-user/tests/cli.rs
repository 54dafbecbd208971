//! The binary as scripts see it: exit codes, what goes to standard output and what to standard error.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use burst::api::types::{Mode, Status, VERSION};
use burst::api::{ApiError, Command as Order, Socket, serve};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};

const CONFIG: &str = r#"
version = 1

[edge]
name   = "edge-a1"
client = ["eth0"]
seed   = "one-string-for-all-edges"

[[link]]
name     = "dx-seoul-1"
device   = "eth1"
next_hop = "10.64.0.1"

[class.payment]
keep  = true
match = [{ dst = ["203.0.113.10/32"], proto = "tcp", ports = [443] }]

[class.promo]
match     = [{ dst = ["203.0.113.20/32"], proto = "tcp", ports = [80, 443] }]
when_full = "local"

[class.promo.local]
capacity = "1000 flows/s"

[[class.promo.tier]]
name      = "reserved"
mode      = "dnat"
endpoints = ["10.20.0.10", "10.20.0.11"]
links     = ["dx-seoul-1"]
capacity  = "20k flows/s"
"#;

fn burst(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burst"));
    command.args(arguments).env_remove("BURST_SOCKET").env_remove("BURST_LOG");
    command.output().expect("the burst binary")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Runs burst, checks its exit code and gives standard output and standard error.
fn expect(code: i32, arguments: &[&str]) -> (String, String) {
    let output = burst(arguments);
    let (out, err) = (text(&output.stdout).to_owned(), text(&output.stderr).to_owned());
    assert_eq!(output.status.code(), Some(code), "burst {arguments:?}\n{out}\n{err}");
    (out, err)
}

fn config(text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("burst.toml");
    std::fs::write(&path, text).expect("written");
    let path = path.to_str().expect("text").to_owned();
    (directory, path)
}

/// A daemon's API in this process: any order is for a class that does not exist.
struct Daemon {
    _directory: TempDir,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("burst.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, bound) = std::sync::mpsc::channel();
        let path = socket.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let socket = Socket::bind(&path).expect("bound");
                ready.send(()).expect("the test waits");
                let (_publish, status) = watch::channel(Arc::new(status()));
                let (commands, mut orders) = mpsc::channel(4);
                tokio::spawn(async move {
                    while let Some(order) = orders.recv().await {
                        match order {
                            Order::Override { class, reply, .. } | Order::ClearOverride { class, reply, .. } => {
                                reply.send(Err(ApiError::unknown_class(&class, ["promo"]))).expect("the request waits");
                            }
                            // As a daemon that ends in the middle of it.
                            _ => {}
                        }
                    }
                });
                let stopped = async {
                    let _ = stopped.await;
                };
                serve(socket, status, commands, stopped).await;
            });
        });
        bound.recv().expect("the socket is bound");
        Self { _directory: directory, socket, stop: Some(stop), thread: Some(thread) }
    }

    fn socket(&self) -> &str {
        self.socket.to_str().expect("text")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; a second one here would hide the test's own.
            let _ = thread.join();
        }
    }
}

fn status() -> Status {
    Status {
        version: VERSION,
        burst: "0.1.0".into(),
        edge: "edge-a1".into(),
        mode: Mode::Active,
        bypass: false,
        config: Default::default(),
        pid: 4711,
        uptime_s: 60.0,
        classes: vec![],
        links: vec![],
        clients: vec![],
        gateways: vec![],
        other: vec![],
        events: burst::api::types::Events::default(),
        warnings: vec![],
    }
}

#[test]
fn a_wrong_command_line_is_2_and_help_is_0() {
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["check"],
        &["check", "a", "-c", "b"],
        &["run"],
        &["override", "promo"],
        &["explain"],
        &["replay"],
    ] {
        let (out, err) = expect(2, arguments);
        assert!(out.is_empty() && !err.is_empty(), "{arguments:?}");
    }
    let (help, _) = expect(0, &["--help"]);
    assert!(help.contains("Exit codes:") && help.contains("10  another daemon is running"), "{help}");
    expect(0, &["--version"]);
}

#[test]
fn a_right_configuration_is_0() {
    let (_directory, path) = config(CONFIG);
    for arguments in [&["check", &path][..], &["check", "-c", &path]] {
        let (out, _) = expect(0, arguments);
        assert_eq!(out, format!("{path} is right: 1 class kept, 1 that may leave, 1 link, 2 endpoints\n"));
    }
    let (out, _) = expect(0, &["check", &path, "--json"]);
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&found["ok"], &found["problems"]), (&Value::Bool(true), &Value::Array(vec![])));
}

#[test]
fn a_wrong_configuration_is_3_and_the_line_is_pointed_at() {
    let (_directory, path) = config(&CONFIG.replace("10.64.0.1", "10.64.0"));
    let (out, err) = expect(3, &["check", &path]);
    assert!(out.is_empty() && err.contains(&path) && err.contains("10.64.0"), "{err}");
    let (out, err) = expect(3, &["check", &path, "--json"]);
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&found["ok"], &found["problems"][0]["line"]), (&Value::Bool(false), &Value::from(12)));
    let error: Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!((&error["error"]["exit"], &error["error"]["code"]), (&Value::from(3), &Value::from("config")));
    expect(3, &["check", "/nonexistent/burst.toml"]);
    expect(3, &["run", "-c", &path]);
    expect(3, &["detach", "-c", &path]);
}

#[test]
fn no_daemon_is_7() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("none.sock");
    let socket = socket.to_str().expect("text");
    let (out, err) = expect(7, &["status", "--socket", socket]);
    let said = format!("burst: burst is not running here: no socket at {socket}; start it with burst run -c FILE");
    assert!(out.is_empty() && err.starts_with(&said), "{err}");
    let (_, err) = expect(7, &["--json", "--socket", socket, "override", "promo", "--clear"]);
    let error: Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!(error["error"]["code"], "not-running");
}

#[test]
fn a_status_is_0_in_both_forms() {
    let daemon = Daemon::start();
    let (out, _) = expect(0, &["status", "--socket", daemon.socket()]);
    assert_eq!(out, "edge edge-a1 · active · up 1m · burst 0.1.0 · pid 4711\n");
    let (out, _) = expect(0, &["status", "--json", "--socket", daemon.socket()]);
    assert_eq!(serde_json::from_str::<Status>(&out).expect("a status"), status());
    // The configuration knows the socket, too.
    let named = format!("[edge]\nsocket = \"{}\"\n", daemon.socket());
    let (_directory, path) = config(&CONFIG.replace("[edge]\n", &named));
    expect(0, &["status", "-c", &path]);
}

#[test]
fn a_refused_order_is_8_and_a_wrong_one_2() {
    let daemon = Daemon::start();
    let order = |offsite| {
        ["override", "nope", "--offsite", offsite, "--for", "30m", "--reason", "x", "--socket", daemon.socket()]
    };
    let (_, err) = expect(8, &order("40%"));
    assert_eq!(err, "burst: there is no class \"nope\" (classes that can be shifted: promo)\n");
    expect(2, &order("140%"));
}

#[test]
fn detaching_under_a_running_daemon_is_10() {
    let daemon = Daemon::start();
    let pins = Path::new(daemon.socket()).with_file_name("pins");
    let (_, err) = expect(10, &["detach", "--pin-dir", pins.to_str().expect("text"), "--socket", daemon.socket()]);
    assert!(err.contains("burst is running (process "), "{err}");
}

#[test]
fn a_log_filter_that_is_nonsense_is_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_burst")).args(["status"]).env("BURST_LOG", "burst=loud").output();
    assert_eq!(output.expect("the burst binary").status.code(), Some(2));
}
