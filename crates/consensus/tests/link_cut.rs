//! Three processes in network namespaces of their own, joined by a bridge. The leader's link is cut:
//! it waits, the others go on; the link is mended, and all three agree on every turn.
//!
//! Needs root and `ip netns`. Where that is not to be had the test says so in a line that begins
//! with `SKIPPED:`.

mod players;
#[path = "tls_fabric/support.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of the fabric, which use all of it"
)]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cabinet_consensus::fabric::Port;
use cabinet_consensus::game::Blueprint;
use cabinet_consensus::ids::PeerId;
use cabinet_consensus::session::{SessionConfig, TokioClock, Waiting, game_node};
use cabinet_consensus::turns::{Proposal, TurnEvent};
use players::{NAMES, Sum, fabric, furnish, play, say, told};
use support::{Authority, game, peer};

const CHILD: &str = "CABINET_LINK_CHILD";
/// Beyond what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// A node not heard for this long counts as gone.
const SILENT: Duration = Duration::from_secs(2);

/// A player: proposes on and on, says what it is and what it knows, and ends with its input.
async fn child(name: &'static str, dir: &Path) {
    say("");
    let fabric = fabric(name, dir).await;
    let port = Port::open(fabric, game("count")).unwrap();
    let roster: BTreeSet<PeerId> = NAMES.iter().map(|name| peer(name)).collect();
    let nonce = u64::from(std::process::id());
    let config = SessionConfig::new(Arc::new(TokioClock::default()), nonce);
    let session = game_node(port, Blueprint::new(Sum::default), roster, config)
        .await
        .unwrap();
    let node = session.node();
    tokio::spawn(async move {
        let mut said = String::new();
        loop {
            let now = match node.waiting(SILENT) {
                Waiting::No if node.committed_from().is_some() => "leads",
                Waiting::No => "follows",
                _ => "waits",
            };
            if now != said {
                say(now);
                now.clone_into(&mut said);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let proposer = session.sequencer();
    tokio::spawn(async move {
        let patient = Proposal {
            within: PATIENCE,
            ..Proposal::default()
        };
        while let Ok(decision) = proposer.propose_with(&1, patient).await {
            say(&format!("ack {}", decision.key));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut events = session.sequencer().events_from(1);
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let TurnEvent::Committed(action) = event {
                say(&format!("turn {}", action.key));
            }
        }
    });
    told().await;
    session.close().await;
}

fn ip(args: &str) -> Result<(), String> {
    let out = Command::new("ip")
        .args(args.split(' '))
        .output()
        .map_err(|error| error.to_string())?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!(
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr).trim()
    ))
}

/// Namespaces and a bridge between them, taken down again whatever happens.
struct Net {
    tag: u32,
}

impl Net {
    fn space(&self, n: usize) -> String {
        format!("cab{}-{n}", self.tag)
    }

    /// This end of a namespace's link, in the bridge's.
    fn outer(&self, n: usize) -> String {
        format!("c{}v{n}", self.tag)
    }

    fn up() -> Result<Self, String> {
        let net = Self {
            tag: std::process::id() % 100_000,
        };
        // A namespace for the bridge too: nothing of the machine's own network is touched.
        let hub = net.space(9);
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        for n in 0..NAMES.len() {
            let (space, outer) = (net.space(n), net.outer(n));
            ip(&format!("netns add {space}"))?;
            ip(&format!(
                "-n {hub} link add {outer} type veth peer name eth0 netns {space}"
            ))?;
            ip(&format!("-n {hub} link set {outer} master br0"))?;
            ip(&format!("-n {hub} link set {outer} up"))?;
            ip(&format!(
                "-n {space} addr add 10.77.0.{}/24 dev eth0",
                n + 1
            ))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(net)
    }

    fn link(&self, n: usize, state: &str) {
        let (hub, outer) = (self.space(9), self.outer(n));
        ip(&format!("-n {hub} link set {outer} {state}")).unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for n in [0, 1, 2, 9] {
            // What was never made cannot be taken down.
            let _ = ip(&format!("netns del {}", self.space(n)));
        }
    }
}

/// A process that is killed with the test.
struct Player(Child);

impl Drop for Player {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the players said so far.
struct Heard {
    lines: mpsc::Receiver<(usize, String)>,
    acked: BTreeSet<String>,
    acks: [usize; 3],
    turns: [Vec<String>; 3],
    states: [String; 3],
}

impl Heard {
    fn until(&mut self, what: &str, met: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !met(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((n, line)) = self.lines.recv_timeout(left) else {
                panic!(
                    "not in time: {what}; states {:?}, acks {:?}",
                    self.states, self.acks
                );
            };
            if let Some(key) = line.strip_prefix("ack ") {
                self.acked.insert(key.to_owned());
                self.acks[n] += 1;
            } else if let Some(key) = line.strip_prefix("turn ") {
                self.turns[n].push(key.to_owned());
            } else if ["leads", "follows", "waits"].contains(&line.as_str()) {
                self.states[n] = line;
            }
        }
    }
}

#[test]
fn a_cut_link_makes_the_minority_wait_and_mended_all_three_agree() {
    if let Ok(told) = std::env::var(CHILD) {
        let (name, dir) = told.split_once(' ').unwrap();
        let name = NAMES.into_iter().find(|known| *known == name).unwrap();
        play(child(name, &PathBuf::from(dir)));
        return;
    }
    let net = match Net::up() {
        Ok(net) => net,
        Err(why) => {
            eprintln!("SKIPPED: no network namespaces on this machine: {why}");
            return;
        }
    };
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let peers: String = (1..)
        .zip(NAMES)
        .map(|(n, name)| format!("{name} 10.77.0.{n}:7000\n"))
        .collect();
    let (tell, lines) = mpsc::channel();
    let mut players = BTreeMap::new();
    for (n, name) in NAMES.into_iter().enumerate() {
        let dir = home.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        furnish(&dir, &authority, name, &peers);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &net.space(n)])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, format!("{name} {}", dir.display()));
        let test = "a_cut_link_makes_the_minority_wait_and_mended_all_three_agree";
        let process = players::start(command, test, n, &tell);
        players.insert(n, Player(process));
    }
    drop(tell);
    let mut heard = Heard {
        lines,
        acked: BTreeSet::new(),
        acks: [0; 3],
        turns: Default::default(),
        states: Default::default(),
    };
    heard.until("all three play", |heard| {
        heard.acks.iter().all(|acks| *acks >= 20) && heard.states.contains(&"leads".to_owned())
    });
    let cut = heard
        .states
        .iter()
        .position(|state| state == "leads")
        .unwrap();
    net.link(cut, "down");
    heard.until("the cut one waits", |heard| heard.states[cut] == "waits");
    let (alone, before) = (heard.acks[cut], heard.acks);
    heard.until("the others go on", |heard| {
        (0..3)
            .filter(|n| *n != cut)
            .all(|n| heard.acks[n] >= before[n] + 50)
    });
    assert_eq!(
        heard.acks[cut], alone,
        "nothing is acknowledged on its side"
    );
    assert_eq!(heard.states[cut], "waits");
    net.link(cut, "up");
    heard.until("the cut one plays again", |heard| {
        heard.acks[cut] >= alone + 20 && heard.states[cut] != "waits"
    });
    let acked = heard.acked.clone();
    heard.until("everybody has every acknowledged turn", |heard| {
        heard.turns.iter().all(|turns| {
            turns.len() >= acked.len() && {
                let known: BTreeSet<_> = turns.iter().collect();
                acked.iter().all(|key| known.contains(key))
            }
        })
    });
    let shortest = heard.turns.iter().map(Vec::len).min().unwrap();
    for turns in &heard.turns {
        assert_eq!(turns[..shortest], heard.turns[0][..shortest], "one order");
        let unique: BTreeSet<_> = turns.iter().collect();
        assert_eq!(unique.len(), turns.len(), "no turn twice");
    }
    for player in players.values_mut() {
        let mut input = player.0.stdin.take().unwrap();
        // Whoever has gone already does not read it.
        let _ = input.write_all(b"end\n");
    }
    println!(
        "the leader's link cut and mended: {} turns acknowledged, none lost, none doubled",
        acked.len()
    );
}
