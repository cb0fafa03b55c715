//! One action, proposed until its outcome is known: through a sequencer, or shown before it is
//! decided.
//!
//! A durable client asks again under the same serial, in later lives too. An automatic one knows its
//! key as long as its process lives: what is under way when that stops, it never hears of.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::client::{Client, Life};
use super::dice::Dice;
use super::game::Ledger;
use super::mirror::Answer;
use super::player::Player;
use super::world::{Told, Verdict, Watcher};
use crate::turns::{Decision, NotProposed, Proposal, ProposeError, Ruling, TurnError};

pub(super) struct Quest {
    client: Client,
    n: u64,
    action: u64,
    /// The highest entry anybody was told of when it began.
    floor: u64,
    serial: Option<u64>,
    /// The turn it is meant for, once it was proposed.
    fence: Option<u64>,
    wants_fence: bool,
    /// The life that proposed it first.
    first: Option<Arc<Watcher>>,
    /// Whether it must be proposed without being shown: what the rules say here of one that an
    /// earlier life proposed says nothing of what became of it.
    plainly: bool,
    /// Whether the life that is asked has others of its peer before it.
    again: bool,
    dice: Dice,
}

/// Whether an answer says that the action did not and will not take effect.
pub(super) fn promises(error: &TurnError) -> bool {
    matches!(
        error,
        TurnError::Propose(
            ProposeError::NotAppended { .. }
                | ProposeError::Overloaded
                | ProposeError::TooLarge { .. }
                | ProposeError::NoPlace(_)
                | ProposeError::Closed
        )
    )
}

fn verdict(decision: &Decision<Ledger>) -> Option<Verdict> {
    match decision.ruling {
        Ruling::Accepted(_) => Some(Verdict::Accepted {
            turn: decision.turn,
        }),
        Ruling::Refused(_) => Some(Verdict::Refused),
        Ruling::Fenced => Some(Verdict::Fenced),
        Ruling::Withheld { .. } => None,
    }
}

impl Quest {
    pub(super) fn new(client: Client, n: u64, mut dice: Dice) -> Self {
        let floor = client.world.facts().acknowledged;
        Self {
            action: client.action(n),
            floor,
            serial: (!client.style.automatic).then_some(n),
            fence: None,
            wants_fence: dice.permille(150),
            first: None,
            plainly: false,
            again: false,
            client,
            n,
            dice,
        }
    }

    /// Asks until the outcome is known, or can never be.
    pub(super) async fn run(mut self) {
        loop {
            if let Some(life) = self.client.slot.get() {
                let first = self.first.as_ref();
                let fresh = first.is_none_or(|first| Arc::ptr_eq(first, &life.watcher));
                if !fresh && self.client.style.automatic {
                    break;
                }
                if self.ask(&life, fresh).await {
                    break;
                }
            }
            sleep(Duration::from_millis(self.dice.range(1, 20))).await;
        }
        self.client.finished(self.n);
    }

    /// Asks once. Answers whether the quest is over.
    async fn ask(&mut self, life: &Life, fresh: bool) -> bool {
        if self.first.is_none() {
            self.first = Some(life.watcher.clone());
            if self.wants_fence {
                let turn = match &life.player {
                    Some(player) => player.spec.shown().borrow().standing.turn,
                    None => life.sequencer.read_local(|seen| seen.turn),
                };
                // At times for the turn after its own earlier action.
                self.fence = Some(turn + u64::from(self.dice.permille(250)));
            }
        }
        let proposal = Proposal {
            serial: self.serial,
            expected_turn: self.fence,
            within: Duration::from_millis(self.dice.range(20, 400)),
        };
        self.again = life.again;
        self.client.world.facts().asks(self.action);
        match &life.player {
            Some(player) if !self.plainly => self.ask_shown(player, life, proposal, fresh).await,
            _ => self.ask_plainly(life, proposal).await,
        }
    }

    async fn ask_plainly(&mut self, life: &Life, proposal: Proposal) -> bool {
        let world = self.client.world.clone();
        let mirrored = self.serial.filter(|_| life.player.is_none());
        if let (Some(serial), Some(mut mirror)) = (mirrored, life.mirror()) {
            mirror.propose(serial, self.action, &mut world.facts());
        }
        let answer = life.sequencer.propose_with(&self.action, proposal).await;
        if !life.watcher.is_on() {
            return false;
        }
        if let (Some(serial), Some(mut mirror)) = (mirrored, life.mirror()) {
            let told = match &answer {
                Ok(told) => Answer::Decided(told.index, told.ruling.clone()),
                Err(error) => Answer::Error(error.clone()),
            };
            mirror.replied(serial, told, &mut world.facts());
        }
        self.answered(&answer)
    }

    async fn ask_shown(
        &mut self,
        player: &Player,
        life: &Life,
        proposal: Proposal,
        fresh: bool,
    ) -> bool {
        let world = self.client.world.clone();
        let action = self.action;
        player.judge().asks(action, fresh);
        let asked = player.spec.propose_with(action, proposal).await;
        if !life.watcher.is_on() {
            return false;
        }
        let ticket = match asked {
            Ok(ticket) => ticket,
            Err(why) => {
                player.judge().not_sent(action);
                return self.not_sent(player, why, fresh);
            }
        };
        let serial = ticket.key().serial;
        let fenced = self.fence.is_some();
        player.took(serial, action, fresh, fenced, &mut world.facts());
        let key = ticket.key().clone();
        let answer = if self.dice.permille(30) {
            let patience = Duration::from_millis(self.dice.range(1, 60));
            match timeout(patience, ticket.decided()).await {
                Ok(answer) => answer,
                Err(_) if life.watcher.is_on() => {
                    player.gave_up(serial, &mut world.facts());
                    player.spec.give_up(&key).await;
                    return true;
                }
                Err(_) => return false,
            }
        } else {
            ticket.decided().await
        };
        if !life.watcher.is_on() {
            return false;
        }
        let told = answer.as_ref().map(|told| (told.index, &told.ruling));
        player.answered(serial, told, &mut world.facts());
        self.answered(&answer)
    }

    /// The speculation did not send it.
    fn not_sent(&mut self, player: &Player, why: NotProposed<u64>, fresh: bool) -> bool {
        let world = self.client.world.clone();
        let mut facts = world.facts();
        match why {
            NotProposed::PredictedRefusal(_) => {
                player.predicted(self.action, &mut facts);
                facts.counters.spec_predicted += 1;
                if fresh {
                    facts.told_never(self.action);
                    return true;
                }
                self.plainly = true;
                false
            }
            NotProposed::TooManyPending { .. } => {
                facts.counters.spec_full += 1;
                false
            }
            NotProposed::Propose(why) => {
                drop(facts);
                self.answered(&Err(why.into()))
            }
        }
    }

    /// An attempt was answered. Answers whether the quest is over.
    fn answered(&mut self, answer: &Result<Decision<Ledger>, TurnError>) -> bool {
        let world = self.client.world.clone();
        let mut facts = world.facts();
        let node = self.client.node;
        let automatic = self.client.style.automatic;
        match answer {
            Ok(decision) => {
                let Some(verdict) = verdict(decision) else {
                    facts.broken("ExactlyOnce", format!("{} was withheld", self.action));
                    return true;
                };
                facts.counters.automatic += u64::from(automatic);
                facts.counters.automatic_again += u64::from(automatic && self.again);
                facts.told(&Told {
                    node,
                    action: self.action,
                    index: decision.index,
                    verdict,
                    fence: self.fence,
                    floor: self.floor,
                });
                true
            }
            Err(error) => {
                facts.counters.unknown += 1;
                if promises(error) {
                    facts.told_never(self.action);
                }
                if automatic {
                    self.serial = match error {
                        TurnError::Propose(ProposeError::Unknown { key }) => Some(key.serial),
                        _ if promises(error) => None,
                        _ => self.serial,
                    };
                }
                let text = error.to_string();
                facts.note(node, 7, &[self.n, text.len() as u64]);
                false
            }
        }
    }
}
