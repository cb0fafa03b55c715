//! Bytes that are shown by their number alone: a log holds what only members know, and what prints
//! a message says it to whoever reads the print.

use std::fmt;

/// So many bytes.
pub(crate) struct Hidden(pub(crate) usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Debug;

    /// 32 bytes, as a session's secret has.
    pub(crate) const SECRET: &[u8; 32] = b"an open secret, of 32 bytes, sir";

    /// Nothing of `SECRET` can be read from what is printed: not as text, as numbers, or as hex.
    pub(crate) fn hides_it(what: &impl Debug) {
        for shown in [format!("{what:?}"), format!("{what:#?}")] {
            // A part is enough to know it by.
            let part = &SECRET[3..9];
            let numbers = |separator: &str, hex: bool| {
                let one = |byte: &u8| match hex {
                    true => format!("{byte:02x}"),
                    false => byte.to_string(),
                };
                part.iter().map(one).collect::<Vec<_>>().join(separator)
            };
            let flat: String = shown.split_whitespace().collect();
            for leak in [
                String::from_utf8_lossy(part).into_owned(),
                numbers("", true),
                numbers(",", true),
                numbers(",0x", true),
                numbers("\\x", true),
                numbers(",", false),
            ] {
                let leak: String = leak.split_whitespace().collect();
                assert!(!flat.to_lowercase().contains(&leak), "{leak} in {shown}");
            }
        }
    }

    /// Prints what it is told to.
    struct Says(String);

    impl Debug for Says {
        fn fmt(&self, f: &mut super::fmt::Formatter<'_>) -> super::fmt::Result {
            f.write_str(&self.0)
        }
    }

    #[test]
    fn bytes_that_are_shown_some_usual_way_are_found() {
        let hex: String = SECRET.iter().map(|byte| format!("{byte:02X}")).collect();
        for shown in [
            format!("{SECRET:?}"),
            format!("{SECRET:#?}"),
            format!("{SECRET:02x?}"),
            format!("{:?}", bytes::Bytes::from_static(SECRET)),
            hex,
        ] {
            let found = std::panic::catch_unwind(|| hides_it(&Says(shown.clone())));
            assert!(found.is_err(), "{shown}");
        }
        hides_it(&super::Hidden(SECRET.len()));
    }
}
