//! Changes of bytes that were sealed, as somebody makes them who can write and has no key.

use arbitrary::Arbitrary;

/// One change. Places are taken modulo what is there.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Edit {
    /// A bit is another one.
    Flip { at: u16, bit: u8 },
    /// A byte is another one.
    Set { at: u16, byte: u8 },
    /// A number of 1, 2 or 4 bytes is another one.
    Number { at: u16, len: u8, number: u32 },
    /// The end is cut off.
    Truncate { len: u16 },
    /// The beginning is cut off.
    Skip { len: u8 },
    /// A byte more.
    Insert { at: u16, byte: u8 },
    /// Some bytes less.
    Remove { at: u16, len: u8 },
    /// Some bytes stand at another place as well.
    Copy { from: u16, len: u8, to: u16 },
    /// The rest is that of another one.
    Splice { other: u8, at: u16 },
    /// Some bytes are those of another one.
    Replace { other: u8, at: u16, len: u16 },
    /// Another one follows.
    Append { other: u8 },
}

/// `bytes` after `edits`; `others` is what else the writer has seen.
pub fn edit(bytes: &[u8], edits: &[Edit], others: &[Vec<u8>]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for edit in edits {
        let len = out.len().max(1);
        let at = |at: u16| usize::from(at) % len;
        let other = |index: u8| &others[usize::from(index) % others.len()][..];
        match *edit {
            Edit::Append { other: index } => out.extend_from_slice(other(index)),
            Edit::Insert { at: place, byte } => out.insert(at(place), byte),
            _ if out.is_empty() => {}
            Edit::Flip { at: place, bit } => {
                let place = at(place);
                out[place] ^= 1 << (bit % 8);
            }
            Edit::Set { at: place, byte } => {
                let place = at(place);
                out[place] = byte;
            }
            Edit::Number { at: place, len, number } => {
                let (place, number) = (at(place), number.to_be_bytes());
                let number = &number[4 - [1, 2, 4][usize::from(len % 3)]..];
                let room = number.len().min(out.len() - place);
                out[place..place + room].copy_from_slice(&number[..room]);
            }
            Edit::Truncate { len } => {
                let len = at(len);
                out.truncate(len);
            }
            Edit::Skip { len } => drop(out.drain(..at(len.into()))),
            Edit::Remove { at: place, len } => {
                let place = at(place);
                let end = out.len().min(place + usize::from(len));
                drop(out.drain(place..end));
            }
            Edit::Copy { from, len, to } => {
                let from = at(from);
                let part = out[from..out.len().min(from + usize::from(len))].to_vec();
                let to = at(to);
                drop(out.splice(to..to, part));
            }
            Edit::Splice { other: index, at: place } => {
                let place = at(place);
                out.truncate(place);
                out.extend_from_slice(other(index).get(place..).unwrap_or_default());
            }
            Edit::Replace { other: index, at: place, len } => {
                let (place, theirs) = (at(place), other(index));
                let end = out.len().min(theirs.len()).min(place + usize::from(len));
                if place < end {
                    out[place..end].copy_from_slice(&theirs[place..end]);
                }
            }
        }
    }
    out
}

/// Another byte, `at` places before the last one.
pub fn set_from_end(out: &mut [u8], at: u16, byte: u8) {
    let at = out.len() - 1 - usize::from(at) % out.len();
    out[at] = byte;
}
