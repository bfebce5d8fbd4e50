//! Values of `layered_runtime`, of which only static layers are supported: so they never change, and what depends on one is
//! settled when the configuration is lowered.

use std::collections::HashMap;

use super::Fraction;

/// Values by key, those of later layers over those of earlier ones.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Runtime {
    pub layers: usize,
    pub values: HashMap<String, RuntimeValue>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RuntimeValue {
    Bool(bool),
    Number(f64),
    Fraction(Fraction),
    /// A text that is none of these: it stands for nothing.
    Text,
}

impl RuntimeValue {
    /// Where a count is wanted; fractions are cut off, as in Envoy.
    pub fn count(self) -> Option<u64> {
        match self {
            Self::Number(number) if number >= 0.0 => Some(number as u64),
            _ => None,
        }
    }

    /// Where something is switched on or off.
    pub fn flag(self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// Where a share is wanted; a count is percent.
    pub fn fraction(self) -> Option<Fraction> {
        match self {
            Self::Fraction(fraction) => Some(fraction),
            _ => {
                let percent = u32::try_from(self.count()?.min(100)).unwrap_or(100);
                Some(Fraction { numerator: percent, denominator: 100 })
            }
        }
    }
}
