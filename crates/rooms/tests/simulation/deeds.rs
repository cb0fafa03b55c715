//! What chance does to the world.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cabinet_host::{Player, Snapshot};
use cabinet_rooms::{InputError, Listed, OpenError, Resume, RoomHandle, RoomId, RoomSpec};

use super::{Answer, Asked, Incarnation, Lineage, Plan, State, World};
use crate::chance::fnv;
use crate::games::{KINDS, load_for_nothing};

/// Players there are, per room.
const PLAYERS: usize = 12;

type Deed = fn(&mut World);

impl World {
    pub(super) fn deed(&mut self, plan: Plan) {
        let live = self
            .lineages
            .iter()
            .filter(|one| one.state != State::Settled);
        if live.count() < plan.rooms {
            self.open();
            return;
        }
        const DEEDS: [(usize, Deed); 13] = [
            (34, World::join),
            (4, World::join_and_give_up),
            (24, World::leave),
            (60, World::input),
            (5, World::hibernate),
            (2, World::hibernate_and_close),
            (1, World::close),
            (2, World::checkpoint),
            (22, World::resume),
            (1, World::open_twice),
            (1, World::resume_as_something_else),
            (1, World::load_for_nothing),
            (6, World::look),
        ];
        let which = self
            .chance
            .weighted(DEEDS.iter().map(|(weight, _)| *weight));
        DEEDS[which].1(self);
    }

    fn open(&mut self) {
        let kind = self.chance.weighted(KINDS.iter().map(|kind| kind.weight));
        let Some(listed) = self.offered(kind) else {
            return;
        };
        let parks = !self.chance.one_in(8);
        let spec = self.spec(None, parks);
        let handle = self.by.runtime.open(&listed, spec).unwrap();
        self.log
            .line(format!("open {} {}", listed.slug(), handle.id()));
        self.count("opened");
        self.begin(handle, kind, listed, (parks, false));
    }

    /// The listing, unless it is in quarantine; then it is taken out of there.
    fn offered(&mut self, kind: usize) -> Option<Arc<Listed>> {
        let slug = KINDS[kind].slug;
        let listed = self.registry.get(slug);
        if listed.is_none() {
            self.quarantine.restore(slug, self.now()).unwrap();
            self.count("taken out of quarantine");
        }
        listed
    }

    fn spec(&mut self, id: Option<RoomId>, parks: bool) -> RoomSpec {
        let mut spec = RoomSpec::default();
        spec.id = id;
        spec.services = self.stores.services();
        spec.grace = Some(Duration::from_secs(5 + self.chance.below(90) as u64));
        if parks {
            spec.parking = Some(Arc::new(self.garage.clone()));
        }
        spec
    }

    /// A room that is new to the world.
    pub(super) fn begin(
        &mut self,
        handle: RoomHandle,
        kind: usize,
        listed: Arc<Listed>,
        (parks, resumed): (bool, bool),
    ) {
        let lineage = self.lineages.len();
        let id = handle.id();
        let state = State::Open(self.incarnate(lineage, handle, resumed));
        self.lineages.push(Lineage {
            id,
            kind,
            listed,
            state,
            settled: 0,
            parks,
        });
    }

    fn incarnate(&mut self, lineage: usize, handle: RoomHandle, resumed: bool) -> usize {
        self.opened += 1;
        self.incarnations.push(Incarnation {
            lineage,
            handle: Some(handle),
            seats: Vec::new(),
            resumed,
            joined: BTreeSet::new(),
            gave_up: BTreeSet::new(),
        });
        self.incarnations.len() - 1
    }

    /// A room that is open.
    fn some_open(&mut self) -> Option<(usize, RoomHandle)> {
        for _ in 0..8 {
            let lineage = self.chance.below(self.lineages.len());
            if let State::Open(at) = self.lineages[lineage].state
                && let Some(handle) = self.incarnations[at].handle.clone()
                // Some deeds let rooms run.
                && handle.ending().is_none()
            {
                return Some((at, handle));
            }
        }
        None
    }

    fn some_parked(&mut self) -> Option<usize> {
        (0..8)
            .map(|_| self.chance.below(self.lineages.len()))
            .find(|lineage| self.lineages[*lineage].state == State::Captured)
    }

    fn some_seat(&mut self) -> Option<(usize, usize)> {
        for _ in 0..8 {
            let (at, _) = self.some_open()?;
            let seats = self.incarnations[at].seats.len();
            if seats > 0 {
                return Some((at, self.chance.below(seats)));
            }
        }
        None
    }

    pub(super) fn ask(
        &mut self,
        incarnation: usize,
        future: impl Future<Output = Answer> + 'static,
    ) {
        let mut future: Pin<Box<dyn Future<Output = Answer>>> = Box::pin(future);
        // The first look sends the request.
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(answer) => self.answered(incarnation, answer),
            Poll::Pending => self.asked.push(Asked {
                incarnation,
                future,
            }),
        }
    }

    fn somebody(&mut self) -> Player {
        let n = self.chance.below(PLAYERS);
        match n {
            0 => Player::guest("guest", "c0"),
            _ => crate::common::player(n),
        }
    }

    fn join(&mut self) {
        let Some((at, room)) = self.some_open() else {
            return;
        };
        if self.garage.holds().contains(&room.id()) {
            self.count("join while parking");
        }
        let player = self.somebody();
        self.log
            .line(format!("join {} {}", room.id(), player.handle));
        self.ask(at, async move { Answer::Joined(room.join(player).await) });
    }

    /// Asks for a seat and goes, before the room has answered or right after it has.
    fn join_and_give_up(&mut self) {
        let Some((at, room)) = self.some_open() else {
            return;
        };
        let player = self.somebody();
        let mut join = Box::pin(room.join(player.clone()));
        let mut cx = Context::from_waker(Waker::noop());
        if join.as_mut().poll(&mut cx).is_pending() {
            let answered = self.chance.one_in(2);
            if answered {
                self.by.pass(Duration::ZERO);
            }
            self.count(match answered {
                true => "gave up after the answer",
                false => "gave up before the answer",
            });
            self.incarnations[at].gave_up.insert(player.conn);
        }
    }

    fn leave(&mut self) {
        let Some((at, seat)) = self.some_seat() else {
            return;
        };
        let seat = self.incarnations[at].seats.swap_remove(seat);
        self.log.line(format!("leave {}", seat.player().handle));
        if self.chance.one_in(2) {
            drop(seat);
            self.count("left");
        } else {
            self.ask(at, async move {
                seat.leave().await;
                Answer::Left
            });
        }
    }

    fn input(&mut self) {
        let Some((at, seat)) = self.some_seat() else {
            return;
        };
        let kind = self.lineages[self.incarnations[at].lineage].kind;
        let burst = match self.chance.one_in(50) {
            true => 40,
            false => 1 + self.chance.below(4),
        };
        for _ in 0..burst {
            let input = KINDS[kind].input(&mut self.chance);
            match self.incarnations[at].seats[seat].try_input(input) {
                Ok(()) => self.count("input"),
                Err(InputError::Full) => self.count("input refused"),
                Err(_) => {}
            }
        }
    }

    fn hibernate(&mut self) {
        if let Some((at, room)) = self.some_open() {
            self.log.line(format!("hibernate {}", room.id()));
            self.ask(
                at,
                async move { Answer::Hibernated(room.hibernate().await) },
            );
        }
    }

    /// Both at once, and perhaps two hibernations.
    fn hibernate_and_close(&mut self) {
        let Some((at, room)) = self.some_open() else {
            return;
        };
        self.log.line(format!("hibernate and close {}", room.id()));
        self.count("hibernate and close");
        let (first, other) = (self.chance.one_in(3), self.chance.one_in(2));
        if first {
            room.close();
        }
        if other {
            let room = room.clone();
            self.ask(
                at,
                async move { Answer::Hibernated(room.hibernate().await) },
            );
        }
        let same = room.clone();
        self.ask(
            at,
            async move { Answer::Hibernated(same.hibernate().await) },
        );
        room.close();
    }

    fn close(&mut self) {
        if let Some((_, room)) = self.some_open() {
            self.log.line(format!("close {}", room.id()));
            room.close();
            self.count("close");
        }
    }

    fn checkpoint(&mut self) {
        if let Some((at, room)) = self.some_open() {
            self.ask(at, async move {
                Answer::Captured(Box::new(room.checkpoint().await))
            });
        }
    }

    fn resume(&mut self) {
        let Some(lineage) = self.some_parked() else {
            return;
        };
        let (id, parks) = (self.lineages[lineage].id, self.lineages[lineage].parks);
        let listed = Arc::clone(&self.lineages[lineage].listed);
        let mut record = self.garage.record(id).expect("a parked room has a record");
        let most = listed.game().snapshot_bytes_max();
        let snapshot = Snapshot::decode(&record, most).unwrap();
        if self.chance.one_in(20) {
            let at = self.chance.below(record.len());
            record[at] ^= 1 << self.chance.below(8);
            // Compressed data has bits that mean nothing.
            let harmless = Snapshot::decode(&record, most).is_ok_and(|same| same == snapshot);
            assert!(harmless || Snapshot::decode(&record, most).is_err());
            self.count("damaged snapshot");
            return;
        }
        let again = self.chance.one_in(3).then(|| snapshot.clone());
        let spec = self.spec(Some(id), parks);
        let from = Resume::Snapshot(Box::new(snapshot));
        let handle = self.by.runtime.resume(&listed, from, spec.clone()).unwrap();
        self.log.line(format!("resume {id}"));
        self.count("resume");
        if let Some(snapshot) = again {
            let from = Resume::Snapshot(Box::new(snapshot));
            let lost = self.by.runtime.resume(&listed, from, spec).unwrap_err();
            assert!(
                matches!(lost, OpenError::AlreadyOpen(of) if of == id),
                "{lost}"
            );
            self.count("lost resume");
        }
        if self.chance.one_in(12) {
            handle.close();
            self.count("resumed and closed");
        }
        self.lineages[lineage].state = State::Open(self.incarnate(lineage, handle, true));
    }

    /// Somebody opens or resumes a room that is open.
    fn open_twice(&mut self) {
        let Some((at, room)) = self.some_open() else {
            return;
        };
        let listed = Arc::clone(&self.lineages[self.incarnations[at].lineage].listed);
        let spec = self.spec(Some(room.id()), true);
        let stale = self.garage.record(room.id());
        let opened = match stale {
            None => self.by.runtime.open(&listed, spec),
            Some(record) => {
                let most = listed.game().snapshot_bytes_max();
                let snapshot = Snapshot::decode(&record, most).unwrap();
                let from = Resume::Snapshot(Box::new(snapshot));
                self.count("resume of an open room");
                self.by.runtime.resume(&listed, from, spec)
            }
        };
        assert!(matches!(opened, Err(OpenError::AlreadyOpen(_))));
        self.count("open of an open room");
    }

    /// A parked room is resumed as a room of another game; it stays parked.
    fn resume_as_something_else(&mut self) {
        let (Some(lineage), Some(listed)) = (self.some_parked(), self.registry.get("small")) else {
            return;
        };
        let id = self.lineages[lineage].id;
        if KINDS[self.lineages[lineage].kind].slug == "small" {
            return;
        }
        let record = self.garage.record(id).expect("a parked room has a record");
        let most = self.lineages[lineage].listed.game().snapshot_bytes_max();
        let snapshot = Snapshot::decode(&record, most).unwrap();
        let spec = self.spec(Some(id), true);
        let from = Resume::Snapshot(Box::new(snapshot));
        let handle = self.by.runtime.resume(&listed, from, spec).unwrap();
        self.count("resume as another game");
        self.lineages[lineage].state = State::Open(self.incarnate(lineage, handle, true));
    }

    fn load_for_nothing(&mut self) {
        // Loading takes real time: one in three.
        if self.chance.one_in(3) {
            let what = load_for_nothing(&mut self.chance);
            self.log.line(format!("load: {what}"));
            self.count(match what {
                "loaded and dropped" => what,
                _ => "failed load",
            });
        }
    }

    fn look(&mut self) {
        let Some((at, seat)) = self.some_seat() else {
            return;
        };
        if let Some(view) = self.incarnations[at].seats[seat].frames().try_next() {
            let seen = (0..24).fold(0, |seen, row| {
                fnv(seen, view.frame.row_text(row).as_bytes())
            });
            self.log.line(format!("frame {seen:x}"));
            self.count("frame");
        }
    }
}
