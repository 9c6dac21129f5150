//! Which keys the values of a row are under, and what they are bound to.

use super::{Stored, Trouble};
use crate::args::Binding;
use crate::failure::{Exit, Failure};
use crate::opening::refuse_new_scope;
use data_encoding::HEXLOWER;
use keyfold::{Context, Error, ErrorKind, FieldMode, FieldPolicy, Keyring, Policy, RowBinding};
use keyfold_documents::Resealer;
use keyfold_tables::{Cell, Row};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Scopes and contexts whose handles are held at once.
const MAX_HELD: usize = 1024;

/// The columns that a command needs, each once.
#[derive(Default)]
pub(crate) struct Columns(pub(crate) Vec<String>);

impl Columns {
    /// The position of a column, which is added if it is not there.
    pub(crate) fn add(&mut self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        })
    }
}

/// Where the row binding of a field is.
#[derive(Clone, Copy)]
enum RowSource {
    None,
    /// In a column, in clear.
    Clear(usize),
    /// In the column of a deterministic field, by its index.
    Sealed(usize),
}

/// The fields of a table and what their values are bound to.
pub(crate) struct Bindings {
    ring: Keyring,
    /// Names, columns, and the source of the row binding.
    fields: Vec<(String, usize, RowSource)>,
    columns: Vec<String>,
    scope: Option<String>,
    scope_column: Option<usize>,
    context: Vec<(String, String)>,
    context_columns: Vec<(String, usize)>,
    make_scopes: bool,
    /// Whether an identifier in the column of a deterministic field may be in clear.
    clear_rows: bool,
    held: HashMap<Vec<String>, Rc<Vec<Resealer>>>,
}

/// A row with the keys of its fields.
pub(crate) struct BoundRow<'r> {
    row: &'r Row,
    pub(crate) ciphers: Rc<Vec<Resealer>>,
}

impl Bindings {
    /// `fields` are names and columns. `make_scopes`: a scope that the keyring does not have is made.
    pub(crate) fn new(
        ring: &Keyring,
        fields: &[(String, String)],
        binding: &Binding,
        columns: &mut Columns,
        make_scopes: bool,
    ) -> Result<Self, Failure> {
        let policy = ring.policy();
        let mut known: Vec<(String, usize)> = Vec::new();
        for (name, column) in fields {
            if policy.field(name).is_none() {
                return Err(Failure::new(Exit::Policy, format!("the policy has no field {name}")));
            }
            let column = columns.add(column);
            if known.iter().any(|(_, other)| *other == column) {
                return Err(Failure::new(Exit::Usage, format!("two fields name the column {:?}", columns.0[column])));
            }
            known.push((name.clone(), column));
        }
        let mut bound = Vec::new();
        for (name, column) in &known {
            let field = policy.field(name).ok_or_else(|| Failure::new(Exit::Internal, "a field is gone"))?;
            let source = match row_column(field, binding)? {
                None => RowSource::None,
                Some(row) => {
                    let row = columns.add(row);
                    match known.iter().position(|(_, other)| *other == row) {
                        None => RowSource::Clear(row),
                        Some(at)
                            if policy
                                .field(&known[at].0)
                                .is_some_and(|field| field.row_binding == RowBinding::None) =>
                        {
                            RowSource::Sealed(at)
                        }
                        Some(_) => {
                            let why = format!("field {name} is bound to a field that is itself bound to a row");
                            return Err(Failure::new(Exit::Policy, why));
                        }
                    }
                }
            };
            bound.push((name.clone(), *column, source));
        }
        if !make_scopes {
            refuse_new_scope(ring, binding.scope.as_deref())?;
        }
        Ok(Self {
            ring: ring.clone(),
            fields: bound,
            columns: known.iter().map(|(_, column)| columns.0[*column].clone()).collect(),
            scope: binding.scope.clone(),
            scope_column: binding.scope_column.as_deref().map(|name| columns.add(name)),
            context: binding.context.clone(),
            context_columns: binding
                .context_column
                .iter()
                .map(|(key, name)| (key.clone(), columns.add(name)))
                .collect(),
            make_scopes,
            clear_rows: false,
            held: HashMap::new(),
        })
    }

    /// The same, where an identifier that is not sealed is taken as it stands: of fields that were not named for the table, whose column may be in clear there.
    pub(crate) fn with_clear_rows(self) -> Self {
        Self { clear_rows: true, ..self }
    }

    /// What a checkpoint is bound to beside the place: the keyring, and by a digest, since names of scopes and values of contexts are
    /// nobody's business, which keys and context its values have.
    pub(crate) fn identity(&self) -> Json {
        let bound = json!([self.ring.lineage().to_string(), self.scope, self.context]);
        let digest = Sha256::digest(bound.to_string());
        json!({ "keyring": self.ring.lineage().to_string(), "binding": HEXLOWER.encode(&digest) })
    }

    /// Lets go of all handles: what is bound from now on is under the keys that seal now, in the states that they have now.
    pub(crate) fn forget(&mut self) {
        self.held.clear();
    }

    /// How many fields there are.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The name of a field.
    pub(crate) fn name(&self, field: usize) -> &str {
        &self.fields[field].0
    }

    /// The column of a field.
    pub(crate) fn column(&self, field: usize) -> usize {
        self.fields[field].1
    }

    /// The name of the column of a field.
    pub(crate) fn column_name(&self, field: usize) -> &str {
        &self.columns[field]
    }

    /// Whether all rows are under the keys of one scope.
    pub(crate) const fn is_one_scope(&self) -> bool {
        self.scope_column.is_none()
    }

    /// The handles of all rows, where these are under one scope and context as far as keys go.
    ///
    /// # Errors
    ///
    /// Those of acquiring keys.
    pub(crate) fn of_scope(&self) -> Result<Vec<Resealer>, Failure> {
        let context: Vec<(String, String)> = self
            .context
            .iter()
            .cloned()
            .chain(self.context_columns.iter().map(|(key, _)| (key.clone(), String::new())))
            .collect();
        Ok(self.handles(self.scope.as_deref(), &context)?)
    }

    /// The row with the handles of its scope and context.
    ///
    /// # Errors
    ///
    /// Of the row: its scope or context is missing or unknown. Of the run: a key could not be acquired.
    pub(crate) fn bind<'r>(&mut self, row: &'r Row) -> Result<BoundRow<'r>, Trouble> {
        let mut names = Vec::new();
        for column in self.scope_column.iter().chain(self.context_columns.iter().map(|(_, column)| column)) {
            let Cell::Text(text) = &row.cells[*column] else {
                let why = "the column that names the scope or a context value of the row is null or not text";
                return Err(Error::new(ErrorKind::InvalidInput, why).into());
            };
            names.push(text.to_string());
        }
        if let Some(ciphers) = self.held.get(&names) {
            return Ok(BoundRow { row, ciphers: Rc::clone(ciphers) });
        }
        let mut values = names.iter();
        let scope = if self.scope_column.is_some() { values.next() } else { self.scope.as_ref() };
        if let (Some(scope), false) = (scope, self.make_scopes)
            && !pollster::block_on(self.ring.has_scope(scope)).map_err(Trouble::from)?
        {
            return Err(Error::new(ErrorKind::NoMatchingKey, "the keyring has no scope of this name").into());
        }
        let columns = self.context_columns.iter().zip(values).map(|((key, _), value)| (key.clone(), value.clone()));
        let context: Vec<(String, String)> = self.context.iter().cloned().chain(columns).collect();
        let ciphers = Rc::new(self.handles(scope.map(String::as_str), &context).map_err(Trouble::from)?);
        if self.held.len() == MAX_HELD {
            self.held.clear();
        }
        self.held.insert(names, Rc::clone(&ciphers));
        Ok(BoundRow { row, ciphers })
    }

    fn handles(&self, scope: Option<&str>, context: &[(String, String)]) -> Result<Vec<Resealer>, Error> {
        let bound = context.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value))?;
        let handle = |name: &str| {
            let field = self.ring.field(name)?.context(bound.clone());
            pollster::block_on(Resealer::new(match scope {
                Some(scope) => field.scope(scope),
                None => field,
            }))
        };
        self.fields.iter().map(|(name, _, _)| handle(name)).collect()
    }

    /// What the value of a field in this row is bound to.
    ///
    /// # Errors
    ///
    /// Of the row: the identifier is missing, or does not open. Of the run: its key could not be acquired.
    pub(crate) fn row_of(&self, bound: &BoundRow<'_>, field: usize) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
        let missing =
            || Error::new(ErrorKind::InvalidInput, "the identifier that the value is bound to is missing in its row");
        let identifier = match self.fields[field].2 {
            RowSource::None => return Ok(None),
            RowSource::Clear(column) => Zeroizing::new(bound.row.cells[column].as_bytes().unwrap_or_default().to_vec()),
            RowSource::Sealed(other) => {
                let cipher = &bound.ciphers[other];
                let cell = &bound.row.cells[self.column(other)];
                let stored = match Stored::of(cell, cipher.policy()) {
                    Err(error) if self.clear_rows && error.kind() == ErrorKind::Malformed => {
                        return Ok(Some(Zeroizing::new(cell.as_bytes().unwrap_or_default().to_vec())));
                    }
                    stored => stored?.ok_or_else(missing)?,
                };
                let opened = pollster::block_on(cipher.open(&stored.sealed, None))?;
                let text =
                    opened.value().to_text().map(|text| Zeroizing::new(text.into_owned())).ok_or_else(missing)?;
                let prefix = match &stored.form {
                    super::Form::Text(prefix) => prefix.as_str(),
                    super::Form::Binary => "",
                };
                Zeroizing::new([prefix.as_bytes(), text.as_bytes()].concat())
            }
        };
        if identifier.is_empty() {
            return Err(missing().into());
        }
        Ok(Some(identifier))
    }
}

/// The deterministic field of the policy whose column holds what the values of `field` are bound to, and that column.
///
/// # Errors
///
/// Neither the policy nor the command line names the column.
pub(crate) fn row_field(
    policy: &Policy,
    field: &FieldPolicy,
    binding: &Binding,
) -> Result<Option<(String, String)>, Failure> {
    let Some(column) = row_column(field, binding)? else { return Ok(None) };
    // The table may have another name for it than the policy.
    let of_policy = match &field.row_binding {
        RowBinding::Bound { column, .. } => column.as_deref(),
        _ => None,
    };
    let names = [Some(column), of_policy];
    let holds_it = |other: &&Arc<FieldPolicy>| {
        matches!(other.mode, FieldMode::Deterministic { .. })
            && other.columns.iter().any(|name| names.contains(&Some(name.as_str())))
    };
    let mut others = policy.fields().filter(|other| other.name != field.name);
    Ok(others.find(holds_it).map(|other| (other.name.clone(), column.to_owned())))
}

/// The column that the values of `field` are bound to.
fn row_column<'a>(field: &'a FieldPolicy, binding: &'a Binding) -> Result<Option<&'a str>, Failure> {
    match (&field.row_binding, &binding.row) {
        (RowBinding::None, _) => Ok(None),
        (_, Some(row)) => Ok(Some(row)),
        (RowBinding::Bound { column: Some(column), .. }, None) => Ok(Some(column)),
        _ => {
            let why = format!("field {}: its row_binding names no column; --row does", field.name);
            Err(Failure::new(Exit::Policy, why))
        }
    }
}
