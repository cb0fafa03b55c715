//! Which games are offered, under which names and terms.
//!
//! Invariants
//! - a [`Listing`] never changes once it is in the registry; to change one, remove it and add
//!   another, whose [`Generation`] is newer. Rooms go on under the listing they began with;
//! - a slug keeps its [`GameLabel`] as long as the registry lives, listed or not.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use cabinet_host::Game;
use cabinet_wire::{Lifecycle, ROSTER_CAP, Slug, SlugError};

use crate::recorder::{GAME_LABELS_MAX, GameLabel};
use crate::weight::Weight;

/// The name a game is offered under: a bare name, `chess`, or one in an author's namespace,
/// `ada/chess`. Cheap to clone; sorts as its text does.
///
/// Each part is a [`Slug`], so a name has at most 65 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GameSlug(Arc<str>);

/// A text is not a [`GameSlug`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GameSlugError {
    /// The part in front of the slash is no slug.
    #[error("the author's part of a game's name is no slug")]
    Author(#[source] SlugError),
    /// The part behind the slash, or all of it, is no slug.
    #[error("a game's name is no slug")]
    Name(#[source] SlugError),
}

impl GameSlug {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its author's part.
    #[must_use]
    pub fn bare(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The author's part, where there is one.
    #[must_use]
    pub fn author(&self) -> Option<&str> {
        self.0.split_once('/').map(|(author, _)| author)
    }
}

impl FromStr for GameSlug {
    type Err = GameSlugError;

    fn from_str(text: &str) -> Result<Self, GameSlugError> {
        let (author, name) = match text.split_once('/') {
            Some((author, name)) => (Some(author), name),
            None => (None, text),
        };
        if let Some(author) = author {
            author.parse::<Slug>().map_err(GameSlugError::Author)?;
        }
        name.parse::<Slug>().map_err(GameSlugError::Name)?;
        Ok(Self(text.into()))
    }
}

impl From<Slug> for GameSlug {
    fn from(slug: Slug) -> Self {
        Self(slug.as_str().into())
    }
}

/// Equal, ordered and hashed as the text is, so a map can be asked with one.
impl Borrow<str> for GameSlug {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for GameSlug {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GameSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GameSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GameSlug({self})")
    }
}

/// One game as it is offered: what it declares, and what the operator overrides.
///
/// ```no_run
/// # use cabinet_host::Game;
/// use cabinet_rooms::{Listing, Registry};
///
/// # fn example(game: Game) -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::new();
/// registry.add(Listing::new(game).with_slug("ada/chess".parse()?).with_capacity(2))?;
/// assert!(registry.get("ada/chess").is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a listing offers nothing before it is added to a registry"]
pub struct Listing {
    game: Game,
    slug: GameSlug,
    capacity: u32,
    lifecycle: Lifecycle,
    deadline: Option<Duration>,
    hidden: bool,
    exempt: bool,
}

/// Wall-clock deadline of the load test's callbacks: the longest an operator may set.
const LOAD_TEST_DEADLINE: Duration = Duration::from_secs(2);

impl Listing {
    /// A game under the name and on the terms it declares.
    pub fn new(game: Game) -> Self {
        let meta = game.meta();
        let slug = meta
            .slug()
            .expect("a game is loaded only if its meta is valid, slug included")
            .into();
        Self {
            slug,
            capacity: meta.max_players.into(),
            lifecycle: meta.lifecycle(),
            deadline: None,
            hidden: false,
            exempt: false,
            game,
        }
    }

    /// The built-in load test, for `crowd` or a guest like it. It is hidden, so that nobody
    /// stumbles into it; ephemeral, so that it leaves nothing behind; exempt from quarantine,
    /// as it is there to be overloaded; and has a deadline of 2 s for the same reason. It admits
    /// [`ROSTER_CAP`] players whatever the guest declares: nobody past that can be sent a frame.
    pub fn load_test(game: Game) -> Self {
        Self::new(game)
            .with_capacity(ROSTER_CAP as u32)
            .with_lifecycle(Lifecycle::Ephemeral)
            .with_deadline(LOAD_TEST_DEADLINE)
            .hidden()
            .exempt()
    }

    /// Offers it under another name.
    pub fn with_slug(self, slug: GameSlug) -> Self {
        Self { slug, ..self }
    }

    /// Admits so many players to a room, 0 for no limit, in place of what the game declares.
    pub fn with_capacity(self, capacity: u32) -> Self {
        Self { capacity, ..self }
    }

    /// Takes this lifecycle for what the game declares.
    pub fn with_lifecycle(self, lifecycle: Lifecycle) -> Self {
        Self { lifecycle, ..self }
    }

    /// Gives callbacks another wall-clock deadline than the game was loaded with.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        // Nothing runs in no time.
        let deadline = deadline.max(Duration::from_millis(1));
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// Leaves it out of [`Registry::listed`]; it can still be had by name.
    pub fn hidden(self) -> Self {
        Self {
            hidden: true,
            ..self
        }
    }

    /// Never counts its faults towards quarantine.
    pub fn exempt(self) -> Self {
        Self {
            exempt: true,
            ..self
        }
    }

    /// The game.
    #[must_use]
    pub fn game(&self) -> &Game {
        &self.game
    }

    /// The name it is offered under.
    #[must_use]
    pub fn slug(&self) -> &GameSlug {
        &self.slug
    }

    /// Players a room admits; 0 for no limit.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The lifecycle declared, or the operator's in its place. What a room gets is
    /// [`Listing::lifecycle_of_new_room`].
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle
    }

    /// Wall-clock deadline of a callback, unless the operator's `host.deadline_ms` says otherwise.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline.unwrap_or_else(|| self.game.deadline())
    }

    /// Whether [`Registry::listed`] leaves it out.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.hidden
    }

    /// Whether its faults never count towards quarantine.
    #[must_use]
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// The lifecycle of a room made now, the one place where this is decided: resident only if
    /// the listing says so and the operator grants it (`host.resident` is true for the slug),
    /// else resumable. Ephemeral stays ephemeral.
    #[must_use]
    pub fn lifecycle_of_new_room(&self, granted_resident: bool) -> Lifecycle {
        match self.lifecycle {
            Lifecycle::Resident if !granted_resident => Lifecycle::Resumable,
            lifecycle => lifecycle,
        }
    }
}

/// Tells listings apart that had the same slug one after the other: newer is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A [`Listing`] that was added to a registry. A room keeps the one it began with.
#[derive(Debug)]
pub struct Listed {
    listing: Listing,
    generation: Generation,
    label: GameLabel,
    weight: Weight,
}

impl Listed {
    /// What was added.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The game.
    #[must_use]
    pub fn game(&self) -> &Game {
        &self.listing.game
    }

    /// The name it is offered under.
    #[must_use]
    pub fn slug(&self) -> &GameSlug {
        &self.listing.slug
    }

    /// Which of the listings under this slug it is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What is known of its callbacks.
    pub(crate) fn weight(&self) -> &Weight {
        &self.weight
    }

    /// The game as metrics know it.
    #[must_use]
    pub fn label(&self) -> &GameLabel {
        &self.label
    }
}

/// The games on offer, by slug. Shared by reference; every method is one step to other threads.
#[derive(Debug, Default)]
pub struct Registry {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    listed: BTreeMap<GameSlug, Arc<Listed>>,
    added: u64,
    labels: Labels,
}

/// A listing was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Another game has this slug.
    #[error("a game is listed as {slug} already: remove it, or choose another slug")]
    SlugTaken {
        /// The slug.
        slug: GameSlug,
    },
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a game.
    ///
    /// # Errors
    ///
    /// [`RegistryError::SlugTaken`].
    pub fn add(&self, listing: Listing) -> Result<Arc<Listed>, RegistryError> {
        let mut state = self.write();
        let slug = listing.slug.clone();
        if state.listed.contains_key(&slug) {
            return Err(RegistryError::SlugTaken { slug });
        }
        state.added += 1;
        let listed = Arc::new(Listed {
            listing,
            generation: Generation(state.added),
            label: state.labels.assign(&slug),
            weight: Weight::default(),
        });
        state.listed.insert(slug, Arc::clone(&listed));
        Ok(listed)
    }

    /// Stops offering a game; `None` if it was not offered. Its rooms go on.
    pub fn remove(&self, slug: &str) -> Option<Arc<Listed>> {
        self.write().listed.remove(slug)
    }

    /// The game of that name, hidden or not.
    #[must_use]
    pub fn get(&self, slug: &str) -> Option<Arc<Listed>> {
        self.read().listed.get(slug).cloned()
    }

    /// Every game, by slug.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Listed>> {
        self.read().listed.values().cloned().collect()
    }

    /// The games to show, by slug: all but the hidden ones.
    #[must_use]
    pub fn listed(&self) -> Vec<Arc<Listed>> {
        let state = self.read();
        let shown = state.listed.values().filter(|it| !it.listing.hidden);
        shown.cloned().collect()
    }

    /// The label of a slug that is or was listed. Any other, and those past
    /// [`GAME_LABELS_MAX`], have [`GameLabel::other`]: names that strangers make up cannot use
    /// the labels up.
    #[must_use]
    pub fn label(&self, slug: &str) -> GameLabel {
        self.read().labels.get(slug)
    }

    /// Whether rooms made now would run under exactly this listing.
    pub(crate) fn is_current(&self, listed: &Listed) -> bool {
        self.read().holds(listed)
    }

    /// Removes exactly this listing, and none that took its place.
    pub(crate) fn remove_exactly(&self, listed: &Listed) -> Option<Arc<Listed>> {
        let mut state = self.write();
        if state.holds(listed) {
            state.listed.remove(listed.slug().as_str())
        } else {
            None
        }
    }

    // What panics while it holds the lock has changed nothing yet, so a poisoned lock is as good
    // as another.

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn holds(&self, listed: &Listed) -> bool {
        let current = self.listed.get(listed.slug().as_str());
        current.is_some_and(|it| it.generation == listed.generation)
    }
}

/// Labels in the order their slugs were first listed; never taken back.
#[derive(Debug, Default)]
struct Labels(BTreeMap<GameSlug, GameLabel>);

impl Labels {
    fn get(&self, slug: &str) -> GameLabel {
        self.0.get(slug).cloned().unwrap_or_else(GameLabel::other)
    }

    fn assign(&mut self, slug: &GameSlug) -> GameLabel {
        // The map is not longer than the limit, so its length is an index.
        let index = self.0.len() as u16;
        if self.0.len() < GAME_LABELS_MAX && !self.0.contains_key(slug) {
            let label = GameLabel::new(Arc::clone(&slug.0), index);
            self.0.insert(slug.clone(), label);
        }
        self.get(slug.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slug(text: &str) -> GameSlug {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_bare_or_in_an_authors_namespace() {
        let bare = slug("tic-tac-toe");
        assert_eq!((bare.author(), bare.bare()), (None, "tic-tac-toe"));
        let owned = slug("ada/chess");
        assert_eq!((owned.author(), owned.bare()), (Some("ada"), "chess"));
        assert_eq!(owned.to_string(), "ada/chess");
    }

    #[test]
    fn each_part_of_a_name_has_1_to_32_bytes_of_its_own() {
        let (most, more) = ("a".repeat(32), "a".repeat(33));
        assert_eq!(slug(&format!("{most}/{most}")).as_str().len(), 65);
        let too_long = SlugError::TooLong { bytes: 33 };
        let slash = SlugError::Byte { at: 1, byte: b'/' };
        let space = SlugError::Byte { at: 0, byte: b' ' };
        for (text, error) in [
            (String::new(), GameSlugError::Name(SlugError::Empty)),
            ("/".into(), GameSlugError::Author(SlugError::Empty)),
            ("/a".into(), GameSlugError::Author(SlugError::Empty)),
            ("a/".into(), GameSlugError::Name(SlugError::Empty)),
            ("a/b/c".into(), GameSlugError::Name(slash)),
            ("a/ b".into(), GameSlugError::Name(space)),
            (" a/b".into(), GameSlugError::Author(space)),
            (more.clone(), GameSlugError::Name(too_long)),
            (format!("{more}/a"), GameSlugError::Author(too_long)),
            (format!("a/{more}"), GameSlugError::Name(too_long)),
        ] {
            assert_eq!(text.parse::<GameSlug>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_slug_keeps_its_label_and_those_past_the_last_share_one() {
        let mut labels = Labels::default();
        for index in 0..GAME_LABELS_MAX {
            let game = slug(&format!("g-{index}"));
            let label = labels.assign(&game);
            assert_eq!((label.index(), label.slug()), (index, game.as_str()));
        }
        assert_eq!(labels.assign(&slug("late")), GameLabel::other());
        assert_eq!(labels.get("late"), GameLabel::other());
        assert_eq!(labels.assign(&slug("g-7")).index(), 7);
        assert_eq!(labels.0.len(), GAME_LABELS_MAX);
    }

    proptest! {
        #[test]
        fn a_name_reads_back_and_nothing_else_is_one(text in "[a-zA-Z0-9/-]{0,40}") {
            let parts: Vec<&str> = text.split('/').collect();
            let valid = parts.len() <= 2 && parts.iter().all(|part| part.parse::<Slug>().is_ok());
            match text.parse::<GameSlug>() {
                Ok(name) => prop_assert!(valid && name.as_str() == text),
                Err(_) => prop_assert!(!valid),
            }
        }
    }
}
