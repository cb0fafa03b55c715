//! Shots as files: their names, and what is in them.

use cabinet_conformance::SeatFrames;
use cabinet_host::Frame;
use cabinet_wire::ROWS;

use super::font::Font;
use super::pixels::Pixels;
use super::render;

/// One screen of a shot, and the name its files begin with.
#[derive(Debug, Clone)]
pub struct Picture {
    /// `NN-name`, with `.seatK` where seats saw different things.
    pub stem: String,
    /// What was seen.
    pub frame: Frame,
}

/// The pictures of a run, in order. Seats that all saw the same share one.
#[must_use]
pub fn pictures(shots: &[SeatFrames]) -> Vec<Picture> {
    let mut pictures = Vec::new();
    for (ordinal, shot) in (1..).zip(shots) {
        let stem = format!("{ordinal:02}-{}", shot.name);
        let [(_, first), others @ ..] = &shot.frames[..] else {
            continue;
        };
        if others.iter().all(|(_, frame)| same(first, frame)) {
            let frame = first.clone();
            pictures.push(Picture { stem, frame });
            continue;
        }
        pictures.extend(shot.frames.iter().map(|(seat, frame)| Picture {
            stem: format!("{stem}.seat{seat}"),
            frame: frame.clone(),
        }));
    }
    pictures
}

impl Picture {
    /// The file with colours.
    #[must_use]
    pub fn ansi(&self) -> (String, Vec<u8>) {
        let name = format!("{}.ansi", self.stem);
        (name, render::ansi(&self.frame).into_bytes())
    }

    /// The file without.
    #[must_use]
    pub fn text(&self) -> (String, Vec<u8>) {
        let name = format!("{}.txt", self.stem);
        (name, render::text(&self.frame).into_bytes())
    }

    /// The file of pixels.
    #[must_use]
    pub fn png(&self, font: &Font) -> (String, Vec<u8>) {
        (self.png_name(), Pixels::of(&self.frame, font).png())
    }

    /// What the file of pixels is called.
    #[must_use]
    pub fn png_name(&self) -> String {
        format!("{}.png", self.stem)
    }
}

/// The name without its ending of a file named like one of a shot: two digits or more, a dash, one
/// of our endings.
#[must_use]
pub fn stem_of(name: &str) -> Option<&str> {
    let endings = [".ansi", ".txt", ".png"];
    let stem = endings.iter().find_map(|end| name.strip_suffix(end))?;
    let (ordinal, _) = stem.split_once('-')?;
    let is_ordinal = ordinal.len() >= 2 && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    is_ordinal.then_some(stem)
}

fn same(a: &Frame, b: &Frame) -> bool {
    (0..ROWS).all(|row| render::cells(a, row).eq(render::cells(b, row)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cabinet_wire::cell::Cell;
    use cabinet_wire::{CELL_BYTES, FRAME_BYTES};

    fn frame(c: char) -> Frame {
        let mut grid = [0; FRAME_BYTES];
        grid[..CELL_BYTES].copy_from_slice(&Cell::of(c).to_bytes());
        Frame::from_bytes(&grid)
    }

    #[test]
    fn files_are_named_by_ordinal_name_and_where_they_differ_seat() {
        let shot = |name: &str, frames: &[(u16, char)]| SeatFrames {
            name: name.to_owned(),
            frames: frames.iter().map(|(seat, c)| (*seat, frame(*c))).collect(),
        };
        let pictures = pictures(&[
            shot("lobby", &[(0, 'a'), (1, 'a'), (2, 'a')]),
            shot("after", &[(0, 'a'), (2, 'b')]),
            shot("one", &[(1, 'c')]),
        ]);
        let names: Vec<String> = pictures.iter().map(|picture| picture.ansi().0).collect();
        let wanted = [
            "01-lobby.ansi",
            "02-after.seat0.ansi",
            "02-after.seat2.ansi",
            "03-one.ansi",
        ];
        assert_eq!(names, wanted);
        let (name, text) = pictures[2].text();
        assert_eq!((&*name, &text[..2]), ("02-after.seat2.txt", &b"b\n"[..]));
        assert!(names.iter().all(|name| stem_of(name).is_some()));
        assert_eq!(stem_of("100-a.seat1.png"), Some("100-a.seat1"));
        assert_eq!(
            ["notes.txt", "1-a.txt", "01-a.md", "01.txt"].map(stem_of),
            [None; 4]
        );
    }
}
