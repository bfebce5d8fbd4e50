//! Numbers as people read them: at most five characters and a unit, so that columns neither jump nor overflow.

/// A count or a rate: `0`, `7.3`, `812`, `1.25k`, `98.1M`.
pub(crate) fn number(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// Bytes, by 1024: `812B`, `1.2K`, `98.1M`.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &["B", "K", "M", "G", "T", "P", "E"])
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value.max(0.0), 0);
    // 999.95 would be shown with one digit too many.
    while value >= step - 0.05 * step / 100.0 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let unit = units[unit];
    let whole = value.fract() == 0.0 && (unit.is_empty() || unit == "B");
    match value {
        _ if whole => format!("{value:.0}{unit}"),
        0.0..9.995 if unit.is_empty() => format!("{value:.1}"),
        0.0..9.995 => format!("{value:.2}{unit}"),
        9.995..99.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

/// A share from 0 to 1. 100 % and 0 % are said only when nothing is missing, and nothing there.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        100.0.. => "100%".to_owned(),
        99.9..100.0 => "99.9%".to_owned(),
        p if p <= 0.0 => "0%".to_owned(),
        p if p < 0.1 => "<0.1%".to_owned(),
        p if p < 10.0 => format!("{p:.1}%"),
        p if p < 99.0 => format!("{p:.0}%"),
        p => format!("{p:.1}%"),
    }
}

/// A time: `0`, `830us`, `1.2ms`, `45ms`, `2.5s`, `3.0min`.
pub(crate) fn time(microseconds: f64) -> String {
    match microseconds {
        value if !value.is_finite() => String::new(),
        value if value <= 0.0 => "0".to_owned(),
        value if value < 999.5 => format!("{value:.0}us"),
        value if value < 9_950.0 => format!("{:.1}ms", value / 1e3),
        value if value < 999_500.0 => format!("{:.0}ms", value / 1e3),
        value if value < 9_950_000.0 => format!("{:.1}s", value / 1e6),
        value if value < 120_000_000.0 => format!("{:.0}s", value / 1e6),
        value => format!("{:.0}min", value / 6e7),
    }
}

/// How old something is: `42s`, `17min`, `3h20m`, `12d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}min", seconds / 60),
        7200..172_800 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Time of day in UTC, from milliseconds since 1970.
pub(crate) fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Day and time in UTC, from microseconds since 1970: `11-14 22:13:20`.
pub(crate) fn moment(unix_us: u64) -> String {
    let whole = proxy_stats::utc(unix_us);
    format!("{} {}", &whole[5..10], &whole[11..19])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [0.0, 7.0, 7.34, 0.04, 812.0, 999.96, 1250.0, 98_100_000.0, -3.0];
        assert_eq!(cases.map(number), ["0", "7", "7.3", "0.0", "812", "1.00k", "1.25k", "98.1M", "0"]);
        assert_eq!([0.0, 812.0, 1024.0, 1536.0, 5e9].map(bytes), ["0B", "812B", "1.00K", "1.50K", "4.66G"]);
    }

    #[test]
    fn shares_do_not_lie_at_the_ends() {
        let cases = [1.0, 0.99999, 0.995, 0.5, 0.031, 0.0001, 0.0];
        assert_eq!(cases.map(percent), ["100%", "99.9%", "99.5%", "50%", "3.1%", "<0.1%", "0%"]);
    }

    #[test]
    fn times_and_ages_have_units() {
        let cases = [0.0, 830.0, 1234.0, 45_000.0, 2_500_000.0, 6e8];
        assert_eq!(cases.map(time), ["0", "830us", "1.2ms", "45ms", "2.5s", "10min"]);
        assert_eq!([42, 1020, 12_000, 1_036_800].map(age), ["42s", "17min", "3h20m", "12d"]);
        assert_eq!(clock(1_700_000_000_000), "22:13:20");
        assert_eq!(moment(1_700_000_000_123_456), "11-14 22:13:20");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_column(value in 0.0..1e18_f64) {
            prop_assert!(number(value).len() <= 5, "{}", number(value));
            prop_assert!(bytes(value).len() <= 5, "{}", bytes(value));
            prop_assert!(time(value.min(1e10)).len() <= 8, "{}", time(value));
        }
    }
}
