//! Load read from a real HAProxy under real connections.

#![expect(clippy::disallowed_methods, reason = "a test waits and asks for ages as the daemon does")]

mod server;

use std::path::Path;
use std::time::Duration;

use burst::config::model::{LoadKind, LoadSource};
use burst::observe::Source;
use server::{Server, reading};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

fn source(directory: &Path, server: &str, field: &str) -> LoadSource {
    let kind = LoadKind::Haproxy {
        socket: directory.join("stats.sock"),
        proxy: "shop-servers".into(),
        server: server.into(),
        field: field.into(),
    };
    LoadSource { kind, limit: 1.0, timeout: Duration::from_millis(500), every: Duration::from_millis(50) }
}

fn haproxy(directory: &Path) -> Server {
    let at = directory.display();
    let config = format!(
        "global\n  stats socket {at}/stats.sock mode 600 level user\n  maxconn 200\n\
         defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n\
         frontend shop\n  bind unix@{at}/shop.sock\n  default_backend shop-servers\n\
         backend shop-servers\n  server s1 unix@{at}/origin.sock\n"
    );
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    Server::start("haproxy", &["-db".as_ref(), "-f".as_ref(), file.as_os_str()], directory)
}

#[tokio::test]
async fn sessions_and_session_rate_follow_real_connections() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let origin = UnixListener::bind(path.join("origin.sock")).unwrap();
    // The shop's backend: takes every connection and holds it until the other side closes.
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = origin.accept().await.unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    let mut server = haproxy(path);
    let (_end, shutdown) = watch::channel(false);
    let mut sessions = Source::spawn(&source(path, "BACKEND", "scur"), shutdown.clone());
    let mut of_server = Source::spawn(&source(path, "s1", "scur"), shutdown.clone());
    let mut rate = Source::spawn(&source(path, "BACKEND", "rate"), shutdown.clone());
    let mut unknown = Source::spawn(&source(path, "BACKEND", "sessions"), shutdown);

    let idle = reading(&mut sessions, |_| true).await;
    assert_eq!(idle.value, 0.0);
    assert!(idle.age < Duration::from_millis(600), "{idle:?}");

    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(UnixStream::connect(path.join("shop.sock")).await.unwrap());
    }
    // HAProxy's rate is a sliding second: all twenty, or what is left of them by the time they are read.
    reading(&mut rate, |reading| (10.0..=20.0).contains(&reading.value)).await;
    reading(&mut sessions, |reading| reading.value == 20.0).await;
    reading(&mut of_server, |reading| reading.value == 20.0).await;
    connections.truncate(5);
    reading(&mut sessions, |reading| reading.value == 5.0).await;
    reading(&mut rate, |reading| reading.value == 0.0).await;

    unknown.changed().await;
    let error = unknown.status(Instant::now()).error.unwrap();
    assert!(error.contains("there is no field `sessions`; there are pxname, svname, qcur"), "{error}");

    // Without HAProxy the last value stays and ages, and the error says what is wrong.
    server.kill();
    sleep(Duration::from_millis(300)).await;
    let status = sessions.status(Instant::now());
    let last = status.reading.unwrap();
    assert!(last.value == 5.0 && last.age >= Duration::from_millis(250), "{last:?}");
    assert!(status.error.unwrap().contains("stats.sock") && status.failures > 0);
    // And back.
    let _server = haproxy(path);
    reading(&mut sessions, |reading| reading.value == 0.0).await;
    assert_eq!(sessions.status(Instant::now()).error, None);
}
