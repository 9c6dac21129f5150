//! Tokens of indexes as members at the top of documents: written behind the opening brace, so that taking them away again restores every
//! byte.

use super::lines::Line;
use super::replaced::Replaced;
use super::sealed::Kind;
use super::values::values_of;
use super::{DocumentCipher, DocumentCounts, Place, RowFailed, refused};
use crate::field::Direction;
use crate::span::removals;
use crate::{Document, DocumentError, Inserted, Token as JsonToken, push_string};
use keyfold::{Error, ErrorKind, Policy, Token};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bits of the integers that a reader of JSON keeps who takes numbers for `double` (RFC 7493 §2.2).
pub const EXACT_BITS: u16 = 53;

/// The tokens of a document by member.
pub(super) type Members = BTreeMap<String, Tokens>;

/// The tokens of one index in a document.
#[derive(Default)]
pub(super) struct Tokens {
    /// Whether they stand as a list whatever their number.
    is_list: bool,
    bits: u16,
    tokens: Vec<Token>,
}

/// The member of an index, and whether a protected document had it.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) is_seen: AtomicBool,
}

/// The members of all indexes.
pub(super) fn members(policy: &Policy, kinds: &[Kind]) -> Result<Vec<Member>, DocumentError> {
    let mut members: Vec<Member> = Vec::new();
    for field in policy.fields().filter(|field| !field.paths.is_empty()) {
        for name in field.indexes.iter().filter_map(|index| index.column.as_ref()) {
            let wrong = |why| refused(why).with_detail(name).of_field(&field.name);
            if members.iter().any(|known| known.name == *name) {
                return Err(wrong("two indexes have the same member"));
            }
            if kinds.iter().any(|kind| kind.place().has_member(name)) {
                return Err(wrong("the member of an index is the one in which the headers of documents stand"));
            }
            members.push(Member { name: name.clone(), is_seen: AtomicBool::new(false) });
        }
    }
    Ok(members)
}

impl DocumentCipher<'_> {
    /// Adds the tokens of one field in a batch to those of its documents.
    pub(super) fn add_tokens(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[Place],
        members: &mut [Members],
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let job = &self.fields[field];
        if job.indexes().is_empty() {
            return Ok(());
        }
        let at = |failed: RowFailed| failed.of(job, lines, places);
        let json: Vec<JsonToken<'_>> = places.iter().map(|&(line, found)| lines[line].token(found)).collect();
        let values = values_of(job, &json).map_err(at)?;
        for index in job.indexes() {
            let (tokens, skipped) = index.tokens(&values).map_err(RowFailed::from).map_err(at)?;
            counts.unindexed += skipped;
            for (&(line, _), tokens) in places.iter().zip(tokens) {
                let all = members[line].entry(index.column().to_owned()).or_default();
                all.bits = index.bits();
                // Several values of one document: which token belongs to which does not show.
                all.is_list |= index.is_list() || !all.tokens.is_empty();
                all.tokens.extend(tokens);
            }
        }
        Ok(())
    }

    /// Refuses a document that has a member of an index already: on the way back it would be taken for ours.
    pub(super) fn refuse_members(&self, document: &Document<'_>) -> Result<(), DocumentError> {
        match self.members.iter().find(|member| document.has_member(&member.name)) {
            None => Ok(()),
            // F-18.6-4.
            Some(member) => Err(refused("the document has the member of an index already").with_detail(&member.name)),
        }
    }

    /// Takes the members of indexes out of what a protected document means.
    pub(super) fn take_members(&self, document: &mut Document<'_>) -> Vec<Inserted> {
        let take = |member: &Member| {
            let value = document.take_member(&member.name)?;
            member.is_seen.store(true, Ordering::Relaxed);
            Some(Inserted::Member(value))
        };
        self.members.iter().filter_map(take).collect()
    }

    /// What changes in a document beside its values.
    pub(super) fn edit_members(
        &self,
        line: &Line<'_>,
        mut members: Members,
        replaced: &mut Replaced,
    ) -> Result<(), DocumentError> {
        let text = line.document.text();
        match self.direction {
            Direction::Protect { .. } if !members.is_empty() => replaced.add(|out| {
                let no_object = "the document is no object, so it has no place for an index";
                let brace = text.find(|c: char| !c.is_ascii_whitespace()).filter(|at| text[*at..].starts_with('{'));
                let start = brace.ok_or_else(|| DocumentError::new(ErrorKind::InvalidInput, no_object))? + 1;
                for Member { name, .. } in &self.members {
                    let Some(tokens) = members.remove(name) else { continue };
                    let json = tokens.json()?;
                    let out = out.with_room(name.len() + json.len() + 4);
                    push_string(name, out);
                    out.push(b':');
                    out.extend_from_slice(json.as_bytes());
                    out.push(b',');
                }
                Ok(start..start)
            }),
            Direction::Reveal => {
                let (mut members, mut spans) = (Vec::new(), Vec::new());
                for inserted in &line.inserted {
                    match inserted {
                        Inserted::Member(value) => members.push(value.clone()),
                        Inserted::Item(span) => spans.push(span.clone()),
                    }
                }
                spans.extend(removals(text, members));
                spans.into_iter().try_for_each(|span| replaced.add(|_| Ok(span)))
            }
            _ => Ok(()),
        }
    }
}

impl Tokens {
    /// A number, or a text of digits where a number could exceed what all readers of JSON keep (RFC 7493 §2.2), or of hexadecimal digits, or a list of them; `null` if there is none. Of equal tokens all but one give way to
    /// random ones, so that a document does not tell whether two of its values are equal.
    fn json(mut self) -> Result<String, Error> {
        let count = self.tokens.len();
        self.tokens.sort_unstable();
        self.tokens.dedup();
        while self.tokens.len() < count {
            self.tokens.push(random(self.bits)?);
        }
        self.tokens.sort_unstable();
        let one = |token: &Token| match token {
            Token::Integer(_) if self.bits <= EXACT_BITS => token.to_string(),
            _ => format!("\"{token}\""),
        };
        Ok(match &self.tokens[..] {
            [] => "null".to_owned(),
            [token] if !self.is_list => one(token),
            tokens => format!("[{}]", tokens.iter().map(one).collect::<Vec<_>>().join(",")),
        })
    }
}

/// A token that finds nothing but by chance.
fn random(bits: u16) -> Result<Token, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::from(ErrorKind::RandomnessUnavailable).with_source(error))?;
    let Some(shift) = 64_u32.checked_sub(u32::from(bits)).filter(|shift| *shift > 0) else {
        return Ok(Token::Bytes(bytes));
    };
    let number = bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)).unbounded_shr(shift);
    Ok(Token::Integer(i64::try_from(number).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tokens_do_not_show() {
        let json = |tokens: &[i64], is_list| {
            let tokens = tokens.iter().map(|number| Token::Integer(*number)).collect();
            Tokens { is_list, bits: 53, tokens }.json().expect("random bytes")
        };
        assert_eq!(json(&[], true), "null");
        assert_eq!(json(&[7], false), "7");
        assert_eq!(json(&[9, 7], true), "[7,9]");
        let padded: Vec<i64> = serde_json::from_str(&json(&[7, 9, 7, 7], true)).expect("a list");
        assert!(padded.len() == 4 && padded.is_sorted());
        assert!([7, 9].iter().all(|token| padded.iter().filter(|other| *other == token).count() == 1));
        let wide = Tokens { is_list: true, bits: 54, tokens: vec![Token::Integer(1 << 53), Token::Integer(7)] };
        assert_eq!(wide.json().expect("two numbers"), r#"["7","9007199254740992"]"#);
        assert!((0..200).all(|_| matches!(random(3), Ok(Token::Integer(0..8)))));
        assert!(matches!(random(256), Ok(Token::Bytes(_))));
    }
}
