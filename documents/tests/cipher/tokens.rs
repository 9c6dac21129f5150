//! Identifiers that are random tokens: other values are bound to what they stand for.

use crate::{Lab, PROTECT};
use keyfold::{Decryptor, Error, ErrorKind, Field, FieldMode, OpenedColumn, RowError, Searcher, TokenForm};
use keyfold_documents::{Direction, FieldTokens, RowMap, TokenStore};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const POLICY: &str = r#"version = 1
[fields.id]
mode = "token"
partition = "default"
length = 11
keep_prefix = "Patient/"
paths = ["$.id", "$.subject.reference"]
[fields.name]
row_binding = { path = "$.id" }
optional = true
paths = ["$.name"]
"#;

const DOCUMENTS: &str = r#"[fields.birth]
mode = "document"
optional = true
paths = ["$.birthDate"]
[documents.all]
row_binding = "$.id"
"#;

/// A token and its sealed value.
type Row = (String, Vec<u8>);

#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<Row>>>);

impl Store {
    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for Store {
    fn of(&self, field: Field) -> Result<Box<dyn FieldTokens>, Error> {
        let FieldMode::Token { form, .. } = field.policy().mode else { panic!("a field without tokens") };
        let searcher = pollster::block_on(field.clone().searcher())?;
        Ok(Box::new(OfField { store: self.clone(), form, searcher, decryptor: pollster::block_on(field.decryptor())? }))
    }
}

/// Believes whatever the rows say: a table in a database has proofs besides.
struct OfField {
    store: Store,
    form: TokenForm,
    searcher: Searcher,
    decryptor: Decryptor,
}

impl FieldTokens for OfField {
    fn protect(&self, values: &[keyfold::Value<'_>]) -> Result<Vec<String>, RowError> {
        let at = RowError::at;
        pollster::block_on(self.searcher.ready())?;
        let mut rows = self.store.rows();
        let mut token = |(row, value): (usize, &keyfold::Value<'_>)| {
            let forms = self.searcher.ciphertexts(*value).map_err(at(row))?;
            if let Some((token, _)) = rows.iter().find(|(_, value)| forms.contains(value)) {
                return Ok(token.clone());
            }
            let token = self.form.draw().map_err(at(row))?;
            rows.push((token.clone(), forms[0].clone()));
            Ok(token)
        };
        values.iter().enumerate().map(&mut token).collect()
    }

    fn known(&self, values: &[keyfold::Value<'_>]) -> Result<Option<usize>, RowError> {
        let rows = self.store.rows();
        let is_token = |value: &keyfold::Value<'_>| {
            rows.iter().any(|(token, _)| value.to_text().is_some_and(|text| text == token.as_str()))
        };
        Ok(values.iter().position(is_token))
    }

    fn reveal(&self, tokens: &[&str]) -> Result<OpenedColumn, RowError> {
        let rows = self.store.rows();
        let value = |(row, token): (usize, &&str)| {
            let found = rows.iter().find(|(known, _)| known == token).map(|(_, value)| value.clone());
            found.ok_or_else(|| RowError::at(row)(Error::new(ErrorKind::InvalidInput, "no token")))
        };
        let sealed: Vec<Vec<u8>> = tokens.iter().enumerate().map(value).collect::<Result<_, _>>()?;
        pollster::block_on(self.decryptor.load_keys(&sealed[..]))?;
        self.decryptor.decrypt_column(&sealed[..], None::<&[&[u8]]>)
    }
}

fn lab(policy: &str) -> (Lab, Store) {
    let (mut lab, store) = (Lab::new(policy), Store::default());
    lab.tokens = Some(Arc::new(store.clone()));
    (lab, store)
}

fn patient(n: u8) -> String {
    json!({ "id": format!("p{n}"), "name": format!("N{n}"), "birthDate": "1970-01-01" }).to_string()
}

#[test]
fn values_are_bound_to_what_a_token_stands_for() {
    let (lab, store) = lab(&format!("{POLICY}{DOCUMENTS}"));
    let sealed = [1, 2].map(|n| serde_json::from_str::<Value>(&lab.returns(&patient(n))).expect("JSON"));
    let observation: Value =
        serde_json::from_str(&lab.returns(r#"{"id":"o","subject":{"reference":"Patient/p1"}}"#)).expect("JSON");
    let id = sealed[0]["id"].as_str().expect("a text");
    assert_eq!(id.len(), 11);
    assert_eq!(observation["subject"]["reference"], format!("Patient/{id}"));
    let mut moved = sealed[0].clone();
    moved["id"] = sealed[1]["id"].clone();
    lab.refuses(Direction::Reveal, &moved.to_string(), ErrorKind::DecryptionFailed, "");
    lab.refuses(
        Direction::Reveal,
        &moved.to_string().replace("\"id\":\"", "\"id\":\"?"),
        ErrorKind::InvalidInput,
        "no token",
    );
    // Nor by whoever can write the table: what is bound to the identifier does not open.
    {
        let mut rows = store.rows();
        let first = rows[0].1.clone();
        rows[0].1 = std::mem::replace(&mut rows[1].1, first);
    }
    lab.refuses(Direction::Reveal, &sealed[0].to_string(), ErrorKind::DecryptionFailed, "");
    let without = Lab::new(&format!("{POLICY}{DOCUMENTS}"));
    without.refuses(PROTECT, &patient(1), ErrorKind::PolicyRefused, "random tokens");
}

struct Map;

impl RowMap for Map {
    fn find(&self, from: &[u8]) -> Option<&str> {
        (from == b"p1").then_some("p2")
    }
}

#[test]
fn a_token_is_replaced_where_values_move_and_stays_where_they_are_sealed_again() {
    let (lab, _) = lab(POLICY);
    let sealed = [1, 2].map(|n| lab.returns(&patient(n)));
    let tokens = sealed.each_ref().map(|text| serde_json::from_str::<Value>(text).expect("JSON")["id"].clone());
    assert_eq!(lab.run(Direction::Reencrypt, &sealed[0]).expect("nothing is stale").0, sealed[0]);
    let cipher = lab.cipher(Direction::Rebind).expect("a cipher").moving("$.id", &Map);
    let moved = crate::run(&cipher, &sealed[0]).expect("moved").0;
    assert_eq!(serde_json::from_str::<Value>(&moved).expect("JSON")["id"], tokens[1]);
    assert_eq!(lab.reveal(&moved).expect("bound to its new row").0, patient(1).replace("p1", "p2"));
    assert_eq!(crate::run(&cipher, &sealed[1]).expect("not moved").0, sealed[1]);
}
