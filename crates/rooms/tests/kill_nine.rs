//! A store whose process is killed amid its writes: no acknowledged write is lost or doubled.
//!
//! The test starts itself as a child that writes as fast as it is answered and prints what was
//! acknowledged. The parent counts and kills; no clock decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use cabinet_host::{Mode, Player, RoomResult, ServiceError, Standing, Status};
use cabinet_rooms::Reply;
use cabinet_rooms::board::{BoardSource, BoardSpec};
use cabinet_rooms::services::durable::{DurableOptions, DurableStore};
use cabinet_rooms::services::{KvAddress, KvStore, Leaderboard, Post, PostId, Posted, wait_for};
use cabinet_wire::Aggregation;

/// Names the directory of the store to the child.
const DIRECTORY: &str = "CABINET_KILL_NINE_DIRECTORY";
/// Names the child's round.
const ROUND: &str = "CABINET_KILL_NINE_ROUND";

/// Values and posts that a child writes, each.
const WRITES: u32 = 1_000;
/// Writes that a child has asked and not heard of.
const IN_FLIGHT: usize = 48;
/// Acknowledgements after which the child of each round is killed.
const KILLED_AFTER: [usize; 7] = [1, 10, 97, 350, 801, 1_400, 1_990];

#[test]
fn no_acknowledged_write_is_lost_or_doubled_when_the_process_is_killed() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        let round = env::var(ROUND).unwrap().parse().unwrap();
        return child(Path::new(&directory), round);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut left_out = 0;
    for (round, killed_after) in (0..).zip(KILLED_AFTER) {
        let acks = run_and_kill(directory.path(), round, killed_after);
        assert!(acks.len() >= killed_after);
        left_out += 2 * WRITES as usize - acks.len();
        acknowledged.extend(acks);
        verify(directory.path(), round, &acknowledged);
    }
    assert!(
        left_out > WRITES as usize,
        "the children were killed after their writes"
    );
    repost(directory.path());
}

/// Kills the child of a round once it has acknowledged so many writes; all that it acknowledged.
fn run_and_kill(directory: &Path, round: u32, killed_after: usize) -> Vec<Ack> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "no_acknowledged_write_is_lost_or_doubled_when_the_process_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut acks = Vec::new();
    let mut killed = false;
    let mut line = String::new();
    // What was printed before the kill was acknowledged, though it is read after.
    while out.read_line(&mut line).unwrap() > 0 {
        acks.extend(Ack::read(&line));
        line.clear();
        if !killed && acks.len() >= killed_after {
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(
        killed && !status.success(),
        "the child ended by itself: {status}"
    );
    acks
}

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ack {
    Value(u32, u32),
    Post(u32, u32),
}

impl Ack {
    fn line(self) -> String {
        match self {
            Self::Value(round, n) => format!("ack value {round} {n}\n"),
            Self::Post(round, n) => format!("ack post {round} {n}\n"),
        }
    }

    /// A line that is whole and an acknowledgement; the test harness prints others.
    fn read(line: &str) -> Option<Self> {
        let (_, ack) = line.strip_suffix('\n')?.split_once("ack ")?;
        let mut words = ack.split(' ');
        let kind = words.next()?;
        let round = words.next()?.parse().ok()?;
        let n = words.next()?.parse().ok()?;
        match kind {
            "value" => Some(Self::Value(round, n)),
            "post" => Some(Self::Post(round, n)),
            _ => None,
        }
    }
}

fn child(directory: &Path, round: u32) {
    let store = DurableStore::open(directory, &DurableOptions::default()).unwrap();
    let (answered, answers) = mpsc::channel();
    for n in 0..WRITES {
        let key = key(round, n);
        let at = KvAddress {
            slug: "g",
            account: "a",
            key: key.as_bytes(),
        };
        let reply = printing(Ack::Value(round, n), answered.clone());
        store.set(at, value(round, n).as_bytes(), None, reply);
        let reply = printing(Ack::Post(round, n), answered.clone());
        store.post(&round_post(round, n, 1), reply);
        if n as usize >= IN_FLIGHT / 2 {
            for _ in 0..2 {
                answers.recv().unwrap();
            }
        }
    }
    for _ in 0..IN_FLIGHT / 2 * 2 {
        answers.recv().unwrap();
    }
    // The parent holds the other end until it has killed this process.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Prints the acknowledgement as soon as the store gives it.
fn printing<T: Send + 'static>(ack: Ack, answered: mpsc::Sender<()>) -> Reply<T> {
    Reply::new(move |answer: Result<T, ServiceError>| {
        assert!(answer.is_ok());
        let mut out = std::io::stdout().lock();
        out.write_all(ack.line().as_bytes()).unwrap();
        out.flush().unwrap();
        answered.send(()).unwrap();
    })
}

fn key(round: u32, n: u32) -> String {
    format!("k-{round}-{n}")
}

/// Of some length, so that a write takes part of a page, one or several.
fn value(round: u32, n: u32) -> String {
    format!("v-{round}-{n}.").repeat(1 + (n % 97) as usize * 8)
}

/// Every post is of an account of its own, so that its score tells how often it was recorded.
fn round_post(round: u32, n: u32, metric: i64) -> Post {
    let room = "0190b5a4-3c1e-7abc-8def-0123456789ab".parse().unwrap();
    let result = RoomResult {
        mode: Mode::Quick,
        standings: vec![Standing {
            player: Player::member(account(round, n), "pat", "c"),
            metric,
            rank: 1,
            status: Some(Status::Finished),
        }],
        round_seq: round * WRITES + n + 1,
    };
    Post {
        id: PostId::of("g", room, &result),
        slug: "g".into(),
        room,
        at: result.round_seq.into(),
        result,
    }
}

fn sums(store: &DurableStore) -> BTreeMap<String, i64> {
    let spec = BoardSpec {
        aggregation: Aggregation::Sum,
        ..BoardSpec::default()
    };
    let scores = wait_for(|reply| store.scores("g", None, &spec, reply)).unwrap();
    scores
        .into_iter()
        .map(|score| (score.account, score.value))
        .collect()
}

fn account(round: u32, n: u32) -> String {
    format!("p-{round}-{n}")
}

/// Everything acknowledged in all rounds so far is there once; what was not is whole or absent.
fn verify(directory: &Path, rounds: u32, acknowledged: &BTreeSet<Ack>) {
    let store = DurableStore::open(directory, &DurableOptions::default()).unwrap();
    let sums = sums(&store);
    for round in 0..=rounds {
        for n in 0..WRITES {
            let key = key(round, n);
            let at = KvAddress {
                slug: "g",
                account: "a",
                key: key.as_bytes(),
            };
            let found = wait_for(|reply| store.get(at, reply)).unwrap();
            if acknowledged.contains(&Ack::Value(round, n)) || found.is_some() {
                assert_eq!(found, Some(value(round, n).into()), "value {round} {n}");
            }
            let sum = sums.get(&account(round, n)).copied();
            if acknowledged.contains(&Ack::Post(round, n)) || sum.is_some() {
                assert_eq!(sum, Some(1), "post {round} {n}");
            }
        }
    }
    // A replay is known; what had not been recorded lands now.
    for n in 0..WRITES {
        let recorded = sums.contains_key(&account(rounds, n));
        if n % 50 == 0 || acknowledged.contains(&Ack::Post(rounds, n)) && n % 5 == 0 {
            let post = round_post(rounds, n, 1);
            let answer = wait_for(|reply| store.post(&post, reply)).unwrap();
            let expected = if recorded {
                Posted::Duplicate
            } else {
                Posted::Landed
            };
            assert_eq!(answer, expected, "post {rounds} {n}");
        }
    }
}

/// Posts everything again, from many askers at once, and then other results under the same counters.
fn repost(directory: &Path) {
    let store = DurableStore::open(directory, &DurableOptions::default()).unwrap();
    let before = sums(&store);
    let rounds = KILLED_AFTER.len() as u32;
    let all = || (0..rounds).flat_map(|round| (0..WRITES).map(move |n| (round, n)));
    for metric in [1, 41] {
        for chunk in all().collect::<Vec<_>>().chunks(1_000) {
            let asked: Vec<_> = chunk
                .iter()
                .map(|(round, n)| {
                    let (sender, receiver) = mpsc::channel();
                    let reply = Reply::new(move |answer| sender.send(answer).unwrap());
                    store.post(&round_post(*round, *n, metric), reply);
                    receiver
                })
                .collect();
            for ((round, n), answer) in chunk.iter().zip(asked) {
                let known = metric == 1 && before.contains_key(&account(*round, *n));
                let expected = if known {
                    Posted::Duplicate
                } else {
                    Posted::Landed
                };
                assert_eq!(
                    answer.recv().unwrap(),
                    Ok(expected),
                    "post {round} {n} {metric}"
                );
            }
        }
    }
    let after = sums(&store);
    assert!(all().all(|(round, n)| after[&account(round, n)] == 42));
    assert_eq!(after.len(), all().count());
}
