//! A hospital's table of patients in an SQLite file or a PostgreSQL database, and its keyring.
#![allow(dead_code, reason = "every test program uses a part of this")]

#[path = "../../../tables/tests/common/mod.rs"]
mod database;

pub(crate) use database::{Database, databases};

use super::common::{CANARY, Run, World, contains};
use keyfold::wire::{KeyId, Sealed, SealedValue};
use keyfold::{Context, Decryptor, Keyring, Value};
use keyfold_tables::{Cell, Row};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// `id`, the identifier of the patient that values are bound to, `ssn` in binary form, `name` in text form.
pub(crate) const COLUMNS: [&str; 3] = ["patient_id", "ssn", "name"];
/// Of the command, for both of them.
pub(crate) const FIELDS: [&str; 4] = ["--field", "patient.ssn=ssn", "--field", "patient.name=name"];

pub(crate) struct Hospital {
    pub(crate) world: World,
    pub(crate) database: Database,
}

/// The identifier of a patient.
pub(crate) fn patient(id: usize) -> String {
    format!("{CANARY}-id-{id}")
}

pub(crate) fn ssn(id: usize) -> String {
    format!("{CANARY}-ssn-{id}")
}

pub(crate) fn name(id: usize) -> String {
    format!("{CANARY} Änne {id}")
}

impl Hospital {
    pub(crate) fn new(database: Database) -> Self {
        let bytes = database.bytes();
        database.sql(&format!(
            "CREATE TABLE patients (id INTEGER NOT NULL PRIMARY KEY, patient_id TEXT, ssn {bytes}, name TEXT, clinic TEXT)"
        ));
        Self { world: World::new(), database }
    }

    pub(crate) fn ring(&self) -> Keyring {
        keyfold_open::open(&self.world.config(), &[self.world.path("policy.toml")]).expect("it opens")
    }

    /// Adds patients, sealed under the current key of `scope`.
    pub(crate) fn add(&self, ids: std::ops::Range<usize>, scope: Option<&str>) {
        let ring = self.ring();
        let handle = |name: &str| {
            let field = ring.field(name).expect("a field").context(Context::new());
            let field = if let Some(scope) = scope { field.scope(scope) } else { field };
            pollster::block_on(field.encryptor()).expect("a key")
        };
        let (ssns, names) = (handle("patient.ssn"), handle("patient.name"));
        for ids in ids.collect::<Vec<_>>().chunks(500) {
            let rows: Vec<String> = ids
                .iter()
                .map(|&id| {
                    let row = patient(id);
                    let sealed = ssns.encrypt(Value::Text(&ssn(id)), Some(row.as_bytes())).expect("sealed");
                    let text = names.encrypt(Value::Text(&name(id)), Some(row.as_bytes())).expect("sealed");
                    let text = SealedValue::from_bytes(text).expect("a value").to_text();
                    let sealed = self.database.literal(&data_encoding::HEXLOWER.encode(&sealed));
                    format!("({id}, '{row}', {sealed}, '{text}', '{}')", scope.unwrap_or_default())
                })
                .collect();
            self.database.sql(&format!("INSERT INTO patients VALUES {}", rows.join(", ")));
        }
    }

    pub(crate) fn rotate(&self, scope: Option<&str>) {
        let more: Vec<&str> = scope.map(|scope| vec!["--scope", scope]).unwrap_or_default();
        self.world.succeeds(&[&["keys", "rotate"], &more[..]].concat());
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.database.rows("patients", "id", &COLUMNS)
    }

    /// `keyfold COMMAND --sql … --table patients --key id …`
    pub(crate) fn run(&self, command: &str, more: &[&str]) -> Run {
        self.world.run(&self.arguments(command, more))
    }

    pub(crate) fn arguments<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&[command, "--sql", &self.database.uri, "--table", "patients", "--key", "id"], more].concat()
    }

    /// `keyfold reencrypt` of both columns.
    pub(crate) fn reencrypt(&self, more: &[&str]) -> Run {
        self.run("reencrypt", &[&FIELDS, more].concat())
    }

    /// Every value of the rows opens to what was sealed.
    #[track_caller]
    pub(crate) fn assert_open(&self, rows: &[Row], scope_of: impl Fn(usize) -> Option<String>) {
        let ring = self.ring();
        let mut readers: BTreeMap<(&str, Option<String>), Decryptor> = BTreeMap::new();
        for row in rows {
            let id: usize = row.key.to_text().parse().expect("a number");
            for (column, name, expected) in [(1, "patient.ssn", ssn(id)), (2, "patient.name", name(id))] {
                let scope = scope_of(id);
                let decryptor = readers.entry((name, scope.clone())).or_insert_with(|| {
                    let field = ring.field(name).expect("a field");
                    let field = if let Some(scope) = &scope { field.scope(scope) } else { field };
                    pollster::block_on(field.decryptor()).expect("a handle")
                });
                let sealed = sealed(&row.cells[column]);
                let opened = pollster::block_on(async {
                    decryptor.load_keys(&[&sealed[..]][..]).await?;
                    decryptor.decrypt(&sealed, row.cells[0].as_bytes())
                })
                .unwrap_or_else(|error| panic!("patient {id}: {error}"));
                assert!(opened.value() == Value::Text(&expected), "patient {id}");
            }
        }
    }

    /// None of the files that the command has written beside the data holds plaintext.
    #[track_caller]
    pub(crate) fn assert_silent(&self, files: &[&str]) {
        for file in files {
            assert!(!contains(&self.world.read(file), CANARY.as_bytes()), "plaintext in {file}");
        }
    }

    pub(crate) fn configuration(&self, change: impl FnOnce(String) -> String) {
        let path: PathBuf = self.world.config();
        let text = fs::read_to_string(&path).expect("a configuration");
        fs::write(&path, change(text)).expect("written");
    }
}

/// The binary form of a value, in whatever form it is stored.
pub(crate) fn sealed(cell: &Cell) -> Vec<u8> {
    match cell {
        Cell::Bytes(bytes) => bytes.to_vec(),
        Cell::Text(text) => SealedValue::from_text(text).expect("a sealed text").into_bytes(),
        Cell::Null => panic!("null"),
    }
}

pub(crate) fn key_id(cell: &Cell) -> KeyId {
    Sealed::parse(&sealed(cell)).expect("a sealed value").key_id()
}
