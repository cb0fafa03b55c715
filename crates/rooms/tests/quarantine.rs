//! Quarantine: which faults count, what is pulled, what comes back, and who is told.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::thread;
use std::time::Duration;

use cabinet_host::Game;
use cabinet_rooms::{
    AUDIT_MAX, AuditAction, Blame, COUNTED_MAX, FaultVerdict, Listed, Listing, QUARANTINED_MAX,
    Quarantine, QuarantineError, QuarantinePolicy, Registry, RegistryError,
};
use proptest::prelude::*;

#[path = "../../host/tests/common/mod.rs"]
mod common;

/// One game under many names is many games to a registry.
static GAME: LazyLock<Game> =
    LazyLock::new(|| common::game(&common::guest(&common::plain(), "", "")));

fn listing(slug: &str) -> Listing {
    Listing::new(GAME.clone()).with_slug(slug.parse().unwrap())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn policy(threshold: u8, window: Duration) -> QuarantinePolicy {
    QuarantinePolicy {
        threshold: NonZeroU8::new(threshold).unwrap(),
        window,
    }
}

/// A registry under watch: `threshold` faults within 60 s.
fn watched(threshold: u8) -> (Arc<Registry>, Quarantine) {
    let registry = Arc::new(Registry::new());
    let quarantine = Quarantine::new(Arc::clone(&registry), policy(threshold, secs(60)));
    (registry, quarantine)
}

fn slugs(quarantine: &Quarantine) -> Vec<String> {
    let held = quarantine.quarantined();
    held.iter().map(|it| it.slug().to_string()).collect()
}

#[test]
fn three_faults_in_ten_minutes_pull_a_game_by_default() {
    let registry = Arc::new(Registry::new());
    let quarantine = Quarantine::new(Arc::clone(&registry), QuarantinePolicy::default());
    let game = registry.add(listing("wild")).unwrap();
    let fault = |at| quarantine.record_fault(&game, Blame::Guest, secs(at));
    assert_eq!(fault(0), FaultVerdict::Counted { faults: 1 });
    assert_eq!(fault(599), FaultVerdict::Counted { faults: 2 });
    // The first is 600 s old now, which is not younger than the window.
    assert_eq!(fault(600), FaultVerdict::Counted { faults: 2 });
    assert!(registry.get("wild").is_some());
    assert_eq!(fault(1_198), FaultVerdict::Quarantined);
    assert!(registry.get("wild").is_none());
    assert_eq!(slugs(&quarantine), ["wild"]);
}

#[test]
fn faults_outside_the_window_do_not_count_and_a_restore_is_done_once() {
    let (registry, quarantine) = watched(2);
    let game = registry.add(listing("wild")).unwrap();
    let fault = |at| quarantine.record_fault(&game, Blame::Guest, secs(at));
    assert_eq!(fault(0), FaultVerdict::Counted { faults: 1 });
    assert_eq!(fault(61), FaultVerdict::Counted { faults: 1 });
    assert_eq!(fault(62), FaultVerdict::Quarantined);

    quarantine.restore("wild", secs(70)).unwrap();
    assert!(registry.get("wild").is_some());
    assert!(quarantine.quarantined().is_empty());
    assert_eq!(
        quarantine.restore("wild", secs(71)).unwrap_err(),
        QuarantineError::NotQuarantined {
            slug: "wild".into()
        }
    );
}

#[test]
fn faults_that_are_excused_or_exempt_never_count() {
    let (registry, quarantine) = watched(1);
    let game = registry.add(listing("wild")).unwrap();
    for blame in [Blame::Starved, Blame::Host] {
        assert_eq!(
            quarantine.record_fault(&game, blame, secs(1)),
            FaultVerdict::Excused
        );
    }
    let exempt = registry.add(listing("load-test").exempt()).unwrap();
    for _ in 0..10 {
        assert_eq!(
            quarantine.record_fault(&exempt, Blame::Guest, secs(1)),
            FaultVerdict::Exempt
        );
    }
    assert_eq!(registry.all().len(), 2);
    assert!(quarantine.audit().is_empty());
}

#[test]
fn the_hook_is_called_once_and_not_for_later_faults() {
    let registry = Arc::new(Registry::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    let quarantine = Quarantine::new(Arc::clone(&registry), policy(2, secs(60)))
        .on_quarantine(move |game| hears.lock().unwrap().push(game.slug().to_string()));
    let game = registry.add(listing("wild")).unwrap();
    for at in 0..6 {
        let verdict = quarantine.record_fault(&game, Blame::Guest, secs(at));
        assert_eq!(verdict == FaultVerdict::Quarantined, at == 1);
    }
    assert_eq!(*told.lock().unwrap(), ["wild"]);
}

/// The reference calls its hook under its lock, so a hook like this one would never return.
#[test]
fn the_hook_may_ask_and_change_the_quarantine() {
    let registry = Arc::new(Registry::new());
    let quarantine = Arc::new_cyclic(|this: &Weak<Quarantine>| {
        let this = this.clone();
        Quarantine::new(Arc::clone(&registry), policy(1, secs(60))).on_quarantine(move |game| {
            let quarantine = this.upgrade().unwrap();
            assert_eq!(quarantine.quarantined().len(), 1);
            quarantine.restore(game.slug().as_str(), secs(2)).unwrap();
        })
    });
    let game = registry.add(listing("wild")).unwrap();
    assert_eq!(
        quarantine.record_fault(&game, Blame::Guest, secs(1)),
        FaultVerdict::Quarantined
    );
    assert!(registry.get("wild").is_some());
}

#[test]
fn of_many_faults_at_once_one_pulls_the_game() {
    const THREADS: usize = 8;
    let registry = Arc::new(Registry::new());
    let pulls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pulls);
    let quarantine =
        Quarantine::new(Arc::clone(&registry), policy(3, secs(60))).on_quarantine(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
    let game = registry.add(listing("wild")).unwrap();
    let verdicts: Vec<FaultVerdict> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| quarantine.record_fault(&game, Blame::Guest, secs(1))))
            .collect();
        workers.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let times = |verdict| verdicts.iter().filter(|it| **it == verdict).count();
    assert_eq!(times(FaultVerdict::Counted { faults: 1 }), 1);
    assert_eq!(times(FaultVerdict::Counted { faults: 2 }), 1);
    assert_eq!(times(FaultVerdict::Quarantined), 1);
    assert_eq!(times(FaultVerdict::Superseded), THREADS - 3);
    assert_eq!(pulls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_slug_with_an_author_is_a_key_like_another() {
    let (registry, quarantine) = watched(2);
    let game = registry.add(listing("bcook/pokies")).unwrap();
    let other = registry.add(listing("pokies")).unwrap();
    quarantine.record_fault(&game, Blame::Guest, secs(1));
    quarantine.record_fault(&other, Blame::Guest, secs(1));
    assert_eq!(
        quarantine.record_fault(&game, Blame::Guest, secs(2)),
        FaultVerdict::Quarantined
    );
    assert_eq!(slugs(&quarantine), ["bcook/pokies"]);
    assert!(registry.get("pokies").is_some());
    quarantine.restore("bcook/pokies", secs(3)).unwrap();
    assert!(registry.get("bcook/pokies").is_some());
}

/// In the reference the faults of rooms that outlive their game's removal wait for its return:
/// the first fault after a restore pulls it again.
#[test]
fn rooms_that_were_running_when_a_game_was_pulled_do_not_spoil_its_clean_count() {
    let (registry, quarantine) = watched(2);
    let before = registry.add(listing("wild")).unwrap();
    let old = |at| quarantine.record_fault(&before, Blame::Guest, secs(at));
    old(1);
    assert_eq!(old(2), FaultVerdict::Quarantined);
    assert_eq!(old(3), FaultVerdict::Superseded);
    assert_eq!(old(4), FaultVerdict::Superseded);

    let after = quarantine.restore("wild", secs(5)).unwrap();
    assert_eq!(old(6), FaultVerdict::Superseded);
    assert_eq!(old(7), FaultVerdict::Superseded);
    let new = |at| quarantine.record_fault(&after, Blame::Guest, secs(at));
    assert_eq!(new(8), FaultVerdict::Counted { faults: 1 });
    assert_eq!(old(9), FaultVerdict::Superseded);
    assert_eq!(new(10), FaultVerdict::Quarantined);
}

#[test]
fn a_new_version_does_not_inherit_the_faults_of_the_old_one() {
    let (registry, quarantine) = watched(2);
    let old = registry.add(listing("wild")).unwrap();
    quarantine.record_fault(&old, Blame::Guest, secs(1));
    registry.remove("wild");
    let new = registry.add(listing("wild")).unwrap();
    assert_eq!(
        quarantine.record_fault(&new, Blame::Guest, secs(2)),
        FaultVerdict::Counted { faults: 1 }
    );
}

#[test]
fn a_game_whose_slug_was_given_away_stays_in_quarantine() {
    let (registry, quarantine) = watched(1);
    let old = registry.add(listing("wild")).unwrap();
    quarantine.record_fault(&old, Blame::Guest, secs(1));
    let new = registry.add(listing("wild")).unwrap();
    let taken = QuarantineError::Registry(RegistryError::SlugTaken {
        slug: "wild".parse().unwrap(),
    });
    assert_eq!(quarantine.restore("wild", secs(2)).unwrap_err(), taken);
    assert_eq!(slugs(&quarantine), ["wild"]);

    // The new one is as bad: it takes the old one's place.
    quarantine.record_fault(&new, Blame::Guest, secs(3));
    let [held] = &quarantine.quarantined()[..] else {
        panic!("one game is in quarantine");
    };
    assert_eq!(held.generation(), new.generation());

    let discarded = quarantine.discard("wild", secs(4)).unwrap();
    assert_eq!(discarded.generation(), new.generation());
    let gone = QuarantineError::NotQuarantined {
        slug: "wild".into(),
    };
    assert_eq!(quarantine.discard("wild", secs(5)).unwrap_err(), gone);
    let actions: Vec<_> = quarantine
        .audit()
        .iter()
        .map(|record| (record.at, record.generation, record.action))
        .collect();
    let pulled = AuditAction::Quarantined {
        faults: 1,
        window: secs(60),
    };
    assert_eq!(
        actions,
        [
            (secs(1), old.generation(), pulled),
            (secs(3), old.generation(), AuditAction::Displaced),
            (secs(3), new.generation(), pulled),
            (secs(4), new.generation(), AuditAction::Discarded),
        ]
    );
}

#[test]
fn the_audit_log_names_the_game_and_keeps_its_last_entries() {
    let (registry, quarantine) = watched(1);
    let mut game = registry.add(listing("wild")).unwrap();
    for at in 0..AUDIT_MAX as u64 {
        quarantine.record_fault(&game, Blame::Guest, secs(2 * at));
        game = quarantine.restore("wild", secs(2 * at + 1)).unwrap();
    }
    let audit = quarantine.audit();
    assert_eq!(audit.len(), AUDIT_MAX);
    assert_eq!(audit[0].at, secs(AUDIT_MAX as u64));
    let last = &audit[AUDIT_MAX - 1];
    assert_eq!(last.slug.as_str(), "wild");
    assert_eq!(last.artifact, GAME.digest());
    assert_eq!(last.action, AuditAction::Restored);
}

#[test]
fn past_the_limit_the_game_longest_in_quarantine_makes_room() {
    let (registry, quarantine) = watched(1);
    let pull = |at: usize| {
        let game = registry.add(listing(&format!("game-{at}"))).unwrap();
        quarantine.record_fault(&game, Blame::Guest, secs(at as u64))
    };
    for at in 0..QUARANTINED_MAX {
        assert_eq!(pull(at), FaultVerdict::Quarantined);
    }
    assert_eq!(quarantine.quarantined().len(), QUARANTINED_MAX);
    assert!(slugs(&quarantine).contains(&"game-0".to_owned()));

    assert_eq!(pull(QUARANTINED_MAX), FaultVerdict::Quarantined);
    assert_eq!(quarantine.quarantined().len(), QUARANTINED_MAX);
    assert!(!slugs(&quarantine).contains(&"game-0".to_owned()));
    assert!(slugs(&quarantine).contains(&"game-1".to_owned()));
}

#[test]
fn past_the_limit_the_game_longest_quiet_is_not_counted_any_more() {
    let registry = Arc::new(Registry::new());
    let quarantine = Quarantine::new(Arc::clone(&registry), policy(3, secs(1 << 20)));
    let games: Vec<_> = (0..=COUNTED_MAX)
        .map(|at| registry.add(listing(&format!("game-{at}"))).unwrap())
        .collect();
    let fault = |game: usize, at: usize| {
        quarantine.record_fault(&games[game], Blame::Guest, secs(at as u64))
    };
    for game in 0..COUNTED_MAX {
        assert_eq!(fault(game, game), FaultVerdict::Counted { faults: 1 });
    }
    // All are remembered; then one more pushes out number 1, as number 0 has just been heard of.
    assert_eq!(fault(0, 5_000), FaultVerdict::Counted { faults: 2 });
    assert_eq!(
        fault(COUNTED_MAX, 5_001),
        FaultVerdict::Counted { faults: 1 }
    );
    assert_eq!(fault(2, 5_002), FaultVerdict::Counted { faults: 2 });
    assert_eq!(fault(1, 5_003), FaultVerdict::Counted { faults: 1 });
}

#[test]
fn clocks_that_were_read_out_of_order_do_no_harm() {
    let (registry, quarantine) = watched(3);
    let game = registry.add(listing("wild")).unwrap();
    let fault = |at| quarantine.record_fault(&game, Blame::Guest, secs(at));
    assert_eq!(fault(100), FaultVerdict::Counted { faults: 1 });
    assert_eq!(fault(99), FaultVerdict::Counted { faults: 2 });
    assert_eq!(fault(101), FaultVerdict::Quarantined);
}

/// Keeps the fields of every event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        assert_eq!(*event.metadata().level(), tracing::Level::WARN);
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn every_change_is_a_warning_with_the_fields_operators_filter_by() {
    let (registry, quarantine) = watched(2);
    let game = registry.add(listing("ada/wild")).unwrap();
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        quarantine.record_fault(&game, Blame::Guest, secs(1));
        quarantine.record_fault(&game, Blame::Guest, secs(2));
        quarantine.restore("ada/wild", secs(3)).unwrap();
    });
    let events = log.0.lock().unwrap();
    let [pulled, restored] = &events[..] else {
        panic!("two events: {events:?}");
    };
    assert_eq!(pulled["event"], "game.quarantine");
    assert_eq!(pulled["slug"], "ada/wild");
    assert_eq!(pulled["faults"], "2");
    assert_eq!(pulled["window_secs"], "60.0");
    assert_eq!(pulled["artifact"], GAME.digest().to_string());
    assert_eq!(restored["event"], "game.quarantine.restore");
    assert_eq!(restored["slug"], "ada/wild");
    assert!(!restored.contains_key("faults"));
}

#[derive(Debug, Clone)]
enum Step {
    Add(usize),
    Remove(usize),
    /// A fault of the newest listing of a game but so many.
    Fault(usize, usize),
    Restore(usize),
    Discard(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let game = 0..3_usize;
    prop_oneof![
        2 => game.clone().prop_map(Step::Add),
        1 => game.clone().prop_map(Step::Remove),
        8 => (game.clone(), prop_oneof![4 => Just(0), 1 => 1..4_usize]).prop_map(|(game, age)| Step::Fault(game, age)),
        2 => game.clone().prop_map(Step::Restore),
        1 => game.prop_map(Step::Discard),
        3 => (1..40_u64).prop_map(Step::Wait),
    ]
}

/// One game as the rules describe it: every listing it had, by number, and the times of each
/// one's faults.
#[derive(Default)]
struct Model {
    listings: usize,
    offered: Option<usize>,
    held: Option<usize>,
    faults: Vec<(usize, u64)>,
}

impl Model {
    fn fault(&mut self, listing: usize, now: u64, threshold: u8, window: u64) -> FaultVerdict {
        if self.offered != Some(listing) {
            return FaultVerdict::Superseded;
        }
        self.faults.push((listing, now));
        let counts = |(of, at): &&(usize, u64)| *of == listing && now - at < window;
        // The fault itself counts whatever the window.
        let others = &self.faults[..self.faults.len() - 1];
        let faults = 1 + others.iter().filter(counts).count() as u8;
        if faults < threshold {
            return FaultVerdict::Counted { faults };
        }
        self.held = self.offered.take();
        FaultVerdict::Quarantined
    }
}

proptest! {
    #[test]
    fn the_quarantine_does_what_its_rules_say(
        steps in proptest::collection::vec(step(), 0..120), threshold in 1..5_u8, window in 0..80_u64,
    ) {
        const NAMES: [&str; 3] = ["a", "ada/a", "b"];
        let registry = Arc::new(Registry::new());
        let quarantine = Quarantine::new(Arc::clone(&registry), policy(threshold, secs(window)));
        let mut now = 0;
        let mut models: [Model; 3] = Default::default();
        let mut real: [Vec<Arc<Listed>>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Add(game) => {
                    let (model, added) = (&mut models[game], registry.add(listing(NAMES[game])));
                    prop_assert_eq!(added.is_ok(), model.offered.is_none());
                    if let Ok(listed) = added {
                        real[game].push(listed);
                        model.offered = Some(model.listings);
                        model.listings += 1;
                    }
                }
                Step::Remove(game) => {
                    let removed = registry.remove(NAMES[game]).is_some();
                    prop_assert_eq!(removed, models[game].offered.take().is_some());
                }
                Step::Fault(game, age) => {
                    let model = &mut models[game];
                    let Some(which) = model.listings.checked_sub(1 + age) else { continue };
                    let told = quarantine.record_fault(&real[game][which], Blame::Guest, secs(now));
                    prop_assert_eq!(told, model.fault(which, now, threshold, window));
                }
                Step::Restore(game) => {
                    let model = &mut models[game];
                    let restored = quarantine.restore(NAMES[game], secs(now));
                    let expected = model.held.is_some() && model.offered.is_none();
                    prop_assert_eq!(restored.is_ok(), expected);
                    if let Ok(listed) = restored {
                        real[game].push(listed);
                        model.held = None;
                        model.offered = Some(model.listings);
                        model.listings += 1;
                    }
                }
                Step::Discard(game) => {
                    let discarded = quarantine.discard(NAMES[game], secs(now)).is_ok();
                    prop_assert_eq!(discarded, models[game].held.take().is_some());
                }
                Step::Wait(seconds) => now += seconds,
            }
            for (game, model) in models.iter().enumerate() {
                let offered = registry.get(NAMES[game]).map(|it| it.generation());
                let expected = model.offered.map(|which| real[game][which].generation());
                prop_assert_eq!(offered, expected);
                let held = quarantine.quarantined();
                let held = held.iter().find(|it| it.slug().as_str() == NAMES[game]);
                let expected = model.held.map(|which| real[game][which].generation());
                prop_assert_eq!(held.map(|it| it.generation()), expected);
            }
        }
    }
}
