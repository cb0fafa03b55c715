//! Every guest of `fixtures/wat` is refused, faults or plays as `outcomes.toml` says.

mod common;

use cabinet_host::{Host, HostOptions, Outcome};
use cabinet_wire::input::Input;
use common::{SHORT, WIDE, ada, ms, options, refusal_class, room};
use serde::Deserialize;

#[derive(Deserialize)]
struct Table {
    guest: Vec<Guest>,
}

#[derive(Deserialize)]
struct Guest {
    file: String,
    phase: String,
    outcome: String,
}

#[test]
fn every_wat_guest_ends_as_the_table_says() {
    let dir = common::fixtures().join("wat");
    let text = std::fs::read_to_string(dir.join("outcomes.toml")).unwrap();
    let table: Table = toml::from_str(&text).unwrap();
    let mut listed: Vec<_> = table.guest.iter().map(|guest| guest.file.clone()).collect();
    listed.sort();
    let mut present: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".wat"))
        .collect();
    present.sort();
    assert_eq!(listed, present, "outcomes.toml lists every guest once");

    let host = |probe_deadline| {
        let mut options = HostOptions::default();
        options.probe_deadline = probe_deadline;
        Host::new(options).unwrap()
    };
    let (patient, strict) = (host(WIDE), host(SHORT));
    let mut wrong = Vec::new();
    for guest in &table.guest {
        let endless = guest.outcome.ends_with(":deadline");
        let (host, deadline) = if endless {
            (&strict, SHORT)
        } else {
            (&patient, WIDE)
        };
        let (phase, outcome) = play(host, deadline, &guest.file);
        if (phase.as_str(), outcome.as_str()) != (guest.phase.as_str(), guest.outcome.as_str()) {
            wrong.push(format!(
                "{}: expected {} {}, found {phase} {outcome}",
                guest.file, guest.phase, guest.outcome
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn play(host: &Host, deadline: std::time::Duration, file: &str) -> (String, String) {
    let game = match host.load(&common::wat(file), &options(deadline)) {
        Ok(game) => game,
        Err(error) => return ("load".into(), format!("refused:{}", refusal_class(&error))),
    };
    let (mut room, _) = room(&game);
    type Step = fn(&mut cabinet_host::Room) -> Outcome;
    let steps: [(&str, Step); 7] = [
        ("start", |room| room.start(ms(0))),
        ("join", |room| room.join(ms(10), ada())),
        ("input", |room| {
            room.input(ms(20), &ada(), Input::Rune('x' as u32))
        }),
        ("wake", |room| room.wake(ms(70))),
        ("wake2", |room| room.wake(ms(120))),
        ("leave", |room| room.leave(ms(130), &ada())),
        ("close", |room| room.close(ms(140))),
    ];
    for (name, step) in steps {
        match step(&mut room) {
            Outcome::Done(_) => {}
            Outcome::Faulted(_) => {
                let class = room.fault().expect("a fault").class();
                return (name.into(), format!("fault:{class}"));
            }
            Outcome::Skipped(skip) => return (name.into(), format!("skipped:{skip:?}")),
        }
    }
    ("load".into(), "ok".into())
}
