//! Knocking: whom a node that is in no session believes about what becomes of it.
//!
//! Every peer of a fabric can say "welcome", and a joiner has no log to know the members by. So it
//! asks who answers for a session: each member's claim says who leads, by its own log. Believed is
//! the answer of the node that leads
//! - by the claim of the highest term among the hosts that were named beforehand, if any were;
//! - else by more than half of the peers whose claims name a leader. A fabric where most of the
//!   peers that claim a session lie cannot be told from one where the others do: name the hosts.
//!
//! Invariants
//! - nobody is believed before everybody connected has spoken, or has had its time to;
//! - an answer that is not believed is dropped and counted;
//! - what is kept is at most one claim and one answer for each peer connected.
//!
//! No clock and no network here: each event says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::wire::{Answer, Claim, Verdict};
use crate::ids::{NodeId, PeerId, SessionId};

/// One node at the door.
#[derive(Debug)]
pub(crate) struct Knock {
    me: NodeId,
    /// The session it means; any when `None`.
    wanted: Option<SessionId>,
    /// Peers whose word counts alone.
    hosts: BTreeSet<PeerId>,
    /// How long after the first claim the others may still speak.
    patience: Duration,
    connected: BTreeSet<PeerId>,
    claims: BTreeMap<PeerId, Claim>,
    /// Peers that said that they answer for nothing.
    idle: BTreeSet<PeerId>,
    answers: BTreeMap<PeerId, Answer>,
    first_claim: Option<Duration>,
    dropped: u64,
}

impl Knock {
    pub(crate) fn new(
        me: NodeId,
        wanted: Option<SessionId>,
        hosts: BTreeSet<PeerId>,
        connected: BTreeSet<PeerId>,
        patience: Duration,
    ) -> Self {
        Self {
            me,
            wanted,
            hosts,
            patience,
            connected,
            claims: BTreeMap::new(),
            idle: BTreeSet::new(),
            answers: BTreeMap::new(),
            first_claim: None,
            dropped: 0,
        }
    }

    /// Who is connected now. Who is not any more has said nothing.
    pub(crate) fn peers_changed(&mut self, connected: BTreeSet<PeerId>) {
        self.claims.retain(|peer, _| connected.contains(peer));
        self.answers.retain(|peer, _| connected.contains(peer));
        self.idle.retain(|peer| connected.contains(peer));
        self.connected = connected;
    }

    /// A peer answers for a session. Of one session its later term counts.
    pub(crate) fn heard_claim(&mut self, from: &PeerId, claim: Claim, now: Duration) {
        let meant = self.wanted.is_none_or(|wanted| wanted == claim.session);
        if !claim.established || !meant || claim.holder.peer != *from {
            return;
        }
        if !self.connected.contains(from) {
            return;
        }
        let older = |held: &Claim| held.session == claim.session && held.term > claim.term;
        if self.claims.get(from).is_some_and(older) {
            return;
        }
        self.first_claim.get_or_insert(now);
        self.idle.remove(from);
        self.claims.insert(from.clone(), claim);
    }

    /// A peer answers for nothing.
    pub(crate) fn heard_no_claim(&mut self, from: &PeerId) {
        if self.connected.contains(from) && !self.claims.contains_key(from) {
            self.idle.insert(from.clone());
        }
    }

    /// A peer takes back whatever it said: it answers for nothing any more.
    pub(crate) fn heard_withdraw(&mut self, from: &PeerId) {
        self.claims.remove(from);
        self.answers.remove(from);
        self.heard_no_claim(from);
    }

    /// A peer says what becomes of this node.
    pub(crate) fn heard_answer(&mut self, from: &PeerId, answer: Answer) {
        let meant = self.wanted.is_none_or(|wanted| wanted == answer.session);
        if answer.to != self.me || !meant || !self.connected.contains(from) {
            // What is late for an earlier life of this peer says nothing against its sender.
            self.dropped += u64::from(answer.to.peer != self.me.peer);
            return;
        }
        // Neither says that anything has been decided.
        if matches!(answer.verdict, Verdict::WrongSession | Verdict::NotOpen) {
            return;
        }
        self.answers.insert(from.clone(), answer);
    }

    /// The answer to believe, if there is one by now. Drops every other one.
    pub(crate) fn decide(&mut self, now: Duration) -> Option<Answer> {
        if !self.everybody_spoke(now) {
            return None;
        }
        let answers = std::mem::take(&mut self.answers);
        let mut believed = None;
        for (from, answer) in answers {
            let leads = self.leader(answer.session).map(|leader| &leader.peer) == Some(&from);
            if leads && believed.is_none() {
                believed = Some(answer);
            } else {
                self.dropped += 1;
            }
        }
        believed
    }

    /// When [`Self::decide`] may answer otherwise although nothing was heard.
    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        let at = self.first_claim?.saturating_add(self.patience);
        (!self.answers.is_empty()).then_some(at)
    }

    /// Answers that were not believed.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn everybody_spoke(&self, now: Duration) -> bool {
        let Some(first) = self.first_claim else {
            return false;
        };
        let spoke = |peer: &PeerId| self.claims.contains_key(peer) || self.idle.contains(peer);
        now >= first.saturating_add(self.patience) || self.connected.iter().all(spoke)
    }

    /// Who leads a session, by those whose word counts.
    fn leader(&self, session: SessionId) -> Option<&NodeId> {
        let named = |claim: &'_ Claim| claim.session == session;
        if !self.hosts.is_empty() {
            let by_hosts = self.claims.iter().filter(|(peer, claim)| {
                self.hosts.contains(*peer) && named(claim) && claim.leader.is_some()
            });
            let (_, latest) = by_hosts.max_by_key(|(_, claim)| claim.term)?;
            return latest.leader.as_ref();
        }
        let names_one = self.claims.values().filter(|claim| claim.leader.is_some());
        let of = names_one.count();
        let mut votes: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for leader in self.claims.values().filter(|claim| named(claim)) {
            if let Some(leader) = &leader.leader {
                *votes.entry(leader).or_default() += 1;
            }
        }
        let (leader, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
        (count * 2 > of).then_some(leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(peer(name), Incarnation(1))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn knock(hosts: &[&str], connected: &[&str]) -> Knock {
        let peers = |names: &[&str]| names.iter().map(|name| peer(name)).collect();
        Knock::new(node("joe"), None, peers(hosts), peers(connected), PATIENCE)
    }

    fn claim(holder: &str, session: u128, term: u64, leader: &str) -> Claim {
        Claim {
            session: SessionId(session),
            holder: node(holder),
            nonce: 0,
            established: true,
            term,
            leader: Some(node(leader)),
            proof: None,
        }
    }

    fn answer(session: u128, verdict: Verdict) -> Answer {
        Answer {
            to: node("joe"),
            session: SessionId(session),
            verdict,
            members: vec![node("ann")],
            proof: None,
        }
    }

    fn verdict(knock: &mut Knock, now: u64) -> Option<Verdict> {
        knock.decide(ms(now)).map(|answer| answer.verdict)
    }

    #[test]
    fn the_only_one_who_answers_for_a_session_is_believed_about_it() {
        let mut joe = knock(&[], &["ann"]);
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 0), None, "it claims nothing yet");
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(10));
        assert_eq!(verdict(&mut joe, 10), Some(Verdict::Welcome));
        assert_eq!(joe.dropped(), 0);
    }

    #[test]
    fn a_peer_that_does_not_lead_is_not_believed_whatever_it_says_of_itself() {
        let mut joe = knock(&[], &["ann", "bob", "cyd", "eve"]);
        // Eve is first, names the highest term, and herself.
        joe.heard_claim(&peer("eve"), claim("eve", 1, u64::MAX, "eve"), ms(0));
        joe.heard_answer(&peer("eve"), answer(1, Verdict::RosterFull));
        assert_eq!(verdict(&mut joe, 10), None, "the others have not spoken");
        for member in ["ann", "bob", "cyd"] {
            joe.heard_claim(&peer(member), claim(member, 1, 4, "bob"), ms(20));
        }
        // Nor is a member that does not lead.
        joe.heard_answer(&peer("ann"), answer(1, Verdict::GalleryFull));
        joe.heard_answer(&peer("bob"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 20), Some(Verdict::Welcome));
        assert_eq!(joe.dropped(), 2);
    }

    #[test]
    fn one_word_against_another_decides_nothing_unless_the_hosts_are_named() {
        let hear = |joe: &mut Knock| {
            joe.heard_claim(&peer("eve"), claim("eve", 2, 9, "eve"), ms(0));
            joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
            joe.heard_answer(&peer("eve"), answer(2, Verdict::RosterFull));
            joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        };
        let mut joe = knock(&[], &["ann", "eve"]);
        hear(&mut joe);
        assert_eq!(verdict(&mut joe, 0), None);
        assert_eq!(joe.dropped(), 2);
        let mut joe = knock(&["ann"], &["ann", "eve"]);
        hear(&mut joe);
        assert_eq!(verdict(&mut joe, 0), Some(Verdict::Welcome));
        assert_eq!(joe.dropped(), 1);
    }

    #[test]
    fn the_claim_of_a_later_leader_outranks_that_of_an_older_one() {
        let mut joe = knock(&["ann", "bob"], &["ann", "bob"]);
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
        joe.heard_claim(&peer("bob"), claim("bob", 1, 2, "bob"), ms(0));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::RosterFull));
        joe.heard_answer(&peer("bob"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 0), Some(Verdict::Welcome));
        // What a peer said in a later term stands.
        joe.heard_claim(&peer("bob"), claim("bob", 1, 1, "ann"), ms(0));
        joe.heard_answer(&peer("bob"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 0), Some(Verdict::Welcome));
    }

    #[test]
    fn a_peer_that_takes_its_claim_back_has_no_say_any_more() {
        let mut joe = knock(&[], &["ann", "eve"]);
        joe.heard_claim(&peer("eve"), claim("eve", 2, 9, "eve"), ms(0));
        joe.heard_answer(&peer("eve"), answer(2, Verdict::Welcome));
        joe.heard_withdraw(&peer("eve"));
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(10));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        // It is not waited for either.
        let believed = joe.decide(ms(10));
        assert_eq!(believed, Some(answer(1, Verdict::Welcome)));
        assert_eq!(joe.dropped(), 0);
        // Who is not connected says nothing by it.
        joe.heard_withdraw(&peer("zoe"));
        assert!(!joe.idle.contains(&peer("zoe")));
    }

    #[test]
    fn a_silent_peer_costs_its_time_and_no_more() {
        let mut joe = knock(&[], &["ann", "zoe"]);
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(100));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 599), None);
        assert_eq!(joe.wakes_at(), Some(ms(600)));
        assert_eq!(verdict(&mut joe, 600), Some(Verdict::Welcome));

        let mut joe = knock(&[], &["ann", "zoe"]);
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(100));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        joe.heard_no_claim(&peer("zoe"));
        assert_eq!(verdict(&mut joe, 100), Some(Verdict::Welcome));
    }

    #[test]
    fn what_strangers_and_the_absent_say_is_not_kept() {
        let mut joe = knock(&[], &["ann"]);
        joe.heard_claim(&peer("eve"), claim("eve", 1, 1, "eve"), ms(0));
        joe.heard_answer(&peer("eve"), answer(1, Verdict::Welcome));
        let other = Answer {
            to: node("kim"),
            ..answer(1, Verdict::Welcome)
        };
        joe.heard_answer(&peer("ann"), other);
        joe.heard_claim(&peer("ann"), claim("bob", 1, 1, "bob"), ms(0));
        assert_eq!(verdict(&mut joe, 10_000), None);
        assert_eq!(joe.dropped(), 1, "the answer to another");
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        joe.peers_changed(BTreeSet::new());
        assert_eq!(verdict(&mut joe, 10_000), None);
    }

    /// What is heard beside ann, who leads, says so, and answered.
    type Beside = fn(&mut Knock);

    /// What is decided at 100 ms, and how many answers were dropped.
    fn decided(connected: &[&str], beside: Beside) -> (Option<Verdict>, u64) {
        let mut joe = knock(&[], connected);
        joe.wanted = Some(SessionId(1));
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        beside(&mut joe);
        (verdict(&mut joe, 100), joe.dropped())
    }

    #[test]
    fn only_a_claim_for_a_session_that_is_meant_in_its_holders_name_by_who_is_connected_is_a_word()
    {
        let cases: [(&str, Beside); 4] = [
            ("not established", |joe| {
                let claims = Claim {
                    established: false,
                    ..claim("bob", 1, 1, "bob")
                };
                joe.heard_claim(&peer("bob"), claims, ms(0));
            }),
            ("another session", |joe| {
                joe.heard_claim(&peer("bob"), claim("bob", 2, 1, "bob"), ms(0));
            }),
            ("another's name", |joe| {
                joe.heard_claim(&peer("bob"), claim("cyd", 1, 1, "cyd"), ms(0));
            }),
            ("nothing", |_| {}),
        ];
        for (what, beside) in cases {
            let open = decided(&["ann", "bob"], beside);
            assert_eq!(open, (None, 0), "bob is still to speak: {what}");
        }
        // Who is not connected is neither waited for nor heard: one word against another decides nothing.
        let absent: Beside = |joe| joe.heard_claim(&peer("bob"), claim("bob", 1, 1, "bob"), ms(0));
        assert_eq!(decided(&["ann"], absent), (Some(Verdict::Welcome), 0));
        assert_eq!(decided(&["ann", "bob"], absent), (None, 1));
    }

    #[test]
    fn an_answer_that_is_not_meant_or_decides_nothing_takes_no_answers_place() {
        let cases: [(&str, Beside); 3] = [
            ("another session's", |joe| {
                joe.heard_answer(&peer("ann"), answer(2, Verdict::RosterFull));
            }),
            ("another meant", |joe| {
                joe.heard_answer(&peer("ann"), answer(1, Verdict::WrongSession));
            }),
            ("not open yet", |joe| {
                joe.heard_answer(&peer("ann"), answer(1, Verdict::NotOpen));
            }),
        ];
        for (what, beside) in cases {
            assert_eq!(
                decided(&["ann"], beside),
                (Some(Verdict::Welcome), 0),
                "{what}"
            );
        }
        let absent: Beside = |joe| joe.heard_answer(&peer("bob"), answer(1, Verdict::RosterFull));
        assert_eq!(decided(&["ann"], absent), (Some(Verdict::Welcome), 0));
    }

    #[test]
    fn who_went_and_came_back_has_said_nothing_yet() {
        let back = |joe: &mut Knock, who: &str| {
            let all = joe.connected.clone();
            let mut others = all.clone();
            others.remove(&peer(who));
            joe.peers_changed(others);
            joe.peers_changed(all);
        };
        // Her claim is gone: nobody vouches for what she answers.
        let mut joe = knock(&[], &["ann"]);
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
        back(&mut joe, "ann");
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 10_000), None);
        // So is her answer.
        back(&mut joe, "ann");
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        back(&mut joe, "ann");
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
        assert_eq!(verdict(&mut joe, 10_000), None);
        // Who said that it answers for nothing is waited for again.
        let mut joe = knock(&[], &["ann", "zoe"]);
        joe.heard_no_claim(&peer("zoe"));
        back(&mut joe, "zoe");
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 499), None);
        assert_eq!(verdict(&mut joe, 500), Some(Verdict::Welcome));
    }

    #[test]
    fn a_claim_that_names_no_leader_hides_none_and_the_same_term_may_name_one_later() {
        let nameless = |holder: &str, term| Claim {
            leader: None,
            ..claim(holder, 1, term, "ann")
        };
        let mut joe = knock(&["ann", "bob"], &["ann", "bob"]);
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(0));
        joe.heard_claim(&peer("bob"), nameless("bob", 2), ms(0));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 0), Some(Verdict::Welcome));
        let mut joe = knock(&[], &["ann"]);
        joe.heard_claim(&peer("ann"), nameless("ann", 1), ms(0));
        joe.heard_claim(&peer("ann"), claim("ann", 1, 1, "ann"), ms(1));
        joe.heard_answer(&peer("ann"), answer(1, Verdict::Welcome));
        assert_eq!(verdict(&mut joe, 1), Some(Verdict::Welcome));
    }

    #[test]
    fn of_two_that_lead_by_named_hosts_the_first_is_believed_and_the_other_counted() {
        let mut joe = knock(&["ann", "bob"], &["ann", "bob"]);
        for (n, name) in [(1, "ann"), (2, "bob")] {
            joe.heard_claim(&peer(name), claim(name, n, 1, name), ms(0));
            joe.heard_answer(&peer(name), answer(n, Verdict::Welcome));
        }
        assert_eq!(joe.decide(ms(0)), Some(answer(1, Verdict::Welcome)));
        assert_eq!(joe.dropped(), 1);
    }
}
