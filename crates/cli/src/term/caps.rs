//! What a terminal can show: how many colours, and whether UTF-8.
//!
//! Known from the environment as everybody reads it, or from flags, which win.

use clap::ValueEnum;

/// How many colours a terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Depth {
    /// None: only bold, dim, underline and reverse.
    None,
    /// The eight colours and their bright twins.
    #[value(name = "16")]
    Ansi16,
    /// The palette of 256.
    #[value(name = "256")]
    Ansi256,
    /// 24 bits.
    Truecolor,
}

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Colours.
    pub depth: Depth,
    /// Whether it shows UTF-8; otherwise ASCII stand-ins are written.
    pub utf8: bool,
}

impl Caps {
    /// Everything.
    pub const FULL: Self = Self {
        depth: Depth::Truecolor,
        utf8: true,
    };

    /// What the environment says of the terminal. `env` answers the value of a variable.
    #[must_use]
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        Self {
            depth: depth(&set),
            utf8: utf8(&set),
        }
    }
}

fn depth(set: &impl Fn(&str) -> Option<String>) -> Depth {
    if set("NO_COLOR").is_some() {
        return Depth::None;
    }
    let Some(term) = set("TERM").filter(|term| term != "dumb") else {
        return Depth::None;
    };
    let colorterm = set("COLORTERM").unwrap_or_default();
    if matches!(colorterm.as_str(), "truecolor" | "24bit") || term.ends_with("-direct") {
        Depth::Truecolor
    } else if term.contains("256color") {
        Depth::Ansi256
    } else {
        Depth::Ansi16
    }
}

/// The first of the three variables that is set says it, as in POSIX; none set is the C locale.
fn utf8(set: &impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(variables: &[(&str, &str)]) -> Caps {
        Caps::from_env(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_says_how_many_colours_there_are() {
        for (variables, depth) in [
            (&[][..], Depth::None),
            (&[("TERM", "dumb")], Depth::None),
            (&[("TERM", "xterm")], Depth::Ansi16),
            (&[("TERM", "screen-256color")], Depth::Ansi256),
            (&[("TERM", "xterm-direct")], Depth::Truecolor),
            (
                &[("TERM", "xterm"), ("COLORTERM", "24bit")],
                Depth::Truecolor,
            ),
            (&[("TERM", "xterm"), ("COLORTERM", "yes")], Depth::Ansi16),
            (
                &[("TERM", "xterm-256color"), ("NO_COLOR", "1")],
                Depth::None,
            ),
            (
                &[("TERM", "xterm-256color"), ("NO_COLOR", "")],
                Depth::Ansi256,
            ),
        ] {
            assert_eq!(caps(variables).depth, depth, "{variables:?}");
        }
    }

    #[test]
    fn the_first_locale_variable_that_is_set_says_whether_it_is_utf8() {
        for (variables, utf8) in [
            (&[][..], false),
            (&[("LANG", "C")], false),
            (&[("LANG", "de_CH.UTF-8")], true),
            (&[("LANG", "C.utf8")], true),
            (&[("LC_ALL", "C"), ("LANG", "C.UTF-8")], false),
            (
                &[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")],
                true,
            ),
        ] {
            assert_eq!(caps(variables).utf8, utf8, "{variables:?}");
        }
    }
}
