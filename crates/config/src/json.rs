//! JSON text to a [`Tree`] (RFC 8259). YAML parsers take most JSON, but not all of it (tabs, surrogate
//! pairs), and are slower.

use std::sync::Arc;

use crate::codes::Code;
use crate::finding::Finding;
use crate::tree::{Builder, Kind, Position, Stop, Tree};

/// Parses one JSON document; no tree comes back if the text is no JSON.
pub(crate) fn parse(file: Arc<str>, text: &str) -> (Option<Tree>, Vec<Finding>) {
    let builder = Builder::new(file, false, text.len());
    let mut reader = Reader {
        text,
        next: 0,
        counted: 0,
        position: Position { line: 1, column: 1 },
        builder,
        buffer: String::new(),
    };
    let parsed = reader.document();
    reader.builder.finish(parsed)
}

struct Reader<'t> {
    text: &'t str,
    next: usize,
    /// `position` is that of this offset; it only moves forward, so counting is linear in the text.
    counted: usize,
    position: Position,
    builder: Builder,
    buffer: String,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), Stop> {
        self.blank();
        if self.next == self.text.len() {
            return Ok(());
        }
        self.value()?;
        self.blank();
        if self.next < self.text.len() { Err(self.unexpected("the end of the document")) } else { Ok(()) }
    }

    fn value(&mut self) -> Result<(), Stop> {
        let at = self.here();
        match self.peek() {
            Some(b'{') => self.object(at),
            Some(b'[') => self.array(at),
            Some(b'"') => self.string(at),
            Some(b'-' | b'0'..=b'9') => self.number(at),
            _ => self.word(at),
        }
    }

    fn object(&mut self, at: Position) -> Result<(), Stop> {
        self.builder.open(Kind::Mapping, at)?;
        self.next += 1;
        self.blank();
        if !self.take(b'}') {
            loop {
                self.blank();
                if self.peek() == Some(b'}') {
                    return Err(self.after_comma());
                }
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("a name in double quotes"));
                }
                let at = self.here();
                self.string(at)?;
                self.blank();
                if !self.take(b':') {
                    return Err(self.unexpected("`:`"));
                }
                self.blank();
                self.value()?;
                self.blank();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.unexpected("`,` or `}`"));
                }
            }
        }
        self.builder.close()
    }

    fn array(&mut self, at: Position) -> Result<(), Stop> {
        self.builder.open(Kind::Sequence, at)?;
        self.next += 1;
        self.blank();
        if !self.take(b']') {
            loop {
                self.blank();
                if self.peek() == Some(b']') {
                    return Err(self.after_comma());
                }
                self.value()?;
                self.blank();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.unexpected("`,` or `]`"));
                }
            }
        }
        self.builder.close()
    }

    fn string(&mut self, at: Position) -> Result<(), Stop> {
        self.next += 1;
        self.buffer.clear();
        loop {
            let rest = &self.text[self.next..];
            let run = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            let Some(run) = run else {
                self.next = self.text.len();
                return Err(self.unexpected("`\"`"));
            };
            self.buffer.push_str(&rest[..run]);
            self.next += run;
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(self.unexpected("no control character in a string")),
            }
        }
        self.next += 1;
        let text = std::mem::take(&mut self.buffer);
        let added = self.builder.scalar(Kind::Quoted, &text, at);
        self.buffer = text;
        added.map(|_| ())
    }

    fn escape(&mut self) -> Result<(), Stop> {
        let at = self.here();
        let letter = self.text.as_bytes().get(self.next + 1).copied();
        self.next += 2;
        let plain = match letter {
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => match self.unicode() {
                Some(letter) => letter,
                None => return Err(self.builder.stop(at, Code::SYNTAX, "not valid JSON: bad \\u escape")),
            },
            _ => return Err(self.builder.stop(at, Code::SYNTAX, "not valid JSON: bad escape")),
        };
        self.buffer.push(plain);
        Ok(())
    }

    /// The character of a \u escape, or of two that make a surrogate pair.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        if self.text.as_bytes().get(self.next..self.next + 2) != Some(b"\\u") {
            return None;
        }
        self.next += 2;
        let second = self.hex4().filter(|second| (0xdc00..0xe000).contains(second))?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.next..self.next + 4)?;
        let mut number = 0;
        for digit in digits {
            number = number * 16 + char::from(*digit).to_digit(16)?;
        }
        self.next += 4;
        Some(number)
    }

    fn number(&mut self, at: Position) -> Result<(), Stop> {
        let start = self.next;
        self.take(b'-');
        let zero = self.peek() == Some(b'0');
        let digits = self.digits();
        let mut valid = digits > 0 && !(zero && digits > 1);
        if self.take(b'.') {
            valid &= self.digits() > 0;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            valid &= self.digits() > 0;
        }
        if !valid {
            return Err(self.builder.stop(at, Code::SYNTAX, "not valid JSON: bad number"));
        }
        let text = &self.text[start..self.next];
        self.builder.scalar(Kind::Plain, text, at).map(|_| ())
    }

    fn digits(&mut self) -> usize {
        let count = self.text.as_bytes()[self.next..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.next += count;
        count
    }

    fn word(&mut self, at: Position) -> Result<(), Stop> {
        for (word, kind) in [("true", Kind::Plain), ("false", Kind::Plain), ("null", Kind::Null)] {
            if self.text[self.next..].starts_with(word) {
                self.next += word.len();
                return self.builder.scalar(kind, word, at).map(|_| ());
            }
        }
        Err(self.unexpected("a value"))
    }

    fn blank(&mut self) {
        let bytes = &self.text.as_bytes()[self.next..];
        self.next += bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.next).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.next += usize::from(found);
        found
    }

    /// The position of `next`, which always lies between two characters.
    fn here(&mut self) -> Position {
        for letter in self.text[self.counted..self.next].chars() {
            if letter == '\n' {
                self.position.line += 1;
                self.position.column = 1;
            } else {
                self.position.column += 1;
            }
        }
        self.counted = self.next;
        self.position
    }

    /// Called at the end of what is not empty.
    fn after_comma(&mut self) -> Stop {
        let at = self.here();
        self.builder.stop(at, Code::SYNTAX, "not valid JSON: a comma after the last entry; remove it")
    }

    fn unexpected(&mut self, expected: &str) -> Stop {
        let at = self.here();
        self.builder.stop(at, Code::SYNTAX, &format!("not valid JSON: expected {expected}"))
    }
}
