//! Promises of the controller as a whole: on random inputs, in a closed loop, and decision by decision.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::model::{
    Affinity, Edge, Lease, Link, LoadKind, LoadSource, Local, Mode, OnExit, Sentinel, Tier, Udp, WhenFull, XdpMode,
};

const TICK: Duration = Duration::from_millis(250);

fn tier(name: &str, endpoints: &[&str], links: &[&str], capacity: f64) -> Tier {
    Tier {
        name: name.into(),
        mode: Mode::Dnat,
        endpoints: endpoints.iter().map(|address| address.parse().unwrap()).collect(),
        ports: vec![],
        port: None,
        links: links.iter().map(|name| (*name).into()).collect(),
        capacity,
        health: None,
    }
}

fn link(name: &str) -> Link {
    Link {
        name: name.into(),
        device: "eth1".into(),
        vlan: None,
        next_hop: "10.64.0.1".parse().ok(),
        mtu: 1500,
        fallback: false,
        source4: None,
        source6: None,
        out_bps: None,
        in_bps: None,
    }
}

/// A payment class, and a promotion class with two tiers of two and one endpoints over two links.
fn config() -> Config {
    let kind =
        LoadKind::Haproxy { socket: "/h".into(), proxy: "p".into(), server: "BACKEND".into(), field: "scur".into() };
    let source = LoadSource { kind, limit: 1.0, timeout: Duration::from_millis(200), every: TICK };
    let local = Local {
        target: 0.75,
        capacity: None,
        load: vec![source],
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
        slots: 1024,
        local,
        tiers: vec![
            tier("reserved", &["10.20.0.10", "10.20.0.11"], &["dx-1", "dx-2"], 2000.0),
            tier("elastic", &["10.20.8.10"], &["dx-1"], 60_000.0),
        ],
    };
    let edge = Edge {
        name: "edge-a1".into(),
        client: vec!["eth0".into()],
        seed: "seed".into(),
        shadow: false,
        pin_dir: "/run/burst/bpf".into(),
        state_dir: "/var/lib/burst".into(),
        socket: "/run/burst/burst.sock".into(),
        on_exit: OnExit::Leave,
        xdp: XdpMode::Native,
        tick: TICK,
        lease: Lease { lasts: 20 * TICK, hold: Duration::from_secs(900), home: Duration::from_secs(600) },
        trace: false,
        sentinel: Sentinel::Report,
    };
    let payment = Class { name: "payment".into(), rules: vec![], burst: None };
    let promo = Class { name: "promo".into(), rules: vec![], burst: Some(burst) };
    Config { edge, links: vec![link("dx-1"), link("dx-2")], classes: vec![payment, promo] }
}

fn burst(config: &mut Config) -> &mut Burst {
    config.classes[1].burst.as_mut().unwrap()
}

/// Backends in a few lines: load follows the local rate as a first-order lag, payment takes its own part.
struct Plant {
    controller: Controller,
    now: Duration,
    seen: ClassObservation,
    links: Vec<LinkState>,
    /// Local flows per second that make a load of 1.
    capacity: f64,
    payment: f64,
    load: f64,
    local: f64,
    fraction: (f64, f64),
}

impl Plant {
    fn new(config: &Config, capacity: f64, payment: f64) -> Self {
        Self {
            controller: Controller::new(config),
            now: Duration::ZERO,
            seen: ClassObservation { reachable: vec![true; 3], ..Default::default() },
            links: vec![LinkState { up: true }; 2],
            capacity,
            payment,
            load: payment,
            local: 1.0,
            fraction: (0.0, 0.0),
        }
    }

    fn observation(&self) -> Observation {
        Observation { classes: vec![ClassObservation::default(), self.seen.clone()], links: self.links.clone() }
    }

    /// One tick of `demand` flows/s, and the decision at its end.
    fn tick(&mut self, demand: f64) -> ClassDecision {
        let span = TICK.as_secs_f64();
        self.now += TICK;
        self.fraction.0 += demand * span;
        self.fraction.1 += demand * span * self.local;
        (self.seen.openers, self.seen.openers_local) = (self.fraction.0 as u64, self.fraction.1 as u64);
        let load = self.payment + demand * self.local / self.capacity;
        // The backends were there before the controller: it finds their load as it is.
        self.load += (load - self.load) * if self.now == TICK { 1.0 } else { 0.5 };
        self.seen.readings = vec![Some(Reading { value: self.load, age: Duration::from_millis(100) })];
        let observation = self.observation();
        let decision = self.controller.step(self.now, &observation).classes.swap_remove(1);
        self.local = decision.local;
        decision
    }

    fn run(&mut self, demand: f64, seconds: u32) -> ClassDecision {
        (0..seconds * 4).map(|_| self.tick(demand)).last().unwrap()
    }
}

fn assert_sound(decision: &ClassDecision, most_offsite: f64) {
    let sum = decision.local + decision.weights.iter().sum::<f64>();
    assert!((sum - 1.0).abs() < 1e-9, "shares sum to {sum}: {decision:?}");
    let shares = decision.weights.iter().chain(&decision.tiers).chain([&decision.local, &decision.wanted]);
    assert!(shares.clone().all(|share| (0.0..=1.0).contains(share)), "{decision:?}");
    assert!(decision.local >= 1.0 - most_offsite - 1e-9, "more than {most_offsite} leaves: {decision:?}");
    assert!(decision.local >= decision.wanted - 1e-9, "{decision:?}");
    let numbers =
        [Some(decision.demand), Some(decision.rate), Some(decision.local_rate), decision.load, decision.capacity];
    assert!(numbers.iter().flatten().all(|number| number.is_finite() && *number >= 0.0), "{decision:?}");
    // The surge guard obeys the same rules, and has a place to send flows to whenever it has a limit.
    let away = decision.overflow.iter().sum::<f64>();
    assert!(decision.overflow.len() == decision.weights.len() && away <= most_offsite + 1e-9, "{decision:?}");
    assert!(decision.admit.is_none_or(|admit| admit.is_finite() && admit >= 0.0 && away > 0.0), "{decision:?}");
    assert!(decision.admit.is_some() || away == 0.0, "{decision:?}");
}

/// A step of any length, any counters, any readings, anything reachable.
fn any_step() -> impl Strategy<Value = (u64, ClassObservation, Vec<LinkState>)> {
    let value = prop_oneof![
        6 => 0.0..3.0_f64,
        1 => prop::num::f64::ANY,
        1 => Just(f64::NAN),
        1 => Just(-1.0),
    ];
    let reading = prop::option::weighted(0.9, (value, 0..1000_u64))
        .prop_map(|reading| reading.map(|(value, age)| Reading { value, age: Duration::from_millis(age) }));
    let counter = prop_oneof![5 => 0..100_000_u64, 1 => any::<u64>()];
    let forced = prop::option::weighted(0.1, (prop_oneof![0.0..1.0_f64, prop::num::f64::ANY], 0..1_000_000_u64));
    let seen = (
        counter.clone(),
        counter,
        prop::collection::vec(reading, 0..2),
        prop::collection::vec(any::<bool>(), 0..5),
        forced,
    )
        .prop_map(|(openers, openers_local, readings, reachable, forced)| ClassObservation {
            openers,
            openers_local,
            readings,
            reachable,
            forced: forced.map(|(offsite, until)| Override { offsite, until: Duration::from_millis(until) }),
        });
    let links = prop::collection::vec(prop::bool::weighted(0.8).prop_map(|up| LinkState { up }), 0..3);
    (prop_oneof![8 => 1..1000_u64, 1 => 0..1_000_000_u64], seen, links)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never NaN, shares sum to one, safety rules hold: whatever is observed.
    #[test]
    fn every_decision_is_sound(
        steps in prop::collection::vec(any_step(), 1..60),
        most in 0.0..=1.0_f64,
        configured in prop::option::of(1.0..1e6_f64),
    ) {
        let mut config = config();
        burst(&mut config).max_offsite_share = most;
        burst(&mut config).local.capacity = configured;
        let mut controller = Controller::new(&config);
        let mut now = Duration::ZERO;
        for (millis, seen, links) in steps {
            now += Duration::from_millis(millis);
            let decision = controller.step(now, &Observation { classes: vec![ClassObservation::default(), seen], links });
            prop_assert_eq!(&decision.classes[0], &ClassDecision::keep());
            assert_sound(&decision.classes[1], most);
        }
    }

    /// From the same state, more demand never gives a larger local share; what the tiers cannot take excepted.
    #[test]
    fn more_demand_never_means_a_larger_local_share(
        demands in prop::collection::vec((0.0..5000.0_f64, 1..40_u32), 1..8),
        capacity in 50.0..5000.0_f64,
        (less, more) in (0..20_000_u64, 0..20_000_u64),
    ) {
        let mut plant = Plant::new(&config(), capacity, 0.1);
        for (demand, ticks) in demands {
            (0..ticks).for_each(|_| { plant.tick(demand); });
        }
        let step = |openers| {
            let mut observation = plant.observation();
            observation.classes[1].openers += openers;
            let now = plant.now + TICK;
            plant.controller.clone().step(now, &observation).classes.swap_remove(1)
        };
        let (less, more) = (step(less), step(less + more));
        prop_assert!(more.wanted <= less.wanted, "{} → {}", less.reason, more.reason);
        prop_assert!(more.local <= less.local || more.limits.contains(&Limit::TiersFull));
    }

}

proptest! {
    // These run for minutes of simulated time each.
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// On constant input the controller comes to rest, at the target or wholly local.
    #[test]
    fn constant_input_settles_and_then_nothing_changes(
        demand in 20.0..20_000.0_f64,
        capacity in 100.0..5000.0_f64,
        payment in 0.0..0.5_f64,
    ) {
        let mut plant = Plant::new(&config(), capacity, payment);
        let settled = plant.run(demand, 600);
        for _ in 0..240 {
            let decision = plant.tick(demand);
            prop_assert_eq!((decision.local, &decision.weights), (settled.local, &settled.weights), "{}", decision.reason);
        }
        let full = payment + demand / capacity;
        if full < 0.7 {
            prop_assert_eq!(settled.local, 1.0, "{}", settled.reason);
        } else {
            // At the target, but for what is not worth coming home for and how near a capacity is near enough.
            let band = 0.02_f64.min(settled.local * 0.1 + 0.001);
            let least = 0.75 / (1.0 + band / settled.local) / 1.06;
            prop_assert!((least..0.80).contains(&plant.load), "load {} not from {least}: {}", plant.load, settled.reason);
        }
    }

    /// A step is answered by the tick that sees it, to the share that demand and capacity ask for.
    #[test]
    fn a_tenfold_step_is_answered_within_one_tick(demand in 200.0..2000.0_f64, load in 0.2..0.7_f64) {
        let mut plant = Plant::new(&config(), demand / load, 0.0);
        prop_assert_eq!(plant.run(demand, 20).local, 1.0);
        let local = plant.tick(demand * 10.0).local;
        let right = 0.75 / load / 10.0;
        prop_assert!((local - right).abs() < right * 0.05 + 0.005, "{local} instead of {right}");
    }
}

#[test]
fn a_tenfold_step_up_and_down_decision_by_decision() {
    let mut plant = Plant::new(&config(), 1000.0, 0.1);
    let mut trace = String::new();
    let mut last = (f64::NAN, vec![]);
    for (demand, seconds) in [(400.0, 15), (4000.0, 45), (400.0, 60)] {
        for _ in 0..seconds * 4 {
            let decision = plant.tick(demand);
            let shown = (decision.local, decision.limits.clone());
            if (shown.0 - last.0).abs() < 0.04 && shown.0 != 1.0 || shown == last {
                continue;
            }
            last = shown;
            let weights: Vec<_> = decision.weights.iter().map(|weight| format!("{weight:.3}")).collect();
            writeln!(trace, "{:6.2}s [{}] {}", plant.now.as_secs_f64(), weights.join(" "), decision.reason).unwrap();
        }
    }
    assert_eq!(trace.trim(), GOLDEN.trim(), "\n{trace}");
    let decision = plant.tick(400.0);
    assert_eq!((decision.local, decision.weights), (1.0, vec![0.0; 3]), "home is exactly home");
}

/// Reserved holds 2,000/s, half of the peak; elastic takes what is over.
const GOLDEN: &str = "
  0.25s [0.000 0.000 0.000] demand 0.0/s, local capacity unknown, load 0.50 → local 1.00; local capacity is not known yet, following the load
  2.50s [0.000 0.000 0.000] demand 400/s against 0.75 × 800/s local, load 0.50 → local 1.00
 15.25s [0.250 0.250 0.350] demand 4,000/s against 0.75 × 800/s local, load 2.30 → local 0.15, reserved 0.50, elastic 0.35; local load is over its limit
 70.75s [0.400 0.400 0.000] demand 400/s against 0.75 × 734/s local, load 0.17 → local 0.20, reserved 0.80; coming home at home_rate
 71.75s [0.375 0.375 0.000] demand 400/s against 0.75 × 723/s local, load 0.19 → local 0.25, reserved 0.75; coming home at home_rate
 72.75s [0.350 0.350 0.000] demand 400/s against 0.75 × 714/s local, load 0.21 → local 0.30, reserved 0.70; coming home at home_rate
 73.75s [0.325 0.325 0.000] demand 400/s against 0.75 × 712/s local, load 0.23 → local 0.35, reserved 0.65; coming home at home_rate
 74.75s [0.300 0.300 0.000] demand 400/s against 0.75 × 712/s local, load 0.25 → local 0.40, reserved 0.60; coming home at home_rate
 75.75s [0.275 0.275 0.000] demand 400/s against 0.75 × 712/s local, load 0.27 → local 0.45, reserved 0.55; coming home at home_rate
 76.75s [0.250 0.250 0.000] demand 400/s against 0.75 × 712/s local, load 0.29 → local 0.50, reserved 0.50; coming home at home_rate
 77.75s [0.225 0.225 0.000] demand 400/s against 0.75 × 712/s local, load 0.31 → local 0.55, reserved 0.45; coming home at home_rate
 78.75s [0.200 0.200 0.000] demand 400/s against 0.75 × 712/s local, load 0.33 → local 0.60, reserved 0.40; coming home at home_rate
 79.75s [0.175 0.175 0.000] demand 400/s against 0.75 × 712/s local, load 0.35 → local 0.65, reserved 0.35; coming home at home_rate
 80.75s [0.150 0.150 0.000] demand 400/s against 0.75 × 712/s local, load 0.37 → local 0.70, reserved 0.30; coming home at home_rate
 81.75s [0.125 0.125 0.000] demand 400/s against 0.75 × 712/s local, load 0.39 → local 0.75, reserved 0.25; coming home at home_rate
 82.75s [0.100 0.100 0.000] demand 400/s against 0.75 × 712/s local, load 0.41 → local 0.80, reserved 0.20; coming home at home_rate
 83.75s [0.075 0.075 0.000] demand 400/s against 0.75 × 712/s local, load 0.43 → local 0.85, reserved 0.15; coming home at home_rate
 84.75s [0.050 0.050 0.000] demand 400/s against 0.75 × 712/s local, load 0.45 → local 0.90, reserved 0.10; coming home at home_rate
 85.75s [0.025 0.025 0.000] demand 400/s against 0.75 × 712/s local, load 0.47 → local 0.95, reserved 0.05; coming home at home_rate
 86.75s [0.000 0.000 0.000] demand 400/s against 0.75 × 712/s local, load 0.49 → local 1.00, reserved 0.00; coming home at home_rate
 87.00s [0.000 0.000 0.000] demand 400/s against 0.75 × 712/s local, load 0.49 → local 1.00
";

#[test]
fn home_is_reached_slowly_and_exactly() {
    let mut plant = Plant::new(&config(), 1000.0, 0.1);
    plant.run(400.0, 20);
    plant.run(4000.0, 30);
    let mut last = plant.local;
    assert!(last < 0.3, "{last}");
    let (mut first, mut done) = (None, None);
    for tick in 0..240 {
        let local = plant.tick(400.0).local;
        assert!(local - last <= 0.05 * 0.25 + 1e-9, "{last} → {local}");
        if local > last {
            first.get_or_insert(tick);
        }
        if local == 1.0 {
            done.get_or_insert(tick);
        }
        last = local;
    }
    // Stabilize is 10 s from the last tick before the fall; then at least 0.7 at 0.05 a second.
    assert!(first.unwrap() >= 39, "{first:?}");
    assert!((39 + 56..200).contains(&done.unwrap()), "{done:?}");
}

#[test]
fn poisson_like_noise_moves_no_share() {
    let mut plant = Plant::new(&config(), 1000.0, 0.1);
    let (mut state, mut changes, mut last) = (1, 0, 1.0);
    for tick in 0..4 * 3600 {
        // Twelve uniform numbers make a normal one; 250 ± 16 openers a tick.
        let sum: f64 = (0..12)
            .map(|_| {
                state = burst_common::hash::pair(state, 3);
                (state >> 11) as f64 / (1u64 << 53) as f64
            })
            .sum();
        let decision = plant.tick((250.0 + (sum - 6.0) * 250.0_f64.sqrt()) * 4.0);
        changes += i32::from(tick > 4 * 600 && decision.local != last);
        last = decision.local;
    }
    assert!((0.5..0.75).contains(&last), "{last}");
    assert_eq!(changes, 0);
}

#[test]
fn without_metrics_the_share_is_held_then_goes_to_the_fallback_and_never_jumps() {
    let mut config = config();
    burst(&mut config).local.fallback = 0.5;
    let mut plant = Plant::new(&config, 1000.0, 0.1);
    plant.run(400.0, 20);
    let mut last = plant.run(4000.0, 60).local;
    let held = last;
    for tick in 0..4 * 120 {
        plant.now += TICK;
        plant.seen.openers += 1000;
        plant.seen.readings = vec![None];
        let decision = plant.controller.step(plant.now, &plant.observation()).classes.swap_remove(1);
        if tick < 4 * 59 {
            assert_eq!((decision.local, &decision.limits[..]), (held, &[Limit::StaleHold][..]), "tick {tick}");
        }
        assert!((decision.local - last).abs() <= 0.05 * 0.25 + 1e-9, "{last} → {}", decision.local);
        last = decision.local;
    }
    assert_eq!(last, 0.5);
    // While held, demand may still ask for less.
    let mut plant = Plant::new(&config, 1000.0, 0.1);
    plant.run(400.0, 20);
    plant.seen.readings = vec![None];
    (plant.now, plant.seen.openers) = (plant.now + TICK, plant.seen.openers + 1000);
    let decision = plant.controller.step(plant.now, &plant.observation()).classes.swap_remove(1);
    assert!(decision.local < 0.3 && decision.limits.contains(&Limit::StaleHold), "{}", decision.reason);
}

#[test]
fn an_override_holds_until_it_expires_and_safety_rules_win() {
    let mut config = config();
    burst(&mut config).max_offsite_share = 0.6;
    let mut plant = Plant::new(&config, 1000.0, 0.1);
    plant.run(100.0, 20);
    plant.seen.forced = Some(Override { offsite: 0.4, until: plant.now + Duration::from_secs(5) });
    for _ in 0..19 {
        let decision = plant.tick(100.0);
        assert!((decision.local - 0.6).abs() < 1e-12 && decision.limits == [Limit::Override], "{}", decision.reason);
    }
    plant.tick(100.0);
    assert!(!plant.tick(100.0).limits.contains(&Limit::Override));
    assert!((plant.tick(100.0).local - 0.6).abs() < 1e-12, "after it, home slowly");
    plant.seen.forced = Some(Override { offsite: 0.9, until: plant.now + Duration::from_secs(5) });
    let decision = plant.tick(100.0);
    assert!((decision.local - 0.4).abs() < 1e-12, "{}", decision.reason);
    assert_eq!(decision.limits, [Limit::Override, Limit::MaxOffsiteShare]);
    plant.seen.forced = Some(Override { offsite: f64::NAN, until: plant.now + Duration::from_secs(5) });
    assert!(!plant.tick(100.0).limits.contains(&Limit::Override), "not a number is no override");
}

#[test]
fn the_surge_guard_stops_between_target_and_limit_and_only_where_flows_may_go() {
    let mut known = config();
    burst(&mut known).local.capacity = Some(1000.0);
    let near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
    // Little demand: all stays, and what came beyond 875/s would go to the first tier.
    let mut plant = Plant::new(&known, 1000.0, 0.0);
    let calm = plant.run(100.0, 5);
    assert_eq!((calm.local, calm.admit), (1.0, Some(875.0)));
    assert!(near(&calm.overflow, &[0.5, 0.5, 0.0]), "{calm:?}");
    // More than the first tier takes: the rest of what may leave goes to the second.
    let busy = plant.run(10_000.0, 5);
    assert!(busy.admit.is_some() && busy.overflow[2] > 0.5, "{busy:?}");
    // An operator's order is not undone.
    plant.seen.forced = Some(Override { offsite: 0.1, until: plant.now + Duration::from_secs(60) });
    let ordered = plant.tick(10_000.0);
    assert_eq!((ordered.admit, ordered.overflow.iter().sum()), (None, 0.0));
    plant.seen.forced = None;
    // Nobody there to send them to; nor when as much leaves as may.
    plant.seen.reachable = vec![false; 3];
    assert_eq!(plant.tick(10_000.0).admit, None);
    burst(&mut known).max_offsite_share = 0.3;
    let mut bound = Plant::new(&known, 1000.0, 0.0);
    assert!(near(&bound.run(100.0, 5).overflow, &[0.15, 0.15, 0.0]));
    assert_eq!(bound.run(10_000.0, 5).admit, None, "max_offsite_share");
    // A capacity that is not known is no budget.
    let mut unknown = Plant::new(&config(), 1000.0, 0.0);
    assert_eq!(unknown.tick(0.0).admit, None);
}

#[test]
fn counters_that_start_anew_are_no_rate() {
    let mut plant = Plant::new(&config(), 1000.0, 0.1);
    let before = plant.run(400.0, 20);
    (plant.fraction.0, plant.fraction.1) = (50.0, 50.0);
    let decision = plant.tick(400.0);
    assert_eq!((decision.demand, decision.local), (before.demand, before.local), "{}", decision.reason);
    assert_eq!(plant.run(400.0, 5).demand, before.demand);
}

#[test]
fn a_lost_link_takes_its_tiers_and_the_rest_comes_home_at_once() {
    let mut plant = Plant::new(&config(), 1000.0, 0.1);
    plant.run(400.0, 20);
    let all = plant.run(4000.0, 30);
    assert!(all.weights.iter().all(|weight| *weight > 0.0), "{}", all.reason);
    plant.links[0].up = false;
    let less = plant.tick(4000.0);
    assert_eq!((less.tiers[1], less.wanted), (0.0, all.wanted), "{}", less.reason);
    assert!(less.local > all.local && less.limits.contains(&Limit::TiersFull), "{}", less.reason);
    plant.links[1].up = false;
    let none = plant.tick(4000.0);
    assert_eq!(none.local, 1.0);
    assert!(none.limits.contains(&Limit::Unreachable), "{}", none.reason);
}

#[test]
fn a_restart_goes_on_where_the_last_controller_stood() {
    let mut controller = Controller::new(&config());
    controller.resume(1, 0.3, Some(900.0));
    controller.resume(0, 0.3, None);
    controller.resume(7, f64::NAN, Some(f64::NAN));
    let plant = Plant::new(&config(), 1000.0, 0.1);
    let mut decisions = (0..44).map(|tick| controller.step(TICK * tick, &plant.observation()).classes.swap_remove(1));
    let first = decisions.next().unwrap();
    assert_eq!((first.local, first.capacity), (0.3, Some(900.0)));
    assert!(decisions.all(|decision| decision.local <= 0.3 + 0.05), "home slowly");
}

#[test]
fn a_decision_survives_json() {
    let mut plant = Plant::new(&config(), 1000.0, 0.1);
    plant.run(400.0, 20);
    let decision = Decision { classes: vec![plant.tick(4000.0)] };
    let text = serde_json::to_string(&decision).unwrap();
    let back: Decision = serde_json::from_str(&text).unwrap();
    assert_eq!(back.classes[0].limits, decision.classes[0].limits);
    assert!((back.classes[0].local - decision.classes[0].local).abs() < 1e-12, "{text}");
}
