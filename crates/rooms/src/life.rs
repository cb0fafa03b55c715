//! When a room ends: the deciding half of its lifecycle, without a clock or a thread.
//!
//! An empty room is abandoned. What that means is its lifecycle's: a resident one goes on; an
//! ephemeral one ends after a grace; a resumable one is parked after a grace, and without anywhere
//! to park it ends at once. A join during the grace calls it off. Parking that fails is tried again,
//! later and later: an empty room neither ends nor stays for ever because a store was down once.
//! A room nobody ever joined is not abandoned.

use std::collections::HashSet;
use std::time::Duration;

use cabinet_host::{Mode, Player, RoomResult, Standing, Status};
use cabinet_wire::Lifecycle;

/// The wait after the first failed attempt to park; each further one waits twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Players remembered as having been in the room, which get a line in its result. The first to be
/// forgotten is who joined first and is not there any more.
pub(crate) const JOINED_MAX: usize = 16_384;

/// What a room is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Settle as abandoned.
    Abandon,
    /// Capture and park; then [`Life::park_failed`], or the room is gone.
    Park,
}

/// Why a player is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    Full,
    Already,
}

/// What a room's life depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LifeRules {
    pub(crate) lifecycle: Lifecycle,
    /// Most members; 0 for no limit.
    pub(crate) capacity: u32,
    pub(crate) grace: Duration,
    /// Whether there is anywhere to park.
    pub(crate) parks: bool,
    /// How long parking may take.
    pub(crate) park_within: Duration,
}

#[derive(Debug)]
pub(crate) struct Life {
    rules: LifeRules,
    joined: Vec<Player>,
    /// Who was there last: the members, or those of whom the last one left.
    roster: Vec<Player>,
    stage: Stage,
    attempts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Empty; what is to happen happens then.
    Abandoned {
        until: Duration,
    },
    Parking {
        until: Duration,
        /// Until when the room was abandoned before, if it was.
        abandoned: Option<Duration>,
    },
}

impl Life {
    /// A room's life. `joined` and `roster` are those of the room it goes on from.
    pub(crate) fn new(rules: LifeRules, joined: &[Player], roster: Vec<Player>) -> Self {
        let mut life = Self {
            rules,
            joined: Vec::new(),
            roster,
            stage: Stage::Open,
            attempts: 0,
        };
        for player in joined {
            life.remember(player, &[]);
        }
        life
    }

    pub(crate) fn rules(&self) -> &LifeRules {
        &self.rules
    }

    /// Whether `player` may join these members.
    pub(crate) fn admits(&self, members: &[Player], player: &Player) -> Result<(), NotAdmitted> {
        if members.contains(player) {
            return Err(NotAdmitted::Already);
        }
        if self.is_full(members.len()) {
            return Err(NotAdmitted::Full);
        }
        Ok(())
    }

    /// Whether a room of so many members lets nobody in.
    pub(crate) fn is_full(&self, members: usize) -> bool {
        let capacity = self.rules.capacity as usize;
        capacity > 0 && members >= capacity
    }

    /// A player joined, and is among `members` now.
    pub(crate) fn joined(&mut self, player: &Player, members: &[Player]) {
        self.stage = Stage::Open;
        self.attempts = 0;
        self.remember(player, members);
        self.roster = members.to_vec();
    }

    /// Somebody is about to leave these members.
    pub(crate) fn leaving(&mut self, members: &[Player]) {
        self.roster = members.to_vec();
    }

    /// Who was there last. `members` are there now.
    pub(crate) fn roster(&self, members: &[Player]) -> Vec<Player> {
        if members.is_empty() {
            self.roster.clone()
        } else {
            members.to_vec()
        }
    }

    /// Everybody who was ever there, in the order they came.
    pub(crate) fn everybody(&self) -> &[Player] {
        &self.joined
    }

    /// The last member left.
    pub(crate) fn emptied(&mut self, now: Duration) -> Option<Verdict> {
        match self.rules.lifecycle {
            Lifecycle::Resident => return None,
            Lifecycle::Resumable if !self.rules.parks => return Some(Verdict::Abandon),
            Lifecycle::Resumable | Lifecycle::Ephemeral => {}
        }
        self.stage = Stage::Abandoned {
            until: now.saturating_add(self.rules.grace),
        };
        None
    }

    /// Nobody is there, and somebody is expected: a room that was just resumed. It gets the grace
    /// even where it could not be parked.
    pub(crate) fn wait_for_players(&mut self, now: Duration) {
        self.stage = Stage::Abandoned {
            until: now.saturating_add(self.rules.grace),
        };
    }

    /// When [`Life::due`] may have something to say.
    pub(crate) fn alarm(&self) -> Option<Duration> {
        match self.stage {
            Stage::Open => None,
            Stage::Abandoned { until } | Stage::Parking { until, .. } => Some(until),
        }
    }

    /// What is to be done at `now`.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Verdict> {
        match self.stage {
            Stage::Abandoned { until } if until <= now => match self.rules.lifecycle {
                Lifecycle::Resumable if self.rules.parks => Some(Verdict::Park),
                _ => Some(Verdict::Abandon),
            },
            Stage::Parking { until, .. } if until <= now => {
                self.park_failed(now);
                None
            }
            _ => None,
        }
    }

    /// Parking has begun; nobody is admitted until it is over.
    pub(crate) fn park_began(&mut self, now: Duration) {
        let abandoned = match self.stage {
            Stage::Open => None,
            Stage::Abandoned { until } => Some(until),
            Stage::Parking { abandoned, .. } => abandoned,
        };
        self.stage = Stage::Parking {
            until: now.saturating_add(self.rules.park_within),
            abandoned,
        };
    }

    /// Whether a snapshot of the room is on its way to where rooms are parked.
    pub(crate) fn is_parking(&self) -> bool {
        matches!(self.stage, Stage::Parking { .. })
    }

    /// Parking failed, or took too long. What was to become of the room before still is, a
    /// resumable one at a later time.
    pub(crate) fn park_failed(&mut self, now: Duration) {
        let before = match self.stage {
            Stage::Parking { abandoned, .. } => abandoned,
            Stage::Abandoned { until } => Some(until),
            Stage::Open => None,
        };
        let wait = RETRY_FIRST.saturating_mul(1 << self.attempts.min(6));
        self.attempts = self.attempts.saturating_add(1);
        let again = now.saturating_add(wait.min(RETRY_MAX));
        self.stage = match before {
            None => Stage::Open,
            Some(until) if self.rules.lifecycle == Lifecycle::Resumable => Stage::Abandoned {
                until: until.max(again),
            },
            Some(until) => Stage::Abandoned { until },
        };
    }

    /// The result of a room that was lost with its game: its members did not finish.
    pub(crate) fn lost(members: &[Player]) -> RoomResult {
        RoomResult {
            mode: Mode::Quick,
            standings: members.iter().map(did_not_finish).collect(),
            round_seq: 0,
        }
    }

    /// The room's result: the game's, and a line for everybody who was ever there and has none.
    pub(crate) fn result(&self, game: RoomResult) -> RoomResult {
        let mut result = game;
        let ranked: HashSet<&Player> = result.standings.iter().map(|line| &line.player).collect();
        let missing: Vec<Standing> = self
            .joined
            .iter()
            .filter(|player| !ranked.contains(player))
            .map(did_not_finish)
            .collect();
        result.standings.extend(missing);
        result
    }

    /// Players who were ever in the room.
    pub(crate) fn joined_count(&self) -> usize {
        self.joined.len()
    }

    fn remember(&mut self, player: &Player, members: &[Player]) {
        if self.joined.contains(player) {
            return;
        }
        if self.joined.len() >= JOINED_MAX {
            let present: HashSet<&Player> = members.iter().collect();
            match self.joined.iter().position(|old| !present.contains(old)) {
                Some(gone) => {
                    self.joined.remove(gone);
                }
                None => return,
            }
        }
        self.joined.push(player.clone());
    }
}

fn did_not_finish(player: &Player) -> Standing {
    Standing {
        player: player.clone(),
        metric: 0,
        rank: 0,
        status: Some(Status::Dnf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn rules(lifecycle: Lifecycle, parks: bool) -> LifeRules {
        LifeRules {
            lifecycle,
            capacity: 2,
            grace: GRACE,
            parks,
            park_within: Duration::from_secs(30),
        }
    }

    fn player(n: u32) -> Player {
        Player::member(format!("a{n}"), format!("p{n}"), format!("c{n}"))
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_lifecycle_abandons_in_its_own_way() {
        let mut resident = Life::new(rules(Lifecycle::Resident, true), &[], Vec::new());
        assert_eq!(resident.emptied(secs(1)), None);
        assert_eq!(resident.alarm(), None);

        let mut ephemeral = Life::new(rules(Lifecycle::Ephemeral, true), &[], Vec::new());
        assert_eq!(ephemeral.emptied(secs(1)), None);
        assert_eq!(ephemeral.alarm(), Some(secs(61)));
        assert_eq!(ephemeral.due(secs(60)), None);
        assert_eq!(ephemeral.due(secs(61)), Some(Verdict::Abandon));

        let mut parked = Life::new(rules(Lifecycle::Resumable, true), &[], Vec::new());
        assert_eq!(parked.emptied(secs(1)), None);
        assert_eq!(parked.due(secs(61)), Some(Verdict::Park));

        let mut homeless = Life::new(rules(Lifecycle::Resumable, false), &[], Vec::new());
        assert_eq!(homeless.emptied(secs(1)), Some(Verdict::Abandon));
    }

    #[test]
    fn a_join_calls_the_grace_off() {
        let mut life = Life::new(rules(Lifecycle::Ephemeral, false), &[], Vec::new());
        let _ = life.emptied(secs(1));
        life.joined(&player(1), &[player(1)]);
        assert_eq!(life.alarm(), None);
        assert_eq!(life.due(secs(1_000)), None);
    }

    #[test]
    fn parking_that_fails_is_tried_again_later_and_later() {
        let mut life = Life::new(rules(Lifecycle::Resumable, true), &[], Vec::new());
        let _ = life.emptied(secs(0));
        let mut now = secs(60);
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(life.due(now), Some(Verdict::Park));
            life.park_began(now);
            assert!(life.is_parking());
            life.park_failed(now);
            let next = life.alarm().unwrap();
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn parking_that_never_answers_counts_as_failed() {
        let mut life = Life::new(rules(Lifecycle::Resumable, true), &[], Vec::new());
        let _ = life.emptied(secs(0));
        assert_eq!(life.due(GRACE), Some(Verdict::Park));
        life.park_began(GRACE);
        assert_eq!(life.alarm(), Some(GRACE + secs(30)));
        assert_eq!(life.due(GRACE + secs(30)), None);
        assert!(!life.is_parking());
        assert_eq!(life.due(GRACE + secs(31)), Some(Verdict::Park));
    }

    #[test]
    fn a_room_that_could_not_be_parked_on_demand_is_as_abandoned_as_it_was() {
        // In its grace: it ends when it would have ended.
        let mut ephemeral = Life::new(rules(Lifecycle::Ephemeral, true), &[], Vec::new());
        let _ = ephemeral.emptied(secs(0));
        ephemeral.park_began(secs(10));
        ephemeral.park_failed(secs(11));
        assert_eq!(ephemeral.due(secs(59)), None);
        assert_eq!(ephemeral.due(GRACE), Some(Verdict::Abandon));
        // Its grace went by meanwhile.
        let _ = ephemeral.emptied(secs(100));
        ephemeral.park_began(secs(159));
        assert_eq!(ephemeral.due(secs(189)), None);
        assert_eq!(ephemeral.due(secs(189)), Some(Verdict::Abandon));
        // A resumable one keeps its grace, too.
        let mut resumable = Life::new(rules(Lifecycle::Resumable, true), &[], Vec::new());
        let _ = resumable.emptied(secs(0));
        resumable.park_began(secs(10));
        resumable.park_failed(secs(11));
        assert_eq!(resumable.alarm(), Some(GRACE));
        // Nobody was ever there, or somebody is.
        let mut open = Life::new(rules(Lifecycle::Resumable, true), &[], Vec::new());
        open.park_began(secs(10));
        open.park_failed(secs(11));
        assert_eq!(open.alarm(), None);
    }

    #[test]
    fn the_third_of_two_is_refused_and_nobody_sits_twice() {
        let life = Life::new(rules(Lifecycle::Resumable, true), &[], Vec::new());
        let members = [player(1)];
        assert_eq!(life.admits(&members, &player(1)), Err(NotAdmitted::Already));
        assert_eq!(life.admits(&members, &player(2)), Ok(()));
        let members = [player(1), player(2)];
        assert_eq!(life.admits(&members, &player(3)), Err(NotAdmitted::Full));
        assert_eq!(life.admits(&members, &player(2)), Err(NotAdmitted::Already));
    }

    #[test]
    fn everybody_who_was_there_has_one_line_in_the_result() {
        let mut life = Life::new(rules(Lifecycle::Resumable, true), &[player(1)], Vec::new());
        life.joined(&player(2), &[player(1), player(2)]);
        life.joined(&player(3), &[player(3)]);
        life.joined(&player(2), &[player(2)]);
        let result = life.result(RoomResult {
            mode: Mode::Quick,
            standings: vec![Standing {
                player: player(3),
                metric: 42,
                rank: 1,
                status: Some(Status::Finished),
            }],
            round_seq: 0,
        });
        let lines: Vec<_> = result
            .standings
            .iter()
            .map(|line| (line.player.handle.as_str(), line.rank, line.status))
            .collect();
        assert_eq!(
            lines,
            [
                ("p3", 1, Some(Status::Finished)),
                ("p1", 0, Some(Status::Dnf)),
                ("p2", 0, Some(Status::Dnf)),
            ]
        );
    }

    #[test]
    fn a_room_that_sees_crowds_remembers_so_many_and_those_present_in_any_case() {
        let mut life = Life::new(rules(Lifecycle::Resident, true), &[], Vec::new());
        life.joined = (0..JOINED_MAX as u32).map(player).collect();
        let newcomer = player(99_999);
        life.joined(&newcomer, &[player(0), newcomer.clone()]);
        assert_eq!(life.joined_count(), JOINED_MAX);
        assert_eq!(life.joined[0], player(0));
        assert_eq!(life.joined[1], player(2));
        assert_eq!(life.joined.last(), Some(&newcomer));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Join(u32),
        Leave,
        Pass(u64),
        Fail,
    }

    proptest! {
        #[test]
        fn an_empty_room_that_is_not_resident_always_has_an_alarm_or_is_over(
            ephemeral in any::<bool>(),
            events in prop::collection::vec(
                prop_oneof![
                    (0u32..5).prop_map(Event::Join),
                    Just(Event::Leave),
                    (1u64..200).prop_map(Event::Pass),
                    Just(Event::Fail),
                ],
                1..80,
            ),
        ) {
            let lifecycle = if ephemeral { Lifecycle::Ephemeral } else { Lifecycle::Resumable };
            let mut life = Life::new(rules(lifecycle, true), &[], Vec::new());
            let mut members: Vec<Player> = vec![];
            let (mut now, mut ever) = (Duration::ZERO, false);
            for event in events {
                match event {
                    Event::Join(n) if !life.is_parking() => {
                        if life.admits(&members, &player(n)).is_ok() {
                            members.push(player(n));
                            life.joined(&player(n), &members);
                            ever = true;
                        }
                        prop_assert!(members.len() <= 2);
                    }
                    Event::Leave if !members.is_empty() => {
                        members.remove(0);
                        if members.is_empty() {
                            prop_assert_eq!(life.emptied(now), None);
                        }
                    }
                    Event::Pass(seconds) => {
                        now += secs(seconds);
                        match life.due(now) {
                            Some(Verdict::Abandon) => {
                                prop_assert!(members.is_empty() && ephemeral);
                                return Ok(());
                            }
                            Some(Verdict::Park) => {
                                prop_assert!(members.is_empty() && !ephemeral);
                                life.park_began(now);
                            }
                            None => {}
                        }
                    }
                    Event::Fail if life.is_parking() => life.park_failed(now),
                    _ => {}
                }
                prop_assert_eq!(life.alarm().is_some(), ever && members.is_empty());
            }
        }
    }
}
