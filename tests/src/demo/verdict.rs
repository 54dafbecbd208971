//! What the demonstration promised, held against what servers, clients, the wire and burst itself counted.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{Finished, Second, plan};
use crate::servers::{LocalSite, Nginx, Site};
use crate::sniffer::Flows;
use crate::topology::{Family, PAYMENT, SHOP};

/// Resident memory the daemon may take, in bytes.
const MEMORY: u64 = 30_000_000;
/// What the whole demonstration may take.
const TIME: Duration = Duration::from_secs(90);
/// How far burst's counts may be from the servers' own.
const AGREE: f64 = 0.01;
/// How far the achieved share may be from the wanted one: slots and flows meet it within chance.
const NEAR: f64 = 0.06;
/// Seconds at the end of a phase that are looked at: the share has settled by then.
const SETTLED: usize = 3;

/// What was measured by clients, burst and the wire.
pub(super) struct Evidence<'a> {
    /// Second by second.
    pub(super) seconds: &'a [Second],
    /// When all connections were over.
    pub(super) finished: &'a Finished,
    /// burst's status then.
    pub(super) last: &'a Value,
    /// What crossed the Direct Connect line.
    pub(super) flows: &'a Flows,
    /// Resident memory of the daemon in bytes.
    pub(super) resident: u64,
    /// Time from the first namespace to the verdict.
    pub(super) took: Duration,
}

/// What the servers say.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    /// Promotion connections that HAProxy accepted.
    local: u64,
    /// Promotion connections that the cloud's nginx answered.
    cloud: u64,
    /// Payment requests that the cloud's nginx answered.
    leaked: u64,
}

impl Counts {
    /// Asks the servers.
    pub(super) fn read(local: &LocalSite, cloud: &Nginx) -> Result<Self> {
        Ok(Self {
            local: local.haproxy.stat(SHOP.name, "FRONTEND")?.number("stot").unwrap_or(0),
            cloud: cloud.counts(SHOP.name)?.connections,
            leaked: cloud.counts(PAYMENT.name)?.requests,
        })
    }
}

/// Prints the verdict; `true` when everything was kept.
pub(super) fn print(evidence: &Evidence<'_>, counts: &Counts) -> bool {
    let finished = evidence.finished;
    let payment =
        |address: std::net::SocketAddr| Family::ALL.iter().any(|&family| address.ip() == PAYMENT.address.of(family));
    let on_the_line: u64 = evidence
        .flows
        .iter()
        .filter(|(flow, _)| payment(flow.source) || payment(flow.destination))
        .map(|(_, packets)| packets)
        .sum();
    let shifted: u64 = evidence.flows.values().sum();
    let failed = finished.payment.failed() + finished.promotion.failed();
    let (peak, after) = (share(evidence.seconds, "push"), share(evidence.seconds, "after"));
    let wanted = wanted(evidence.seconds, "push");
    let (own_local, own_cloud) = own(evidence.last);
    let peaking = evidence.seconds.iter().rfind(|second| second.phase == "push");
    let during = peaking.map(|second| (own(&second.status), second.counts)).unwrap_or_default();
    let rows = [
        (
            "payment packets on the Direct Connect line",
            format!("{on_the_line} of {shifted}"),
            on_the_line == 0 && shifted > 0,
        ),
        (
            "payment requests answered in the cloud",
            format!("{} (of {} in all)", counts.leaked, finished.payment.answered()),
            counts.leaked == 0 && finished.payment.requests(Site::Cloud) == 0 && finished.payment.answered() > 0,
        ),
        (
            "failed requests of either kind",
            format!("{failed} (of {})", finished.payment.answered() + finished.promotion.answered() + failed),
            failed == 0,
        ),
        ("promotion offsite at the peak", format!("{:.1} %", peak * 100.0), peak > 0.5),
        (
            "local share at the peak: wanted and achieved",
            format!("{:.1} % / {:.1} %", wanted * 100.0, (1.0 - peak) * 100.0),
            (wanted - (1.0 - peak)).abs() < NEAR,
        ),
        ("promotion offsite at the end", format!("{:.1} %", after * 100.0), after == 0.0),
        (
            "promotion connections in the cloud's own log",
            format!("{} (client: {})", counts.cloud, finished.promotion.connections(Site::Cloud)),
            counts.cloud > 0 && counts.cloud == finished.promotion.connections(Site::Cloud),
        ),
        (
            "burst's count of local connections against HAProxy's",
            format!("{own_local} / {}", counts.local),
            agree(own_local, counts.local),
        ),
        (
            "burst's count of shifted connections against nginx's",
            format!("{own_cloud} / {}", counts.cloud),
            agree(own_cloud, counts.cloud),
        ),
        (
            "the same during the peak, local and shifted",
            format!("{} / {}, {} / {}", during.0.0, during.1.local, during.0.1, during.1.cloud),
            agree(during.0.0, during.1.local) && agree(during.0.1, during.1.cloud),
        ),
        (
            "from the first namespace to this verdict",
            format!("{:.0} s", evidence.took.as_secs_f64()),
            evidence.took < TIME,
        ),
        ("daemon's resident memory", format!("{:.1} MB", evidence.resident as f64 / 1e6), evidence.resident <= MEMORY),
    ];
    println!();
    for (what, measured, kept) in &rows {
        println!("  {}  {what:<56} {measured}", if *kept { "ok  " } else { "FAIL" });
    }
    for text in finished.payment.texts.iter().chain(&finished.promotion.texts) {
        println!("        first failures: {text}");
    }
    let kept = rows.iter().all(|(_, _, kept)| *kept);
    println!("\n{}", if kept { "every promise was kept" } else { "A PROMISE WAS BROKEN" });
    kept
}

/// Share of the promotion's new connections that left, over the last seconds of a phase.
fn share(seconds: &[Second], phase: &str) -> f64 {
    let Some(end) = seconds.iter().rposition(|second| second.phase == phase) else { return f64::NAN };
    seconds[end].promotion.since(&seconds[end.saturating_sub(SETTLED)].promotion).offsite_share()
}

/// Local share that burst wanted over the last seconds of a phase, on average.
fn wanted(seconds: &[Second], phase: &str) -> f64 {
    let Some(end) = seconds.iter().rposition(|second| second.phase == phase) else { return f64::NAN };
    let window = &seconds[end.saturating_sub(SETTLED)..end];
    let share = |second: &Second| plan::class(&second.status, SHOP.name)?["burst"]["local"]["share"]["wanted"].as_f64();
    window.iter().filter_map(share).sum::<f64>() / window.len() as f64
}

/// Promotion connections that burst says stayed and left: openers by reason.
fn own(status: &Value) -> (u64, u64) {
    let reasons =
        plan::class(status, SHOP.name).and_then(|class| class["reasons"].as_array().cloned()).unwrap_or_default();
    let openers = |reason: &str| {
        reasons.iter().filter(|row| row["reason"] == reason).filter_map(|row| row["openers"].as_u64()).sum()
    };
    (openers("local"), openers("shifted"))
}

fn agree(ours: u64, theirs: u64) -> bool {
    ours > 0 && ours.abs_diff(theirs) as f64 <= AGREE * theirs as f64
}
