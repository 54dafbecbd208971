//! Load scraped from a real metrics endpoint: Prometheus's own.

#![expect(clippy::disallowed_methods, reason = "a test waits and asks for ages as the daemon does")]

mod server;

use std::net::TcpListener;
use std::time::Duration;

use burst::config::model::{Affinity, Burst, Class, Combine, LoadKind, LoadSource, Local, Udp, WhenFull};
use burst::observe::{self, Source};
use server::{Server, reading};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

const EVERY: Duration = Duration::from_millis(100);

fn source(port: u16, metric: &str, labels: &[(&str, &str)], combine: Combine, rate: bool) -> LoadSource {
    let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let url = format!("http://127.0.0.1:{port}/metrics");
    let kind = LoadKind::Metrics { url, metric: metric.into(), labels, combine, rate };
    LoadSource { kind, limit: 1.0, timeout: Duration::from_secs(2), every: EVERY }
}

#[tokio::test]
async fn gauges_counters_and_labels_of_a_real_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("prometheus.yml"), "scrape_configs: []\n").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments = [
        format!("--config.file={}/prometheus.yml", path.display()),
        format!("--storage.tsdb.path={}/data", path.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let _server = Server::start("prometheus", &arguments, path);
    let (end, shutdown) = watch::channel(false);

    let gauge = source(port, "go_goroutines", &[], Combine::Sum, false);
    let mut goroutines = Source::spawn(&gauge, shutdown.clone());
    let routines = reading(&mut goroutines, |_| true).await.value;
    assert!((5.0..10_000.0).contains(&routines), "{routines}");
    drop(goroutines);

    // The only client is this source, so the rate of answered scrapes is that of its own reads.
    let answered = [("handler", "/metrics"), ("code", "200")];
    let mut scrapes =
        Source::spawn(&source(port, "prometheus_http_requests_total", &answered, Combine::Sum, true), shutdown.clone());
    let rate = reading(&mut scrapes, |reading| reading.value > 0.0).await.value;
    assert!((1.0..=10.5).contains(&rate), "{rate} scrapes a second, each {EVERY:?} after the other at least");
    drop(scrapes);

    let rows = [
        (source(port, "go_goroutine", &[], Combine::Sum, false), "no metric `go_goroutine`; it has go_"),
        (source(port, "go_info", &[("version", "none")], Combine::Max, false), "no sample of `go_info` has the labels"),
    ];
    for (wrong, expected) in rows {
        let mut wrong = Source::spawn(&wrong, shutdown.clone());
        wrong.changed().await;
        let error = wrong.status(Instant::now()).error.unwrap();
        assert!(error.contains(expected), "{error}");
    }

    // The whole of it: sources of classes, readings in the order of the configuration, an end when told.
    let local = Local {
        target: 0.75,
        capacity: None,
        load: vec![gauge.clone(), source(port, "absent", &[], Combine::Sum, false), gauge],
        home_rate: 0.05,
        stabilize: Duration::from_secs(10),
        dead_band: 0.02,
        hold: Duration::from_secs(60),
        fallback: 1.0,
    };
    let burst = Burst {
        affinity: Affinity::Flow,
        idle_timeout: Duration::from_secs(120),
        hold: Duration::from_secs(15),
        udp: Udp::Sticky,
        when_full: WhenFull::Local,
        max_offsite_share: 1.0,
        slots: 64,
        local,
        tiers: vec![],
    };
    let class = |name: &str, burst| Class { name: name.into(), rules: vec![], burst };
    let sources = observe::spawn(&[class("payment", None), class("promo", Some(burst))], &shutdown);
    let started = Instant::now();
    while sources.readings(1, Instant::now()).iter().flatten().count() < 2 {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", sources.status(1, Instant::now()));
        sleep(EVERY).await;
    }
    let readings = sources.readings(1, Instant::now());
    assert!(readings[0].is_some() && readings[1].is_none() && readings[2].is_some(), "{readings:?}");
    assert!(sources.readings(0, Instant::now()).is_empty() && sources.readings(7, Instant::now()).is_empty());
    end.send(true).unwrap();
    timeout(Duration::from_secs(2), sources.join()).await.unwrap().unwrap();
}
