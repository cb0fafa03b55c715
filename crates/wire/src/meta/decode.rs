//! Reading a meta: structure only, no rule of [`Meta::validate`].

use super::list::Item;
use super::{ConfigSpec, Control, ControlInput, Leaderboard, List, Meta, MetaError};
use crate::Text;
use crate::reader::Reader;

/// Reads a meta. Sections that an older SDK did not write are empty or zero; a section that is there
/// must be whole. Bytes after the last section are ignored.
///
/// # Errors
///
/// [`MetaError::Short`], [`MetaError::EmptySlug`], or [`MetaError::UnknownControlKind`], whose
/// length is unknown so that nothing after it can be read.
pub fn decode(bytes: &[u8]) -> Result<Meta<'_>, MetaError> {
    let mut reader = Reader::new(bytes);
    let mut meta = read_identity(&mut reader)?;
    read_sections(&mut reader, &mut meta)?;
    // Last, as in the reference: a payload that is short as well is called short.
    if meta.slug.is_empty() {
        return Err(MetaError::EmptySlug);
    }
    Ok(meta)
}

fn read_identity<'a>(reader: &mut Reader<'a>) -> Result<Meta<'a>, MetaError> {
    Ok(Meta {
        slug: reader.text()?,
        name: reader.text()?,
        short_description: reader.text()?,
        min_players: reader.u16()?,
        max_players: reader.u16()?,
        tags: List::read(reader)?,
        quick_mode_label: reader.text()?,
        solo_mode_label: reader.text()?,
        private_invite_line: reader.text()?,
        leaderboard: read_leaderboard(reader)?,
        ..Meta::default()
    })
}

fn read_leaderboard<'a>(reader: &mut Reader<'a>) -> Result<Option<Leaderboard<'a>>, MetaError> {
    if !reader.flag()? {
        return Ok(None);
    }
    Ok(Some(Leaderboard {
        metric_label: reader.text()?,
        direction: reader.u8()?,
        aggregation: reader.u8()?,
        format: reader.u8()?,
    }))
}

/// The trailing sections, in the order they were added to the ABI; the payload may end in front of
/// any of them.
fn read_sections<'a>(reader: &mut Reader<'a>, meta: &mut Meta<'a>) -> Result<(), MetaError> {
    if reader.is_empty() {
        return Ok(());
    }
    meta.config = List::read(reader)?;
    if reader.is_empty() {
        return Ok(());
    }
    meta.ctx_features = reader.u32()?;
    meta.heartbeat_ms = reader.u16()?;
    if reader.is_empty() {
        return Ok(());
    }
    meta.lifecycle = reader.u8()?;
    if reader.is_empty() {
        return Ok(());
    }
    meta.wire_revision = reader.u16()?;
    if reader.is_empty() {
        return Ok(());
    }
    meta.controls = List::read(reader)?;
    Ok(())
}

impl<'a> Item<'a> for Text<'a> {
    #[allow(private_interfaces)]
    fn read(reader: &mut Reader<'a>, _index: usize) -> Result<Self, MetaError> {
        Ok(reader.text()?)
    }
}

impl<'a> Item<'a> for ConfigSpec<'a> {
    #[allow(private_interfaces)]
    fn read(reader: &mut Reader<'a>, _index: usize) -> Result<Self, MetaError> {
        Ok(Self {
            key: reader.text()?,
            title: reader.text()?,
            description: reader.text()?,
            config_type: reader.u8()?,
            default: reader.text()?,
            schema: reader.text()?,
        })
    }
}

impl<'a> Item<'a> for Control<'a> {
    #[allow(private_interfaces)]
    fn read(reader: &mut Reader<'a>, index: usize) -> Result<Self, MetaError> {
        let input = match reader.u8()? {
            0 => ControlInput::Rune(reader.u32()?),
            1 => ControlInput::Key(reader.u8()?),
            kind => return Err(MetaError::UnknownControlKind { index, kind }),
        };
        Ok(Self {
            input,
            label: reader.text()?,
        })
    }
}
