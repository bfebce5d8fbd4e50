//! Which of a chain's compressors a client wants, by its `accept-encoding` (Envoy's reading of RFC 9110, section 12.5.3).

/// The decision for a stream; compressors that come later keep to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This content coding.
    Coding(&'static str),
    /// This one, because any will do.
    Any(&'static str),
    /// The client wants it as it is.
    Identity,
    /// Nothing that is there.
    Nothing,
}

/// What a compressor makes.
#[derive(Clone, Copy)]
pub(super) struct Offer {
    pub(super) coding: &'static str,
    /// It wins where the client likes another one as much (`choose_first`).
    pub(super) first_of_equals: bool,
}

/// Chooses among `offered`, in the order of the chain. Of several that the client likes equally, the last of its list that is
/// `first_of_equals` is taken, or else the first of its list.
pub(super) fn choose(accepted: &[u8], offered: &[Offer]) -> Choice {
    let mut refused: Vec<&[u8]> = Vec::new();
    let mut wanted: Vec<(&[u8], f32)> = Vec::new();
    for part in accepted.split(|byte| *byte == b',') {
        let mut parts = part.splitn(2, |byte| *byte == b';');
        let coding = parts.next().unwrap_or_default().trim_ascii();
        let Some(quality) = quality(parts.next()) else { continue };
        if coding.is_empty() {
            continue;
        }
        wanted.push((coding, quality));
        if quality == 0.0 {
            refused.push(coding);
        }
    }
    let is = |offer: &Offer, coding: &[u8]| coding.eq_ignore_ascii_case(offer.coding.as_bytes());
    let offered: Vec<Offer> =
        offered.iter().copied().filter(|offer| !refused.iter().any(|coding| is(offer, coding))).collect();
    let Some(first) = offered.first() else { return Choice::Nothing };
    let mut best: Option<(&[u8], f32)> = None;
    let offer_of = |coding: &[u8]| offered.iter().find(|offer| is(offer, coding));
    for (coding, quality) in wanted {
        let offer = offer_of(coding);
        let known = offer.is_some() || coding.eq_ignore_ascii_case(b"identity") || coding == b"*";
        let better = best.is_none_or(|(_, least)| {
            quality > least || quality == least && offer.is_some_and(|offer| offer.first_of_equals)
        });
        if known && quality > 0.0 && better {
            best = Some((coding, quality));
        }
    }
    match best {
        None => Choice::Nothing,
        Some((b"*", _)) => Choice::Any(first.coding),
        Some((coding, _)) => offer_of(coding).map_or(Choice::Identity, |offer| Choice::Coding(offer.coding)),
    }
}

/// 1 where nothing is said; `None` for what is no number.
fn quality(parameters: Option<&[u8]>) -> Option<f32> {
    let Some((name, value)) = parameters.and_then(|text| {
        let at = memchr::memchr(b'=', text)?;
        Some((&text[..at], &text[at + 1..]))
    }) else {
        return Some(1.0);
    };
    if !name.trim_ascii().eq_ignore_ascii_case(b"q") {
        return Some(1.0);
    }
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_like_best() {
        let choose = |accepted: &str| choose(accepted.as_bytes(), &offers([("gzip", false), ("br", false)]));
        assert_eq!(choose("gzip"), Choice::Coding("gzip"));
        assert_eq!(choose("br, gzip"), Choice::Coding("br"));
        assert_eq!(choose("br;q=0.5, gzip ; q=0.7"), Choice::Coding("gzip"));
        assert_eq!(choose("deflate, BR;q=0.1"), Choice::Coding("br"));
        assert_eq!(choose("*"), Choice::Any("gzip"));
        assert_eq!(choose("gzip;q=0, *"), Choice::Any("br"));
        assert_eq!(choose("identity, gzip;q=0.5"), Choice::Identity);
        assert_eq!(choose("gzip;q=0"), Choice::Nothing);
        assert_eq!(choose("deflate"), Choice::Nothing);
        assert_eq!(choose(""), Choice::Nothing);
        assert_eq!(choose("gzip;q=many"), Choice::Nothing);
    }

    // As Envoy 1.40 answered.
    #[test]
    fn of_equals_one_that_is_to_be_first_wins() {
        let choose = |first: [bool; 2], accepted: &str| {
            choose(accepted.as_bytes(), &offers([("br", first[0]), ("gzip", first[1])]))
        };
        let (br, gzip) = (Choice::Coding("br"), Choice::Coding("gzip"));
        assert_eq!(choose([true, false], "gzip, br, zstd"), br);
        assert_eq!(choose([true, false], "br, gzip"), br);
        assert_eq!(choose([false, true], "br, gzip"), gzip);
        assert_eq!(choose([true, true], "br, gzip"), gzip);
        assert_eq!(choose([true, true], "gzip, br"), br);
        assert_eq!(choose([true, false], "identity, gzip, br"), br);
        assert_eq!(choose([false, true], "*, gzip, br"), gzip);
        assert_eq!(choose([true, false], "gzip, br;q=0.9"), gzip);
    }

    fn offers<const N: usize>(of: [(&'static str, bool); N]) -> [Offer; N] {
        of.map(|(coding, first_of_equals)| Offer { coding, first_of_equals })
    }
}
