//! A world of rooms: what chance does to it, and what must hold at every step.

#[path = "deeds.rs"]
mod deeds;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cabinet_host::{NoServices, Snapshot};
use cabinet_rooms::{
    CheckpointError, EndReason, Ending, HibernateError, JoinError, Listed, Quarantine,
    QuarantinePolicy, Registry, Resume, RoomHandle, RoomId, RoomSpec, Seat,
};

use cabinet_wire::Lifecycle;

use crate::chance::{Chance, Log};
use crate::common::{ByHand, by_hand_with, ms};
use crate::games::KINDS;
use crate::stores::{Garage, Stores};

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rooms that are open or parked, at any time.
    pub rooms: usize,
    pub minutes: u64,
    /// Things done a virtual second.
    pub deeds: usize,
}

/// A room under one id, through all its hibernations.
struct Lineage {
    id: RoomId,
    kind: usize,
    listed: Arc<Listed>,
    state: State,
    settled: u32,
    parks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As this incarnation.
    Open(usize),
    Captured,
    Settled,
}

/// A room from `open` or `resume` to its end.
struct Incarnation {
    lineage: usize,
    /// `None` once it has ended.
    handle: Option<RoomHandle>,
    seats: Vec<Seat>,
    resumed: bool,
    /// Whoever was told that they are in.
    joined: BTreeSet<String>,
    /// Whoever gave up before they were told.
    gave_up: BTreeSet<String>,
}

/// Something asked for and not answered yet.
struct Asked {
    incarnation: usize,
    future: Pin<Box<dyn Future<Output = Answer>>>,
}

enum Answer {
    Joined(Result<Seat, JoinError>),
    Left,
    Hibernated(Result<(), HibernateError>),
    Captured(Box<Result<Snapshot, CheckpointError>>),
}

pub struct World {
    pub by: ByHand,
    pub log: Log,
    /// How often each thing happened.
    pub tally: BTreeMap<&'static str, u64>,
    chance: Chance,
    registry: Arc<Registry>,
    quarantine: Arc<Quarantine>,
    stores: Stores,
    garage: Garage,
    lineages: Vec<Lineage>,
    incarnations: Vec<Incarnation>,
    asked: Vec<Asked>,
    opened: u64,
}

/// Empty rooms have ended so long after the last player left, unless they are to stay.
const GONE_WITHIN: Duration = Duration::from_secs(900);
/// All rooms have ended so long after they were closed, or are stuck.
const END_WITHIN: Duration = Duration::from_secs(120);

impl World {
    pub fn new(seed: u64, keep_lines: bool) -> Self {
        let mut chance = Chance::new(seed);
        let registry = Arc::new(Registry::new());
        for kind in &KINDS {
            registry.add(kind.listing()).unwrap();
        }
        let policy = QuarantinePolicy::default();
        let quarantine = Arc::new(Quarantine::new(Arc::clone(&registry), policy));
        let watch = Arc::clone(&quarantine);
        let entropy = chance.draw();
        let by = by_hand_with(|options| {
            options.entropy = Arc::new(cabinet_rooms::SeededEntropy::new(entropy));
            options.quarantine = Some(watch);
            // Nothing that is kept back in a call is ever answered in time, so wait briefly.
            options.store_timeout = ms(1);
        });
        Self {
            by,
            log: Log::new(keep_lines),
            tally: BTreeMap::new(),
            registry,
            quarantine,
            stores: Stores::new(chance.fork()),
            garage: Garage::new(chance.fork()),
            chance,
            lineages: Vec::new(),
            incarnations: Vec::new(),
            asked: Vec::new(),
            opened: 0,
        }
    }

    /// Plays as planned, closes every room and checks what is left of them: nothing.
    pub fn play(&mut self, plan: Plan) {
        let end = self.now() + Duration::from_secs(plan.minutes * 60);
        while self.now() < end {
            let step = ms(200 + self.chance.below(1_600) as u64);
            let deeds = plan.deeds * step.as_millis() as usize / 1_000;
            for _ in 0..=deeds {
                self.deed(plan);
            }
            self.step(step);
        }
        self.leave_all();
        self.close_all();
        self.check_lineages();
        self.settle_posts();
        assert_eq!(self.by.counts.get("rooms"), 0);
        assert_eq!(self.by.counts.get("memory"), 0);
        assert_eq!(self.by.runtime.stats().rooms, 0);
        let ended: i64 = self.counted("ended ");
        assert_eq!(ended.unsigned_abs(), self.opened, "each room ends once");
        self.log.line(format!("{:?}", self.by.counts.all()));
        self.garage.clear();
        self.lineages = Vec::new();
        self.incarnations = Vec::new();
    }

    /// Lets go of everything; nobody else holds on to it.
    pub fn end(mut self) -> (Log, BTreeMap<&'static str, u64>) {
        for (name, count) in self.stores.fates().into_iter().chain(self.garage.fates()) {
            self.tally.insert(name, count);
        }
        self.tally
            .insert("wakes", self.by.counts.get("callback wake") as u64);
        self.tally
            .insert("quarantined", self.by.counts.get("quarantined") as u64);
        for listed in self.registry.all() {
            // The registry's, and this one.
            assert_eq!(Arc::strong_count(&listed), 2, "{}", listed.slug());
        }
        drop(self.by.runtime);
        assert_eq!(Arc::strong_count(&self.by.counts), 1);
        assert!(self.stores.is_let_go() && self.garage.is_let_go());
        (self.log, self.tally)
    }

    fn now(&self) -> Duration {
        cabinet_rooms::Clock::now(&self.by.clock)
    }

    fn count(&mut self, name: &'static str) {
        *self.tally.entry(name).or_default() += 1;
    }

    fn counted(&self, prefix: &str) -> i64 {
        let all = self.by.counts.all();
        all.iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }

    fn step(&mut self, step: Duration) {
        self.by.pass(step);
        self.stores.advance(false);
        self.garage.advance(self.now());
        self.by.pass(Duration::ZERO);
        self.take_answers();
        self.take_endings();
        self.check_members();
        let (memory, wakes) = ("memory", "callback wake");
        let counts = [memory, wakes, "frame bytes"].map(|name| self.by.counts.get(name));
        self.log.line(format!("{:?} {counts:?}", self.now()));
    }

    /// Between steps a room has read its mail, unless it waits to be parked: whoever has a seat is
    /// a member, and nobody else.
    fn check_members(&self) {
        let parking = self.garage.attempts();
        for one in &self.incarnations {
            let Some(room) = one
                .handle
                .as_ref()
                .filter(|room| !parking.contains(&room.id()))
            else {
                continue;
            };
            let mut members: Vec<_> = room.members().iter().map(|it| it.conn.clone()).collect();
            let mut seats: Vec<_> = one
                .seats
                .iter()
                .map(|seat| seat.player().conn.clone())
                .collect();
            members.sort();
            seats.sort();
            assert_eq!(members, seats, "members and seats of {room:?}");
        }
    }

    fn take_answers(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for mut asked in std::mem::take(&mut self.asked) {
            match asked.future.as_mut().poll(&mut cx) {
                Poll::Ready(answer) => self.answered(asked.incarnation, answer),
                Poll::Pending => self.asked.push(asked),
            }
        }
    }

    fn answered(&mut self, at: usize, answer: Answer) {
        match answer {
            Answer::Joined(Ok(seat)) => {
                let conn = seat.player().conn.clone();
                self.log.line(format!("joined {conn}"));
                self.count("joined");
                self.incarnations[at].joined.insert(conn);
                self.incarnations[at].seats.push(seat);
            }
            Answer::Joined(Err(error)) => {
                self.log.line(format!("not joined: {error}"));
                self.count(match error {
                    JoinError::Closed => "join of a closed room",
                    JoinError::Full => "join of a full room",
                    JoinError::Already => "join twice",
                    error => panic!("{error}"),
                });
            }
            Answer::Left => self.count("left"),
            Answer::Hibernated(answer) => {
                self.log.line(format!("hibernated: {answer:?}"));
                let ended = self.incarnations[at]
                    .handle
                    .as_ref()
                    .and_then(RoomHandle::ending);
                let ended = ended.map(|ending| ending.reason);
                match answer {
                    Ok(()) => {
                        assert_eq!(ended, Some(EndReason::Hibernated));
                        self.count("hibernated on demand");
                    }
                    Err(HibernateError::Closed) => self.count("hibernate of a closed room"),
                    Err(HibernateError::NoParking) => self.count("hibernate without parking"),
                    Err(HibernateError::Park(_)) => self.count("hibernate failed"),
                    Err(error) => panic!("{error}"),
                }
            }
            Answer::Captured(answer) => match *answer {
                Err(CheckpointError::Closed) => {}
                Err(error) => panic!("{error}"),
                Ok(snapshot) => {
                    self.count("checkpoint");
                    self.never_adopt(at, snapshot);
                }
            },
        }
    }

    /// A second room made of a checkpoint, that nobody goes on with.
    fn never_adopt(&mut self, at: usize, snapshot: Snapshot) {
        let lineage = &self.lineages[self.incarnations[at].lineage];
        let (kind, listed) = (lineage.kind, Arc::clone(&lineage.listed));
        if self.chance.one_in(2) {
            drop(
                listed
                    .game()
                    .restore(&snapshot, Box::new(NoServices))
                    .unwrap(),
            );
            self.count("restored and dropped");
            return;
        }
        let mut spec = RoomSpec::default();
        spec.grace = Some(Duration::from_secs(30));
        let from = Resume::Snapshot(Box::new(snapshot));
        let handle = self.by.runtime.resume(&listed, from, spec).unwrap();
        if self.chance.one_in(2) {
            handle.close();
            self.count("restored and closed");
        } else {
            self.count("restored and forgotten");
        }
        self.begin(handle, kind, listed, (false, true));
    }

    fn take_endings(&mut self) {
        for at in 0..self.incarnations.len() {
            let ending = self.incarnations[at]
                .handle
                .as_ref()
                .and_then(RoomHandle::ending);
            if let Some(ending) = ending {
                self.ended(at, &ending);
            }
        }
        for asked in &self.asked {
            let waits_for = &self.incarnations[asked.incarnation];
            assert!(waits_for.handle.is_some(), "a room ended without an answer");
        }
    }

    fn ended(&mut self, at: usize, ending: &Arc<Ending>) {
        let room = self.incarnations[at].handle.take().unwrap();
        assert!(room.status().phase.is_over());
        assert!(self.by.runtime.find(room.id()).is_none());
        assert!(Arc::ptr_eq(&room.ending().unwrap(), ending));
        // Seats of a room that is over are worth nothing.
        self.incarnations[at].seats.clear();
        let fault = ending.fault.as_ref();
        let fault = fault.map(|report| (report.export, report.fault.class(), report.step));
        self.log.line(format!(
            "ended {} {:?} {fault:?} {:?}",
            room.id(),
            ending.reason,
            ending.result
        ));
        let lineage = &mut self.lineages[self.incarnations[at].lineage];
        assert_eq!(lineage.state, State::Open(at));
        let name = match ending.reason {
            EndReason::Hibernated => {
                assert!(ending.result.is_none());
                assert!(self.garage.record(room.id()).is_some());
                lineage.state = State::Captured;
                "ended: hibernated"
            }
            EndReason::NotResumed => {
                assert!(ending.result.is_none() && ending.restore.is_some());
                assert!(self.garage.record(room.id()).is_some());
                lineage.state = State::Captured;
                "ended: not resumed"
            }
            reason => {
                lineage.state = State::Settled;
                lineage.settled += 1;
                assert_eq!(lineage.settled, 1, "a room settles once");
                self.garage.forget(room.id());
                self.check_result(at, ending);
                match reason {
                    EndReason::Game => "ended: game",
                    EndReason::Abandoned => "ended: abandoned",
                    EndReason::Closed => "ended: closed",
                    EndReason::Fault => "ended: fault",
                    reason => panic!("{reason:?}: {:?}", ending.fault),
                }
            }
        };
        self.count(name);
        if let Some((_, class, _)) = fault {
            self.count(match class {
                "budget" => "loop ended by its budget",
                "deadline" | "host-io" | "host-bug" | "instantiation" => {
                    panic!("{}", ending.fault.as_ref().unwrap())
                }
                _ => "trap, exit or error",
            });
        }
    }

    /// Everybody who was ever in has one line, and nobody else has any.
    fn check_result(&self, at: usize, ending: &Ending) {
        let Incarnation {
            joined, gave_up, ..
        } = &self.incarnations[at];
        let standings = &ending
            .result
            .as_ref()
            .expect("a settled room's result")
            .standings;
        let lines: Vec<&str> = standings
            .iter()
            .map(|line| line.player.conn.as_str())
            .collect();
        for conn in joined {
            let count = lines.iter().filter(|line| *line == conn).count();
            assert_eq!(count, 1, "{conn} in {lines:?}, {:?}", ending.reason);
        }
        for line in lines {
            assert!(joined.contains(line) || gave_up.contains(line), "{line}");
        }
    }

    /// Rooms that nobody is in any more end by themselves, however often parking fails.
    fn leave_all(&mut self) {
        for one in &mut self.incarnations {
            one.seats.clear();
        }
        self.step(ms(10));
        for at in 0..self.incarnations.len() {
            if let Some(room) = self.incarnations[at].handle.clone()
                && self.chance.one_in(2)
            {
                self.ask(
                    at,
                    async move { Answer::Hibernated(room.hibernate().await) },
                );
            }
        }
        let until = self.now() + GONE_WITHIN;
        while self.now() < until {
            self.step(Duration::from_secs(5));
            // Joins that were on their way.
            for one in &mut self.incarnations {
                one.seats.clear();
            }
        }
        for one in &self.incarnations {
            if let Some(room) = &one.handle {
                let resident = room.status().lifecycle == Lifecycle::Resident;
                let visited = one.resumed || !one.joined.is_empty();
                assert!(resident || !visited, "an empty room that stays: {room:?}");
                *self.tally.entry("stayed while empty").or_default() += 1;
            }
        }
    }

    fn close_all(&mut self) {
        let open = |world: &Self| -> Vec<RoomHandle> {
            let handles = world.incarnations.iter().map(|one| one.handle.clone());
            handles.flatten().collect()
        };
        for room in open(self) {
            room.close();
        }
        let until = self.now() + END_WITHIN;
        while self.now() < until {
            self.step(Duration::from_secs(5));
        }
        assert_eq!(
            open(self).len(),
            0,
            "rooms that do not end: {:?}",
            open(self)
        );
        assert!(self.asked.is_empty());
    }

    /// No lineage has two ends, or none; what is parked can be had back.
    fn check_lineages(&mut self) {
        for lineage in &self.lineages {
            match lineage.state {
                State::Open(_) => unreachable!("all have ended"),
                State::Settled => assert_eq!(lineage.settled, 1),
                State::Captured => {
                    assert_eq!(lineage.settled, 0);
                    let record = self.garage.record(lineage.id).unwrap();
                    let game = lineage.listed.game();
                    let snapshot = Snapshot::decode(&record, game.snapshot_bytes_max()).unwrap();
                    drop(game.restore(&snapshot, Box::new(NoServices)).unwrap());
                    *self.tally.entry("parked at the end").or_default() += 1;
                }
            }
        }
    }

    /// Every post lands once, and no room's count has a gap.
    fn settle_posts(&mut self) {
        let until = self.now() + Duration::from_secs(300);
        while self.by.runtime.stats().posts_waiting > 0 && self.now() < until {
            self.stores.advance(true);
            self.by.pass(Duration::from_secs(1));
        }
        self.stores.advance(true);
        assert_eq!(self.by.runtime.stats().posts_waiting, 0);
        let mut rounds: BTreeMap<RoomId, BTreeSet<u32>> = BTreeMap::new();
        let (mut posts, mut sent_again) = (0, 0);
        for post in self.stores.posts() {
            assert_eq!(post.landed, 1, "{post:?}");
            assert!(
                rounds.entry(post.room).or_default().insert(post.round),
                "{post:?}"
            );
            posts += 1;
            sent_again += u64::from(post.sent > 1);
        }
        for (room, rounds) in rounds {
            let count = u32::try_from(rounds.len()).unwrap();
            assert!(rounds.into_iter().eq(1..=count), "{room}");
        }
        self.tally.insert("posts", posts);
        self.tally.insert("posts sent again", sent_again);
    }
}
