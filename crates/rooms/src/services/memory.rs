//! Stores in memory: for tests, tools and servers that may forget.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cabinet_host::{Mode, Player, Status};

use super::limits::{self, LimitError};
use super::rules::{self, Stored};
use super::{
    Accounts, ConfigStore, KvAddress, KvStore, Leaderboard, MergeRule, Post, PostId, Posted,
    Recorded, ServiceError, ServiceSet, StoreAdmin,
};
use crate::board::{BoardSource, BoardSpec, Score, Tally};
use crate::reply::Reply;

/// Values, configuration, results and accounts in memory. Answers inside the call; clones share
/// their contents. It grows with what is written: sizes are limited (see [`limits`]), how many is
/// not.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// By slug, account and key.
    kv: BTreeMap<(String, String, Vec<u8>), Stored>,
    /// By slug and key.
    config: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    posts: HashSet<PostId>,
    /// By slug and time; the id tells posts of one instant apart.
    results: BTreeMap<(String, i64, PostId), Round>,
    /// The name each account was last seen under.
    handles: HashMap<String, String>,
}

/// What is kept of a post.
#[derive(Debug)]
struct Round {
    mode: Mode,
    rows: Vec<(String, i64, Option<Status>)>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every service this store can be, for a room.
    #[must_use]
    pub fn services(&self) -> ServiceSet {
        ServiceSet {
            kv: Some(Arc::new(self.clone())),
            config: Some(Arc::new(self.clone())),
            leaderboard: Some(Arc::new(self.clone())),
            accounts: Some(Arc::new(self.clone())),
            log: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers after the lock is given back: the reply may ask again.
    fn answer<T>(
        &self,
        check: Result<(), LimitError>,
        decide: impl FnOnce(&mut State) -> T,
        reply: Reply<T>,
    ) {
        let answer = check.map_err(ServiceError::from);
        reply.send(answer.map(|()| decide(&mut self.lock())));
    }
}

impl State {
    /// The results of a game from `since` on, oldest first.
    fn results(&self, slug: &str, since: Option<i64>) -> impl Iterator<Item = (i64, &Round)> {
        let from = (slug.to_owned(), since.unwrap_or(i64::MIN), PostId([0; 32]));
        self.results
            .range(from..)
            .take_while(move |((of, _, _), _)| of == slug)
            .map(|((_, at, _), round)| (*at, round))
    }
}

impl KvStore for MemoryStore {
    fn get(&self, at: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        let find = |state: &mut State| state.kv.get(&owned(at)).map(|stored| stored.value.clone());
        self.answer(limits::check_address(at), find, reply);
    }

    fn set(&self, at: KvAddress<'_>, value: &[u8], rule: Option<MergeRule>, reply: Reply<()>) {
        let check = limits::check_address(at).and_then(|()| limits::check_value(value));
        let put = |state: &mut State| {
            let at = owned(at);
            let stored = state.kv.get(&at);
            if !stored.is_some_and(|stored| rules::keeps_stored(&stored.value, value, rule)) {
                let value = value.to_vec();
                state.kv.insert(at, Stored { value, rule });
            }
        };
        self.answer(check, put, reply);
    }

    fn delete(&self, at: KvAddress<'_>, reply: Reply<()>) {
        let forget = |state: &mut State| {
            state.kv.remove(&owned(at));
        };
        self.answer(limits::check_address(at), forget, reply);
    }
}

fn owned(at: KvAddress<'_>) -> (String, String, Vec<u8>) {
    (at.slug.into(), at.account.into(), at.key.into())
}

impl ConfigStore for MemoryStore {
    fn get(&self, slug: &str, key: &[u8], reply: Reply<Option<Vec<u8>>>) {
        let check = limits::check_slug(slug).and_then(|()| limits::check_key(key));
        let find = |state: &mut State| state.config.get(&(slug.into(), key.into())).cloned();
        self.answer(check, find, reply);
    }
}

impl Leaderboard for MemoryStore {
    fn post(&self, post: &Post, reply: Reply<Posted>) {
        let record = |state: &mut State| {
            if !state.posts.insert(post.id) {
                return Posted::Duplicate;
            }
            for (account, handle) in rules::handles(post) {
                state.handles.insert(account.into(), handle.into());
            }
            let rows: Vec<_> = rules::rows(post)
                .map(|row| (row.account.to_owned(), row.metric, row.status))
                .collect();
            if !rows.is_empty() {
                let mode = post.result.mode;
                let at = (post.slug.to_string(), post.at, post.id);
                state.results.insert(at, Round { mode, rows });
            }
            Posted::Landed
        };
        self.answer(limits::check_post(post), record, reply);
    }
}

impl Accounts for MemoryStore {
    /// Every player's own account, the empty one of keyless guests included; remembers the handle.
    fn account(&self, player: &Player, reply: Reply<Option<String>>) {
        let see = |state: &mut State| {
            if !player.account.is_empty() {
                let handle = rules::remembered(&player.handle).to_owned();
                state.handles.insert(player.account.clone(), handle);
            }
            Some(player.account.clone())
        };
        self.answer(limits::check_account(&player.account), see, reply);
    }
}

impl StoreAdmin for MemoryStore {
    fn set_config(&self, slug: &str, key: &[u8], value: Option<&[u8]>, reply: Reply<()>) {
        let check = limits::check_slug(slug)
            .and_then(|()| limits::check_key(key))
            .and_then(|()| limits::check_value(value.unwrap_or_default()));
        let set = |state: &mut State| {
            let at = (slug.to_owned(), key.to_owned());
            match value {
                Some(value) => state.config.insert(at, value.to_vec()),
                None => state.config.remove(&at),
            };
        };
        self.answer(check, set, reply);
    }

    fn merge(&self, slug: &str, winner: &str, loser: &str, reply: Reply<()>) {
        let check = limits::check_slug(slug)
            .and_then(|()| limits::check_account(winner))
            .and_then(|()| limits::check_account(loser));
        let merge = |state: &mut State| {
            if rules::merges_nothing(winner, loser) {
                return;
            }
            let from = (slug.to_owned(), loser.to_owned(), Vec::new());
            let keys: Vec<Vec<u8>> = state
                .kv
                .range(from..)
                .take_while(|((of, account, _), _)| of == slug && account == loser)
                .map(|((_, _, key), _)| key.clone())
                .collect();
            for key in keys {
                let at = (slug.to_owned(), loser.to_owned(), key);
                if let Some(lost) = state.kv.remove(&at) {
                    let at = (at.0, winner.to_owned(), at.2);
                    let won = rules::merged(state.kv.remove(&at), lost);
                    state.kv.insert(at, won);
                }
            }
        };
        self.answer(check, merge, reply);
    }

    fn int_values(&self, slug: &str, key: &[u8], reply: Reply<BTreeMap<String, i64>>) {
        let check = limits::check_slug(slug).and_then(|()| limits::check_key(key));
        let collect = |state: &mut State| {
            let from = (slug.to_owned(), String::new(), Vec::new());
            let values = state
                .kv
                .range(from..)
                .take_while(|((of, ..), _)| of == slug);
            values
                .filter(|((_, _, k), _)| k == key)
                .filter_map(|((_, account, _), stored)| {
                    Some((account.clone(), rules::integer(&stored.value)?))
                })
                .collect()
        };
        self.answer(check, collect, reply);
    }

    fn results(&self, slug: &str, since: Option<i64>, limit: usize, reply: Reply<Vec<Recorded>>) {
        let collect = |state: &mut State| {
            let rows = state.results(slug, since).flat_map(|(at, round)| {
                round
                    .rows
                    .iter()
                    .map(move |(account, metric, status)| Recorded {
                        account: account.clone(),
                        metric: *metric,
                        mode: round.mode,
                        status: *status,
                        at,
                    })
            });
            rows.take(limit).collect()
        };
        self.answer(limits::check_slug(slug), collect, reply);
    }
}

impl BoardSource for MemoryStore {
    fn scores(&self, slug: &str, since: Option<i64>, spec: &BoardSpec, reply: Reply<Vec<Score>>) {
        let tally = |state: &mut State| {
            let mut tally = Tally::new(spec);
            for (at, round) in state.results(slug, since) {
                for (account, metric, _) in &round.rows {
                    tally.add(account, *metric, at);
                }
            }
            tally.scores(|account| state.handles.get(account).cloned())
        };
        self.answer(limits::check_slug(slug), tally, reply);
    }
}
