//! Header blocks that stand by themselves (HPACK, RFC 7541): METADATA has one per block, with a table of its own, and `h2`
//! keeps its decoder to itself.
//!
//! What is read is everything that HPACK allows; what is written are literals that no table remembers.

use std::collections::{BTreeSet, VecDeque};

/// Names and values, in their order.
pub type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// A block that is no HPACK, or says too much.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a header block that cannot be read")]
pub struct Undecodable;

/// Reads a whole block; of a name that comes again only the first is kept, as in Envoy.
///
/// # Errors
/// If it is no HPACK, or its names and values come to more than `limit` bytes, those that are not kept included.
pub fn decode(block: &[u8], limit: usize) -> Result<Lines, Undecodable> {
    let mut reader = Reader { rest: block, table: Table::new() };
    let (mut lines, mut names, mut size) = (Lines::new(), BTreeSet::new(), 0);
    while let Some(&first) = reader.rest.first() {
        if first & 0xe0 == 0x20 {
            // Only at the beginning (section 4.2).
            if size > 0 {
                return Err(Undecodable);
            }
            let limit = reader.integer(5)?;
            reader.table.set_limit(limit)?;
            continue;
        }
        let (name, value) = reader.line(first)?;
        size += name.len() + value.len();
        if size > limit {
            return Err(Undecodable);
        }
        if names.insert(name.clone()) {
            lines.push((name, value));
        }
    }
    Ok(lines)
}

/// A block that says `lines`.
#[must_use]
pub fn encode(lines: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(LITERAL);
        put_string(&mut block, name);
        put_string(&mut block, value);
    }
    block
}

fn put_string(block: &mut Vec<u8>, string: &[u8]) {
    const MAX: usize = 0x7f;
    let Some(mut rest) = string.len().checked_sub(MAX) else {
        block.push(string.len() as u8);
        block.extend_from_slice(string);
        return;
    };
    block.push(MAX as u8);
    while rest > MAX {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
    block.extend_from_slice(string);
}

struct Reader<'a> {
    rest: &'a [u8],
    table: Table,
}

impl Reader<'_> {
    /// Any line of a block (section 6); `first` is its first byte, which has not been taken.
    fn line(&mut self, first: u8) -> Result<(Vec<u8>, Vec<u8>), Undecodable> {
        if first & 0x80 != 0 {
            let index = self.integer(7)?;
            return self.table.line(index);
        }
        let remembered = first & 0x40 != 0;
        let name = match self.integer(if remembered { 6 } else { 4 })? {
            0 => self.string()?,
            index => self.table.line(index)?.0,
        };
        let value = self.string()?;
        if remembered {
            self.table.remember(&name, &value);
        }
        Ok((name, value))
    }

    /// An integer that begins in the last `bits` of a byte (section 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Undecodable> {
        let max = (1usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & max;
        if value < max {
            return Ok(value);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Undecodable)
    }

    /// A string (section 5.2).
    fn string(&mut self) -> Result<Vec<u8>, Undecodable> {
        let coded = self.rest.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(Undecodable)?;
        self.rest = rest;
        if coded { huffman::decode(string) } else { Ok(string.to_vec()) }
    }

    fn byte(&mut self) -> Result<u8, Undecodable> {
        let (byte, rest) = self.rest.split_first().ok_or(Undecodable)?;
        self.rest = rest;
        Ok(*byte)
    }
}

/// The tables of section 2.3: lines that a block may speak of by number.
struct Table {
    /// The newest first.
    lines: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    limit: usize,
}

impl Table {
    fn new() -> Table {
        Table { lines: VecDeque::new(), size: 0, limit: TABLE_LIMIT }
    }

    fn line(&self, index: usize) -> Result<(Vec<u8>, Vec<u8>), Undecodable> {
        let index = index.checked_sub(1).ok_or(Undecodable)?;
        match STATIC.get(index) {
            Some((name, value)) => Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.lines.get(index - STATIC.len()).cloned().ok_or(Undecodable),
        }
    }

    fn remember(&mut self, name: &[u8], value: &[u8]) {
        self.lines.push_front((name.to_vec(), value.to_vec()));
        self.size += size_of_line(name, value);
        self.forget();
    }

    fn set_limit(&mut self, limit: usize) -> Result<(), Undecodable> {
        if limit > TABLE_LIMIT {
            return Err(Undecodable);
        }
        self.limit = limit;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        while self.size > self.limit
            && let Some((name, value)) = self.lines.pop_back()
        {
            self.size -= size_of_line(&name, &value);
        }
    }
}

/// Section 4.1.
fn size_of_line(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + 32
}

mod huffman {
    //! The code of appendix B. It is canonical: the lengths say it all.

    use super::Undecodable;

    pub(super) fn decode(coded: &[u8]) -> Result<Vec<u8>, Undecodable> {
        let mut decoded = Vec::with_capacity(coded.len() * 8 / SHORTEST);
        let (mut code, mut length) = (0u32, 0);
        for byte in coded {
            for bit in (0..8).rev() {
                code = code << 1 | u32::from(byte >> bit & 1);
                length += 1;
                if let Some(symbol) = symbol(code, length) {
                    decoded.push(u8::try_from(symbol).map_err(|_| Undecodable)?);
                    (code, length) = (0, 0);
                }
            }
        }
        // What is left is the beginning of the end mark, which is all ones, and less than a byte (section 5.2).
        if length < 8 && code == (1 << length) - 1 { Ok(decoded) } else { Err(Undecodable) }
    }

    /// The symbol that has this code; 256 is the end mark.
    fn symbol(code: u32, length: usize) -> Option<u16> {
        let of_length = &BY_LENGTH[length];
        let offset = code.checked_sub(of_length.first)?;
        (offset < of_length.count).then(|| SYMBOLS[(of_length.at + offset) as usize])
    }

    /// The codes of one length, which follow each other.
    #[derive(Clone, Copy)]
    struct OfLength {
        first: u32,
        count: u32,
        /// Where their symbols begin in [`SYMBOLS`].
        at: u32,
    }

    const SHORTEST: usize = 5;
    const LONGEST: usize = 30;

    /// All symbols in the order of their codes.
    const SYMBOLS: [u16; 257] = {
        let mut symbols = [0; 257];
        let (mut at, mut length) = (0, SHORTEST);
        while length <= LONGEST {
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    symbols[at] = symbol as u16;
                    at += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        symbols
    };

    const BY_LENGTH: [OfLength; LONGEST + 1] = {
        let mut all = [OfLength { first: 0, count: 0, at: 0 }; LONGEST + 1];
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            all[LENGTHS[symbol] as usize].count += 1;
            symbol += 1;
        }
        let mut length = 1;
        while length <= LONGEST {
            let shorter = all[length - 1];
            all[length].first = (shorter.first + shorter.count) << 1;
            all[length].at = shorter.at + shorter.count;
            length += 1;
        }
        all
    };

    // The code is complete: no run of bits is longer than the longest one without being one.
    const _: () = assert!(BY_LENGTH[LONGEST].first + BY_LENGTH[LONGEST].count == 1 << LONGEST);

    /// Of every symbol's code. Bits.
    #[rustfmt::skip]
    const LENGTHS: [u8; 257] = [
        13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
        6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
        13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
        15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
        20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
        22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
        26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
        20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
        30,
    ];
}

/// Literal without indexing, new name (section 6.2.2).
const LITERAL: u8 = 0;
/// What the lines of a table may come to, unless SETTINGS say otherwise; for METADATA they do not. Bytes.
const TABLE_LIMIT: usize = 4096;

/// Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"), (":scheme", "http"),
    (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""), ("accept-encoding", "gzip, deflate"), ("accept-language", ""),
    ("accept-ranges", ""), ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""),
    ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(of: &[(&str, &str)]) -> Lines {
        of.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 7541, appendices C.3.1 and C.4.1, and C.6.1 with a date and a place.
    #[test]
    fn blocks_of_the_standard_are_read() {
        let request =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        for block in [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        ] {
            assert_eq!(decode(&bytes(block), 100), Ok(lines(&request)));
        }
        let response = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
            2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        let expected = [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ];
        assert_eq!(decode(&bytes(response), 200), Ok(lines(&expected)));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = "v".repeat(300);
        for value in ["", "v", &long[..126], &long[..127], &long[..128], &long[..254], &long[..255], &long] {
            let lines = lines(&[("a", value), (value, "")]);
            assert_eq!(decode(&encode(&lines), 2000), Ok(lines), "{}", value.len());
        }
    }

    #[test]
    fn the_first_of_a_name_is_kept_and_a_table_ends_with_its_block() {
        let twice =
            [&encode(&lines(&[("a", "1"), ("a", "2")]))[..], &[0x40, 1, b'b', 1, b'3', 0xbe]].concat();
        assert_eq!(decode(&twice, 100), Ok(lines(&[("a", "1"), ("b", "3")])));
        assert_eq!(decode(&[0xbe], 100), Err(Undecodable));
        // The table holds nothing once its size is none.
        assert_eq!(decode(&[0x20, 0x40, 1, b'b', 1, b'3', 0xbe], 100), Err(Undecodable));
    }

    #[test]
    fn what_is_malformed_or_too_much_is_refused() {
        let malformed: [&[u8]; 9] = [
            &[0x80],                                     // no line has number 0
            &[0, 1],                                     // a name that does not come
            &[0, 1, b'a'],                               // no value
            &[0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 1], // a length beyond reason
            &[0, 0x81, 0x00, 0],                         // padding that is not the end mark's
            &[0, 0x82, 0xff, 0xff, 0],                   // a byte of padding
            &[0, 0x84, 0xff, 0xff, 0xff, 0xff, 0],       // the end mark itself
            &[0x82, 0x20],                               // a table's size behind a line
            &[0x3f, 0xe2, 0x1f],                         // a table of 4097 bytes
        ];
        for block in malformed {
            assert_eq!(decode(block, 100), Err(Undecodable), "{block:x?}");
        }
        assert_eq!(decode(&[0x3f, 0xe1, 0x1f], 100), Ok(lines(&[])));
        // `:method: GET` again and again counts each time.
        assert_eq!(decode(&[0x82; 10], 100), Ok(lines(&[(":method", "GET")])));
        assert_eq!(decode(&[0x82; 11], 100), Err(Undecodable));
    }
}
