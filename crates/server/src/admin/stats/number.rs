//! Floating-point numbers as the libraries print them that Envoy uses, and as OpenMetrics wants them.

use std::fmt::{self, Display, Formatter};

/// The fewest digits that give the number back; an exponent only below 1e-4 and from 1e16 on.
pub(super) struct Shortest(pub(super) f64);

/// For JSON: the fewest digits, in whichever notation is shorter; `null` if it is no number.
pub(super) struct ShortestJson(pub(super) f64);

/// C's `%g` with so many significant digits.
pub(super) struct General {
    pub(super) value: f64,
    pub(super) digits: usize,
}

/// As Go prints it, always with a dot or an exponent, which is how OpenMetrics wants bounds and quantiles.
pub(super) struct Canonical(pub(super) f64);

impl Display for Shortest {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match Decimal::shortest(self.0) {
            Some(decimal) if (-4..16).contains(&decimal.exponent) => write!(out, "{}", self.0),
            Some(decimal) => decimal.scientific(out),
            None => not_finite(self.0, out),
        }
    }
}

impl Display for ShortestJson {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Some(decimal) = Decimal::shortest(self.0) else { return out.write_str("null") };
        let (plain, scientific) = (self.0.to_string(), decimal.to_string());
        out.write_str(if scientific.len() < plain.len() { &scientific } else { &plain })
    }
}

impl Display for General {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        // Nearly all bounds and sums are whole, and there are many of them.
        if self.value.fract() == 0.0 && (0.0..10_f64.powi(self.digits.min(15) as i32)).contains(&self.value) {
            return write!(out, "{}", self.value as u64);
        }
        let Some(decimal) = Decimal::rounded(self.value, self.digits) else {
            return not_finite(self.value, out);
        };
        let last = self.digits as i32 - 1;
        if !(-4..=last).contains(&decimal.exponent) {
            return decimal.scientific(out);
        }
        let places = usize::try_from(last - decimal.exponent).unwrap_or(0);
        let text = format!("{:.places$}", self.value);
        out.write_str(if places > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
    }
}

impl Display for Canonical {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match Decimal::shortest(self.0) {
            None if self.0.is_nan() => out.write_str("NaN"),
            None => out.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" }),
            Some(decimal) if (-4..6).contains(&decimal.exponent) => {
                let dot = if self.0.fract() == 0.0 { ".0" } else { "" };
                write!(out, "{}{dot}", self.0)
            }
            Some(decimal) => decimal.scientific(out),
        }
    }
}

/// Digits and a power of ten.
struct Decimal {
    /// With a dot after the first one, unless it is the only one; with a sign if it is negative.
    mantissa: String,
    exponent: i32,
}

impl Decimal {
    fn shortest(value: f64) -> Option<Self> {
        Self::parse(&format!("{value:e}"))
    }

    fn rounded(value: f64, digits: usize) -> Option<Self> {
        Self::parse(&format!("{value:.places$e}", places = digits - 1))
    }

    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once('e')?;
        let mantissa = match mantissa.contains('.') {
            true => mantissa.trim_end_matches('0').trim_end_matches('.'),
            false => mantissa,
        };
        Some(Self { mantissa: mantissa.to_owned(), exponent: exponent.parse().ok()? })
    }

    fn scientific(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.exponent < 0 { '-' } else { '+' };
        write!(out, "{}e{sign}{:02}", self.mantissa, self.exponent.abs())
    }
}

impl Display for Decimal {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.scientific(out)
    }
}

fn not_finite(value: f64, out: &mut Formatter<'_>) -> fmt::Result {
    out.write_str(match value {
        _ if value.is_nan() => "nan",
        _ if value > 0.0 => "inf",
        _ => "-inf",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_envoy() {
        for (value, shortest, json, six, thirty_two) in [
            (0.0, "0", "0", "0", "0"),
            (0.5, "0.5", "0.5", "0.5", "0.5"),
            (3.05, "3.05", "3.05", "3.05", "3.049999999999999822364316059975"),
            (10_000.0, "10000", "10000", "10000", "10000"),
            (300_000.0, "300000", "3e+05", "300000", "300000"),
            (1_800_000.0, "1800000", "1800000", "1.8e+06", "1800000"),
            (
                1.088_888_888_888_888_8,
                "1.0888888888888888",
                "1.0888888888888888",
                "1.08889",
                "1.0888888888888887951367223649868",
            ),
            (
                14.384_081_550_378_669,
                "14.384081550378669",
                "14.384081550378669",
                "14.3841",
                "14.384081550378668978851237625349",
            ),
            (1e-5, "1e-05", "1e-05", "1e-05", "1.0000000000000000818030539140313e-05"),
            (1e22, "1e+22", "1e+22", "1e+22", "10000000000000000000000"),
            (f64::NAN, "nan", "null", "nan", "nan"),
        ] {
            assert_eq!(Shortest(value).to_string(), shortest);
            assert_eq!(ShortestJson(value).to_string(), json);
            assert_eq!(General { value, digits: 6 }.to_string(), six);
            assert_eq!(General { value, digits: 32 }.to_string(), thirty_two);
        }
    }

    #[test]
    fn canonical_numbers_are_those_of_go() {
        for (value, expected) in [
            (0.0, "0.0"),
            (0.995, "0.995"),
            (10.0, "10.0"),
            (600_000.0, "600000.0"),
            (1_800_000.0, "1.8e+06"),
            (3_600_000.0, "3.6e+06"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(Canonical(value).to_string(), expected);
        }
    }
}
