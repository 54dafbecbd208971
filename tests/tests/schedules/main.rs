//! Promise 3 over random schedules, with the real program: a placed flow stays placed, whatever is retargeted, refused, swept, lost,
//! found dead, sent away by the surge guard, brought home or restarted, and when. Payment that is thrown in passes untouched.
//!
//! Every packet is a frame through the program by test run, and where it went is read from the frame that came out. The controller's side
//! is the real table over the real maps; its time is the test's own. The table of pins alone is small, so that it can be full. What
//! cannot be had here is a controller that acts in the middle of a packet: that is in `burst-user/src/slots/schedules.rs`, where
//! the packet path is `burst_common::place` without the program around it.
//!
//! `BURST_SCHEDULES` says how many schedules, `BURST_SEED` which.

mod event;
mod host;
mod edge;

use std::cell::RefCell;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use burst_tests::topology::CLIENT_DEVICE;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use self::edge::{Edge, Fault, broken};
use self::event::event;
use self::host::{FLOWS, Host, TABLES};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Runs so many schedules; the first that fails, made small.
fn run(hosts: &mut [Host; 2], schedules: u32, seed: u64, fault: Fault) -> Result<(), String> {
    let mut bytes = [1; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: schedules,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &bytes));
    let schedule = (prop::collection::vec(event(), 1..120), prop_oneof![Just(FLOWS), 0..TABLES[1]], any::<bool>());
    let hosts = RefCell::new(hosts);
    let result = runner.run(&schedule, |(events, room, six)| {
        let mut hosts = hosts.borrow_mut();
        let host = &mut hosts[usize::from(room < FLOWS)];
        let mut edge = Edge::new(host, six, room, fault).map_err(broken)?;
        events.iter().try_for_each(|event| edge.event(event))?;
        edge.rest()
    });
    result.map_err(|error| match error {
        TestError::Fail(reason, (events, room, six)) => {
            let events: Vec<_> = events.iter().map(|event| format!("  {event:?}")).collect();
            let family = if six { "IPv6" } else { "IPv4" };
            format!("BURST_SEED={seed}: {reason}\n{family}, room for {room} pins:\n{}", events.join("\n"))
        }
        TestError::Abort(reason) => reason.to_string(),
    })
}

/// On a thread that is in the namespace of its first bed: a test run wants the device that its frame arrives on.
fn on_beds<T: Send + 'static>(work: impl FnOnce(&mut [Host; 2]) -> T + Send + 'static) -> JoinHandle<Result<T>> {
    std::thread::spawn(move || {
        let [roomy, small] = TABLES;
        let mut hosts = [Host::new(roomy)?, Host::new(small)?];
        hosts[0].bed.edge().enter()?;
        let [one, other] = hosts.each_ref().map(|host| host.bed.ifindex(CLIENT_DEVICE));
        assert_eq!(one, other, "the device is known by the same index in both namespaces");
        Ok(work(&mut hosts))
    })
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_placed_flow_stays_placed() -> Result<()> {
    let (schedules, seed) = (number("BURST_SCHEDULES", 10_000) as u32, number("BURST_SEED", 20_260_101));
    let half = |seed, schedules| {
        on_beds(move |hosts| {
            let result = run(hosts, schedules, seed, Fault::None);
            result.map(|()| hosts.iter().map(|host| host.runs).sum::<u64>())
        })
    };
    let halves = [half(seed, schedules.div_ceil(2)), half(seed + 1, schedules / 2)];
    let mut packets = 0;
    for half in halves {
        packets += joined(half)?.map_err(|text| anyhow!("{text}"))?;
    }
    eprintln!("{schedules} schedules, {packets} packets");
    Ok(())
}

#[test]
fn a_controller_that_stores_instead_of_swapping_is_found_and_the_schedule_is_small() -> Result<()> {
    let text = joined(on_beds(|hosts| run(hosts, 10_000, 1, Fault::Stores)))?.expect_err("it breaks flows");
    eprintln!("{text}");
    assert!(text.lines().count() < 40, "{text}");
    Ok(())
}
