//! What the API says, as JSON. Fields are added, never renamed or given another meaning; whatever cannot keep to that
//! raises [`VERSION`], which is also the first part of every path.
//!
//! Units are in the names: `_s` seconds, `_bps` bits per second, `_fps` new flows per second. Shares are fractions, 0–1.

use serde::{Deserialize, Serialize};

use super::error::{ApiError, Code};

/// Version of the API.
pub const VERSION: u32 = 1;

/// That the daemon is there: the answer of `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the burst binary that runs.
    pub burst: String,
    /// Name of the edge host.
    pub edge: String,
    /// Its process.
    pub pid: u32,
}

/// Everything there is to see: the answer of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the burst binary that runs.
    pub burst: String,
    /// Name of the edge host.
    pub edge: String,
    /// Whether it shifts.
    pub mode: Mode,
    /// Whether everything passes, whatever else is said here (`burst bypass on`).
    #[serde(default)]
    pub bypass: bool,
    /// The configuration that runs.
    #[serde(default)]
    pub config: Running,
    /// Process of the daemon.
    pub pid: u32,
    /// Seconds since the daemon started.
    pub uptime_s: f64,
    /// Classes, in the order of the configuration.
    pub classes: Vec<Class>,
    /// Links, in the order of the configuration.
    pub links: Vec<Link>,
    /// Client devices, in the order of the configuration.
    pub clients: Vec<Client>,
    /// How replies find their way to the clients, of the families that are shifted.
    #[serde(default)]
    pub gateways: Vec<Gateway>,
    /// Packets that belong to no class, by reason, since the maps were made; reasons without packets are left out.
    pub other: Vec<ReasonCount>,
    /// What should never be, or seldom: payment on its way out.
    #[serde(default)]
    pub events: Events,
    /// What an operator should know and no row above says.
    pub warnings: Vec<String>,
}

/// The configuration that runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Its file.
    pub file: String,
    /// A short mark of its text: the same text has the same, on every host.
    pub hash: String,
    /// How many were loaded since the daemon started, this one included.
    pub generation: u64,
    /// Seconds since it was loaded.
    pub loaded_s: f64,
    /// That it goes back to the former one by itself, unless it is confirmed.
    pub pending: Option<Pending>,
    /// What became of the last reload, where it was not what was asked for.
    pub trouble: Option<String>,
}

/// A configuration that waits to be confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Seconds that are left.
    pub remaining_s: u64,
    /// User id of who asked for the reload.
    pub uid: u32,
    /// Mark of the configuration that it goes back to.
    pub former: String,
}

/// Whether packets are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They are.
    Active,
    /// Everything is decided and counted, nothing is shifted.
    Shadow,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its packets by reason, since the maps were made; reasons without packets are left out.
    pub reasons: Vec<ReasonCount>,
    /// `None`: a `keep` class, which is never shifted.
    pub burst: Option<Burst>,
}

/// What there is to say of a class that can be shifted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    /// New flows per second, all places together.
    pub demand_fps: f64,
    /// On premises.
    pub local: Local,
    /// Tiers, in the order in which they fill.
    pub tiers: Vec<Tier>,
    /// Where load is read.
    pub sources: Vec<Source>,
    /// What an operator ordered, while it is in force.
    #[serde(rename = "override")]
    pub ordered: Option<Override>,
    /// The last decision, in words.
    pub decision: String,
    /// Its slots.
    pub slots: Slots,
    /// Flows whose place is remembered one by one.
    pub pins: u64,
    /// Those of them that are offsite.
    #[serde(default)]
    pub pins_offsite: u64,
}

/// The share of new flows that a place gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// What was decided, 0–1.
    pub wanted: f64,
    /// What was measured over the last interval, 0–1; `None` when there were too few flows to tell.
    pub achieved: Option<f64>,
}

/// The premises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Local {
    /// Their share of new flows.
    pub share: Share,
    /// Highest load of the sources (value ÷ limit); `None` when none is known.
    pub load: Option<f64>,
    /// Load that is aimed at.
    pub target: f64,
    /// New flows per second that make a load of 1, configured or learned; `None` when not known yet.
    pub capacity_fps: Option<f64>,
}

/// A tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Its share of new flows.
    pub share: Share,
    /// New flows per second that it can take.
    pub capacity_fps: f64,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name: tier and address, or just the tier.
    pub name: String,
    /// Whether packets can be sent to it now.
    pub reachable: bool,
    /// Names of its links that are in use.
    pub links: Vec<String>,
    /// What its probes say; `None`: it is not probed.
    #[serde(default)]
    pub health: Option<EndpointHealth>,
    /// Its share of new flows.
    pub share: Share,
    /// Towards it, since the maps were made.
    pub out: Traffic,
    /// From it, since the maps were made.
    #[serde(rename = "in")]
    pub back: Traffic,
}

/// How an endpoint stands by its probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// In a word.
    pub state: HealthState,
    /// Seconds since it stands so.
    pub since_s: f64,
    /// Why, in words.
    pub why: String,
    /// Over each of its links, in the order of the configuration.
    pub paths: Vec<Path>,
}

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// No flow is with it, and it was not well since the daemon started: no new flows.
    Unproven,
    /// It takes new flows.
    Healthy,
    /// It answers that it is not well, or too slowly: no new flows.
    Failing,
    /// It fails through all its links: no new flows; those that are placed stay.
    Suspect,
    /// Its flows were given to others.
    Dead,
    /// None of its links is up.
    Unreachable,
}

/// An endpoint over one of its links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Name of the link.
    pub link: String,
    /// Whether the link is up, and the path by its probes. One that is not probed is up while its link is.
    pub up: bool,
    /// Whether it is probed; not where probes would take another way than packets.
    pub probed: bool,
    /// What the last probe found, or why it is not probed and what to do.
    pub why: String,
    /// Seconds since probes found it up or down.
    pub since_s: f64,
    /// Seconds since the last probe ended; `None` before the first.
    pub age_s: Option<f64>,
    /// Seconds that the last probe took, if it was answered well.
    pub latency_s: Option<f64>,
}

/// A counter, and how fast it moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that opened a flow.
    pub openers: u64,
    /// Bits per second over the last interval.
    pub rate_bps: f64,
}

/// Packets of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The reason (`burst_common::reason::Reason::text`).
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that opened a flow.
    pub openers: u64,
}

/// A source of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What it reads, and where.
    pub name: String,
    /// The last value that was read; `None` before the first.
    pub value: Option<f64>,
    /// The value that is a load of 1.
    pub limit: f64,
    /// Age of the value in seconds.
    pub age_s: Option<f64>,
    /// Why the last reading failed; `None` when it did not.
    pub error: Option<String>,
    /// Why the value does not count; `None` when it does, or when there is none.
    #[serde(default)]
    pub unused: Option<String>,
}

/// The slots of a class, both address families together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// All.
    pub total: u32,
    /// Those whose endpoint changed and whose older flows are still told apart.
    pub transition: u32,
    /// Those with flows that are pinned elsewhere.
    pub pins: u32,
    /// Those that name an endpoint, for new flows or for older ones.
    #[serde(default)]
    pub offsite: u32,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its device.
    pub device: String,
    /// Its VLAN id.
    pub vlan: Option<u16>,
    /// Address of its next hop; `None` where the routing table picks the way.
    pub next_hop: Option<std::net::IpAddr>,
    /// MAC address of its next hop, `aa:bb:cc:dd:ee:ff`, while it is known.
    pub mac: Option<String>,
    /// Whether packets can be sent now.
    pub up: bool,
    /// Why it is up or not.
    pub why: String,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Whether it is used only where no other link of an endpoint is up.
    #[serde(default)]
    pub fallback: bool,
    /// Addresses that tunnels over it come from.
    #[serde(default)]
    pub source: Vec<std::net::IpAddr>,
    /// To the cloud, since the maps were made.
    pub out: Traffic,
    /// From the cloud, since the maps were made.
    #[serde(rename = "in")]
    pub back: Traffic,
}

/// A client device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its name.
    pub device: String,
    /// Whether it carries packets now.
    pub up: bool,
    /// Why it is up or not.
    pub why: String,
}

/// How the replies of a family find their way to the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// 4 or 6.
    pub family: u8,
    /// The one router they all go by; `None`: the routing table is asked about each.
    pub router: Option<Router>,
    /// Why the routing table is asked; `None` where it is not.
    pub why: Option<String>,
}

/// The router to the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its address.
    pub address: std::net::IpAddr,
    /// Its MAC address, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// The client device it is reached by.
    pub device: String,
    /// VLAN id; `None` is untagged.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Destinations that the routing table is asked about all the same.
    pub except: Vec<String>,
}

/// Packets of kept rules that were about to leave, since the daemon started. Those that the program counted while no daemon
/// ran, or while the ring was full, are among the notes of `other` alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// Stopped by the guard: a defect of burst.
    pub guard: u64,
    /// Sent by burst and stopped by the sentinel: a defect of burst.
    pub stopped_own: u64,
    /// Sent by this host's kernel, and let go (`sentinel = "report"`).
    pub reported: u64,
    /// Sent by this host's kernel, and stopped (`sentinel = "enforce"`).
    pub stopped: u64,
    /// The latest, the oldest first.
    pub recent: Vec<Event>,
}

/// A packet of a kept rule that was about to leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `guard`, `sentinel-stopped-own`, `sentinel-reported`, `sentinel-stopped`.
    pub what: String,
    /// `tcp`, `udp`, or a protocol number.
    pub proto: String,
    /// Source, of the innermost packet that is kept.
    pub src: String,
    /// Destination, likewise.
    pub dst: String,
    /// Device: its way in for the guard, its way out for the sentinel.
    pub device: String,
    /// Name of the link, where it is known.
    pub link: Option<String>,
    /// Seconds from boot to the event.
    pub since_boot_s: f64,
}

/// An operator's order that is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// Share of new flows that leaves, 0–1.
    pub offsite: f64,
    /// Why.
    pub reason: String,
    /// User id of who ordered it.
    pub uid: u32,
    /// Seconds until it ends by itself.
    pub remaining_s: u64,
}

/// An operator's order: the body of `PUT /v1/classes/{class}/override`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideRequest {
    /// Share of new flows that leaves, 0–1.
    pub offsite: f64,
    /// Seconds until it ends by itself, 1 to [`OverrideRequest::LONGEST_S`].
    pub for_s: u64,
    /// Why: 1 to [`OverrideRequest::LONGEST_REASON`] characters on one line, for the record.
    pub reason: String,
}

/// What is in force after an order, or after one was withdrawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverrideResponse {
    /// The class.
    pub class: String,
    /// What is in force now.
    #[serde(rename = "override")]
    pub ordered: Option<Override>,
    /// What was in force before.
    pub previous: Option<Override>,
    /// Largest share that the class's `max_offsite_share` allows, 0–1.
    #[serde(default)]
    pub max_offsite: Option<f64>,
}

impl OverrideRequest {
    /// A week: an order is for an event, what is meant to last belongs in the configuration.
    pub const LONGEST_S: u64 = 7 * 24 * 3600;
    /// Characters of a reason.
    pub const LONGEST_REASON: usize = 400;

    /// Checks the values.
    ///
    /// # Errors
    /// [`Code::BadValue`], naming the first value that is out of its range.
    pub fn check(&self) -> Result<(), ApiError> {
        let bad = |message: String, fix: &str| Err(ApiError::new(Code::BadValue, message, fix));
        if !(0.0..=1.0).contains(&self.offsite) {
            return bad(format!("offsite is {}", self.offsite), "give a share between 0 and 1");
        }
        if !(1..=Self::LONGEST_S).contains(&self.for_s) {
            return bad(format!("for_s is {}", self.for_s), "give a time between 1 s and 604800 s (7 days)");
        }
        let length = self.reason.chars().count();
        if self.reason.trim().is_empty() || length > Self::LONGEST_REASON {
            return bad(format!("the reason has {length} characters"), "say why, in 1 to 400 characters");
        }
        if self.reason.chars().any(char::is_control) {
            return bad("the reason has control characters".to_owned(), "say why on one line of plain text");
        }
        Ok(())
    }
}

/// That everything is to pass, or not any more: the body of `POST /v1/bypass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BypassRequest {
    /// Whether everything is to pass.
    pub on: bool,
    /// When who asks stops waiting, in seconds since boot (`/proc/uptime`): a daemon that comes to it later does nothing, for by
    /// then it was done without it. Left out: whenever it comes to it.
    #[serde(default)]
    pub lapses_s: Option<u64>,
}

/// What is in force after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BypassResponse {
    /// Whether everything passes.
    pub on: bool,
    /// Whether it did before.
    pub was: bool,
}

/// A MAC address as it is written.
#[must_use]
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_checked_at_its_edges() {
        let good = OverrideRequest { offsite: 0.4, for_s: 1800, reason: "campaign".into() };
        for (request, wrong) in [
            (good.clone(), None),
            (OverrideRequest { offsite: 0.0, for_s: 1, ..good.clone() }, None),
            (OverrideRequest { offsite: 1.0, for_s: 604_800, reason: "x".repeat(400) }, None),
            (OverrideRequest { offsite: -0.01, ..good.clone() }, Some("offsite is -0.01")),
            (OverrideRequest { offsite: 1.01, ..good.clone() }, Some("offsite is 1.01")),
            (OverrideRequest { offsite: f64::NAN, ..good.clone() }, Some("offsite is NaN")),
            (OverrideRequest { for_s: 0, ..good.clone() }, Some("for_s is 0")),
            (OverrideRequest { for_s: 604_801, ..good.clone() }, Some("for_s is 604801")),
            (OverrideRequest { reason: " ".into(), ..good.clone() }, Some("the reason has 1 characters")),
            (OverrideRequest { reason: "x".repeat(401), ..good.clone() }, Some("the reason has 401 characters")),
            (OverrideRequest { reason: "a\nb".into(), ..good }, Some("the reason has control characters")),
        ] {
            let message = request.check().err().map(|error| error.message);
            assert_eq!(message.as_deref(), wrong, "{request:?}");
        }
    }
}
