//! The recording's format: what is written is read, every limit holds, nothing panics.

use super::*;
use proptest::prelude::*;

fn header() -> Header {
    Header {
        artifact: ArtifactDigest([7; 32]),
        slug: "tour".into(),
        path: "/games/tour.wasm".into(),
        mode: Mode::Private,
        capacity: 16,
        min_players: 1,
        seed: -3,
        seed_set: true,
        seats: 2,
        heartbeat_ms: 50,
        config: vec![("greeting".into(), b"hi".to_vec())],
    }
}

fn input(seat: u16, input: Input) -> Callback {
    Callback {
        export: Export::Input,
        now: 1_700_000_000_000_000_000,
        seat: Some(seat),
        input: Some(input),
        answers: Vec::new(),
        check: 9,
    }
}

fn wake(answers: Vec<Answer>) -> Callback {
    Callback {
        export: Export::Wake,
        seat: None,
        input: None,
        answers,
        ..input(1, Input::Rune(0))
    }
}

fn sample() -> Recording {
    Recording {
        header: header(),
        callbacks: vec![
            input(2, Input::Rune(u32::MAX)),
            input(1, Input::Key(Key::Left)),
            wake(vec![
                Answer::Value(None),
                Answer::Value(Some(b"5".to_vec())),
                Answer::Failed,
            ]),
        ],
        end: Some(End {
            reason: "fault".into(),
            fault: Some("trap".into()),
            text: "it trapped".into(),
        }),
        torn: false,
    }
}

fn encode(recording: &Recording) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut out = Vec::new();
    writer.header(&recording.header, &mut out).unwrap();
    for callback in &recording.callbacks {
        writer.callback(callback, &mut out).unwrap();
    }
    if let Some(end) = &recording.end {
        writer.end(end, &mut out).unwrap();
    }
    out
}

/// A record with this content, whatever it means.
fn record(number: usize, content: &[u8]) -> Vec<u8> {
    let mut out = (content.len() as u32).to_le_bytes().to_vec();
    out.extend(checksum(number, content).to_le_bytes());
    out.extend(content);
    out
}

fn only_header() -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new().header(&header(), &mut out).unwrap();
    out
}

#[test]
fn what_is_written_is_read() {
    let recording = sample();
    assert_eq!(decode(&encode(&recording)), Ok(recording));
}

#[test]
fn a_torn_tail_is_left_out_wherever_it_was_torn() {
    let whole = encode(&sample());
    let head = only_header().len();
    for cut in head..whole.len() {
        let read = decode(&whole[..cut]).unwrap();
        let again = encode(&read);
        assert!(whole.starts_with(&again), "cut at {cut}");
        assert_eq!(read.torn, again.len() < cut, "cut at {cut}");
    }
    for cut in 4..head {
        assert_eq!(
            decode(&whole[..cut]),
            Err(FormatError::NoHeader),
            "cut at {cut}"
        );
    }
    // The last record, whole in length and not in content; and a tail of zeros.
    let mut last = whole.clone();
    *last.last_mut().unwrap() ^= 1;
    let read = decode(&last).unwrap();
    assert!(read.torn && read.end.is_none());
    let zeros = [&whole[..], &[0; 100]].concat();
    assert!(decode(&zeros).unwrap().torn);
}

#[test]
fn a_changed_byte_in_the_middle_is_an_error_and_never_another_recording() {
    let whole = encode(&sample());
    let original = sample();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        match decode(&bad) {
            Err(_) => {}
            Ok(read) => {
                assert!(read.torn, "byte {at}");
                assert_eq!(read.header, original.header);
                assert!(original.callbacks.starts_with(&read.callbacks), "byte {at}");
            }
        }
    }
    let mut bad = whole;
    let at = only_header().len() + PREFIX_BYTES + 3;
    bad[at] ^= 1;
    assert_eq!(decode(&bad), Err(FormatError::Checksum { record: 1 }));
}

#[test]
fn records_do_not_change_places() {
    let header = only_header();
    let mut writer = Writer {
        records: 1,
        bytes: 0,
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    writer
        .callback(&input(1, Input::Rune(1)), &mut first)
        .unwrap();
    writer
        .callback(&input(2, Input::Rune(2)), &mut second)
        .unwrap();
    let swapped = [&header[..], &second, &first].concat();
    assert_eq!(decode(&swapped), Err(FormatError::Checksum { record: 1 }));
}

#[test]
fn each_thing_that_is_no_recording_has_its_error() {
    assert_eq!(decode(b""), Err(FormatError::NotARecording));
    assert_eq!(decode(b"\0asm\x01\0\0\0"), Err(FormatError::NotARecording));
    assert_eq!(decode(b"CABP\x02\0\0\0"), Err(FormatError::Version(2)));
    let file = |records: &[&[u8]]| {
        let mut out = only_header();
        for (number, content) in records.iter().enumerate() {
            out.extend(record(number + 1, content));
        }
        // So that the one before is not the last.
        out.extend([1, 0]);
        out
    };
    let malformed = |records: &[&[u8]]| match decode(&file(records)) {
        Err(FormatError::Malformed { record, what }) => (record, what),
        other => panic!("{other:?}"),
    };
    let mut callback = Vec::new();
    Writer {
        records: 1,
        bytes: 0,
    }
    .callback(&input(1, Input::Key(Key::Up)), &mut callback)
    .unwrap();
    let callback = &callback[PREFIX_BYTES..];
    let changed = |at: usize, byte: u8| {
        let mut content = callback.to_vec();
        content[at] = byte;
        content
    };
    assert_eq!(
        malformed(&[&[9]]).1,
        "it is of no known kind, or a second header"
    );
    assert_eq!(malformed(&[&changed(1, 6)]).1, "the callback is unknown");
    assert_eq!(malformed(&[&changed(10, 3)]).1, "there is no such seat");
    assert_eq!(
        malformed(&[&changed(10, 0)]).1,
        "seat or input do not go with the callback"
    );
    assert_eq!(
        malformed(&[&changed(12, 3)]).1,
        "the input is of no known kind"
    );
    assert_eq!(malformed(&[&changed(13, 10)]).1, "the key is unknown");
    assert_eq!(malformed(&[&callback[..callback.len() - 1]]).1, SHORT);
    let longer = [callback, &[0]].concat();
    assert_eq!(
        malformed(&[callback, &longer]),
        (2, "there is more in it than there should be")
    );
    let end = [KIND_END, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(malformed(&[&end, &end]), (2, "it comes after the end"));
    let mut headless = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    headless.extend(record(0, callback));
    headless.extend([1, 0]);
    assert!(matches!(
        decode(&headless),
        Err(FormatError::Malformed { record: 0, .. })
    ));
}

#[test]
fn a_record_may_have_its_limit_and_not_a_byte_more() {
    // Fifteen values of a MiB and one that fills the rest.
    let fixed = 1 + 1 + 8 + 2 + 1 + 4 + 4 + 4;
    let full = vec![Answer::Value(Some(vec![1; VALUE_BYTES_MAX])); 15];
    let left = RECORD_BYTES_MAX - fixed - 15 * (VALUE_BYTES_MAX + 5) - 5;
    let with = |last: usize| {
        let mut answers = full.clone();
        answers.push(Answer::Value(Some(vec![2; last])));
        wake(answers)
    };
    let mut bytes = only_header();
    let mut writer = Writer {
        records: 1,
        bytes: 0,
    };
    writer.callback(&with(left), &mut bytes).unwrap();
    assert_eq!(decode(&bytes).unwrap().callbacks, [with(left)]);
    let too_long = writer.callback(&with(left + 1), &mut bytes).unwrap_err();
    let expected = WriteError::TooLong {
        what: "a record",
        found: RECORD_BYTES_MAX + 1,
        limit: RECORD_BYTES_MAX,
    };
    assert_eq!(too_long, expected);
    // The reader, of one that somebody else wrote.
    let mut foreign = only_header();
    foreign.extend((RECORD_BYTES_MAX as u32 + 1).to_le_bytes());
    foreign.extend([0; 4]);
    let expected = FormatError::RecordTooLarge {
        record: 1,
        bytes: RECORD_BYTES_MAX + 1,
    };
    assert_eq!(decode(&foreign), Err(expected));
}

#[test]
fn lists_and_texts_may_have_their_limits_and_not_one_more() {
    let write_callback = |answers: usize| {
        let callback = wake(vec![Answer::Value(None); answers]);
        Writer::new().callback(&callback, &mut Vec::new())
    };
    assert_eq!(write_callback(ANSWERS_MAX), Ok(()));
    assert!(write_callback(ANSWERS_MAX + 1).is_err());
    let write_value = |length: usize| {
        let callback = wake(vec![Answer::Value(Some(vec![0; length]))]);
        Writer::new().callback(&callback, &mut Vec::new())
    };
    assert_eq!(write_value(VALUE_BYTES_MAX), Ok(()));
    assert!(write_value(VALUE_BYTES_MAX + 1).is_err());
    let write_header = |change: &dyn Fn(&mut Header)| {
        let mut header = header();
        change(&mut header);
        let mut out = Vec::new();
        let written = Writer::new().header(&header, &mut out);
        assert_eq!(out.is_empty(), written.is_err());
        written.map(|()| assert_eq!(decode(&out).unwrap().header, header))
    };
    let seats = |seats| write_header(&move |header| header.seats = seats);
    assert_eq!(seats(SEATS_MAX), Ok(()));
    assert!(seats(SEATS_MAX + 1).is_err());
    let slug = |bytes| write_header(&move |header| header.slug = "x".repeat(bytes));
    assert_eq!(slug(TEXT_BYTES_MAX), Ok(()));
    assert!(slug(TEXT_BYTES_MAX + 1).is_err());
    let config =
        |count| write_header(&move |header| header.config = vec![("k".into(), Vec::new()); count]);
    assert_eq!(config(CONFIG_MAX), Ok(()));
    assert!(config(CONFIG_MAX + 1).is_err());
}

#[test]
fn a_reader_refuses_lists_and_texts_past_their_limits() {
    let callback = |count: u32| {
        let mut content = vec![KIND_CALLBACK, Export::Wake as u8];
        content.extend([0; 8 + 2 + 1 + 4 + 4]);
        content.extend(count.to_le_bytes());
        content.resize(content.len() + count as usize, ANSWER_NONE);
        [only_header(), record(1, &content)].concat()
    };
    let limit = ANSWERS_MAX as u32;
    assert_eq!(
        decode(&callback(limit)).unwrap().callbacks[0].answers.len(),
        ANSWERS_MAX
    );
    let what = "there are too many answers";
    assert_eq!(
        decode(&callback(limit + 1)),
        Err(FormatError::Malformed { record: 1, what })
    );
    let end = |bytes: u32| {
        let mut content = vec![KIND_END];
        content.extend(bytes.to_le_bytes());
        content.resize(content.len() + bytes as usize, b'x');
        content.extend([0; 8]);
        [only_header(), record(1, &content)].concat()
    };
    let limit = TEXT_BYTES_MAX as u32;
    assert!(decode(&end(limit)).unwrap().end.is_some());
    let what = "a text is too long";
    assert_eq!(
        decode(&end(limit + 1)),
        Err(FormatError::Malformed { record: 1, what })
    );
}

#[test]
fn a_recording_may_have_its_limits_and_no_record_and_no_byte_more() {
    let mut writer = Writer {
        records: RECORDS_MAX - 1,
        bytes: 0,
    };
    assert_eq!(writer.callback(&wake(Vec::new()), &mut Vec::new()), Ok(()));
    assert!(writer.callback(&wake(Vec::new()), &mut Vec::new()).is_err());
    let bytes = (PREFIX_BYTES + 25) as u64;
    let mut writer = Writer {
        records: 1,
        bytes: FILE_BYTES_MAX - bytes,
    };
    assert_eq!(writer.callback(&wake(Vec::new()), &mut Vec::new()), Ok(()));
    assert!(writer.callback(&wake(Vec::new()), &mut Vec::new()).is_err());
    // As the reader counts them.
    let one = record(RECORDS_MAX - 1, &[KIND_END]);
    assert!(matches!(
        next_record(RECORDS_MAX - 1, &one),
        Ok(Next::Record(..))
    ));
    assert_eq!(
        next_record(RECORDS_MAX, &one).err(),
        Some(FormatError::TooManyRecords)
    );
    let large = vec![0; FILE_BYTES_MAX as usize + 1];
    assert_eq!(
        decode(&large),
        Err(FormatError::FileTooLarge(FILE_BYTES_MAX + 1))
    );
    assert_eq!(decode(&large[1..]), Err(FormatError::NotARecording));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
        let _ = decode(&[&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat());
        // Past the checksums.
        let _ = decode(&[&only_header()[..], &record(1, &bytes)].concat());
        let mut first = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        first.extend(record(0, &bytes));
        let _ = decode(&first);
    }

    #[test]
    fn no_change_of_a_record_makes_the_reader_panic(
        at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(), which in 0usize..4,
    ) {
        let whole = encode(&sample());
        let mut rest = &whole[8..];
        let mut out = whole[..8].to_vec();
        let mut number = 0;
        while let Ok(Next::Record(content, after)) = next_record(number, rest) {
            let mut content = content.to_vec();
            if number == which {
                let at = at.index(content.len());
                content[at] = byte;
                content.truncate(cut.index(content.len()) + 1);
            }
            out.extend(record(number, &content));
            rest = after;
            number += 1;
        }
        let _ = decode(&out);
    }

    #[test]
    fn whatever_is_written_is_read(
        runes in prop::collection::vec((1u16..=2, any::<u32>()), 0..20),
        values in prop::collection::vec(prop::option::of(any::<Vec<u8>>()), 0..5),
        seed: i64,
    ) {
        let mut recording = sample();
        recording.header.seed = seed;
        recording.callbacks.extend(runes.iter().map(|(seat, rune)| input(*seat, Input::Rune(*rune))));
        recording.callbacks.push(wake(values.into_iter().map(Answer::Value).collect()));
        prop_assert_eq!(decode(&encode(&recording)), Ok(recording));
    }
}
