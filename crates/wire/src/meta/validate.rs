//! The rules an artifact is refused by, and the stricter ones its author is held to.

use alloc::vec::Vec;

use super::{ConfigSpec, ControlInput, Meta, MetaError};
use crate::{
    CONTROL_LABEL_CHARS_MAX, CONTROLS_MAX, ConfigType, HEARTBEAT_MAX_MS, HEARTBEAT_MIN_MS,
    HOST_KEY_PREFIX, KNOWN_CTX_FEATURES, Key, Lifecycle, Text, json,
};

impl Meta<'_> {
    /// Applies every rule a host refuses an artifact by: config specs, heartbeat, controls, slug, in
    /// that order.
    ///
    /// What a host lets pass also passes here: unknown feature bits, lifecycle and leaderboard
    /// codes, player counts that make no sense, any revision.
    ///
    /// # Errors
    ///
    /// The first rule broken.
    pub fn validate(&self) -> Result<(), MetaError> {
        self.validate_config()?;
        self.validate_heartbeat()?;
        self.validate_controls()?;
        self.slug()?;
        Ok(())
    }

    /// Applies [`Meta::validate`] and what only an SDK checks, where the author can still mend it:
    /// no unknown feature bits, an assigned lifecycle, and a resident game that starts alone.
    ///
    /// # Errors
    ///
    /// The first rule broken.
    pub fn validate_authored(&self) -> Result<(), MetaError> {
        self.validate()?;
        let unknown = self.ctx_features & !KNOWN_CTX_FEATURES;
        if unknown != 0 {
            return Err(MetaError::UnknownFeatures { bits: unknown });
        }
        match Lifecycle::try_from(self.lifecycle) {
            Err(_) => Err(MetaError::UnknownLifecycle {
                code: self.lifecycle,
            }),
            Ok(Lifecycle::Resident) if self.min_players > 1 => {
                Err(MetaError::ResidentNeedsOnePlayer {
                    min_players: self.min_players,
                })
            }
            Ok(_) => Ok(()),
        }
    }

    fn validate_config(&self) -> Result<(), MetaError> {
        let repeated = self.first_repeated_key();
        for (index, spec) in self.config.iter().enumerate() {
            if spec.key.is_empty() {
                return Err(MetaError::ConfigKeyEmpty { index });
            }
            if repeated == Some(index) {
                return Err(MetaError::ConfigKeyRepeated { index });
            }
            if spec.key.as_bytes().starts_with(HOST_KEY_PREFIX.as_bytes()) {
                return Err(MetaError::ConfigKeyReserved { index });
            }
            validate_value(index, &spec)?;
        }
        Ok(())
    }

    /// The first spec whose key an earlier one has. Sorted, because comparing each of 65535 specs
    /// with every other would let a stranger's meta cost the host minutes.
    fn first_repeated_key(&self) -> Option<usize> {
        let mut keys: Vec<(Text<'_>, usize)> = (self
            .config
            .iter()
            .enumerate()
            .map(|(index, spec)| (spec.key, index)))
        .collect();
        keys.sort_unstable();
        let repeated = |pair: &[(Text<'_>, usize)]| (pair[0].0 == pair[1].0).then_some(pair[1].1);
        keys.windows(2).filter_map(repeated).min()
    }

    fn validate_heartbeat(&self) -> Result<(), MetaError> {
        match self.heartbeat_ms {
            0 | HEARTBEAT_MIN_MS..=HEARTBEAT_MAX_MS => Ok(()),
            heartbeat_ms => Err(MetaError::HeartbeatOutOfRange { heartbeat_ms }),
        }
    }

    fn validate_controls(&self) -> Result<(), MetaError> {
        if self.controls.len() > CONTROLS_MAX {
            return Err(MetaError::TooManyControls {
                count: self.controls.len(),
            });
        }
        for (index, control) in self.controls.iter().enumerate() {
            validate_control_input(index, control.input)?;
            let mut earlier = self.controls.iter().take(index);
            if earlier.any(|other| other.input == control.input) {
                return Err(MetaError::ControlRepeated { index });
            }
            validate_control_label(index, control.label)?;
        }
        Ok(())
    }
}

fn validate_value(index: usize, spec: &ConfigSpec<'_>) -> Result<(), MetaError> {
    let Some(config_type) = spec.config_type() else {
        return Err(MetaError::ConfigTypeUnknown {
            index,
            code: spec.config_type,
        });
    };
    if spec.schema.is_empty() {
        return Ok(());
    }
    if config_type != ConfigType::Json {
        return Err(MetaError::SchemaOnNonJson { index });
    }
    if !json::is_well_formed(spec.schema.as_bytes()) {
        return Err(MetaError::SchemaMalformed { index });
    }
    Ok(())
}

fn validate_control_input(index: usize, input: ControlInput) -> Result<(), MetaError> {
    match input {
        // Signed, as the reference compares: what is past 0x7FFFFFFF counts as below 0x20.
        ControlInput::Rune(rune) if rune.cast_signed() < 0x20 => {
            Err(MetaError::ControlRuneNotPrintable { index, rune })
        }
        ControlInput::Key(key) if Key::try_from(key).is_err() => {
            Err(MetaError::ControlKeyUnknown { index, key })
        }
        ControlInput::Rune(_) | ControlInput::Key(_) => Ok(()),
    }
}

fn validate_control_label(index: usize, label: Text<'_>) -> Result<(), MetaError> {
    if label.is_empty() {
        return Err(MetaError::ControlLabelEmpty { index });
    }
    let chars = label.char_count();
    if chars > CONTROL_LABEL_CHARS_MAX {
        return Err(MetaError::ControlLabelTooLong { index, chars });
    }
    Ok(())
}
