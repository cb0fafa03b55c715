//! One version of one game: checked, compiled once, shared by its rooms.
//!
//! Every game has an engine of its own, without a compiler: wasmer frees code only with its
//! engine and holds the engine's lock while compiling, so games neither leak into nor wait for
//! each other, and a game's code goes with its last room.

use std::sync::Arc;
use std::time::Duration;

use cabinet_wire::meta::{self, MetaOwned};
use cabinet_wire::{ABI_MAJOR, ArtifactDigest, KNOWN_CTX_FEATURES, Lifecycle, WIRE_REVISION};
use wasmer::sys::EngineBuilder;
use wasmer::{Engine, Module};

use crate::cache::{CacheKey, Lookup};
use crate::compile::{self, CompileError, CompileIn, Settings, Tier};
use crate::fault::Fault;
use crate::host::{GameOptions, HostShared, LoadError, LoadWarning, NewerRevision};
use crate::memory::{MemoryChecks, RoomTunables};
use crate::rewrite::{self, ModuleLimits, Shape};
use crate::room::core::Core;
use crate::room::link::Import;
use crate::room::shared::Shared;
use crate::room::{Room, RoomConfig};
use crate::services::{NoServices, Services};

/// Native stack of guest code. Call depth is counted in the rewrite and runs out at an eighth of
/// this; one size for the whole process, as wasmer pools stacks.
const STACK_BYTES: usize = 8 << 20;
/// Pages of the largest 32-bit memory.
const MEMORY_PAGES_POSSIBLE: u32 = 65_536;
/// Longest meta read: a hundred config specs with schemas of 8 KB fit.
const META_BYTES_MAX: usize = 1 << 20;
/// What a snapshot holds beside guest memory at most: every frame slot full, rosters, tables.
const SNAPSHOT_EXTRA_BYTES: usize = 256 << 20;
/// The clock a probe sees, a fixed moment: 2022-01-01T00:00:00Z in Unix nanoseconds.
const PROBE_CLOCK: i64 = 1_640_995_200_000_000_000;
/// The seed of a probe's entropy.
const PROBE_SEED: i64 = 42;

/// A loaded game. Cheap to clone; its rooms keep it alive.
#[derive(Clone)]
pub struct Game {
    pub(crate) inner: Arc<GameInner>,
}

pub(crate) struct GameInner {
    pub(crate) host: Arc<HostShared>,
    pub(crate) engine: Engine,
    pub(crate) module: Module,
    pub(crate) kernel: Module,
    pub(crate) imports: Vec<Import>,
    pub(crate) shape: Shape,
    /// Wasm pages that active data segments write at instantiation, as 4 KiB page ranges.
    pub(crate) data_pages: Vec<std::ops::Range<usize>>,
    pub(crate) options: GameOptions,
    pub(crate) digest: ArtifactDigest,
    /// What rooms run under: two games with equal rules compute the same from equal states.
    pub(crate) rules: [u8; 32],
    meta: MetaOwned,
    abi_major: u32,
    tier: Tier,
    warnings: Vec<LoadWarning>,
    from_cache: bool,
}

impl std::fmt::Debug for Game {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Game")
            .field("slug", &self.inner.meta.slug)
            .field("digest", &self.inner.digest)
            .finish_non_exhaustive()
    }
}

impl Game {
    /// What the game says of itself.
    pub fn meta(&self) -> &MetaOwned {
        &self.inner.meta
    }

    /// SHA-256 of the artifact.
    pub fn digest(&self) -> ArtifactDigest {
        self.inner.digest
    }

    /// The ABI major version the guest answered when probed.
    pub fn abi_major(&self) -> u32 {
        self.inner.abi_major
    }

    /// The wire revision the guest was built for; 0 when it predates the field.
    pub fn wire_revision(&self) -> u16 {
        self.inner.meta.wire_revision
    }

    /// Wake cadence of rooms that do not override it: the game's own, within 20 to 1,000 ms, or
    /// the option's.
    pub fn heartbeat(&self) -> Duration {
        match self.inner.meta.heartbeat_ms {
            0 => self.inner.options.heartbeat,
            declared => Duration::from_millis(u64::from(declared.clamp(
                cabinet_wire::HEARTBEAT_MIN_MS,
                cabinet_wire::HEARTBEAT_MAX_MS,
            ))),
        }
    }

    /// Callback deadline of rooms that do not override it.
    pub fn deadline(&self) -> Duration {
        self.inner.options.deadline
    }

    /// Cap of a room's linear memory, in bytes.
    pub fn memory_cap_bytes(&self) -> u64 {
        u64::from(self.inner.options.memory_pages_max) * crate::memory::WASM_PAGE as u64
    }

    /// The bound to decode this game's snapshots with ([`crate::Snapshot::decode`]): no room of it
    /// can be larger, uncompressed.
    pub fn snapshot_bytes_max(&self) -> usize {
        self.inner.options.memory_pages_max as usize * crate::memory::WASM_PAGE
            + SNAPSHOT_EXTRA_BYTES
    }

    /// How the game was compiled: never [`Tier::Auto`].
    pub fn tier(&self) -> Tier {
        self.inner.tier
    }

    /// What is odd about it.
    pub fn warnings(&self) -> &[LoadWarning] {
        &self.inner.warnings
    }

    /// Whether compiling was skipped thanks to the cache.
    pub fn from_cache(&self) -> bool {
        self.inner.from_cache
    }

    /// A new room. The guest is not instantiated before [`Room::start`].
    pub fn room(&self, config: RoomConfig, services: Box<dyn Services>) -> Room {
        Room::new(Arc::clone(&self.inner), config, services)
    }
}

impl GameInner {
    /// The context features this host sends to this guest.
    pub(crate) fn features(&self) -> u32 {
        self.meta.ctx_features & KNOWN_CTX_FEATURES
    }
}

pub(crate) fn load(
    host: &Arc<HostShared>,
    wasm: &[u8],
    options: &GameOptions,
) -> Result<Game, LoadError> {
    if options.memory_pages_max == 0 || options.memory_pages_max > MEMORY_PAGES_POSSIBLE {
        return Err(LoadError::MemoryPages(options.memory_pages_max));
    }
    let limits = ModuleLimits {
        memory_pages_max: options.memory_pages_max,
        ..host.options.limits.clone()
    };
    let digest = ArtifactDigest(sha256(wasm));
    let rewritten = rewrite::rewrite(wasm, &limits)?;
    let mut warnings = Vec::new();
    let tier = choose_tier(options.tier, &rewritten.shape, &limits, &mut warnings)?;
    let settings = Settings {
        quick: tier == Tier::Quick,
        canonical_nans: options.canonical_nans,
        checks: MemoryChecks::Reserved,
    };
    let mut engine = EngineBuilder::headless().engine();
    engine.set_tunables(RoomTunables::new(
        Arc::clone(&host.pool),
        options.memory_pages_max.max(crate::kernel::PAGES_MIN),
        MemoryChecks::Reserved,
        STACK_BYTES,
    ));
    let engine: Engine = engine.into();
    let (module, from_cache) = obtain(host, &engine, &rewritten.wasm, settings, &mut warnings)?;
    // SAFETY: compiled by this process from our own source.
    let kernel = unsafe { Module::deserialize_unchecked(&engine, host.kernel_artifact.as_slice()) }
        .map_err(|error| LoadError::Instantiate(error.to_string()))?;
    let imports = Import::of(&module);
    let mut inner = GameInner {
        host: Arc::clone(host),
        engine,
        module,
        kernel,
        imports,
        data_pages: data_pages(&rewritten.wasm),
        shape: rewritten.shape,
        options: options.clone(),
        digest,
        rules: rules(&rewritten.wasm, options.memory_pages_max),
        meta: MetaOwned::default(),
        abi_major: 0,
        tier,
        warnings: Vec::new(),
        from_cache,
    };
    probe(&mut inner, &mut warnings)?;
    inner.warnings = warnings;
    Ok(Game {
        inner: Arc::new(inner),
    })
}

/// Compiles the kernel's wasm half; it carries its own bounds checks.
pub(crate) fn compile_kernel(wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    let settings = Settings {
        quick: false,
        canonical_nans: false,
        checks: MemoryChecks::InCode,
    };
    compile::compile(wasm, settings, &CompileIn::ThisProcess)
}

fn choose_tier(
    wanted: Tier,
    shape: &Shape,
    limits: &ModuleLimits,
    warnings: &mut Vec<LoadWarning>,
) -> Result<Tier, LoadError> {
    let cost = &shape.cost;
    match cost.tier(limits) {
        rewrite::CostTier::Refuse => Err(if cost.worst_function_quick > limits.cost_quick_max {
            LoadError::TooExpensive {
                cost: cost.worst_function_quick,
                limit: limits.cost_quick_max,
            }
        } else {
            LoadError::TooExpensive {
                cost: cost.total_quick,
                limit: limits.cost_quick_total_max,
            }
        }),
        rewrite::CostTier::Quick => {
            if wanted != Tier::Quick {
                warnings.push(LoadWarning::QuickTier { cost: cost.total });
            }
            Ok(Tier::Quick)
        }
        rewrite::CostTier::Speed => Ok(match wanted {
            Tier::Quick => Tier::Quick,
            Tier::Auto | Tier::Speed => Tier::Speed,
        }),
    }
}

/// The compiled module: from the cache, else compiled and cached.
fn obtain(
    host: &HostShared,
    engine: &Engine,
    wasm: &[u8],
    settings: Settings,
    warnings: &mut Vec<LoadWarning>,
) -> Result<(Module, bool), LoadError> {
    let key = CacheKey::new(wasm, &settings.describe());
    if let Some(cache) = &host.cache {
        match cache.get(&key) {
            // An authentic entry that does not load is replaced below.
            Lookup::Hit(artifact) => match deserialize(engine, &artifact) {
                Ok(module) => return Ok((module, true)),
                Err(error) => tracing::warn!(%error, "cannot load a compile cache entry"),
            },
            Lookup::Tampered => warnings.push(LoadWarning::CacheTampered),
            Lookup::Miss => {}
        }
    }
    let artifact =
        compile::compile(wasm, settings, &host.options.compile).map_err(LoadError::Compile)?;
    let module = deserialize(engine, &artifact)?;
    if let Some(cache) = &host.cache
        && let Err(error) = cache.put(&key, &artifact)
    {
        // The game runs all the same; the next load compiles again.
        tracing::warn!(%error, "cannot write to the compile cache");
    }
    Ok((module, false))
}

fn deserialize(engine: &Engine, artifact: &[u8]) -> Result<Module, LoadError> {
    // SAFETY: the artifact was produced by our own compiler: in this process, whole and digested
    // by the embedder's worker, or read from a cache entry whose authentication code was checked.
    unsafe { Module::deserialize_unchecked(engine, artifact) }
        .map_err(|error| LoadError::Instantiate(error.to_string()))
}

/// Asks a throw-away instance which ABI it speaks and what it is.
fn probe(inner: &mut GameInner, warnings: &mut Vec<LoadWarning>) -> Result<(), LoadError> {
    let deadline = inner.host.options.probe_deadline;
    let mut shared = Shared::new(Box::new(NoServices), inner.options.io_ceiling);
    shared.now = PROBE_CLOCK;
    shared.reseed(PROBE_SEED);
    let mut core = Core::build(inner, shared).map_err(LoadError::Instantiate)?;
    let failed = |export| move |fault: Fault| LoadError::Probe { export, fault };

    core.pass_start(inner, deadline)
        .map_err(failed("start section"))?;
    let output = core
        .probe(inner, "shellcade_abi", deadline)
        .map_err(failed("shellcade_abi"))?;
    let Some(first) = output.first_chunk::<4>() else {
        return Err(LoadError::AbiOutput(output.len()));
    };
    let found = u32::from_le_bytes(*first);
    if found != ABI_MAJOR {
        return Err(LoadError::AbiMajor { found });
    }
    inner.abi_major = found;

    let output = core
        .probe(inner, "meta", deadline)
        .map_err(failed("meta"))?;
    if output.len() > META_BYTES_MAX {
        return Err(LoadError::MetaOutput {
            bytes: output.len(),
            max: META_BYTES_MAX,
        });
    }
    let meta = meta::decode(&output).map_err(LoadError::Meta)?;
    meta.validate().map_err(LoadError::Meta)?;
    inner.meta = MetaOwned::from(&meta);
    judge(&inner.meta, &inner.options, warnings)
}

/// What the reference leaves to its catalog: revision skew and values that make no sense.
fn judge(
    meta: &MetaOwned,
    options: &GameOptions,
    warnings: &mut Vec<LoadWarning>,
) -> Result<(), LoadError> {
    if meta.wire_revision > WIRE_REVISION {
        let (declared, known) = (meta.wire_revision, WIRE_REVISION);
        match options.newer_revision {
            NewerRevision::Refuse => return Err(LoadError::NewerRevision { declared, known }),
            NewerRevision::Warn => {
                tracing::warn!(declared, known, "game declares a newer wire revision");
                warnings.push(LoadWarning::NewerRevision { declared, known });
            }
        }
    }
    if meta.max_players == 0 || meta.min_players > meta.max_players {
        warnings.push(LoadWarning::Players {
            min: meta.min_players,
            max: meta.max_players,
        });
    }
    if usize::from(meta.max_players) > cabinet_wire::ROSTER_CAP {
        warnings.push(LoadWarning::MorePlayersThanSlots {
            max: meta.max_players,
        });
    }
    match Lifecycle::try_from(meta.lifecycle) {
        Ok(Lifecycle::Resident) if meta.min_players > 1 => {
            warnings.push(LoadWarning::ResidentNeedsPlayers {
                min: meta.min_players,
            });
        }
        Ok(_) => {}
        Err(_) => warnings.push(LoadWarning::Lifecycle(meta.lifecycle)),
    }
    if meta.ctx_features & !KNOWN_CTX_FEATURES != 0 {
        warnings.push(LoadWarning::UnknownFeatures(
            meta.ctx_features & !KNOWN_CTX_FEATURES,
        ));
    }
    if let Some(board) = &meta.leaderboard
        && (board.direction > 1 || board.aggregation > 1 || board.format > 2)
    {
        warnings.push(LoadWarning::LeaderboardCode);
    }
    Ok(())
}

/// The 4 KiB pages that active data segments touch: after instantiation, all others are zero.
fn data_pages(wasm: &[u8]) -> Vec<std::ops::Range<usize>> {
    use crate::memory::OS_PAGE;
    let mut pages: Vec<std::ops::Range<usize>> = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(wasm).flatten() {
        let wasmparser::Payload::DataSection(section) = payload else {
            continue;
        };
        for segment in section.into_iter().flatten() {
            let wasmparser::DataKind::Active { offset_expr, .. } = segment.kind else {
                continue;
            };
            // The rewrite admits constant offsets only; anything else would have to be a global
            // import, which it refuses. An unreadable offset could only be one past the memory.
            let Ok(wasmparser::Operator::I32Const { value }) =
                offset_expr.get_operators_reader().read()
            else {
                continue;
            };
            let start = value as u32 as usize;
            let end = start + segment.data.len();
            if end > start {
                pages.push(start / OS_PAGE..end.div_ceil(OS_PAGE));
            }
        }
    }
    // Merged: thousands of small segments on one page are one page to clear.
    pages.sort_unstable_by_key(|range| range.start);
    pages.dedup_by(|next, merged| {
        let touches = next.start <= merged.end;
        if touches {
            merged.end = merged.end.max(next.end);
        }
        touches
    });
    pages
}

/// SHA-256 of the rewritten guest, which carries version and limits of the rewrite, and the cap.
fn rules(wasm: &[u8], memory_pages_max: u32) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(wasm);
    context.update(&memory_pages_max.to_le_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}
