//! Protobuf wire format, as far as the reader writes it and the rules look at it.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::schema::{FieldKind, Message};

/// A message being written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

/// How a value lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
    Fixed32 = 5,
}

impl Writer {
    pub(crate) fn key(&mut self, number: u32, wire_type: WireType) {
        self.varint(u64::from(number) << 3 | wire_type as u64);
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A string, bytes or finished message under `number`.
    pub(crate) fn slice(&mut self, number: u32, value: &[u8]) {
        self.key(number, WireType::Delimited);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }
}

/// Writes what `fill` writes as a length-delimited field; the length is put in front afterwards.
pub(crate) fn delimited<W: AsMut<Writer>>(writer: &mut W, number: u32, fill: impl FnOnce(&mut W)) {
    let out = writer.as_mut();
    out.key(number, WireType::Delimited);
    let mark = out.bytes.len();
    out.bytes.push(0);
    fill(writer);
    let out = writer.as_mut();
    let length = out.bytes.len() - mark - 1;
    if length < 0x80 {
        out.bytes[mark] = length as u8;
        return;
    }
    let mut prefix = Writer::default();
    prefix.varint(length as u64);
    let extra = prefix.bytes.len() - 1;
    let end = out.bytes.len();
    out.bytes.resize(end + extra, 0);
    out.bytes.copy_within(mark + 1..end, mark + 1 + extra);
    out.bytes[mark..=mark + extra].copy_from_slice(&prefix.bytes);
}

impl AsMut<Writer> for Writer {
    fn as_mut(&mut self) -> &mut Writer {
        self
    }
}

/// One value as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Raw<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'b [u8]),
}

/// The bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads the next field; None at the end.
pub(crate) fn next_field<'b>(rest: &mut &'b [u8]) -> Result<Option<(u32, Raw<'b>)>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0).ok_or(Malformed)?;
    let raw = match key & 7 {
        0 => Raw::Varint(varint(rest)?),
        1 => Raw::Fixed64(u64::from_le_bytes(*take(rest, 8)?.first_chunk().ok_or(Malformed)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
            Raw::Bytes(take(rest, length)?)
        }
        5 => Raw::Fixed32(u32::from_le_bytes(*take(rest, 4)?.first_chunk().ok_or(Malformed)?)),
        _ => return Err(Malformed), // groups, which proto3 has not
    };
    Ok(Some((number, raw)))
}

pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in 0..10 {
        let (first, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        value |= u64::from(first & 0x7f) << (shift * 7);
        if *first < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8], Malformed> {
    if length > rest.len() {
        return Err(Malformed);
    }
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    Ok(head)
}

/// The fields of one message that are set, merged as protobuf merges them: of a single value the last
/// counts, pieces of a single message are joined, of a oneof the last member counts.
pub(crate) struct View<'b> {
    /// Ordered by field index, then as they came.
    pub(crate) values: SmallVec<[(usize, Value<'b>); 8]>,
    /// Numbers that the message type does not have.
    pub(crate) unknown: Vec<u32>,
}

/// A value of a [`View`]; bytes are only owned where pieces were joined.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'b> {
    /// Varint or fixed, as the 64 bits that came.
    Number(u64),
    Bytes(Cow<'b, [u8]>),
}

impl<'b> View<'b> {
    pub(crate) fn read(message: &Message, bytes: &'b [u8]) -> Result<View<'b>, Malformed> {
        let mut view = View { values: SmallVec::new(), unknown: Vec::new() };
        let mut rest = bytes;
        while let Some((number, raw)) = next_field(&mut rest)? {
            let Some((index, field)) = message.numbered(number) else {
                if !view.unknown.contains(&number) && view.unknown.len() < 16 {
                    view.unknown.push(number);
                }
                continue;
            };
            view.add(message, index, raw, field.shape == crate::schema::Shape::Single)?;
        }
        view.values.sort_by_key(|(index, _)| *index);
        Ok(view)
    }

    fn add(&mut self, message: &Message, index: usize, raw: Raw<'b>, single: bool) -> Result<(), Malformed> {
        let field = &message.fields[index];
        if let (false, Raw::Bytes(packed), Some(wire_type)) = (single, raw, field.kind.numeric()) {
            return self.unpack(index, packed, wire_type);
        }
        let value = match (raw, field.kind.numeric()) {
            (Raw::Varint(number), Some(WireType::Varint)) => Value::Number(number),
            (Raw::Fixed64(number), Some(WireType::Fixed64)) => Value::Number(number),
            (Raw::Fixed32(number), Some(WireType::Fixed32)) => Value::Number(u64::from(number)),
            (Raw::Bytes(bytes), None) => Value::Bytes(Cow::Borrowed(bytes)),
            _ => return Err(Malformed),
        };
        if !single {
            self.values.push((index, value));
            return Ok(());
        }
        if let Some(oneof) = field.oneof {
            self.values.retain(|(other, _)| *other == index || message.fields[*other].oneof != Some(oneof));
        }
        let joins = matches!(field.kind, FieldKind::Message(_));
        match self.values.iter_mut().find(|(other, _)| *other == index) {
            Some((_, Value::Bytes(old))) if joins => {
                if let Value::Bytes(new) = &value {
                    old.to_mut().extend_from_slice(new);
                }
            }
            Some((_, old)) => *old = value,
            None => self.values.push((index, value)),
        }
        Ok(())
    }

    fn unpack(&mut self, index: usize, mut packed: &[u8], wire_type: WireType) -> Result<(), Malformed> {
        while !packed.is_empty() {
            let number = match wire_type {
                WireType::Fixed64 => {
                    u64::from_le_bytes(*take(&mut packed, 8)?.first_chunk().ok_or(Malformed)?)
                }
                WireType::Fixed32 => {
                    u64::from(u32::from_le_bytes(*take(&mut packed, 4)?.first_chunk().ok_or(Malformed)?))
                }
                WireType::Varint | WireType::Delimited => varint(&mut packed)?,
            };
            self.values.push((index, Value::Number(number)));
        }
        Ok(())
    }
}

impl FieldKind {
    /// The wire type of a number, None for what is length-delimited.
    pub(crate) fn numeric(&self) -> Option<WireType> {
        match self {
            FieldKind::String | FieldKind::Bytes | FieldKind::Message(_) => None,
            FieldKind::Double | FieldKind::Fixed64 | FieldKind::Sfixed64 => Some(WireType::Fixed64),
            FieldKind::Float | FieldKind::Fixed32 | FieldKind::Sfixed32 => Some(WireType::Fixed32),
            _ => Some(WireType::Varint),
        }
    }
}

impl Value<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Number(_) => &[],
        }
    }

    pub(crate) fn number(&self) -> u64 {
        match self {
            Value::Number(number) => *number,
            Value::Bytes(_) => 0,
        }
    }

    /// An integer of any kind, as its field means it.
    pub(crate) fn integer(&self, kind: &FieldKind) -> i128 {
        let raw = self.number();
        match kind {
            FieldKind::Uint64 | FieldKind::Fixed64 | FieldKind::Fixed32 => i128::from(raw),
            FieldKind::Uint32 => i128::from(raw as u32),
            FieldKind::Int32 | FieldKind::Sfixed32 | FieldKind::Enum(_) => i128::from(raw as i32),
            FieldKind::Sint32 | FieldKind::Sint64 => i128::from((raw >> 1) as i64 ^ -((raw & 1) as i64)),
            _ => i128::from(raw as i64),
        }
    }

    /// A float or double.
    pub(crate) fn float(&self, kind: &FieldKind) -> f64 {
        match kind {
            FieldKind::Float => f64::from(f32::from_bits(self.number() as u32)),
            _ => f64::from_bits(self.number()),
        }
    }
}
