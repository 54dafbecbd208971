//! Promises of the matrix, as rows and under random schedules.

use std::time::Duration;

use proptest::prelude::*;

use super::Outcome::{Garbled, Refused, Reset, Slow, Status, Timeout, Unreachable};
use super::*;
use crate::config::model::{Health, Probe};

const EVERY: Duration = Duration::from_secs(1);
const OK: Outcome = Outcome::Ok(Duration::from_millis(3));

fn check() -> Health {
    Health {
        probe: Probe::Tcp { port: 80 },
        every: EVERY,
        timeout: Duration::from_millis(500),
        fall: 3,
        rise: 2,
        dead_after: Duration::from_secs(30),
    }
}

fn spec(tier: &str, number: usize) -> Spec {
    Spec {
        name: format!("promo/{tier}/{number}"),
        class: "promo".into(),
        tier: tier.into(),
        links: vec!["dx-1".into(), "dx-2".into()],
        check: check(),
        proven: true,
    }
}

/// A matrix and the seconds that pass: each second every path is probed once.
struct World {
    matrix: Matrix,
    now: Duration,
    links: [bool; 2],
    events: Vec<Event>,
}

impl World {
    /// So many endpoints of one tier, with two links, both up, all well.
    fn new(endpoints: usize) -> Self {
        Self::of((0..endpoints).map(|number| spec("reserved", number)).collect())
    }

    fn of(specs: Vec<Spec>) -> Self {
        let matrix = Matrix::new(Duration::ZERO, specs);
        let mut world = Self { matrix, now: Duration::ZERO, links: [true; 2], events: Vec::new() };
        world.rounds(3, |_, _| Some(Report::Probed(OK)));
        world.events.clear();
        world
    }

    /// Seconds pass; `found` says what is reported of (endpoint, link), if anything.
    fn rounds(&mut self, rounds: u32, found: impl Fn(usize, usize) -> Option<Report>) {
        for _ in 0..rounds {
            self.now += EVERY;
            let links = self.links;
            self.events.extend(self.matrix.follow(self.now, |place| links[place.path]));
            for endpoint in 0..self.matrix.specs().len() {
                for path in (0..2).filter(|&path| links[path]) {
                    if let Some(report) = found(endpoint, path) {
                        self.events.extend(self.matrix.report(self.now, Place { endpoint, path }, report));
                    }
                }
            }
        }
        self.now += EVERY / 4;
        self.events.extend(self.matrix.follow(self.now, |place| self.links[place.path]));
    }

    /// The first endpoint's paths yield these, all others are well.
    fn first(&mut self, rounds: u32, found: [Outcome; 2]) {
        self.rounds(rounds, |endpoint, path| Some(Report::Probed(if endpoint == 0 { found[path] } else { OK })));
    }

    fn all(&mut self, rounds: u32, found: Outcome) {
        self.rounds(rounds, |_, _| Some(Report::Probed(found)));
    }

    fn states(&self) -> Vec<State> {
        (0..self.matrix.specs().len()).map(|endpoint| self.matrix.state(endpoint).0).collect()
    }

    fn shut(&self, endpoint: usize) -> [bool; 2] {
        [0, 1].map(|path| self.matrix.is_shut(Place { endpoint, path }))
    }

    fn doubts(&self) -> Vec<(&str, usize, usize)> {
        self.matrix.doubts().iter().map(|(set, failing, of)| (set.as_str(), *failing, *of)).collect()
    }
}

#[test]
fn each_pair_of_outcomes_means_what_the_design_says() {
    use State::{Dead, Failing, Healthy, Suspect};
    let rows = [
        ("all is well", [OK, OK], 40, Healthy, [false, false]),
        ("twice is not thrice", [Refused, Refused], 2, Healthy, [false, false]),
        ("one path is silent", [Timeout, OK], 40, Healthy, [true, false]),
        ("one path is refused, as by a firewall on it", [OK, Refused], 40, Healthy, [false, true]),
        ("a router says no on one path", [Unreachable, OK], 3, Healthy, [true, false]),
        ("both are silent", [Timeout, Unreachable], 3, Suspect, [false, false]),
        ("both are silent, not for long enough", [Timeout, Timeout], 31, Suspect, [false, false]),
        ("both are silent for long", [Timeout, Timeout], 34, Dead, [true, true]),
        ("both are refused", [Refused, Refused], 3, Dead, [true, true]),
        ("refused and reset", [Refused, Reset], 3, Dead, [true, true]),
        ("one is refused, the other is silent", [Refused, Timeout], 3, Suspect, [false, false]),
        ("the same for long", [Refused, Timeout], 34, Dead, [true, true]),
        ("answers that it is not well", [Status(503), Status(503)], 60, Failing, [false, false]),
        ("is slow", [Slow, Garbled], 3, Failing, [false, false]),
        ("is slow twice", [Slow, Slow], 2, Healthy, [false, false]),
        ("is not well, and silent over one path", [Status(500), Timeout], 60, Failing, [false, true]),
        ("is not well over one path alone", [Status(500), OK], 60, Healthy, [false, false]),
    ];
    for (name, found, rounds, state, shut) in rows {
        let mut world = World::new(3);
        world.first(rounds, found);
        assert_eq!((world.states()[0], world.shut(0)), (state, shut), "{name}");
        assert_eq!(world.matrix.accepts(0), state == Healthy, "{name}");
        assert_eq!(world.states()[1..], [Healthy; 2], "{name}");
        assert!(world.doubts().is_empty(), "{name}");
    }
}

#[test]
fn who_was_dead_rises_after_successes_in_a_row_and_not_by_a_link_that_returns() {
    let mut world = World::new(3);
    world.links = [true, false];
    world.first(4, [Refused; 2]);
    assert_eq!(world.states()[0], State::Dead);
    // The other link returns: it was never probed since, and says nothing.
    world.links = [true; 2];
    world.rounds(1, |endpoint, _| (endpoint > 0).then_some(Report::Probed(OK)));
    assert_eq!((world.states()[0], world.shut(0)), (State::Dead, [true; 2]));
    world.first(1, [OK; 2]);
    assert_eq!(world.states()[0], State::Dead, "once is not twice");
    world.first(1, [OK; 2]);
    assert_eq!((world.states()[0], world.shut(0)), (State::Healthy, [false; 2]));
    let told: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::State { endpoint: 0, from, to, .. } => Some((*from, *to)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(State::Healthy, State::Dead), (State::Dead, State::Healthy)]);
}

#[test]
fn who_has_no_flows_has_to_be_well_first_and_cannot_die() {
    let unproven = Spec { proven: false, ..spec("reserved", 0) };
    let rows = [
        ("well once", vec![Some(OK)], State::Unproven, true),
        ("well twice", vec![Some(OK); 2], State::Healthy, false),
        ("refused for ever", vec![Some(Refused); 100], State::Unproven, true),
        ("not well for ever", vec![Some(Status(503)); 100], State::Failing, false),
        ("cannot be probed", vec![None], State::Healthy, false),
        ("refused, then well", [vec![Some(Refused); 9], vec![Some(OK); 2]].concat(), State::Healthy, false),
    ];
    for (name, found, state, shut) in rows {
        let specs = vec![unproven.clone(), spec("reserved", 1), spec("reserved", 2)];
        let matrix = Matrix::new(Duration::ZERO, specs);
        let mut world = World { matrix, now: Duration::ZERO, links: [true; 2], events: Vec::new() };
        assert_eq!((world.states()[0], world.shut(0)), (State::Unproven, [true; 2]), "{name}");
        for outcome in found {
            let report = outcome.map_or(Report::Unprobed("no route".into()), Report::Probed);
            world.rounds(1, |endpoint, _| Some(if endpoint == 0 { report.clone() } else { Report::Probed(OK) }));
        }
        assert_eq!((world.states()[0], world.shut(0)), (state, [shut; 2]), "{name}");
    }
}

#[test]
fn without_any_link_an_endpoint_is_unreachable_and_never_dead() {
    let mut world = World::new(3);
    world.first(20, [Timeout; 2]);
    assert_eq!(world.states()[0], State::Suspect);
    world.links = [false; 2];
    world.first(100, [Timeout; 2]);
    assert_eq!((world.states(), world.shut(0)), (vec![State::Unreachable; 3], [false; 2]));
    // What it was suspected for before does not count; what was found of its paths does.
    world.links = [true; 2];
    world.first(1, [Timeout; 2]);
    assert_eq!(world.states()[0], State::Suspect);
    world.first(28, [Timeout; 2]);
    assert_eq!(world.states()[0], State::Suspect);
    world.first(5, [Timeout; 2]);
    assert_eq!(world.states()[0], State::Dead);
}

#[test]
fn what_is_not_probed_is_taken_to_carry_unless_the_endpoint_itself_says_that_nobody_is_there() {
    let unprobed = || Some(Report::Unprobed("no route".into()));
    let rows = [
        ("neither is probed", None, State::Healthy, [false; 2]),
        ("the one that is probed is well", Some(OK), State::Healthy, [false; 2]),
        ("the one that is probed is silent", Some(Timeout), State::Healthy, [true, false]),
        ("the one that is probed is not well", Some(Status(503)), State::Failing, [false; 2]),
        ("the one that is probed is refused", Some(Refused), State::Suspect, [false; 2]),
    ];
    for (name, found, state, shut) in rows {
        let mut world = World::new(3);
        world.rounds(20, |endpoint, path| match (endpoint, path, found) {
            (0, 0, Some(found)) => Some(Report::Probed(found)),
            (0, ..) => unprobed(),
            _ => Some(Report::Probed(OK)),
        });
        assert_eq!((world.states()[0], world.shut(0)), (state, shut), "{name}");
        assert!(world.doubts().is_empty(), "{name}");
        let why = world.matrix.paths(0).nth(1).unwrap().why;
        assert_eq!(why, "not probed: no route", "{name}");
    }
    let mut world = World::new(3);
    world.rounds(40, |endpoint, path| match (endpoint, path) {
        (0, 0) => Some(Report::Probed(Refused)),
        (0, _) => unprobed(),
        _ => Some(Report::Probed(OK)),
    });
    assert_eq!(world.states()[0], State::Dead, "refused for so long, over all that can be asked");
}

#[test]
fn where_more_than_half_fail_at_once_the_prober_is_suspected_and_nobody_dies() {
    // Endpoints; how many of them fail; after how many rounds more than the first; what becomes of those.
    let rows = [
        (1, 1, 0, State::Dead, vec![]),
        (2, 1, 0, State::Dead, vec![]),
        (2, 2, 0, State::Suspect, vec![("promo/reserved", 2, 2)]),
        (2, 2, 1, State::Suspect, vec![("promo/reserved", 2, 2)]),
        (2, 2, 40, State::Dead, vec![]),
        (3, 2, 0, State::Suspect, vec![("promo/reserved", 2, 3)]),
        (4, 2, 0, State::Dead, vec![]),
        (4, 3, 1, State::Suspect, vec![("promo/reserved", 3, 4)]),
    ];
    for found in [Refused, Timeout] {
        for (of, fail, later, state, doubts) in rows.clone() {
            let name = format!("{fail} of {of}, {later} later, {found:?}");
            let mut world = World::new(of);
            for round in 0..90 {
                world.rounds(1, |endpoint, _| {
                    let fails = endpoint == 0 || endpoint < fail && round >= later;
                    Some(Report::Probed(if fails { found } else { OK }))
                });
            }
            assert_eq!(world.states()[..fail], vec![state; fail], "{name}");
            assert_eq!(world.doubts(), doubts, "{name}");
            assert!((0..fail).all(|endpoint| !world.matrix.accepts(endpoint)), "{name}: no new flows in any case");
            assert!(
                state == State::Dead || (0..fail).all(|n| world.shut(n) == [false; 2]),
                "{name}: placed flows stay"
            );
            assert!(world.states()[fail..].iter().all(|state| *state == State::Healthy), "{name}");
        }
    }
}

#[test]
fn who_begins_to_fail_when_another_just_died_is_in_doubt_with_it() {
    let mut world = World::new(2);
    world.first(3, [Refused; 2]);
    assert_eq!(world.states(), [State::Dead, State::Healthy], "the other was well while it failed");
    world.all(20, Refused);
    assert_eq!((world.states(), world.doubts()), (vec![State::Dead, State::Suspect], vec![("promo/reserved", 2, 2)]));
}

#[test]
fn silence_of_one_while_the_other_is_silent_is_doubt_however_much_later_it_began() {
    let mut world = World::new(2);
    world.first(20, [Timeout; 2]);
    world.all(60, Timeout);
    assert_eq!((world.states(), world.doubts()), (vec![State::Suspect; 2], vec![("promo/reserved", 2, 2)]));
}

#[test]
fn who_answers_now_and_then_is_suspect_and_not_dead() {
    let mut world = World::new(3);
    world.first(3, [Timeout; 2]);
    for _ in 0..10 {
        world.first(1, [OK; 2]);
        world.first(9, [Timeout; 2]);
    }
    assert_eq!(world.states()[0], State::Suspect);
}

#[test]
fn silence_of_the_prober_is_not_silence_of_the_endpoint() {
    let mut world = World::new(3);
    world.first(10, [Timeout; 2]);
    world.rounds(100, |_, _| None);
    assert_eq!(world.states()[0], State::Suspect);
    world.first(1, [Timeout; 2]);
    assert_eq!(world.states()[0], State::Dead);
}

#[test]
fn doubt_ends_when_one_of_two_is_well_and_the_other_is_judged_by_itself() {
    let mut world = World::new(2);
    world.all(20, Refused);
    assert_eq!((world.states(), world.doubts().len()), (vec![State::Suspect; 2], 1));
    world.rounds(3, |endpoint, _| Some(Report::Probed(if endpoint == 0 { Refused } else { OK })));
    assert_eq!((world.states(), world.doubts().len()), (vec![State::Dead, State::Healthy], 0));
    let doubts: Vec<_> = world.events.iter().filter(|event| matches!(event, Event::Doubt { .. })).cloned().collect();
    let set = || "promo/reserved".to_owned();
    assert_eq!(
        doubts,
        [Event::Doubt { set: set(), failing: Some((2, 2)) }, Event::Doubt { set: set(), failing: None }],
        "told once each"
    );
}

#[test]
fn tiers_of_one_endpoint_are_a_set_with_those_of_their_class() {
    let mut world = World::of(vec![spec("reserved", 0), spec("elastic", 0)]);
    world.all(20, Refused);
    assert_eq!((world.states(), world.doubts()), (vec![State::Suspect; 2], vec![("promo", 2, 2)]));
    let other = Spec { class: "quiz".into(), ..spec("elastic", 0) };
    let mut world = World::of(vec![spec("reserved", 0), other]);
    world.all(20, Refused);
    assert_eq!((world.states(), world.doubts().len()), (vec![State::Dead; 2], 0));
}

#[test]
fn a_single_failure_is_not_judged_before_the_others_were_asked() {
    let quick = Spec { check: Health { fall: 1, ..check() }, ..spec("reserved", 0) };
    let mut world = World::of(vec![quick.clone(), quick]);
    let both = |world: &mut World, endpoint| {
        [0, 1].map(|path| world.matrix.report(world.now, Place { endpoint, path }, Report::Probed(Refused)))
    };
    both(&mut world, 0);
    assert_eq!(world.states()[0], State::Suspect);
    world.now += EVERY / 2;
    both(&mut world, 1);
    world.now += EVERY * 2;
    world.matrix.follow(world.now, |_| true);
    assert_eq!((world.states(), world.doubts().len()), (vec![State::Suspect; 2], 1));
}

/// Probes in a row until a path that fell is up again.
fn rises_after(world: &mut World) -> u32 {
    (1..200)
        .find(|_| {
            world.first(1, [OK, OK]);
            !world.shut(0)[0]
        })
        .unwrap()
}

#[test]
fn a_path_that_flaps_rises_later_and_later_up_to_a_bound_and_is_forgiven() {
    let mut world = World::new(3);
    let needed: Vec<_> = (0..7)
        .map(|_| {
            world.first(3, [Timeout, OK]);
            rises_after(&mut world)
        })
        .collect();
    assert_eq!(needed, [2, 4, 8, 16, 32, 32, 32]);
    world.first(125, [OK, OK]);
    world.first(3, [Timeout, OK]);
    assert_eq!(rises_after(&mut world), 16, "two minutes up forgive two falls, and it fell once more");
    world.first(400, [OK, OK]);
    world.first(3, [Timeout, OK]);
    assert_eq!(rises_after(&mut world), 2);
}

/// A round of a random schedule.
#[derive(Clone, Debug)]
enum Step {
    /// Outcomes of all paths: an index into [`FOUND`], or none.
    Probe([[usize; 2]; 3]),
    Links([bool; 2]),
}

const FOUND: [Option<Outcome>; 7] =
    [Some(OK), Some(Refused), Some(Reset), Some(Timeout), Some(Unreachable), Some(Status(503)), None];

fn step() -> impl Strategy<Value = Step> {
    // Mostly all alike, so that rows of the same occur.
    let paths = || prop::array::uniform3(prop::array::uniform2(0..FOUND.len()));
    let same = (0..FOUND.len()).prop_map(|n| Step::Probe([[n; 2]; 3]));
    let first = (0..FOUND.len(), 0..FOUND.len()).prop_map(|(a, b)| Step::Probe([[a, b], [0; 2], [0; 2]]));
    prop_oneof![
        2 => paths().prop_map(Step::Probe),
        3 => same,
        6 => first,
        1 => prop::array::uniform2(any::<bool>()).prop_map(Step::Links),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: who is not dead keeps a way while a link is up; death has evidence, kept by other books than the
    /// matrix's; in the end all is well again.
    #[test]
    fn nobody_dies_without_evidence_and_all_recover(steps in prop::collection::vec((step(), 1..6_u32), 1..40)) {
        let mut world = World::new(3);
        // Per endpoint and path: refusals in a row. Per endpoint: seconds since anything was heard from it.
        let mut gone = [[0_u32; 2]; 3];
        let mut unheard = [0_u32; 3];
        for (step, rounds) in steps {
            for _ in 0..rounds {
                // Judged in the middle of a round, too: the evidence is that of this one or the one before.
                let (before, gone_before, unheard_before) = (world.states(), gone, unheard);
                match &step {
                    Step::Links(links) => {
                        world.links = *links;
                        world.rounds(1, |_, _| None);
                        for path in (0..2).filter(|&path| !links[path]) {
                            gone.iter_mut().for_each(|gone| gone[path] = 0);
                        }
                        let any = *links != [false; 2];
                        unheard.iter_mut().for_each(|unheard| *unheard = if any { *unheard + 1 } else { 0 });
                    }
                    Step::Probe(found) => {
                        let report = |endpoint: usize, path: usize| match FOUND[found[endpoint][path]] {
                            Some(outcome) => Report::Probed(outcome),
                            None => Report::Unprobed("no route".into()),
                        };
                        world.rounds(1, |endpoint, path| Some(report(endpoint, path)));
                        for endpoint in 0..3 {
                            let mut heard = false;
                            for path in (0..2).filter(|&path| world.links[path]) {
                                let outcome = FOUND[found[endpoint][path]];
                                let says_gone = matches!(outcome, Some(Refused | Reset));
                                heard |= matches!(outcome, Some(Outcome::Ok(_) | Status(_)));
                                gone[endpoint][path] = if says_gone { gone[endpoint][path] + 1 } else { 0 };
                            }
                            unheard[endpoint] = if heard { 0 } else { unheard[endpoint] + 1 };
                        }
                    }
                }
                let now = world.states();
                for endpoint in 0..3 {
                    let up: Vec<_> = (0..2).filter(|&path| world.links[path]).collect();
                    if before[endpoint] != State::Dead && now[endpoint] == State::Dead {
                        prop_assert!(!up.is_empty());
                        // In the middle of a round: of one path this round's evidence, of another that of the one before.
                        let in_a_row = |path: usize| gone[endpoint][path].max(gone_before[endpoint][path]);
                        let hard = up.iter().all(|&path| in_a_row(path) >= 3);
                        let silent = unheard[endpoint].max(unheard_before[endpoint]);
                        // Two rounds are not counted in full: the one in which it was heard, and this one.
                        prop_assert!(hard || silent >= 23, "{gone:?} {silent:?}");
                    }
                    if now[endpoint] != State::Dead && !up.is_empty() {
                        prop_assert!(up.iter().any(|&path| !world.shut(endpoint)[path]), "endpoint {endpoint} has no way");
                    }
                }
                if let Step::Probe(found) = &step && world.links == [true; 2] {
                    let alike = found.iter().all(|paths| *paths == found[0]);
                    let died = before.iter().zip(&now).filter(|(old, new)| **old != State::Dead && **new == State::Dead).count();
                    prop_assert!(!alike || died < 3, "all died at once");
                }
            }
        }
        world.links = [true; 2];
        world.all(33, OK);
        prop_assert_eq!(world.states(), vec![State::Healthy; 3]);
        prop_assert!((0..3).all(|endpoint| world.shut(endpoint) == [false; 2]) && world.doubts().is_empty());
    }
}
