//! The testbed itself, without burst: it carries real traffic everywhere it should, its servers' counts agree with
//! its client's, and nothing of it stays behind.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use burst_tests::body::BIG;
use burst_tests::client::{self, Kind, Page};
use burst_tests::load::{Held, HeldPlan, Load, Plan};
use burst_tests::netns::Namespace;
use burst_tests::poll;
use burst_tests::process::Process;
use burst_tests::servers::{self, Limits, LocalSite, METRICS_PORT, Site};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{
    CLOUD_PORT, Clients, DX_DEVICE, Family, LOCAL, Options, PAYMENT, SECOND_DX_DEVICE, SHOP, Service, TO_EDGE, Topology,
};
use rustix::process::Signal;

/// What most tests ask of a load.
fn plan(topology: &Topology, service: Service, rate: f64) -> Plan {
    Plan {
        service: service.name.to_owned(),
        servers: Family::ALL.map(|family| service.at(family)).to_vec(),
        clients: Family::ALL.into_iter().flat_map(|family| topology.clients(family)).collect(),
        page: Page::Small,
        rate,
        requests: 3,
        pause: Duration::from_millis(10),
        patience: Duration::from_secs(10),
        most_open: 10_000,
    }
}

fn held(topology: &Topology, service: Service, family: Family) -> HeldPlan {
    HeldPlan {
        service: service.name.to_owned(),
        server: service.at(family),
        clients: topology.clients(family),
        connections: 8,
        page: Page::Small,
        pause: Duration::from_millis(20),
        patience: Duration::from_secs(5),
    }
}

#[test]
fn both_services_are_reached_through_the_edge_with_whole_bodies_both_ways() -> Result<()> {
    for clients in [Clients::BehindGateway, Clients::OnLink] {
        let topology = Topology::with(Options { clients, ..Options::default() })?;
        let local = LocalSite::start(&topology, Limits::default())?;
        for service in [PAYMENT, SHOP] {
            for family in Family::ALL {
                let source = topology.clients(family).last().copied();
                for transfer in [
                    client::download(&topology.client, source, service.at(family))?,
                    client::upload(&topology.client, source, service.at(family))?,
                ] {
                    assert_eq!(transfer.site, Some(Site::Local), "{service:?} {family:?}");
                    assert_eq!(transfer.service.as_deref(), Some(service.name), "{family:?}");
                    assert_eq!(transfer.length, BIG);
                }
            }
            // One GET, then PUT, GET and DELETE; once per family.
            assert_eq!(local.nginx.counts_of(service.name, 8)?.requests, 8, "{service:?}");
        }
    }
    Ok(())
}

#[test]
fn the_cloud_is_reached_from_the_edge_over_either_line() -> Result<()> {
    let topology = Topology::with(Options { second_line: true, dx_mtu: 1400, ..Options::default() })?;
    let cloud = servers::start_cloud(&topology)?;
    let endpoints = || Family::ALL.into_iter().flat_map(|family| topology.endpoints(family));
    for endpoint in endpoints() {
        for transfer in [
            client::download(&topology.edge, None, SocketAddr::new(endpoint, CLOUD_PORT))?,
            client::upload(&topology.edge, None, SocketAddr::new(endpoint, CLOUD_PORT))?,
        ] {
            assert_eq!(transfer.site, Some(Site::Cloud));
            assert_eq!(transfer.service.as_deref(), Some(SHOP.name));
        }
    }
    assert_eq!(cloud.counts_of(SHOP.name, 16)?.requests, 16);

    let sent = || -> Result<u64> {
        let statistics = topology.edge.exec("ip", &["-json", "-stats", "link", "show", SECOND_DX_DEVICE])?;
        let statistics: serde_json::Value = serde_json::from_str(&statistics)?;
        Ok(statistics[0]["stats64"]["tx"]["bytes"].as_u64().expect("a counter"))
    };
    let before = sent()?;
    topology.edge.ip(&format!("link set {DX_DEVICE} down"))?;
    for endpoint in endpoints() {
        let transfer = client::upload(&topology.edge, None, SocketAddr::new(endpoint, CLOUD_PORT))?;
        assert_eq!(transfer.site, Some(Site::Cloud));
    }
    assert!(sent()? - before > 4 * BIG as u64, "the uploads went out over the second line");
    Ok(())
}

#[test]
fn the_cloud_answers_for_the_shop_only_where_it_was_asked_to() -> Result<()> {
    for shop_in_cloud in [false, true] {
        let topology = Topology::with(Options { shop_in_cloud, ..Options::default() })?;
        let _cloud = servers::start_cloud(&topology)?;
        for family in Family::ALL {
            let shop = SHOP.at(family);
            let answered = client::run(&topology.direct_connect, async {
                let patience = Duration::from_millis(300);
                let mut connection = client::Connection::open(None, shop, patience).await?;
                connection.get(Page::Small, true, Duration::from_secs(5)).await
            })?;
            match answered {
                Ok(answer) => assert!(shop_in_cloud && answer.site == Some(Site::Cloud), "{answer:?}"),
                Err(failure) => assert!(!shop_in_cloud, "{failure}"),
            }
        }
    }
    Ok(())
}

#[test]
fn the_clients_counts_agree_with_those_of_nginx_and_haproxy() -> Result<()> {
    let topology = Topology::with(Options { static_neighbours: true, ..Options::default() })?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let payment = Load::start(&topology.client, plan(&topology, PAYMENT, 50.0))?;
    let promotion = Load::start(&topology.client, plan(&topology, SHOP, 50.0))?;
    std::thread::sleep(Duration::from_secs(1));
    let before = promotion.snapshot();
    promotion.set_rate(400.0);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let risen = promotion.snapshot().since(&before);
    let rate = risen.started as f64 / start.elapsed().as_secs_f64();
    assert!((350.0..=450.0).contains(&rate), "the rate follows: {rate} connections per second");
    assert!(risen.latency.quantile(0.5).is_some_and(|half| half < Duration::from_secs(1)));

    for (service, load) in [(PAYMENT, payment), (SHOP, promotion)] {
        let snapshot = load.finish()?;
        assert_eq!(snapshot.failed(), 0, "{:?}: {:?}", snapshot.failures(), snapshot.texts);
        assert_eq!((snapshot.open, snapshot.finished), (0, snapshot.started));
        assert_eq!(snapshot.connections(Site::Local), snapshot.started);
        assert_eq!(snapshot.requests(Site::Local), 3 * snapshot.started);
        assert_eq!(snapshot.placed() - snapshot.connections(Site::Local), 0);

        let nginx = local.nginx.counts(service.name)?;
        assert_eq!((nginx.requests, nginx.errors), (snapshot.answered(), 0), "nginx, {service:?}");
        let row = local.haproxy.stat(service.name, "FRONTEND")?;
        assert_eq!(row.number("req_tot"), Some(snapshot.answered()), "HAProxy, {service:?}");
        assert_eq!(row.number("stot"), Some(snapshot.started), "HAProxy, {service:?}");
    }
    let status = local.nginx.status(&topology.local)?;
    assert!(status.accepted > 0 && status.requests >= 3 * status.active, "{status:?}");
    let metrics = client::fetch(&topology.edge, SocketAddr::new(LOCAL.of(Family::V4), METRICS_PORT), "/metrics")?;
    assert!(metrics.contains("haproxy_frontend_current_sessions{proxy=\"promotion\"}"), "{metrics}");
    Ok(())
}

#[test]
fn a_sniffer_sees_each_flow_that_passes_its_device_and_no_other() -> Result<()> {
    let topology = Topology::new()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let inside = Sniffer::start(&topology.local, TO_EDGE)?;
    let offsite = Sniffer::start(&topology.direct_connect, TO_EDGE)?;
    for family in Family::ALL {
        let source = topology.clients(family)[3];
        client::upload(&topology.client, Some(source), PAYMENT.at(family))?;
    }
    let (inside, offsite) = (inside.finish()?, offsite.finish()?);
    for family in Family::ALL {
        let (client, service) = (topology.clients(family)[3], PAYMENT.at(family));
        let packets = |incoming| {
            let ours = inside.iter().filter(|(flow, _)| {
                let ends = if incoming { (flow.source, flow.destination) } else { (flow.destination, flow.source) };
                flow.incoming == incoming && flow.protocol == 6 && ends.0.ip() == client && ends.1 == service
            });
            ours.map(|(_, packets)| packets).sum::<u64>()
        };
        // GRO merges up to 64 KiB, so that a body of 1 MiB is at least 16 packets.
        assert!(packets(true) >= 16 && packets(false) >= 16, "{family:?}: {inside:?}");
        assert!(!offsite.keys().any(|flow| flow.source == service || flow.destination == service), "{offsite:?}");
    }
    Ok(())
}

#[test]
fn held_connections_last_while_the_path_does_and_say_so_when_they_break() -> Result<()> {
    let topology = Topology::new()?;
    let mut local = LocalSite::start(&topology, Limits::default())?;
    let mut plans = Family::ALL.map(|family| held(&topology, SHOP, family));
    let stream = Held::open(
        &topology.client,
        HeldPlan { page: Page::Stream, patience: Duration::from_secs(300), ..plans[0].clone() },
    )?;
    for plan in &mut plans {
        let held = Held::open(&topology.client, plan.clone())?;
        held.exchange()?;
        for line in held.finish()? {
            assert_eq!(line.site, Some(Site::Local));
            assert!(line.answered >= 2 && line.broken.is_none(), "{line:?}");
        }
    }
    let [plan, _] = plans;
    let held = Held::open(&topology.client, plan)?;
    local.haproxy.process.kill()?;
    let broken = poll::until("the break", Duration::from_secs(10), || Ok(held.check().err()))?;
    assert!(broken.to_string().contains("held connections broke"), "{broken:#}");
    assert!(held.exchange().is_err() && held.finish().is_err(), "a broken connection stays broken");
    poll::until("the stream's break", Duration::from_secs(10), || Ok(stream.check().err()))?;
    Ok(())
}

#[test]
fn failures_are_counted_by_their_kind() -> Result<()> {
    let topology = Topology::new()?;
    let run = |plan: Plan| -> Result<Vec<Kind>> {
        let load = Load::start(&topology.client, plan)?;
        std::thread::sleep(Duration::from_millis(300));
        let snapshot = load.finish()?;
        assert_eq!((snapshot.answered(), snapshot.finished), (0, snapshot.started));
        Ok(snapshot.failures().into_iter().map(|(kind, _)| kind).collect())
    };
    let good = plan(&topology, SHOP, 100.0);
    assert_eq!(run(good.clone())?, [Kind::Refused], "nobody listens");
    assert_eq!(run(Plan { most_open: 0, ..good.clone() })?, [Kind::Overrun]);
    let local = LocalSite::start(&topology, Limits::default())?;
    let swapped = Plan { service: PAYMENT.name.to_owned(), servers: vec![SHOP.at(Family::V4)], ..good.clone() };
    assert_eq!(run(swapped)?, [Kind::Stranger], "the shop answers for payment");
    assert!(local.nginx.counts(SHOP.name)?.requests > 0);
    topology.local.ip("route replace blackhole 0.0.0.0/0\nroute replace blackhole ::/0")?;
    let quick = Plan { patience: Duration::from_millis(200), ..good };
    assert_eq!(run(quick)?, [Kind::ConnectTimeout], "no answer comes back");
    Ok(())
}

/// What a topology leaves for the world to see: its namespaces, processes and directory.
struct Traces {
    namespaces: Vec<String>,
    processes: Vec<u32>,
    dir: std::path::PathBuf,
}

impl Traces {
    fn of(topology: &Topology, processes: &[&Process]) -> Self {
        let Topology { client, edge, local, direct_connect, cloud, dir, .. } = topology;
        let namespaces = [client, edge, local, direct_connect, cloud].map(|namespace| namespace.name().to_owned());
        let mut all: BTreeSet<u32> = processes.iter().map(|process| process.pid()).collect();
        // nginx's workers, and whatever else runs in there.
        for namespace in &namespaces {
            let pids = local.exec("ip", &["netns", "pids", namespace]).expect("ip netns pids");
            all.extend(pids.split_whitespace().map(|pid| pid.parse::<u32>().expect("a pid")));
        }
        Self { namespaces: namespaces.to_vec(), processes: all.into_iter().collect(), dir: dir.path().to_owned() }
    }

    fn present(&self) -> Vec<String> {
        let namespaces = self.namespaces.iter().map(|name| format!("/run/netns/{name}"));
        let processes = self.processes.iter().map(|pid| format!("/proc/{pid}"));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let dir = self.dir.display().to_string();
        let mounted = mounts.contains(&dir).then(|| format!("a mount beneath {dir}"));
        namespaces.chain(processes).chain([dir]).filter(|path| Path::new(path).exists()).chain(mounted).collect()
    }
}

/// Whether a path exists; of a process, whether it is more than an entry that init has yet to reap.
fn is_there(path: &str) -> bool {
    match std::fs::read_to_string(format!("{path}/stat")) {
        // proc_pid_stat(5): the state follows the name in parentheses.
        Ok(stat) => !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
        Err(_) => Path::new(path).exists(),
    }
}

#[test]
fn nothing_stays_behind_after_a_drop_or_a_panic() -> Result<()> {
    for panics in [false, true] {
        let mut traces = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
            let topology = Topology::new()?;
            let local = LocalSite::start(&topology, Limits::default())?;
            let cloud = servers::start_cloud(&topology)?;
            let mut command = topology.edge.command("sh");
            command.args(["-c", "trap '' TERM; sleep 1000 & echo deaf; wait"]);
            let mut deaf = Process::spawn("deaf", command, &topology.dir)?;
            deaf.wait_log("deaf", Duration::from_secs(5))?;
            let pins = topology.dir.bpffs("bpf")?;
            std::fs::create_dir(pins.join("a-directory-of-pins"))?;
            let _load = Load::start(&topology.client, plan(&topology, SHOP, 100.0))?;
            let _held = Held::open(&topology.client, held(&topology, PAYMENT, Family::V6))?;
            let processes = [&local.haproxy.process, &local.nginx.process, &cloud.process, &deaf];
            let seen = traces.insert(Traces::of(&topology, &processes));
            // Five namespaces, the directory, the mount; HAProxy, two of each nginx, the shell and its child.
            assert_eq!(seen.present().len(), 5 + 2 + 1 + 4 + 2, "{:?}", seen.present());
            if panics {
                topology.edge.run(|| panic!("on purpose"))?;
            }
            Ok(())
        }));
        match outcome {
            Ok(result) => {
                result?;
                assert!(!panics, "the panic in the namespace reaches the caller");
            }
            Err(panic) => assert!(panics && panic.downcast_ref::<&str>() == Some(&"on purpose"), "{panics}"),
        }
        let traces = traces.expect("the topology stood");
        // A process that was killed with its namespace is reaped by init, in its own time.
        poll::until("everything to be gone", Duration::from_secs(5), || Ok(traces.present().is_empty().then_some(())))
            .map_err(|error| error.context(format!("{:?}", traces.present())))?;
    }
    Ok(())
}

/// Started anew by the test below, as a run that is interrupted or killed. By itself it shows that a process that
/// ends is reported with its log.
#[test]
fn a_process_that_ends_too_soon_is_reported_with_its_log() -> Result<()> {
    let topology = Topology::new()?;
    let mut command = topology.edge.command("sh");
    command.args(["-c", "echo here is why; exit 7"]);
    let mut process = Process::spawn("failing", command, &topology.dir)?;
    let error = process.wait_log("never written", Duration::from_secs(5)).expect_err("it has ended");
    let text = format!("{error:#}");
    assert!(text.contains("here is why") && text.contains("exit status: 7"), "{text}");
    if std::env::var_os(WAIT_INSIDE).is_some() {
        let _cloud = servers::start_cloud(&topology)?;
        println!("{}", serde_json::to_string(&Traces::of(&topology, &[]).present())?);
        std::thread::sleep(Duration::from_secs(60));
    }
    Ok(())
}

/// Makes the test above stay, with its namespaces, until it is ended.
const WAIT_INSIDE: &str = "BURST_TESTS_WAIT_INSIDE";

#[test]
fn an_interrupted_run_cleans_up_and_a_killed_ones_traces_are_swept_by_the_next() -> Result<()> {
    let dir = burst_tests::dir::RunDir::new()?;
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["--exact", "a_process_that_ends_too_soon_is_reported_with_its_log", "--nocapture"]);
        command.env(WAIT_INSIDE, "1");
        let mut run = Process::spawn(&format!("run-{signal:?}"), command, &dir)?;
        let log = run.log_path().to_owned();
        let traces = run.wait_ready("its traces", Duration::from_secs(20), || {
            let text = std::fs::read_to_string(&log)?;
            Ok(text.lines().find_map(|line| {
                let start = line.find("[\"/")?;
                serde_json::from_str::<Vec<String>>(&line[start..]).ok()
            }))
        })?;
        assert_eq!(traces.len(), 5 + 1 + 2, "five namespaces, a directory, nginx: {traces:?}");
        run.signal(signal)?;
        let status = run.wait(Duration::from_secs(10))?;
        let left = || traces.iter().filter(|path| is_there(path)).count();
        if signal == Signal::KILL {
            let next = std::process::Command::new(std::env::current_exe()?)
                .args(["--exact", "a_process_that_ends_too_soon_is_reported_with_its_log"])
                .output()?;
            assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stdout));
        } else {
            assert_eq!(status.code(), Some(128 + signal.as_raw()), "{}", run.log()?);
        }
        poll::until("everything to be gone", Duration::from_secs(5), || Ok((left() == 0).then_some(())))?;
    }
    Ok(())
}

#[test]
fn without_root_it_fails_and_says_what_to_do() {
    let outcome = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // This thread only: other tests of this process go on as root.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may become nobody");
            [Topology::new().map(drop), Namespace::new("nobody").map(drop)]
        });
        thread.join().expect("the thread ends")
    });
    for outcome in outcome {
        let text = format!("{:#}", outcome.expect_err("nobody may not make namespaces"));
        assert!(text.contains("needs root") && text.contains("cargo xtask test"), "{text}");
    }
}

#[test]
fn a_command_that_ip_refuses_is_named() -> Result<()> {
    let namespace = Namespace::new("lone")?;
    let error = namespace.ip("link set lo up\nlink set no-such-device up\n").expect_err("there is no such device");
    let text = format!("{error:#}");
    assert!(text.contains("link set no-such-device up") && text.contains(":2"), "{text}");
    assert!(namespace.ifindex("lo")? == 1 && namespace.ifindex("no-such-device").is_err());
    Ok(())
}
