//! Lines on their way to a receiver, each with what a counter is told by it.

use std::ops::Range;

use proxy_stats::FlushMark;

/// Whole lines, in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Each line ends in a line feed.
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// After its line feed.
    end: usize,
    told: Option<FlushMark>,
}

/// Lines that go out together.
pub(super) struct Packet<'a> {
    /// Without the last line feed.
    pub bytes: &'a [u8],
    lines: &'a [Line],
}

impl Lines {
    /// Appends what `write` writes as one line.
    pub(super) fn push(&mut self, told: Option<FlushMark>, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.bytes.push(b'\n');
        self.lines.push(Line { end: self.bytes.len(), told });
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }

    /// What lines tell that end within these bytes.
    pub(super) fn told_within(&self, bytes: Range<usize>) -> impl Iterator<Item = FlushMark> + '_ {
        let first = self.lines.partition_point(|line| line.end <= bytes.start);
        let ended = self.lines[first..].iter().take_while(move |line| line.end <= bytes.end);
        ended.filter_map(|line| line.told)
    }

    /// Packets of as many lines as fit into `max_bytes`, but at least one.
    pub(super) fn packets(&self, max_bytes: usize) -> impl Iterator<Item = Packet<'_>> {
        let (mut start, mut lines) = (0, &self.lines[..]);
        std::iter::from_fn(move || {
            lines.first()?;
            let fit = lines.partition_point(|line| line.end - start <= max_bytes.saturating_add(1));
            let (packet, rest) = lines.split_at(fit.max(1));
            let end = packet.last().map_or(start, |line| line.end);
            let bytes = &self.bytes[start..end - 1];
            (start, lines) = (end, rest);
            Some(Packet { bytes, lines: packet })
        })
    }
}

impl Packet<'_> {
    pub(super) fn told(&self) -> impl Iterator<Item = FlushMark> + '_ {
        self.lines.iter().filter_map(|line| line.told)
    }
}

#[cfg(test)]
mod tests {
    use proxy_stats::{Store, StoreOptions};

    use super::*;

    fn lines(texts: &[&str]) -> Lines {
        let mut lines = Lines::default();
        texts.iter().for_each(|text| lines.push(None, |bytes| bytes.extend_from_slice(text.as_bytes())));
        lines
    }

    #[test]
    fn a_line_has_told_when_all_of_it_is_out() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        let scope = store.root().scope("s");
        scope.counter("a").inc();
        scope.counter("b").inc();
        let (mut marks, mut deltas) = (Vec::new(), store.deltas());
        while deltas.advance(|delta| marks.push(delta.mark())) {}
        let mut lines = Lines::default();
        lines.push(Some(marks[0]), |bytes| bytes.extend_from_slice(b"aa"));
        lines.push(None, |bytes| bytes.extend_from_slice(b"g"));
        lines.push(Some(marks[1]), |bytes| bytes.extend_from_slice(b"bb"));
        let told = |bytes| lines.told_within(bytes).collect::<Vec<_>>();
        assert_eq!(told(0..2), []);
        assert_eq!(told(0..3), [marks[0]]);
        assert_eq!(told(2..7), [marks[0]]);
        assert_eq!(told(3..8), [marks[1]]);
        assert_eq!(told(0..8), marks);
    }

    #[test]
    fn packets_hold_what_fits_but_at_least_a_line() {
        let lines = lines(&["aaaa", "bb", "c", "dddddddd", "e"]);
        let packets = |max| -> Vec<_> {
            lines.packets(max).map(|packet| String::from_utf8(packet.bytes.to_vec()).unwrap()).collect()
        };
        assert_eq!(packets(0), ["aaaa", "bb", "c", "dddddddd", "e"]);
        assert_eq!(packets(7), ["aaaa\nbb", "c", "dddddddd", "e"]);
        assert_eq!(packets(9), ["aaaa\nbb\nc", "dddddddd", "e"]);
        assert_eq!(packets(usize::MAX), ["aaaa\nbb\nc\ndddddddd\ne"]);
    }
}
