//! Flat headers: one arena of bytes per message, and entries that point into it.
//!
//! The head is kept as it was received (names lower-cased in place), every line in the form
//! `name: value\r\n`, so that neighbours that nobody touched are written out as one run. Added lines go to
//! the end of the arena, removal marks a tombstone. Nothing here allocates in steady state: arena and entry
//! list come from the worker's pools.

use proxy_config::settings::HeaderCase;
use proxy_net::buffer::Arena;

use crate::name::HeaderId;

/// A piece of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One line: `arena[start..end + 2]` is `name: value\r\n`.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    end: u32,
    name_len: u16,
    id: HeaderId,
    live: bool,
}

impl Entry {
    fn value_start(&self) -> usize {
        self.start as usize + usize::from(self.name_len) + 2
    }
}

/// The header lines of one message, or its trailers.
pub struct Headers {
    arena: Arena,
    entries: Entries,
    /// Bit set for every id that may be present; a clear bit is proof of absence.
    present: u64,
    /// The head as it was read, where names are to be written as they were (`preserve_case`).
    as_read: Option<Box<AsRead>>,
}

/// A head as it was on the wire.
#[derive(Debug)]
pub struct AsRead {
    pub(crate) head: Box<[u8]>,
    /// Names that are not in it are written as proper words.
    pub(crate) proper: bool,
    /// The reason phrase is to be written as it was.
    pub(crate) reason: bool,
}

/// How callers name a header: by id where the proxy knows it, by lower-case bytes elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    id: HeaderId,
    name: &'a [u8],
}

impl<'a> Key<'a> {
    pub(crate) fn name(self) -> &'a [u8] {
        self.name
    }
}

impl From<HeaderId> for Key<'static> {
    fn from(id: HeaderId) -> Self {
        Key { id, name: id.name().as_bytes() }
    }
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(name: &'a str) -> Self {
        Key { id: HeaderId::of(name.as_bytes()), name: name.as_bytes() }
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(name: &'a [u8]) -> Self {
        Key { id: HeaderId::of(name), name }
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::new()
    }
}

impl Headers {
    pub fn new() -> Headers {
        Headers { arena: Arena::take(), entries: Entries::take(), present: 0, as_read: None }
    }

    /// First value of the header, for headers of one line. What all lines of a list say is [`Headers::joined`]; what is
    /// told or matched of any header is [`Headers::value_in`].
    pub fn value<'k>(&self, key: impl Into<Key<'k>>) -> Option<&[u8]> {
        let key = key.into();
        if self.absent(key) { None } else { self.find(key).map(|i| self.value_at(i)) }
    }

    /// Every value of the header, in order.
    pub fn values<'a, 'k>(&'a self, key: impl Into<Key<'k>>) -> impl Iterator<Item = &'a [u8]> {
        let key = key.into();
        let absent = self.absent(key);
        (0..if absent { 0 } else { self.entries.0.len() })
            .filter(move |&i| self.is_at(i, key))
            .map(|i| self.value_at(i))
    }

    pub fn contains<'k>(&self, key: impl Into<Key<'k>>) -> bool {
        let key = key.into();
        !self.absent(key) && self.find(key).is_some()
    }

    /// Name and value of every line, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.0.iter().filter(|e| e.live).map(|e| {
            let name = &self.arena[e.start as usize..e.start as usize + usize::from(e.name_len)];
            (name, &self.arena[e.value_start()..e.end as usize])
        })
    }

    /// The same lines once more.
    pub fn copy(&self) -> Headers {
        let mut copy = Headers::new();
        self.iter().for_each(|(name, value)| copy.append(name, value));
        copy
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.entries.0.iter().filter(|e| e.live).count()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.0.iter().all(|e| !e.live)
    }

    /// Bytes of names and values, as `max_request_headers_kb` counts them.
    pub fn byte_size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Adds a line; one of the same name stays.
    pub fn append<'k>(&mut self, key: impl Into<Key<'k>>, value: &[u8]) {
        self.append_with(key, |out| out.extend_from_slice(value));
    }

    /// Adds a line whose value `write` puts at the end of the buffer it is given.
    pub fn append_with<'k>(&mut self, key: impl Into<Key<'k>>, write: impl FnOnce(&mut Vec<u8>)) {
        let key = key.into();
        let start = self.arena.len();
        debug_assert!(key.name.len() <= usize::from(u16::MAX));
        self.arena.extend_from_slice(key.name);
        self.arena.extend_from_slice(b": ");
        write(&mut self.arena);
        let end = self.arena.len();
        self.arena.extend_from_slice(b"\r\n");
        self.push_entry(start, key.name.len(), end, key.id);
    }

    /// Replaces all lines of the name by one.
    pub fn set<'k>(&mut self, key: impl Into<Key<'k>>, value: &[u8]) {
        let key = key.into();
        self.remove(key);
        self.append(key, value);
    }

    /// Removes all lines of the name; tells whether there was one.
    pub fn remove<'k>(&mut self, key: impl Into<Key<'k>>) -> bool {
        let key = key.into();
        if self.absent(key) {
            return false;
        }
        let mut removed = false;
        for i in 0..self.entries.0.len() {
            if self.is_at(i, key) {
                self.entries.0[i].live = false;
                removed = true;
            }
        }
        self.present &= !key.id.bit();
        removed
    }

    /// Removes every line for which `remove` says so.
    pub fn remove_if(&mut self, mut remove: impl FnMut(&[u8], &[u8]) -> bool) {
        for i in 0..self.entries.0.len() {
            let e = self.entries.0[i];
            let name = &self.arena[e.start as usize..e.start as usize + usize::from(e.name_len)];
            if e.live && remove(name, &self.arena[e.value_start()..e.end as usize]) {
                self.entries.0[i].live = false;
            }
        }
    }

    /// Removes the first line of the name and gives where its value stands (for a `Host` that becomes authority).
    pub(crate) fn take_first(&mut self, id: HeaderId) -> Option<Span> {
        let i = self.find(Key::from(id))?;
        self.entries.0[i].live = false;
        let e = self.entries.0[i];
        Some(Span::new(e.value_start(), e.end as usize))
    }

    /// Writes all lines in HTTP/1 form, without the empty line that ends them.
    pub fn write_h1(&self, out: &mut Vec<u8>) {
        let mut run: Option<(u32, u32)> = None; // start, end of a run of lines that stand side by side
        for e in self.entries.0.iter().filter(|e| e.live) {
            run = match run {
                Some((start, end)) if end == e.start => Some((start, e.end + 2)),
                Some((start, end)) => {
                    out.extend_from_slice(&self.arena[start as usize..end as usize]);
                    Some((e.start, e.end + 2))
                }
                None => Some((e.start, e.end + 2)),
            };
        }
        if let Some((start, end)) = run {
            out.extend_from_slice(&self.arena[start as usize..end as usize]);
        }
    }

    /// The head that these lines were read from, if it was kept.
    pub(crate) fn as_read(&self) -> Option<&AsRead> {
        self.as_read.as_deref()
    }

    /// Keeps the head that these lines were read from, if `case` asks for it.
    pub(crate) fn keep_as_read(&mut self, head: &[u8], case: HeaderCase) {
        if let HeaderCase::Preserve { reason, proper } = case {
            self.as_read = Some(Box::new(AsRead { head: head.into(), proper, reason }));
        }
    }

    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.start as usize..span.end as usize]
    }

    /// Stores bytes that are not a header line (a path, an authority).
    pub(crate) fn store(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Span::new(start, self.arena.len())
    }

    /// Id, name and place of the value in [`Headers::arena`], of every line in order.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (HeaderId, &[u8], Span)> {
        self.entries.0.iter().filter(|e| e.live).map(|e| {
            let name = &self.arena[e.start as usize..e.start as usize + usize::from(e.name_len)];
            (e.id, name, Span::new(e.value_start(), e.end as usize))
        })
    }

    pub(crate) fn arena(&self) -> &[u8] {
        &self.arena
    }

    pub(crate) fn arena_mut(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Registers a line that already stands in the arena in the form `name: value\r\n`, name in lower case.
    pub(crate) fn push_entry(&mut self, start: usize, name_len: usize, end: usize, id: HeaderId) {
        self.present |= id.bit();
        self.entries.0.push(Entry {
            start: start as u32,
            end: end as u32,
            name_len: name_len as u16,
            id,
            live: true,
        });
    }

    fn absent(&self, key: Key<'_>) -> bool {
        key.id != HeaderId::OTHER && self.present & key.id.bit() == 0
    }

    fn find(&self, key: Key<'_>) -> Option<usize> {
        (0..self.entries.0.len()).find(|&i| self.is_at(i, key))
    }

    fn is_at(&self, i: usize, key: Key<'_>) -> bool {
        let e = &self.entries.0[i];
        e.live
            && e.id == key.id
            && (key.id != HeaderId::OTHER
                || self.arena[e.start as usize..e.start as usize + usize::from(e.name_len)] == *key.name)
    }

    fn value_at(&self, i: usize) -> &[u8] {
        let e = &self.entries.0[i];
        &self.arena[e.value_start()..e.end as usize]
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        f.debug_map().entries(self.iter().map(|(n, v)| (text(n), text(v)))).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(lines: T) -> Self {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.append(name, value.as_bytes());
        }
        headers
    }
}

/// A pooled list of entries.
struct Entries(Vec<Entry>);

/// At most so many spare lists are kept per worker, each of at most so many entries.
const POOL_LISTS: usize = 256;
const POOL_ENTRIES: usize = 256;

thread_local! {
    static SPARE: std::cell::RefCell<Vec<Vec<Entry>>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Entries {
    fn take() -> Entries {
        Entries(SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(32)))
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let mut list = std::mem::take(&mut self.0);
        if list.capacity() > POOL_ENTRIES {
            return;
        }
        list.clear();
        // The pool is gone when a thread ends; then the list is simply freed.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < POOL_LISTS
            {
                spare.push(list);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(headers: &Headers) -> String {
        let mut out = Vec::new();
        headers.write_h1(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_found_replaced_and_removed() {
        let mut h: Headers =
            [("a", "1"), ("x-request-id", "r"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(h.value("a"), Some(&b"1"[..]));
        assert_eq!(h.values("a").count(), 2);
        assert_eq!(h.value(HeaderId::X_REQUEST_ID), Some(&b"r"[..]));
        assert_eq!(h.value(HeaderId::EXPECT), None);
        h.set("a", b"9");
        assert_eq!(text(&h), "x-request-id: r\r\nb: 2\r\na: 9\r\n");
        assert!(h.remove(HeaderId::X_REQUEST_ID));
        assert!(!h.remove(HeaderId::X_REQUEST_ID));
        assert_eq!(text(&h), "b: 2\r\na: 9\r\n");
        assert_eq!(h.len(), 2);
    }

    #[test]
    fn a_removed_id_can_come_back() {
        let mut h = Headers::new();
        h.append(HeaderId::EXPECT, b"100-continue");
        h.remove(HeaderId::EXPECT);
        assert!(!h.contains(HeaderId::EXPECT));
        h.append(HeaderId::EXPECT, b"again");
        assert_eq!(h.value(HeaderId::EXPECT), Some(&b"again"[..]));
    }
}
