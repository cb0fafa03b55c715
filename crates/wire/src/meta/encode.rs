//! Writing a meta, always with every section.

use alloc::vec::Vec;

use super::{ControlInput, Meta, MetaError};
use crate::Text;
use crate::writer::{TextTooLong, or_undo, put_text, put_u16, put_u32};

/// Appends a meta as it is: no rule is applied and no revision stamped. Call
/// [`Meta::validate_authored`] first and set `wire_revision`.
///
/// # Errors
///
/// [`MetaError::TextTooLong`] and [`MetaError::ListTooLong`]; `out` is then as it was.
pub fn encode(meta: &Meta<'_>, out: &mut Vec<u8>) -> Result<(), MetaError> {
    or_undo(out, |out| {
        text("slug", meta.slug, out)?;
        text("name", meta.name, out)?;
        text("short description", meta.short_description, out)?;
        put_u16(out, meta.min_players);
        put_u16(out, meta.max_players);
        count("tags", meta.tags.len(), out)?;
        for tag in meta.tags {
            text("tag", tag, out)?;
        }
        text("quick mode label", meta.quick_mode_label, out)?;
        text("solo mode label", meta.solo_mode_label, out)?;
        text("private invite line", meta.private_invite_line, out)?;
        put_leaderboard(meta, out)?;
        put_config(meta, out)?;
        put_u32(out, meta.ctx_features);
        put_u16(out, meta.heartbeat_ms);
        out.push(meta.lifecycle);
        put_u16(out, meta.wire_revision);
        put_controls(meta, out)
    })
}

fn put_leaderboard(meta: &Meta<'_>, out: &mut Vec<u8>) -> Result<(), MetaError> {
    out.push(u8::from(meta.leaderboard.is_some()));
    if let Some(leaderboard) = &meta.leaderboard {
        text("metric label", leaderboard.metric_label, out)?;
        out.push(leaderboard.direction);
        out.push(leaderboard.aggregation);
        out.push(leaderboard.format);
    }
    Ok(())
}

fn put_config(meta: &Meta<'_>, out: &mut Vec<u8>) -> Result<(), MetaError> {
    count("config specs", meta.config.len(), out)?;
    for spec in meta.config {
        text("config key", spec.key, out)?;
        text("config title", spec.title, out)?;
        text("config description", spec.description, out)?;
        out.push(spec.config_type);
        text("config default", spec.default, out)?;
        text("config schema", spec.schema, out)?;
    }
    Ok(())
}

fn put_controls(meta: &Meta<'_>, out: &mut Vec<u8>) -> Result<(), MetaError> {
    count("controls", meta.controls.len(), out)?;
    for control in meta.controls {
        match control.input {
            ControlInput::Rune(rune) => {
                out.push(0);
                put_u32(out, rune);
            }
            ControlInput::Key(key) => out.extend_from_slice(&[1, key]),
        }
        text("control label", control.label, out)?;
    }
    Ok(())
}

fn text(field: &'static str, text: Text<'_>, out: &mut Vec<u8>) -> Result<(), MetaError> {
    put_text(out, text).map_err(|TextTooLong { bytes }| MetaError::TextTooLong { field, bytes })
}

fn count(field: &'static str, count: usize, out: &mut Vec<u8>) -> Result<(), MetaError> {
    let wire = u16::try_from(count).map_err(|_| MetaError::ListTooLong { field, count })?;
    put_u16(out, wire);
    Ok(())
}
