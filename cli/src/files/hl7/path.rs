//! Places in messages: `PID-5`, `PID-3.1`, `PID-11.1.2`.

use std::collections::HashMap;
use std::fmt;

use super::Hl7Error;

/// Segments of files and batches, which belong to no message.
pub(super) const BATCH_SEGMENTS: [&[u8; 3]; 4] = [b"FHS", b"BHS", b"BTS", b"FTS"];

/// A field of a segment, or a component or subcomponent of it: in every such segment of a message, in every repetition.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SegmentPath {
    pub(super) segment: [u8; 3],
    pub(super) field: u32,
    pub(super) component: Option<u32>,
    pub(super) subcomponent: Option<u32>,
}

impl SegmentPath {
    /// Reads `SEG-FIELD[.COMPONENT[.SUBCOMPONENT]]`.
    ///
    /// # Errors
    ///
    /// [`Path`](Hl7Error::Path): that is not what `text` is, or it names what messages are read by: delimiters (MSH-1,
    /// MSH-2), the character set (MSH-18) or segments of a batch.
    pub(crate) fn parse(text: &str) -> Result<Self, Hl7Error> {
        let wrong = |reason| Hl7Error::Path { path: text.to_owned(), reason };
        let shape = "write SEG-FIELD[.COMPONENT[.SUBCOMPONENT]], such as PID-3.1";
        let (segment, places) = text.split_once('-').ok_or_else(|| wrong(shape))?;
        let segment = segment_id(segment).ok_or_else(|| wrong(shape))?;
        // Rust's parser would take a sign and leading zeros, too.
        let number = |digits: &str| match digits.as_bytes() {
            [b'1'..=b'9', ..] => digits.parse::<u32>().map_err(|_| wrong(shape)),
            _ => Err(wrong(shape)),
        };
        let mut numbers = places.split('.').map(number);
        let field = numbers.next().unwrap_or_else(|| Err(wrong(shape)))?;
        let (component, subcomponent) = (numbers.next().transpose()?, numbers.next().transpose()?);
        if numbers.next().is_some() {
            return Err(wrong(shape));
        }
        if BATCH_SEGMENTS.contains(&&segment) {
            return Err(wrong("segments of files and batches stay as they are"));
        }
        let path = Self { segment, field, component, subcomponent };
        match path.is_needed_to_read() {
            true => Err(wrong("messages are read by their delimiters and character set, which stay as they are")),
            false => Ok(path),
        }
    }

    /// Whether it is of the delimiters or the character set.
    pub(crate) const fn is_needed_to_read(&self) -> bool {
        matches!((&self.segment, self.field), (b"MSH", 1 | 2 | 18))
    }

    /// The segment that it is in.
    pub(crate) const fn segment(&self) -> [u8; 3] {
        self.segment
    }

    /// The field that it is in.
    pub(crate) const fn to_field(self) -> Self {
        Self { component: None, subcomponent: None, ..self }
    }

    /// The part that a value without parts is: a field without components is its own first one.
    pub(crate) fn to_first_part(self) -> Self {
        Self { component: self.component.or(Some(1)), subcomponent: self.subcomponent.or(Some(1)), ..self }
    }

    /// Where one value is: in which of the segments of its name, in which repetition, both from 1: `OBX[2]-5[1]`. With `*` for
    /// both, all of its values.
    pub(crate) fn place(&self, segment: impl fmt::Display, repetition: impl fmt::Display) -> String {
        let parts = [self.component, self.subcomponent].into_iter().flatten().map(|number| format!(".{number}"));
        let parts = parts.collect::<String>();
        format!("{}[{segment}]-{}[{repetition}]{parts}", self.segment.escape_ascii(), self.field)
    }

    /// Whether the two select the same value, or one selects a part of what the other selects.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        (self.segment, self.field) == (other.segment, other.field)
            && meet(self.component, other.component)
            && meet(self.subcomponent, other.subcomponent)
    }
}

impl fmt::Display for SegmentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment.escape_ascii(), self.field)?;
        [self.component, self.subcomponent].iter().flatten().try_for_each(|number| write!(f, ".{number}"))
    }
}

/// The name of a segment, where `text` is one.
pub(crate) fn segment_id(text: &str) -> Option<[u8; 3]> {
    <[u8; 3]>::try_from(text.as_bytes()).ok().filter(|id| is_segment_id(id))
}

/// Whether these bytes are the name of a segment: a letter, then letters or digits, upper case.
pub(super) fn is_segment_id(bytes: &[u8]) -> bool {
    matches!(bytes, [first, second, third]
        if first.is_ascii_uppercase() && [second, third].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
}

/// Paths that select different values.
pub(crate) struct SegmentRules {
    paths: Vec<SegmentPath>,
    /// Per segment the rules for it, in the order of what they select.
    by_segment: HashMap<[u8; 3], Vec<usize>>,
}

impl SegmentRules {
    /// # Errors
    ///
    /// [`Overlap`](Hl7Error::Overlap).
    pub(crate) fn new(paths: Vec<SegmentPath>) -> Result<Self, Hl7Error> {
        let mut by_segment: HashMap<[u8; 3], Vec<usize>> = HashMap::new();
        for (rule, path) in paths.iter().enumerate() {
            let rules = by_segment.entry(path.segment).or_default();
            if let Some(&other) = rules.iter().find(|&&other| paths[other].overlaps(path)) {
                return Err(Hl7Error::Overlap { first: paths[other].to_string(), second: path.to_string() });
            }
            rules.push(rule);
        }
        for rules in by_segment.values_mut() {
            rules.sort_by_key(|&rule| paths[rule]);
        }
        Ok(Self { paths, by_segment })
    }

    /// The path of a rule.
    pub(crate) fn path(&self, rule: usize) -> &SegmentPath {
        &self.paths[rule]
    }

    /// All paths, by rule.
    pub(crate) fn paths(&self) -> &[SegmentPath] {
        &self.paths
    }

    /// Whether a rule selects the value at `path`, which has no parts.
    pub(crate) fn select(&self, path: &SegmentPath) -> bool {
        let path = path.to_first_part();
        self.of(path.segment).iter().any(|&rule| self.paths[rule].overlaps(&path))
    }

    /// The rules for a segment.
    pub(crate) fn of(&self, segment: [u8; 3]) -> &[usize] {
        self.by_segment.get(&segment).map_or(&[], Vec::as_slice)
    }
}
