//! What a node that hears no leader takes from a proof, and from whom it believes: each for no more
//! than it says, and until a leader is heard.

use bytes::Bytes;

use super::gate::{Hears, Table, eve, settle};
use super::strangers::{lobby, node, peer, port};
use super::*;
use crate::fabric::{Lane, Links};
use crate::ids::NodeId;
use crate::lobby::wire::{Answer, Claim, LobbyMsg, Verdict};
use crate::raft::wire::{Body as Ask, VoteMsg, Voted};

/// How many terms ahead of this node what it is told may be: `SECURITY.md` says so.
const TERMS_AHEAD_MAX: u64 = 10_000;

fn zed() -> NodeId {
    node("zed", 0)
}

fn leads(leader: &NodeId, term: u64) -> VoteMsg {
    VoteMsg {
        term,
        node: Some(leader.into()),
        committed: true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_of_this_session_and_speaks_for_one_life_of_who_shows_it() {
    let table = Table::new().await;
    table.bring_about(Hears::Nobody).await;
    let ann = table.node(0);
    let proof = Some(table.proof(0));
    let claim = |claim: Claim| lobby(&LobbyMsg::Claim(claim));
    let answer = |answer: Answer| lobby(&LobbyMsg::Answer(answer));
    let other_session = SessionId(6);
    let cases = [
        (
            "a claim of another session",
            claim(Claim {
                session: other_session,
                ..table.says(0, proof)
            }),
            0,
        ),
        (
            "a welcome to another session",
            answer(Answer {
                session: other_session,
                ..table.answers(0, proof)
            }),
            1,
        ),
        (
            "a welcome to another life",
            answer(Answer {
                to: node("ann", 1),
                ..table.answers(0, proof)
            }),
            0,
        ),
    ];
    for (case, frame, counts) in cases {
        assert_eq!(
            table.counts(0, Lane::Lobby, frame).await,
            counts,
            "{case} is counted"
        );
        for nobody in [eve(), zed()] {
            assert!(!ann.may_say_something(&nobody), "{case}: {nobody}");
        }
    }
    // What names another is no frame of the lobby; and were it one, the proof is not the other's.
    let malformed = ann.dropped().malformed;
    let for_another = claim(Claim {
        holder: zed(),
        ..table.says(0, proof)
    });
    assert_eq!(table.counts(0, Lane::Lobby, for_another).await, 0);
    assert_eq!(ann.dropped().malformed, malformed + 1);
    let before = ann.dropped().not_member;
    ann.meet_holder(&peer("eve"), &zed(), proof.as_ref());
    assert_eq!(ann.dropped().not_member, before + 1);
    assert!(!ann.may_say_something(&zed()));
    // An answer that nobody waits for is not read, if it is from who may say nothing.
    let voted = Ask::Voted(Voted::default());
    let unread = table.frame(0, &eve(), voted);
    let unasked = ann.dropped().unasked;
    assert_eq!(table.counts(0, Lane::Raft, unread.clone()).await, 1);
    assert_eq!(ann.dropped().unasked, unasked);

    // Each life that shows it takes the place of the one before.
    for life in [0, 1] {
        let holder = node("eve", life);
        let shown = claim(Claim {
            holder: holder.clone(),
            ..table.says(0, proof)
        });
        assert_eq!(table.counts(0, Lane::Lobby, shown).await, 0);
        assert!(ann.may_say_something(&holder));
        assert!(!ann.may_say_something(&node("eve", 1 - life)));
    }
}

#[tokio::test(start_paused = true)]
async fn whom_a_node_met_or_was_told_of_it_forgets_when_it_hears_a_leader_or_leads() {
    let table = Table::new().await;
    table.bring_about(Hears::NobodyYet).await;
    let (ann, bob) = (table.node(0), table.node(1).me().clone());
    let may = |node: &NodeId| ann.may_say_something(node);
    // A moment too early: not even once the time has come.
    ann.meet(&eve());
    ann.trust(vec![zed()]);
    assert!(!ann.is_proved(&peer("eve"), Some(&table.proof(0))));
    table.silence(table.three_timeouts()).await;
    assert!(!may(&eve()) && !may(&zed()));
    assert!(ann.is_proved(&peer("eve"), Some(&table.proof(0))));

    let meets_and_trusts = || {
        ann.meet(&eve());
        ann.trust(vec![zed(), node("yan", 0)]);
        assert!(may(&eve()) && may(&zed()));
    };
    let term = ann.status().borrow().term;
    meets_and_trusts();
    // Who was named leads: whom it does not know by its own log, it goes on believing.
    ann.hears_leader(&zed(), Some(&leads(&zed(), term)));
    assert!(ann.leader_silent_for().is_zero());
    table.silence(table.three_timeouts()).await;
    assert!(!may(&eve()) && may(&zed()) && may(&node("yan", 0)));

    meets_and_trusts();
    ann.hears_leader(&bob, Some(&leads(&bob, term)));
    table.silence(table.three_timeouts()).await;
    assert!(!may(&eve()) && !may(&zed()), "a voter leads");

    meets_and_trusts();
    ann.hears_itself();
    assert!(!ann.believes(&peer("zed")));
    table.silence(table.three_timeouts()).await;
    assert!(!may(&eve()) && !may(&zed()), "it leads");
}

/// Bob is heard no longer as himself: what he says is said by hand.
struct Hearsay {
    table: Table,
    bob: Links,
    zed: Links,
    term: u64,
}

impl Hearsay {
    async fn new() -> Self {
        let table = Table::new().await;
        table.let_lead(1).await;
        for gone in [1, 2] {
            table.sessions[gone].close().await;
        }
        let (bob, _) = port(&table.at[1]).split();
        let (zed, _) = port(&table.net.join(peer("zed")).unwrap()).split();
        table.silence(table.three_timeouts()).await;
        let term = table.node(0).status().borrow().term;
        Self {
            table,
            bob,
            zed,
            term,
        }
    }

    /// A claim of bob's, who is a voter, that names who leads in a term so far ahead.
    async fn bob_names(&self, leader: &NodeId, ahead: u64) {
        let claim = Claim {
            holder: self.table.node(1).me().clone(),
            leader: Some(leader.clone()),
            term: self.term + ahead,
            ..self.table.says(0, None)
        };
        self.claims(&self.bob, claim).await;
    }

    async fn claims(&self, links: &Links, claim: Claim) {
        self.send(links, lobby(&LobbyMsg::Claim(claim))).await;
    }

    async fn send(&self, links: &Links, frame: Bytes) {
        links.send(&peer("ann"), Lane::Lobby, frame).unwrap();
        settle().await;
    }

    /// Whether ann believes what this peer says of her, which is not that she is welcome.
    async fn believes(&self, links: &Links) -> bool {
        let before = self.table.dropped(0);
        let answer = Answer {
            verdict: Verdict::RosterFull,
            ..self.table.answers(0, None)
        };
        self.send(links, lobby(&LobbyMsg::Answer(answer))).await;
        self.table.dropped(0) == before
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_named_in_the_furthest_term_there_may_be_and_in_none_past_it() {
    for (ahead, is_believed) in [(TERMS_AHEAD_MAX, true), (TERMS_AHEAD_MAX + 1, false)] {
        let talk = Hearsay::new().await;
        assert!(!talk.believes(&talk.table.eve).await, "nobody named her");
        talk.bob_names(&eve(), ahead).await;
        assert_eq!(talk.believes(&talk.table.eve).await, is_believed, "{ahead}");
        // Who is named is believed of whom else it names.
        let welcome = LobbyMsg::Answer(talk.table.answers(0, None));
        talk.send(&talk.table.eve, lobby(&welcome)).await;
        let met = talk.table.node(0).may_say_something(&zed());
        assert_eq!(met, is_believed, "{ahead}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_named_by_who_is_believed_and_by_nobody_else() {
    let talk = Hearsay::new().await;
    let (table, eves, zeds) = (&talk.table, &talk.table.eve, &talk.zed);
    // By herself, with a proof or without.
    talk.claims(eves, table.says(0, None)).await;
    assert!(!talk.believes(eves).await);
    let names_zed = Claim {
        leader: Some(zed()),
        ..table.says(0, Some(table.proof(0)))
    };
    talk.claims(eves, names_zed).await;
    assert!(table.node(0).may_say_something(&eve()), "she is met");
    assert!(!talk.believes(eves).await && !talk.believes(zeds).await);
    // By a voter, of another session.
    let other = Claim {
        session: SessionId(6),
        holder: table.node(1).me().clone(),
        leader: Some(eve()),
        ..table.says(0, None)
    };
    talk.claims(&talk.bob, other).await;
    assert!(!talk.believes(eves).await);
}

#[tokio::test(start_paused = true)]
async fn of_two_who_are_named_the_one_of_the_later_term_is_believed_until_a_leader_is_heard() {
    let talk = Hearsay::new().await;
    let (eves, zeds) = (&talk.table.eve, &talk.zed);
    talk.bob_names(&eve(), 5).await;
    talk.bob_names(&zed(), 4).await;
    assert!(talk.believes(eves).await && !talk.believes(zeds).await);
    // The term may have its leader only now.
    talk.bob_names(&zed(), 5).await;
    assert!(!talk.believes(eves).await && talk.believes(zeds).await);

    // What was named when a leader was heard is over; what is named from then on is not.
    let (ann, bob) = (talk.table.node(0), talk.table.node(1).me());
    tokio::time::sleep(Duration::from_millis(1)).await;
    ann.hears_leader(bob, Some(&leads(bob, talk.term)));
    assert_eq!(ann.leader_silent_for(), Duration::ZERO);
    talk.bob_names(&eve(), 1).await;
    assert!(talk.believes(eves).await, "at the same moment");
    tokio::time::sleep(Duration::from_millis(1)).await;
    ann.hears_leader(bob, Some(&leads(bob, talk.term)));
    talk.table.silence(talk.table.three_timeouts()).await;
    assert!(!talk.believes(eves).await && !talk.believes(zeds).await);
    talk.bob_names(&zed(), 1).await;
    assert!(talk.believes(zeds).await, "whatever was named before");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_hears_its_leader_is_not_told_that_it_has_no_place() {
    let table = Table::new().await;
    table.let_lead(1).await;
    // Cyd votes, so she is believed; what she says is said by hand.
    table.sessions[2].close().await;
    let (cyd, _) = port(&table.at[2]).split();
    let refused = table.sessions[0].refused();
    for hears in [true, false] {
        if !hears {
            table.sessions[1].close().await;
            table.silence(table.three_timeouts()).await;
            // It looks every now and then whether it still hears one.
            tokio::time::sleep(table.node(0).timing().heartbeat() * 2).await;
        }
        let answer = Answer {
            verdict: Verdict::RosterFull,
            ..table.answers(0, None)
        };
        let frame = lobby(&LobbyMsg::Answer(answer));
        cyd.send(&peer("ann"), Lane::Lobby, frame).unwrap();
        settle().await;
        assert_eq!(refused.get().is_none(), hears);
    }
}
