//! Looking through HL7 v2 messages, segment by segment.

use super::files::SEALED_GROWTH;
use super::hints::Hints;
use super::{Found, add_hints, judge};
use crate::args::Scan;
use crate::failure::Failure;
use crate::files::hl7::{MAX_MESSAGE_LEN, Message, MessageSource, SegmentPath, SegmentRules};
use crate::transform::Clear;
use keyfold::Policy;
use std::collections::BTreeSet;
use std::io::Read;

pub(super) fn scan(
    args: &Scan,
    input: impl Read,
    policy: &Policy,
    hints: Option<&Hints>,
    found: &mut Found,
) -> Result<(), Failure> {
    let mut paths = Vec::new();
    let mut fields = Vec::new();
    for field in policy.fields() {
        for path in &field.segments {
            paths.push(SegmentPath::parse(path)?);
            fields.push(field);
        }
    }
    let rules = SegmentRules::new(paths)?;
    let clear = Clear::new(policy.hl7(), &rules).map_err(|failure| failure.at("[hl7]"))?;
    let (mut has_messages, mut seen) = (false, BTreeSet::new());
    let mut source = MessageSource::new(input, MAX_MESSAGE_LEN * SEALED_GROWTH);
    while let Some(batch) = source.next_batch()? {
        for (raw, number) in batch.messages() {
            let Some(message) = Message::parse(raw, number)? else { continue };
            has_messages = true;
            let place = |path: &str| format!("message {number}, {path}");
            if clear.other_version(&message).is_some() {
                found.elsewhere("MSH-12", "of a version that the policy was not made for", || place("MSH-12"));
            }
            clear.find(&message, &rules, |path, value| {
                let path = path.to_string();
                if !judge::is_sealed(&String::from_utf8_lossy(value)) {
                    found.elsewhere(&path, "neither sealed nor listed under clear in [hl7]", || place(&path));
                }
                Ok(())
            })?;
            let values = message.locate(&rules)?;
            found.unmatched += u64::from(values.is_empty());
            for located in values {
                let (field, path) = (fields[located.rule], rules.path(located.rule).to_string());
                seen.insert(&field.name);
                let verdict = match std::str::from_utf8(&raw[located.span.clone()]) {
                    Ok(text) => judge::text(field, text),
                    Err(_) => judge::bytes(field, &raw[located.span.clone()]),
                };
                found.judged(verdict, &field.name, || place(&path));
            }
            if hints.is_some() || args.clear {
                message.walk(|path, value| {
                    if !rules.select(&path) {
                        let text = String::from_utf8_lossy(value);
                        found.in_clear(&path.to_string(), &text);
                        add_hints(&text, hints, found, || place(&path.to_string()));
                    }
                    Ok::<(), Failure>(())
                })?;
            }
        }
    }
    for field in policy.fields().filter(|field| !field.segments.is_empty() && !seen.contains(&field.name)) {
        found.absent(field, has_messages);
    }
    found.clear_columns.extend(clear.into_left());
    Ok(())
}
