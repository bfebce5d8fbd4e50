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

/// Chooses among `offered`, in the order of the chain; `first_of_equals`: by that order where the client likes several
/// equally, and not by its own.
pub(super) fn choose(accepted: &[u8], offered: &[&'static str], first_of_equals: bool) -> Choice {
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
    let offered: Vec<&'static str> = offered
        .iter()
        .copied()
        .filter(|coding| !refused.iter().any(|refused| refused.eq_ignore_ascii_case(coding.as_bytes())))
        .collect();
    let Some(first) = offered.first() else { return Choice::Nothing };
    let mut best: Option<(&[u8], f32)> = None;
    let place =
        |coding: &[u8]| offered.iter().position(|known| coding.eq_ignore_ascii_case(known.as_bytes()));
    for (coding, quality) in wanted {
        let known = place(coding).is_some() || coding.eq_ignore_ascii_case(b"identity") || coding == b"*";
        let better = best.is_none_or(|(other, least)| {
            let sooner = first_of_equals
                && quality == least
                && place(coding) < place(other)
                && place(coding).is_some();
            quality > least || sooner
        });
        if known && quality > 0.0 && better {
            best = Some((coding, quality));
        }
    }
    match best {
        None => Choice::Nothing,
        Some((b"*", _)) => Choice::Any(first),
        Some((coding, _)) => place(coding).map_or(Choice::Identity, |at| Choice::Coding(offered[at])),
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
        let choose = |accepted: &str| choose(accepted.as_bytes(), &["gzip", "br"], false);
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

    #[test]
    fn of_equals_the_first_in_the_chain_may_win() {
        assert_eq!(choose(b"br, gzip", &["gzip", "br"], true), Choice::Coding("gzip"));
        assert_eq!(choose(b"br, gzip;q=0.9", &["gzip", "br"], true), Choice::Coding("br"));
    }
}
