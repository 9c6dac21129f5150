//! What is planned before documents are read: fields, kinds, conditions, paths.

use super::sealed::Kind;
use super::{DocumentCipher, DocumentOptions, members};
use crate::field::{FieldCipher, FieldKeys, Locator, Used};
use crate::{Conditions, DocumentError, JsonRules};
use keyfold::{Error, ErrorKind, FieldPolicy};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most combinations of conditions whose compiled paths are kept.
const MAX_RULES: usize = 256;

/// What applies to a document: the kind whose values are sealed together, and which of the distinct conditions of fields hold.
pub(super) type Applies = (Option<usize>, Vec<bool>);

/// The paths of the fields that apply to a document, and of their row bindings.
pub(super) struct Rules {
    pub(super) of: Applies,
    pub(super) paths: JsonRules,
    /// The field of each path.
    pub(super) field_of_path: Vec<usize>,
    pub(super) rows: Vec<(usize, JsonRules)>,
    /// Whether they select the same in what was protected, whatever the document.
    pub(super) settled: bool,
}

impl DocumentCipher<'_> {
    /// Acquires the keys of all fields that have paths, and compiles these.
    ///
    /// # Errors
    ///
    /// - As for [`FieldKeys::fields`] and [`Locator::refuse_elsewhere`].
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): no field has paths; a row binding has no path; documents whose values are sealed
    ///   together cannot be rebound or re-encrypted; two indexes have one member.
    /// - [`Configuration`](ErrorKind::Configuration): a path is not one of RFC 9535.
    pub fn new(keys: &FieldKeys<'_>, options: DocumentOptions) -> Result<Self, DocumentError> {
        Locator::Paths.refuse_elsewhere(&keys.ring.policy())?;
        let none = "no field of the configuration or the policies has JSON paths";
        let fields = keys.plan(|field| !field.paths.is_empty(), none)?;
        let mut row_paths: Vec<String> = Vec::new();
        let mut row_of_field = Vec::new();
        let mut distinct: Vec<&BTreeMap<String, String>> = Vec::new();
        let (mut conditions, mut condition_of_field) = (Vec::new(), Vec::new());
        for field in &fields {
            row_of_field.push(row_path(field.policy())?.map(|path| {
                row_paths.iter().position(|known| known == path).unwrap_or_else(|| {
                    row_paths.push(path.to_owned());
                    row_paths.len() - 1
                })
            }));
            let only_if = &field.policy().only_if;
            let known = distinct.iter().position(|known| *known == only_if);
            condition_of_field.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(only_if);
                conditions.push(compile(only_if).map_err(|error| error.of_field(&field.policy().name))?);
            }
        }
        let kinds = Kind::all(keys, &mut row_paths, fields.iter().any(FieldCipher::is_of_documents))?;
        let members = members::members(&keys.ring.policy(), &kinds)?;
        let of_kinds = || kinds.iter().flat_map(Kind::conditions).map(|path| (path.as_str(), false));
        let roots_are_settled =
            kinds.iter().filter_map(|kind| kind.root.as_ref()).all(|root| root.is_settled(of_kinds()));
        let made = Self {
            direction: keys.direction,
            options,
            moves: None,
            used: Used::new(fields.len()),
            fields,
            kinds,
            conditions,
            condition_of_field,
            roots_are_settled,
            row_paths,
            row_of_field,
            rules: Mutex::default(),
            members,
        };
        // Compile every path now, so that a wrong one is reported before anything is read.
        made.rules_for(None, made.conditions.iter().map(|_| true).collect())?;
        Ok(made)
    }

    /// The fields whose conditions hold.
    pub(super) fn fields_under<'s>(&'s self, holding: &'s [bool]) -> impl Iterator<Item = usize> + 's {
        (0..self.fields.len()).filter(|&field| holding[self.condition_of_field[field]])
    }

    pub(super) fn rules_for(&self, kind: Option<usize>, holding: Vec<bool>) -> Result<Arc<Rules>, DocumentError> {
        let of = (kind, holding);
        // The map only ever grows by whole entries, so a panic elsewhere leaves it good.
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = known.get(&of) {
            return Ok(rules.clone());
        }
        let fields: Vec<usize> = self.fields_under(&of.1).collect();
        let mut named = Vec::new();
        let mut field_of_path = Vec::new();
        let mut rows: Vec<(usize, JsonRules)> = Vec::new();
        for &field in &fields {
            for path in &self.fields[field].policy().paths {
                named.push((self.fields[field].policy().name.clone(), path.clone()));
                field_of_path.push(field);
            }
        }
        let of_kind = kind.and_then(|kind| self.kinds[kind].row_path);
        for row in fields.iter().filter_map(|&field| self.row_of_field[field]).chain(of_kind) {
            if rows.iter().all(|(known, _)| *known != row) {
                rows.push((row, JsonRules::compile([("row binding", &self.row_paths[row])])?));
            }
        }
        let paths = JsonRules::compile(named)?;
        let conditions = self.fields.iter().flat_map(|field| field.policy().only_if.keys());
        let conditions =
            conditions.chain(self.kinds.iter().flat_map(Kind::conditions)).map(|path| (path.as_str(), false));
        let bindings = rows.iter().map(|(row, _)| (self.row_paths[*row].as_str(), true));
        let roots = self.kinds.iter().filter_map(|kind| kind.root.as_ref().map(|_| (kind.root_path(), false)));
        let settled = self.roots_are_settled && paths.is_settled(conditions.chain(bindings).chain(roots));
        let rules = Arc::new(Rules { of, paths, field_of_path, rows, settled });
        // Documents choose what applies, so that hostile ones could have every combination.
        if known.len() < MAX_RULES {
            known.insert(rules.of.clone(), rules.clone());
        }
        Ok(rules)
    }
}

fn row_path(policy: &FieldPolicy) -> Result<Option<&str>, DocumentError> {
    let row =
        Locator::Paths.row(&policy.row_binding).map_err(|error| DocumentError::from(error).of_field(&policy.name));
    Ok(row?.and_then(|paths| paths.first()).map(String::as_str))
}

pub(super) fn compile(only_if: &BTreeMap<String, String>) -> Result<Conditions, DocumentError> {
    let wrong = |error: crate::JsonError| {
        Error::new(ErrorKind::Configuration, "only_if is no JSONPath").with_detail(error.to_string()).into()
    };
    Conditions::compile("only_if", only_if).map_err(wrong)
}
