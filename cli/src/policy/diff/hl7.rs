//! What a change of `[hl7]` does to messages.

use super::{Change, Effect};
use keyfold::Hl7Policy;
use std::collections::BTreeSet;

/// What is allowed from now on, or no longer.
pub(super) fn compare(before: &Hl7Policy, after: &Hl7Policy, found: &mut Vec<Change>) {
    let mut add = |effect, what: String| found.push(Change { effect, field: "hl7".to_owned(), what });
    let gone = ["messages of any version are taken", "whatever no field selects stays in clear, and is not refused"];
    for (what, before, after, gone) in
        [("versions", &before.versions, &after.versions, gone[0]), ("clear", &before.clear, &after.clear, gone[1])]
    {
        match (before, after) {
            (None, Some(_)) => add(Effect::Note, format!("{what} is new: messages that it does not allow are refused")),
            (Some(_), None) => {
                add(Effect::Clear, format!("{what} is gone: {gone}"));
            }
            (Some(before), Some(after)) => {
                let more = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
                    let more: Vec<&str> = a.difference(b).map(String::as_str).collect();
                    (!more.is_empty()).then(|| more.join(", "))
                };
                if let Some(more) = more(after, before) {
                    add(Effect::Clear, format!("{what} has {more} as well: such messages are not refused any more"));
                }
                if let Some(less) = more(before, after) {
                    add(Effect::Note, format!("{what} does not have {less} any more: such messages are refused"));
                }
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, Hl7Policy, compare};

    #[test]
    fn what_is_allowed_from_now_on_is_a_loss() {
        let policy = |versions: &[&str], clear: Option<&[&str]>| {
            let set = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
            Hl7Policy { versions: Some(set(versions)), clear: clear.map(set) }
        };
        let effects = |before: &Hl7Policy, after: &Hl7Policy| {
            let mut found = Vec::new();
            compare(before, after, &mut found);
            found.iter().map(|change| (change.effect, change.what.split(':').next().unwrap_or("").to_owned())).collect()
        };
        let (narrow, wide) = (policy(&["2.5"], Some(&["PID-8"])), policy(&["2.5", "2.8"], Some(&["PID-8", "ZPD"])));
        let of = |effect, what: &str| (effect, what.to_owned());
        let loss: Vec<_> = effects(&narrow, &wide);
        assert_eq!(loss, [of(Effect::Clear, "versions has 2.8 as well"), of(Effect::Clear, "clear has ZPD as well")]);
        let gain: Vec<_> = effects(&wide, &narrow);
        assert!(gain.len() == 2 && gain.iter().all(|(effect, _)| *effect == Effect::Note));
        assert_eq!(effects(&narrow, &policy(&["2.5"], None)), vec![of(Effect::Clear, "clear is gone")]);
        assert_eq!(effects(&policy(&["2.5"], None), &narrow), vec![of(Effect::Note, "clear is new")]);
        let any_version = Hl7Policy { versions: None, ..narrow.clone() };
        let mut found = Vec::new();
        compare(&narrow, &any_version, &mut found);
        let said: Vec<_> = found.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(said, ["versions is gone: messages of any version are taken"]);
        assert_eq!(effects(&narrow, &narrow), vec![]);
    }
}
