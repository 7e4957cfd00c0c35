//! Notices wait, are tried and arrive in simulated time: none is lost, and the urgent ones overtake.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;
/// What an attempt takes at a receiver that works.
const ANSWER: i64 = SECOND / 100;
/// ... and until it is given up.
const GIVE_UP: i64 = 10 * SECOND;

/// A receiver, the outbox before it, and two workers, in simulated time.
struct World {
    now: i64,
    outbox: BTreeMap<(u8, u64), String>,
    planner: Planner,
    next_number: u64,
    /// When each notice arrived, by what it says.
    arrived: BTreeMap<String, Vec<i64>>,
    order: Vec<String>,
    /// When its attempt ends, and what is tried, for each worker.
    busy: [Option<(i64, u64, String)>; 2],
    held_max: usize,
    attempts: u64,
}

impl World {
    fn new() -> Self {
        let (outbox, arrived) = (BTreeMap::new(), BTreeMap::new());
        let (order, busy, planner) = (Vec::new(), [None, None], Planner::new(7));
        Self { now: 0, outbox, planner, next_number: 0, arrived, order, busy, held_max: 0, attempts: 0 }
    }

    fn tell(&mut self, lane: u8, incident: &str, word: &str) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.outbox.insert((lane, number), format!("{incident} {word}"));
        number
    }

    fn refill(&mut self) {
        for lane in self.planner.lanes_to_refill().collect::<Vec<u8>>() {
            let rows = self.outbox.range((lane, 0)..(lane + 1, 0)).take(WINDOW_ROWS);
            let rows: Vec<_> = rows
                .map(|((_, number), json)| {
                    (*number, json.split(' ').next().unwrap_or_default().to_owned(), json.clone())
                })
                .collect();
            self.planner.offer(lane, rows);
        }
        self.held_max = self.held_max.max(self.planner.held());
    }

    /// Works until then, or until nothing waits.
    fn run(&mut self, until: i64, receiver: &dyn Fn(i64, &str) -> Outcome) {
        self.planner.expect_more();
        self.refill();
        while self.now < until {
            let mut wake = until;
            for (worker, slot) in [(0, Slot::Any), (1, Slot::Urgent)] {
                if self.busy[worker].is_none() {
                    match self.planner.next(self.now, slot) {
                        Next::Attempt(number, json) => {
                            self.attempts += 1;
                            let took = match receiver(self.now, &json) {
                                Outcome::Failed(None) => GIVE_UP,
                                _ => ANSWER,
                            };
                            self.busy[worker] = Some((self.now + took, number, json));
                        }
                        Next::Wait(at) => wake = wake.min(at),
                        Next::Idle => {}
                    }
                }
            }
            let ends = self.busy.iter().flatten().map(|(ends, ..)| *ends).min();
            if ends.is_none() && self.outbox.is_empty() {
                return;
            }
            let next = ends.map_or(wake, |ends| ends.min(wake));
            assert!(next > self.now || ends.is_some(), "time goes on");
            self.now = next.max(self.now);
            for worker in 0..2 {
                if self.busy[worker].as_ref().is_some_and(|(ends, ..)| *ends <= self.now) {
                    let (_, number, json) = self.busy[worker].take().expect("it is busy");
                    self.end(number, json, receiver);
                }
            }
            self.refill();
        }
    }

    fn end(&mut self, number: u64, json: String, receiver: &dyn Fn(i64, &str) -> Outcome) {
        let outcome = receiver(self.now, &json);
        if outcome == Outcome::Arrived {
            self.arrived.entry(json.clone()).or_default().push(self.now);
            self.order.push(json);
        }
        if self.planner.done(number, outcome, self.now) != Fate::Again {
            LANES.iter().for_each(|lane| _ = self.outbox.remove(&(*lane, number)));
            self.planner.settled([number]);
        }
    }
}

#[test]
fn a_receiver_that_is_away_for_72_hours_gets_all_of_100_000_notices_once_it_is_back() {
    let mut world = World::new();
    for number in 0..100_000 {
        world.tell(1, &format!("inc{}", number / 3), &format!("change{number}"));
    }
    let back = 72 * 3_600 * SECOND;
    let receiver = |now, _: &str| if now < back { Outcome::Failed(None) } else { Outcome::Arrived };
    world.run(back, &receiver);
    assert!(world.arrived.is_empty() && world.outbox.len() == 100_000);
    let attempts = world.attempts;
    assert!((800..2_000).contains(&attempts), "one about every five minutes, not a storm: {attempts}");
    world.run(back + 3_600 * SECOND, &receiver);
    assert!(world.outbox.is_empty(), "{} wait", world.outbox.len());
    assert_eq!(world.arrived.len(), 100_000);
    assert!(world.arrived.values().all(|times| times.len() == 1));
    assert!(world.held_max <= 2 * WINDOW_ROWS + WINDOW_ROWS, "{} in memory", world.held_max);
    let first = world.arrived.values().flatten().min().expect("some arrived");
    assert!(first - back <= 300 * SECOND + GIVE_UP, "it is found within five minutes: {} s", (first - back) / SECOND);
}

#[test]
fn a_critical_notice_behind_a_flood_of_100_000_leaves_within_5_s() {
    let mut world = World::new();
    for number in 0..100_000 {
        world.tell(1, &format!("low{number}"), "opened");
    }
    let receiver = |_, _: &str| Outcome::Arrived;
    world.run(30 * SECOND, &receiver);
    assert!(world.outbox.len() > 90_000, "the flood is on its way");
    let planted = world.now;
    world.tell(0, "critical", "opened");
    world.run(planted + 20 * SECOND, &receiver);
    let arrived = world.arrived["critical opened"][0];
    assert!(arrived - planted <= 5 * SECOND, "{} ms", (arrived - planted) / 1_000_000);
}

#[test]
fn a_critical_notice_does_not_wait_for_a_low_one_that_hangs() {
    let mut world = World::new();
    world.tell(1, "low", "opened");
    // Whatever is low takes until it is given up.
    let receiver = |_, json: &str| if json.starts_with("low") { Outcome::Failed(None) } else { Outcome::Arrived };
    world.run(SECOND, &receiver);
    let planted = world.now;
    world.tell(0, "critical", "opened");
    world.run(planted + 5 * SECOND, &receiver);
    assert!(world.arrived.contains_key("critical opened"));
}

#[test]
fn notices_of_one_incident_arrive_in_order_though_one_fails() {
    let mut world = World::new();
    for word in ["opened", "updated", "resolved"] {
        world.tell(0, "a", word);
        world.tell(0, "b", word);
    }
    // The first attempts at "a opened" fail; "b" goes on.
    let receiver = |now, json: &str| match json {
        "a opened" if now < 3 * SECOND => Outcome::Failed(Some(0)),
        _ => Outcome::Arrived,
    };
    world.run(600 * SECOND, &receiver);
    let of =
        |incident: &str| -> Vec<&String> { world.order.iter().filter(|json| json.starts_with(incident)).collect() };
    assert_eq!(of("a"), ["a opened", "a updated", "a resolved"]);
    assert_eq!(of("b"), ["b opened", "b updated", "b resolved"]);
    assert_eq!(world.order[0], "b opened", "one incident does not wait for another");
}

#[test]
fn a_notice_that_is_refused_is_given_up_where_others_arrive_and_nothing_is_where_all_are_refused() {
    let mut world = World::new();
    world.tell(1, "poison", "opened");
    (0..5).for_each(|number| _ = world.tell(1, &format!("good{number}"), "opened"));
    let receiver = |_, json: &str| if json.starts_with("poison") { Outcome::Refused } else { Outcome::Arrived };
    world.run(3_600 * SECOND, &receiver);
    assert!(world.outbox.is_empty() && world.arrived.len() == 5);
    let mut world = World::new();
    (0..5).for_each(|number| _ = world.tell(1, &format!("good{number}"), "opened"));
    world.run(48 * 3_600 * SECOND, &|_, _: &str| Outcome::Refused);
    assert_eq!(world.outbox.len(), 5, "a wrong key loses nothing");
    assert!(world.planner.circuit().is_open());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fails, and however notices of incidents and lanes are mixed: all arrive, each once, those of one incident
    /// in order.
    #[test]
    fn all_arrive_once_and_in_order_of_their_incident(
        told in prop::collection::vec((0..12_u32, any::<bool>()), 1..400),
        failures in prop::collection::vec(0..4_u8, 1..40),
    ) {
        let mut world = World::new();
        // An incident that has become critical stays so, and what waits of it goes with it.
        let mut critical = std::collections::BTreeSet::new();
        for (turn, (incident, becomes_critical)) in told.iter().enumerate() {
            let name = format!("i{incident}");
            if *becomes_critical && critical.insert(name.clone()) {
                let slow = world.outbox.extract_if((1, 0).., |_, json| json.starts_with(&format!("{name} ")));
                let hurried: Vec<_> = slow.collect();
                world.outbox.extend(hurried.into_iter().map(|((_, number), json)| ((0, number), json)));
            }
            world.tell(u8::from(!critical.contains(&name)), &name, &format!("{turn:04}"));
            if turn % 7 == 0 {
                // Some are sent while others come.
                world.run(world.now + SECOND / 50, &|_, _| Outcome::Arrived);
            }
        }
        world.run(world.now + 3_600 * SECOND, &|now, _| match failures[(now / SECOND) as usize % failures.len()] {
            0 | 1 => Outcome::Arrived,
            2 => Outcome::Failed(Some(SECOND)),
            _ => Outcome::Failed(None),
        });
        world.run(world.now + 3_600 * SECOND, &|_, _| Outcome::Arrived);
        prop_assert!(world.outbox.is_empty(), "{} wait", world.outbox.len());
        prop_assert_eq!(world.order.len(), told.len());
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for (incident, turn) in world.order.iter().filter_map(|json| json.split_once(' ')) {
            let before = last.insert(incident, turn);
            prop_assert!(before.is_none_or(|before| before < turn), "{incident}: {turn} after {before:?}");
        }
    }
}
