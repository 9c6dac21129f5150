//! The keys of chains, and why there is none for some.

use super::budget::{Budget, MAX_REFUSED};
use super::chain::Entry;
use super::{Expected, FindingKind, Report};
use keyfold::{ChainStart, Error, ErrorKind, KekAlias, KmsErrorKind, Lineage, Ratchet};
use std::collections::{BTreeMap, BTreeSet};

/// Asks the audit KEKs. What one chain alone does not open is a forgery; what none opens is another KEK, or another keyring.
pub(super) struct Keys<'a> {
    expected: &'a Expected,
    /// The KEKs that opened a chain.
    opened: BTreeSet<KekAlias>,
    /// Whether there is a chain of the keyring.
    is_own: bool,
    closed: Vec<Closed>,
    unasked: Option<Unasked>,
}

/// A header that gave no key.
struct Closed {
    name: String,
    number: u64,
    cause: Cause,
    detail: String,
}

/// Chains whose keys were not asked for any more.
struct Unasked {
    /// A header of the first one.
    name: String,
    number: u64,
    chains: u64,
}

/// Why a header gave no key.
enum Refusal {
    /// For this cause, and what it is for people.
    Of(Cause, String),
    /// Nobody was to be asked.
    NoKeks,
    /// Too many gave none.
    Unasked,
}

enum Cause {
    OtherKeyring,
    NoKek,
    DoesNotUnwrap(KekAlias),
    /// It cannot be used here, by whoever verifies.
    NotAsked,
    /// It did not answer.
    Away,
}

impl<'a> Keys<'a> {
    pub(super) const fn new(expected: &'a Expected) -> Self {
        Self { expected, opened: BTreeSet::new(), is_own: false, closed: Vec::new(), unasked: None }
    }

    /// The key of the first line of a chain, by the first of its headers that gives one.
    pub(super) async fn of_chain(
        &mut self,
        entries: &[Entry<'_>],
        budget: &mut Budget,
        report: &mut Report,
    ) -> Option<Ratchet> {
        let headers: Vec<_> = entries.iter().filter_map(|entry| Some((entry, entry.line.start()?))).collect();
        if let (true, Some(first)) = (headers.is_empty(), entries.first()) {
            let detail = format!("no line says what its chain is, of which there are {} lines", entries.len());
            first.add(report, FindingKind::UnknownChain, detail);
        }
        let mut causes = BTreeSet::new();
        for (entry, (start, alias)) in &headers {
            let (name, number) = (entry.name().to_owned(), entry.number());
            let (cause, detail) = match self.open(start, alias, budget).await {
                Ok(ratchet) => return Some(ratchet),
                Err(Refusal::Of(cause, detail)) => (cause, detail),
                Err(Refusal::NoKeks) => continue,
                Err(Refusal::Unasked) => {
                    self.unasked.get_or_insert(Unasked { name, number, chains: 0 }).chains += 1;
                    break;
                }
            };
            // A chain has a header in each file, and the first one says it.
            if causes.insert(detail.clone()) {
                self.closed.push(Closed { name, number, cause, detail });
            }
        }
        None
    }

    async fn open(&mut self, start: &ChainStart, alias: &KekAlias, budget: &mut Budget) -> Result<Ratchet, Refusal> {
        if let Some(own) = self.expected.lineage.filter(|own| *own != start.lineage) {
            return Err(Refusal::Of(Cause::OtherKeyring, of_other_keyring(start.lineage, own)));
        }
        self.is_own = true;
        if self.expected.keks.is_empty() {
            return Err(Refusal::NoKeks);
        }
        let Some(kek) = self.expected.keks.get(alias) else {
            return Err(Refusal::Of(Cause::NoKek, format!("there is no audit KEK {alias}")));
        };
        if !budget.may_ask() {
            return Err(Refusal::Unasked);
        }
        let error = match start.open(&**kek).await {
            Ok(ratchet) => {
                self.opened.insert(alias.clone());
                return Ok(ratchet);
            }
            Err(error) => error,
        };
        budget.refuse();
        Err(match error.kind() {
            ErrorKind::RecordRejected | ErrorKind::Kms(KmsErrorKind::InvalidCiphertext | KmsErrorKind::WrongKey) => {
                let detail = format!("the key of the chain does not unwrap under audit KEK {alias}: {error}");
                Refusal::Of(Cause::DoesNotUnwrap(alias.clone()), detail)
            }
            _ => {
                let cause = if is_outage(&error) { Cause::Away } else { Cause::NotAsked };
                Refusal::Of(cause, format!("audit KEK {alias}: {error}"))
            }
        })
    }

    /// Says which chains have no key, once for each cause.
    pub(super) fn report(self, report: &mut Report) {
        // Never only a note: whoever makes that many up would have the others pass unchecked.
        if let Some(Unasked { name, number, chains }) = self.unasked {
            let whose = match chains {
                1 => "the key of its chain was".to_owned(),
                _ => format!("the keys of its chain and {} more were", chains - 1),
            };
            let detail = format!(
                "{whose} not asked for, since {MAX_REFUSED} headers had given none before: verify them apart from those"
            );
            report.add(&name, Some(number), FindingKind::Unchecked, detail);
        }
        let mut unchecked: BTreeMap<String, u64> = BTreeMap::new();
        for Closed { name, number, cause, detail } in self.closed {
            let finding = match cause {
                Cause::OtherKeyring => self.is_own.then_some(FindingKind::UnknownChain),
                Cause::NoKek => (!self.opened.is_empty()).then_some(FindingKind::UnknownChain),
                Cause::DoesNotUnwrap(alias) => self.opened.contains(&alias).then_some(FindingKind::Edited),
                Cause::NotAsked => None,
                Cause::Away => {
                    report.is_unanswered = true;
                    None
                }
            };
            match finding {
                Some(kind) => report.add(&name, Some(number), kind, detail),
                None => *unchecked.entry(detail).or_insert(0) += 1,
            }
        }
        for (detail, chains) in unchecked {
            report.notes.push(match chains {
                1 => format!("1 chain was not checked under its key: {detail}"),
                _ => format!("{chains} chains were not checked under their keys: {detail}"),
            });
        }
    }
}

/// Whether a KEK failed in a way that passes, or that whoever runs the machine sets right; not that it refuses, or is not here.
fn is_outage(error: &Error) -> bool {
    use KmsErrorKind::{AccessDenied, KeyDisabled, KeyNotFound};
    let is_of_service =
        matches!(error.kind(), ErrorKind::Kms(kind) if !matches!(kind, AccessDenied | KeyDisabled | KeyNotFound));
    is_of_service && !error.is_lasting()
}

fn of_other_keyring(lineage: Lineage, own: Lineage) -> String {
    format!("the chain is of another keyring, of lineage {lineage} and not {own}")
}
