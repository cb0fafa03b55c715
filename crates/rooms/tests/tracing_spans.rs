//! What `tracing` is told: the way of a key from the seat through the callback to the frame, and
//! never who played.

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use cabinet_host::{Input, Player};
use cabinet_rooms::{EndReason, Listing, RoomSpec, Runtime, RuntimeOptions};
use cabinet_wire::Lifecycle;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use common::{WIDE, block_on, by_hand, game, list, ms};

type Fields = BTreeMap<&'static str, String>;

/// A span or an event.
#[derive(Debug, Clone)]
struct Told {
    target: &'static str,
    name: &'static str,
    fields: Fields,
}

/// An event with the spans it happened in, the outermost first.
#[derive(Debug, Clone)]
struct Happened {
    event: Told,
    within: Vec<Told>,
}

impl Happened {
    fn path(&self) -> Vec<&'static str> {
        self.within.iter().map(|span| span.name).collect()
    }
}

/// Keeps spans and events.
#[derive(Debug, Clone, Default)]
struct Trace {
    ids: Arc<AtomicU64>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    spans: BTreeMap<u64, Told>,
    entered: BTreeMap<u64, Vec<u64>>,
    threads: Vec<ThreadId>,
    events: Vec<Happened>,
    all: Vec<Told>,
}

impl State {
    /// Spans are entered thread by thread.
    fn stack(&mut self) -> &mut Vec<u64> {
        let current = std::thread::current().id();
        let at = match self.threads.iter().position(|id| *id == current) {
            Some(at) => at,
            None => {
                self.threads.push(current);
                self.threads.len() - 1
            }
        };
        self.entered.entry(at as u64).or_default()
    }
}

impl Trace {
    fn take(&self) -> Vec<Happened> {
        std::mem::take(&mut self.state.lock().unwrap().events)
    }

    fn frames(&self) -> Vec<Happened> {
        let mut events = self.take();
        events.retain(|happened| happened.event.target == "cabinet::frame");
        events
    }
}

struct Reading<'a>(&'a mut Fields);

impl Visit for Reading<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

fn told(metadata: &'static Metadata<'static>, fields: Fields) -> Told {
    Told {
        target: metadata.target(),
        name: metadata.name(),
        fields,
    }
}

impl Subscriber for Trace {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("cabinet")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = Fields::new();
        span.record(&mut Reading(&mut fields));
        let span = told(span.metadata(), fields);
        let mut state = self.state.lock().unwrap();
        state.all.push(span.clone());
        state.spans.insert(id, span);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Reading(&mut fields));
        let event = told(event.metadata(), fields);
        let mut state = self.state.lock().unwrap();
        let entered = state.stack().clone();
        let within = entered.iter().map(|id| state.spans[id].clone()).collect();
        state.all.push(event.clone());
        state.events.push(Happened { event, within });
    }

    fn enter(&self, id: &Id) {
        self.state.lock().unwrap().stack().push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let left = self.state.lock().unwrap().stack().pop();
        assert_eq!(left, Some(id.into_u64()), "spans are left in order");
    }
}

/// A player whose names can be told from everything else.
fn zebra() -> Player {
    Player::member("account-zebra", "handle-zebra", "conn-zebra")
}

fn tour() -> Arc<cabinet_rooms::Listed> {
    list(Listing::new(game("tour.wasm")).with_lifecycle(Lifecycle::Ephemeral))
}

#[test]
fn an_input_encloses_its_callback_which_encloses_the_frame() {
    let trace = Trace::default();
    tracing::subscriber::with_default(trace.clone(), || {
        let by = by_hand();
        let room = by.runtime.open(&tour(), RoomSpec::default()).unwrap();
        let seat = by.run(room.join(zebra())).unwrap();
        trace.take();

        by.run(seat.input(Input::Rune('z' as u32))).unwrap();
        by.pass(ms(0));
        let frames = trace.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(frames[0].path(), ["input", "callback"]);
        assert_eq!(frames[0].event.fields["everyone"], "true");
        for span in &frames[0].within {
            assert_eq!(span.target, "cabinet::room");
            assert_eq!(span.fields["slug"], "tour");
            assert_eq!(span.fields["room"], room.id().to_string());
        }
        assert_eq!(frames[0].within[1].fields["export"], "input");

        // A frame for one player, and what a guest logs, have the same way.
        by.run(seat.input(Input::Rune('h' as u32))).unwrap();
        by.pass(ms(0));
        let frames = trace.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(frames[0].path(), ["input", "callback"]);
        assert_eq!(frames[0].event.fields["everyone"], "false");

        by.run(seat.input(Input::Rune('t' as u32))).unwrap();
        by.pass(ms(0));
        let logged: Vec<_> = trace
            .take()
            .into_iter()
            .filter(|happened| happened.event.target == "cabinet::guest")
            .collect();
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert_eq!(logged[0].path(), ["input", "callback"]);
        assert_eq!(logged[0].event.fields["room"], room.id().to_string());
        assert!(logged[0].event.fields["out"].starts_with("\"now "));
    });
}

#[test]
fn a_wake_s_frame_has_no_input_around_it() {
    let trace = Trace::default();
    tracing::subscriber::with_default(trace.clone(), || {
        let by = by_hand();
        let room = by.runtime.open(&tour(), RoomSpec::default()).unwrap();
        let seat = by.run(room.join(zebra())).unwrap();
        by.run(seat.input(Input::Rune('z' as u32))).unwrap();
        by.pass(ms(0));
        trace.take();
        by.pass(ms(200));
        let frames = trace.frames();
        assert_eq!(frames.len(), 5, "{frames:?}");
        for frame in frames {
            assert_eq!(frame.path(), ["callback"]);
            assert_eq!(frame.within[0].fields["export"], "wake");
        }
        drop(seat);
        by.pass(ms(0));
        let frames = trace.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(frames[0].within[0].fields["export"], "leave");
    });
}

#[test]
fn a_room_says_in_the_log_who_came_how_many_are_there_and_why_it_ended() {
    let trace = Trace::default();
    tracing::subscriber::with_default(trace.clone(), || {
        let by = by_hand();
        let room = by.runtime.open(&tour(), RoomSpec::default()).unwrap();
        by.run(by.run(room.join(zebra())).unwrap().leave());
        by.pass(ms(61_000));
        let id = room.id().to_string();
        let lines: Vec<String> = trace
            .take()
            .into_iter()
            .filter(|happened| happened.event.target.starts_with("cabinet_rooms"))
            .map(|happened| {
                let fields = happened.event.fields;
                assert_eq!((fields["slug"].as_str(), &fields["room"]), ("tour", &id));
                let told = ["members", "grace", "reason", "joined"];
                let told = told.iter().filter_map(|name| fields.get(name));
                let told: Vec<&str> = told.map(String::as_str).collect();
                format!("{} {}", fields["message"], told.join(" "))
            })
            .collect();
        assert_eq!(
            lines,
            [
                "player joined 1",
                "player left 0",
                "room abandoned 60s",
                "room settled abandoned 1",
            ]
        );
    });
}

#[test]
fn a_guests_bytes_cannot_forge_log_lines() {
    let trace = Trace::default();
    tracing::subscriber::with_default(trace.clone(), || {
        let by = by_hand();
        let listed = list(Listing::new(game("misbehave.wasm")));
        let room = by.runtime.open(&listed, RoomSpec::default()).unwrap();
        let seat = by.run(room.join(zebra())).unwrap();
        trace.take();
        // Bytes that are no text, an escape sequence, a line end.
        by.run(seat.input(Input::Rune('&' as u32))).unwrap();
        by.pass(ms(0));
        let logged: Vec<_> = trace
            .take()
            .into_iter()
            .filter(|happened| happened.event.target == "cabinet::guest")
            .collect();
        assert!(!logged.is_empty());
        for happened in logged {
            let out = &happened.event.fields["out"];
            assert!(!out.contains(|c: char| c.is_control()), "{out:?}");
        }
    });
}

#[test]
fn nothing_the_host_says_names_a_player() {
    let trace = Trace::default();
    tracing::subscriber::with_default(trace.clone(), || {
        let by = by_hand();
        let listed = tour();
        // One room is left, one is closed, one is killed; the guest's own words are its own.
        let play = |runes: &str| {
            let room = by.runtime.open(&listed, RoomSpec::default()).unwrap();
            let seat = by.run(room.join(zebra())).unwrap();
            assert!(by.run(room.join(zebra())).is_err());
            for rune in runes.chars() {
                by.run(seat.input(Input::Rune(rune as u32))).unwrap();
            }
            by.pass(ms(100));
            (room, seat)
        };
        let (_left, seat) = play("hkmpxz");
        by.run(seat.leave());
        by.pass(ms(120_000));
        let (closed, _seat) = play("i");
        closed.close();
        by.run(closed.ended());
        let (killed, _seat) = play("!");
        assert_eq!(by.run(killed.ended()).reason, EndReason::Fault);
    });
    let state = trace.state.lock().unwrap();
    assert!(state.all.len() > 50);
    let faults = state.all.iter().filter(|told| {
        told.fields
            .get("message")
            .is_some_and(|message| message.contains("trap in input"))
    });
    assert_eq!(faults.count(), 1);
    for told in &state.all {
        if told.target == "cabinet::guest" {
            continue;
        }
        for (name, value) in &told.fields {
            assert!(!value.contains("zebra"), "{name} of {told:?}");
        }
    }
}

/// The one test that sets the process's subscriber: room threads have no other. The tests above
/// have their own on their own threads.
#[test]
fn the_span_of_an_input_goes_with_it_to_the_rooms_thread() {
    let trace = Trace::default();
    tracing::subscriber::set_global_default(trace.clone()).unwrap();
    let mut options = RuntimeOptions::default();
    options.threads = 1;
    let runtime = Runtime::new(options).unwrap();
    let room = runtime.open(&tour(), RoomSpec::default()).unwrap();
    let mut seat = block_on(room.join(zebra())).unwrap();
    block_on(seat.input(Input::Rune('z' as u32))).unwrap();
    block_on(async {
        while !seat.frames().frame().row_text(4).contains("'z'") {
            seat.frames().next().await.expect("the room lives");
        }
    });
    // Viewers may see a frame before its event; what was asked later comes later.
    block_on(room.checkpoint()).unwrap();
    let frames = trace.frames();
    let id = room.id().to_string();
    let of_input = frames
        .iter()
        .find(|frame| frame.path() == ["input", "callback"]);
    let spans = &of_input.expect("the input's frame").within;
    assert!(spans.iter().all(|span| span.fields["room"] == id));
    assert!(frames.iter().any(|frame| frame.path() == ["callback"]));
    drop(seat);
    block_on(runtime.shutdown());
    assert!(runtime.join_threads(WIDE));
}
