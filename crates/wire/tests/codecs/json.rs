//! The JSON well-formedness scanner.

use cabinet_wire::JSON_DEPTH_MAX;
use cabinet_wire::json::is_well_formed;
use proptest::prelude::*;

#[test]
fn rfc_8259_syntax_is_well_formed() {
    for text in [
        "0",
        "-0",
        "1",
        "-12.5e+10",
        "1E5",
        "1e-05",
        "0.0",
        "\"\"",
        "\"a\\u00e9\\n\\\"\\/\"",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        "[1,[2,{}],\"x\"]",
        "{\"a\":{\"b\":[{}]},\"c\":null}",
        " \t\r\n{ \"a\" : [ 1 , 2 ] } \n",
        "[[],[]]",
        "[{},{}]",
        "{\"\":{}}",
    ] {
        assert!(is_well_formed(text.as_bytes()), "{text}");
    }
}

#[test]
fn what_is_not_json_is_not_well_formed() {
    for text in [
        "",
        " ",
        "NaN",
        "Infinity",
        "+1",
        "01",
        "-",
        "-a",
        ".5",
        "1.",
        "1.e5",
        "1e",
        "1e+",
        "0x10",
        "tru",
        "truex",
        "nul",
        "True",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{]",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{1:1}",
        "{,}",
        "{\"a\":1]",
        "{} {}",
        "1 2",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u12\"",
        "\"\\",
        "'a'",
        "// c",
        "[1]//",
        "\u{FEFF}{}",
        "\"\n\"",
        "\"\u{0}\"",
        "\"\u{1f}\"",
        "\u{b}1",
        "\u{a0}1",
        ",",
        ":",
        "[:]",
        "{\"a\":,}",
    ] {
        assert!(!is_well_formed(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn what_the_reference_lets_pass_passes() {
    for bytes in [
        &b"\"\xff\""[..],
        b"\"\x7f\"",
        b"\"\\ud800\"",
        b"{\"a\":1,\"a\":2}",
        b" \t\r\n{} ",
        b"1",
    ] {
        assert!(is_well_formed(bytes), "{}", bytes.escape_ascii());
    }
    assert!(
        !is_well_formed(b"\xff"),
        "bytes past ASCII belong in strings"
    );
}

#[test]
fn ten_thousand_levels_pass_and_one_more_does_not() {
    let arrays = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    let objects = |depth: usize| {
        [
            b"{\"a\":".repeat(depth - 1),
            b"{".to_vec(),
            b"}".repeat(depth),
        ]
        .concat()
    };
    for depth in [1, 63, 64, 65, 128, 129, 9999, JSON_DEPTH_MAX] {
        assert!(is_well_formed(&arrays(depth)), "{depth} arrays");
        assert!(is_well_formed(&objects(depth)), "{depth} objects");
    }
    assert!(!is_well_formed(&arrays(JSON_DEPTH_MAX + 1)));
    assert!(!is_well_formed(&objects(JSON_DEPTH_MAX + 1)));
    let mut mixed = b"[{\"a\":".repeat(JSON_DEPTH_MAX / 2);
    mixed.extend(b"0");
    mixed.extend(b"}]".repeat(JSON_DEPTH_MAX / 2));
    assert!(is_well_formed(&mixed));
    let siblings = [
        b"[".to_vec(),
        b"[],".repeat(JSON_DEPTH_MAX * 2),
        b"[]]".to_vec(),
    ]
    .concat();
    assert!(
        is_well_formed(&siblings),
        "depth counts open containers, not all"
    );
}

/// JSON text of some depth, with white space thrown in.
fn any_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i32>().prop_map(|n| n.to_string()),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(|f| format!("{f:e}")),
        "[a-z☃]{0,8}".prop_map(|s| format!("\"{s}\\t\"")),
    ];
    scalar.prop_recursive(6, 40, 5, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..5);
        let fields = prop::collection::vec(("[a-z]{0,4}", inner), 0..5);
        prop_oneof![
            items.prop_map(|items| format!("[ {}]", items.join(" ,"))),
            fields.prop_map(|fields| {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(k, v)| format!("\"{k}\" : {v}"))
                    .collect();
                format!("{{{}\n}}", fields.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn generated_json_is_well_formed_and_no_proper_prefix_of_a_container_is(text in any_json()) {
        prop_assert!(is_well_formed(text.as_bytes()), "{}", text);
        if text.starts_with(['[', '{', '"']) {
            for len in 0..text.len() {
                prop_assert!(!is_well_formed(&text.as_bytes()[..len]), "{} cut at {}", text, len);
            }
        }
    }

    #[test]
    fn any_bytes_are_scanned_without_a_panic(
        bytes in prop::collection::vec(prop::sample::select(&b"[]{}\",:\\u0123eE+-. \ttrufalsn\xff"[..]), 0..60),
    ) {
        let well_formed = is_well_formed(&bytes);
        let wrapped = [b"[".as_slice(), &bytes, b"]"].concat();
        let blank = bytes.iter().all(|b| b" \t\n\r".contains(b));
        if well_formed {
            prop_assert!(is_well_formed(&wrapped));
        } else if blank {
            prop_assert!(is_well_formed(&wrapped), "an empty array");
        }
    }
}
