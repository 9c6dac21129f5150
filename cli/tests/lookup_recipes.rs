//! The SQL of docs/LOOKUP.md, as it stands there: schema, insert, look-up by number and by start, a number once, stale rows.

use crate::common::{self, World};
use crate::tables::{Database, databases};
use keyfold::{Decryptor, Encryptor, Indexer, Keyring, Token, Value};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor, Row};
use std::collections::BTreeMap;
use std::fs;

/// The statements of a database, by name.
fn recipes(tag: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(common::repository("docs/LOOKUP.md")).expect("the document");
    let of = |block: &str| {
        let (name, sql) = block.strip_prefix(&format!("sql {tag} "))?.split_once('\n')?;
        Some((name.to_owned(), sql.to_owned()))
    };
    text.split("```").skip(1).step_by(2).filter_map(of).collect()
}

/// The policy of the document.
fn policy() -> String {
    let text = fs::read_to_string(common::repository("docs/LOOKUP.md")).expect("the document");
    let block = text.split("```toml\n").nth(1).and_then(|block| block.split("```").next());
    block.expect("a policy").to_owned()
}

/// A parameter of a statement.
#[derive(Clone)]
enum Bound {
    Integer(i64),
    Small(i64),
    Text(String),
    Bytes(Vec<u8>),
    /// Tokens, in PostgreSQL as `bigint[]`.
    List(Vec<i64>),
    /// As `smallint[]`.
    Smalls(Vec<i64>),
}

struct Store {
    recipes: BTreeMap<String, String>,
    backend: Backend,
}

enum Backend {
    Sqlite(rusqlite::Connection),
    Postgres(tokio::runtime::Runtime, PgConnection),
}

impl Store {
    fn new(database: &Database) -> Self {
        if let Some(file) = database.uri.strip_prefix("sqlite:") {
            let backend = Backend::Sqlite(rusqlite::Connection::open(file).expect("opened"));
            return Self { recipes: recipes("sqlite"), backend };
        }
        let (uri, query) = database.uri.split_once('?').expect("options");
        let ca = query.split('&').find_map(|option| option.strip_prefix("sslrootcert=")).expect("a CA");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(async {
            let options: PgConnectOptions = uri.parse().expect("a URI");
            let mut connection = options.ssl_root_cert(ca).connect().await.expect("connected");
            let path = format!("SET search_path = {}", database.schema);
            connection.execute(sqlx::raw_sql(&path)).await.expect("set");
            connection
        });
        Self { recipes: recipes("postgresql"), backend: Backend::Postgres(runtime, connection) }
    }

    /// Rows that a statement changes; `None`: a constraint refuses it.
    fn execute(&mut self, name: &str, bound: &[Bound]) -> Option<u64> {
        let sql = &self.recipes[name];
        match &mut self.backend {
            Backend::Sqlite(connection) => {
                let values = bound.iter().map(sqlite_value);
                connection.execute(sql, rusqlite::params_from_iter(values)).ok().map(|rows| rows as u64)
            }
            Backend::Postgres(runtime, connection) => {
                let query = bind(sqlx::query(sql), bound);
                runtime.block_on(query.execute(connection)).ok().map(|done| done.rows_affected())
            }
        }
    }

    /// Pairs of a text, or number as text, and bytes.
    fn select(&mut self, name: &str, bound: &[Bound]) -> Vec<(String, Vec<u8>)> {
        let sql = &self.recipes[name];
        let is_wide = !name.starts_with("stale");
        match &mut self.backend {
            Backend::Sqlite(connection) => {
                let mut statement = connection.prepare(sql).expect("a statement");
                let rows = statement.query_map(rusqlite::params_from_iter(bound.iter().map(sqlite_value)), |row| {
                    Ok(if is_wide {
                        (row.get(0)?, row.get(1)?)
                    } else {
                        (row.get::<_, i64>(0)?.to_string(), Vec::new())
                    })
                });
                rows.expect("rows").collect::<Result<_, _>>().expect("rows")
            }
            Backend::Postgres(runtime, connection) => {
                let rows = runtime.block_on(bind(sqlx::query(sql), bound).fetch_all(connection)).expect("rows");
                let read = |row: &sqlx::postgres::PgRow| match is_wide {
                    true => (row.get(0), row.get(1)),
                    false => (row.get::<i64, _>(0).to_string(), Vec::new()),
                };
                rows.iter().map(read).collect()
            }
        }
    }
}

fn sqlite_value(bound: &Bound) -> rusqlite::types::Value {
    match bound.clone() {
        Bound::Integer(number) | Bound::Small(number) => number.into(),
        Bound::Text(text) => text.into(),
        Bound::Bytes(bytes) => bytes.into(),
        Bound::List(tokens) | Bound::Smalls(tokens) => serde_json::json!(tokens).to_string().into(),
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind<'q>(query: Query<'q>, bound: &[Bound]) -> Query<'q> {
    let small = |number: i64| i16::try_from(number).expect("few bits");
    bound.iter().fold(query, |query, bound| match bound.clone() {
        Bound::Integer(number) => query.bind(number),
        Bound::Small(number) => query.bind(small(number)),
        Bound::Text(text) => query.bind(text),
        Bound::Bytes(bytes) => query.bind(bytes),
        Bound::List(tokens) => query.bind(tokens),
        Bound::Smalls(tokens) => query.bind(tokens.into_iter().map(small).collect::<Vec<_>>()),
    })
}

fn numbers(tokens: &[Token]) -> Vec<i64> {
    let number = |token: &Token| match token {
        Token::Integer(number) => *number,
        Token::Bytes(_) => panic!("no index of the document has bytes"),
    };
    tokens.iter().map(number).collect()
}

/// The handles of a program that knows the policy.
struct Program {
    ssn: (Encryptor, Decryptor, Indexer),
    name: (Encryptor, Decryptor, Indexer, Indexer),
}

impl Program {
    fn new(world: &World) -> Self {
        let ring: Keyring = keyfold_open::open(&world.config(), &[world.path("policy.toml")]).expect("it opens");
        let seals = |field: &str| pollster::block_on(ring.field(field).expect("a field").encryptor()).expect("a key");
        let opens = |field: &str| pollster::block_on(ring.field(field).expect("a field").decryptor()).expect("a key");
        let index = |field: &str, name: &str| {
            pollster::block_on(ring.field(field).expect("a field").indexer(name)).expect("a key")
        };
        let (ssn, name) = ("patient.ssn", "patient.name");
        Self {
            ssn: (seals(ssn), opens(ssn), index(ssn, "lookup")),
            name: (seals(name), opens(name), index(name, "lookup"), index(name, "start")),
        }
    }

    fn insert(&self, store: &mut Store, id: i64, ssn: &str, name: &str) -> Option<u64> {
        let row = format!("patient-{id}");
        let seal = |cipher: &Encryptor, text| {
            Bound::Bytes(cipher.encrypt(Value::Text(text), Some(row.as_bytes())).expect("sealed"))
        };
        let of = |index: &Indexer, text| numbers(&index.tokens(Value::Text(text)).expect("tokens"));
        let starts = of(&self.name.3, name);
        let mut bound = vec![
            Bound::Integer(id),
            Bound::Text(row.clone()),
            seal(&self.ssn.0, ssn),
            Bound::Integer(of(&self.ssn.2, ssn)[0]),
            seal(&self.name.0, name),
            Bound::Small(of(&self.name.2, name)[0]),
        ];
        if let Backend::Sqlite(_) = store.backend {
            let done = store.execute("insert", &bound)?;
            store.execute("insert-start", &[Bound::Integer(id), Bound::List(starts)]).expect("its starts");
            return Some(done);
        }
        bound.push(Bound::Smalls(starts));
        store.execute("insert", &bound)
    }

    fn insert_once(&self, store: &mut Store, id: i64, ssn: &str) -> u64 {
        let row = format!("patient-{id}");
        let sealed = self.ssn.0.encrypt(Value::Text(ssn), Some(row.as_bytes())).expect("sealed");
        let stored = numbers(&self.ssn.2.tokens(Value::Text(ssn)).expect("tokens"))[0];
        let wanted = Bound::List(numbers(&self.ssn.2.search_tokens(Value::Text(ssn)).expect("tokens")));
        let is_postgres = matches!(store.backend, Backend::Postgres(..));
        if is_postgres {
            store.execute("lock", std::slice::from_ref(&wanted)).expect("a lock");
        }
        let bound = [Bound::Integer(id), Bound::Text(row), Bound::Bytes(sealed), Bound::Integer(stored), wanted];
        store.execute("insert-once", &bound).expect("no constraint is violated")
    }

    /// Patients with the number, spelled in any way.
    fn by_number(&self, store: &mut Store, number: &str) -> Vec<String> {
        let wanted = numbers(&self.ssn.2.search_tokens(Value::Text(number)).expect("tokens"));
        let rows = store.select("find", &[Bound::List(wanted)]);
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        chosen(&self.ssn.1, rows, |text| digits(text) == digits(number))
    }

    /// Patients whose name starts so.
    fn by_start(&self, store: &mut Store, start: &str) -> Vec<String> {
        let wanted = numbers(&self.name.3.search_tokens(Value::Text(start)).expect("tokens"));
        let wanted = if let Backend::Sqlite(_) = store.backend { Bound::List(wanted) } else { Bound::Smalls(wanted) };
        let rows = store.select("find-start", &[wanted]);
        chosen(&self.name.1, rows, |text| text.to_lowercase().starts_with(&start.to_lowercase()))
    }
}

/// Opens what was found, and compares.
fn chosen(decryptor: &Decryptor, rows: Vec<(String, Vec<u8>)>, is_right: impl Fn(&str) -> bool) -> Vec<String> {
    let sealed: Vec<&[u8]> = rows.iter().map(|(_, sealed)| &sealed[..]).collect();
    pollster::block_on(decryptor.load_keys(&sealed[..])).expect("keys");
    let is_right = |(row, sealed): &&(String, Vec<u8>)| {
        let opened = decryptor.decrypt(sealed, Some(row.as_bytes())).expect("it opens");
        matches!(opened.value(), Value::Text(text) if is_right(text))
    };
    let mut found: Vec<String> = rows.iter().filter(is_right).map(|(row, _)| row.clone()).collect();
    found.sort_unstable();
    found
}

/// What the document says of tables of texts.
fn of_texts(schema: &str, is_postgres: bool) -> String {
    let changes = match is_postgres {
        true => [("ssn bytea", "ssn text"), ("name bytea", "name text"), ("substr(ssn, 3, 4)", "substr(ssn, 7, 8)")],
        false => [
            ("ssn BLOB CHECK (typeof(ssn) IN ('blob', 'null'))", "ssn TEXT"),
            ("name BLOB", "name TEXT"),
            ("substr(ssn, 3, 4)", "substr(ssn, 7, 8)"),
        ],
    };
    changes.iter().fold(schema.to_owned(), |schema, (from, to)| {
        assert!(schema.contains(from), "{from}");
        schema.replace(from, to)
    })
}

#[test]
fn what_protect_wrote_is_loaded_and_its_stale_rows_are_found() {
    for database in databases() {
        let world = World::new();
        world.write("policy.toml", policy());
        let names = ["Meyer", "Meyerhoff", "Ångström", ""];
        let rows: String = (0..12).map(|id| format!("p-{id},{:03}-45-6789,{}\n", 100 + id, names[id % 4])).collect();
        world.write("in.csv", format!("patient_id,ssn,name\n{rows}"));
        world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
        let text = world.text("sealed.csv");
        // The list alone is quoted.
        let cells = |line: &str| -> Vec<String> {
            let parts: Vec<&str> = line.split('"').collect();
            let of = |(at, part): (usize, &&str)| match at {
                1 => vec![(*part).to_owned()],
                _ => part.trim_matches(',').split(',').map(str::to_owned).collect(),
            };
            if parts.len() == 1 {
                return line.split(',').map(str::to_owned).collect();
            }
            parts.iter().enumerate().flat_map(of).collect()
        };
        let mut lines = text.lines().map(cells);
        let header = lines.next().expect("a header");
        assert_eq!(header, ["patient_id", "ssn", "name", "name_index", "name_start", "ssn_index"]);
        let mut store = Store::new(&database);
        let schema = of_texts(&store.recipes["schema"], database.is_postgres());
        let id = if database.is_postgres() { "id SERIAL, " } else { "" };
        database.sql(&format!("{schema}; CREATE TABLE staged ({id}{} TEXT)", header.join(" TEXT, ")));
        for row in lines {
            let values: Vec<String> = row.iter().map(|cell| format!("'{cell}'")).collect();
            database.sql(&format!("INSERT INTO staged ({}) VALUES ({})", header.join(", "), values.join(", ")));
        }
        match &mut store.backend {
            Backend::Sqlite(connection) => connection.execute_batch(&store.recipes["load"]).expect("loaded"),
            Backend::Postgres(..) => database.sql(
                "INSERT INTO patients (id, patient_id, ssn, ssn_index, name, name_index, name_start) SELECT id, patient_id, ssn, \
                 ssn_index::bigint, nullif(name, ''), nullif(name_index, '')::smallint, nullif(name_start, '')::smallint[] FROM staged",
            ),
        }
        // All of it is what a program would have written.
        let config = world.config();
        let backfill = |field: &str, from: &str, index: &str| {
            let table = ["index", "backfill", "--sql", &database.uri, "--table", "patients", "--key", "id", "--verify"];
            let field = ["--field", field, "--from", from, "--index", index, "--json"];
            let own = ["--config", common::argument(&config), "--policy", "policy.toml"];
            world.succeeds(&[&table[..], &field, &own].concat()).summary()["right"].clone()
        };
        assert_eq!(backfill("patient.ssn", "ssn", "lookup"), 12);
        assert_eq!(backfill("patient.name", "name", "lookup"), 12);
        let program = Program::new(&world);
        let wanted = numbers(&program.name.3.search_tokens(Value::Text("Meyerh")).expect("tokens"));
        let of_start = match &mut store.backend {
            Backend::Sqlite(connection) => {
                let mut statement = connection.prepare(&store.recipes["find-start"]).expect("a statement");
                let rows = statement.query_map([serde_json::json!(wanted).to_string()], |row| row.get(0));
                rows.expect("rows").collect::<Result<Vec<String>, _>>().expect("rows")
            }
            Backend::Postgres(..) => ["p-1", "p-5", "p-9"].map(str::to_owned).to_vec(),
        };
        assert!(["p-1", "p-5", "p-9"].iter().all(|patient| of_start.iter().any(|found| found == patient)));
        // A new data key.
        world.succeeds(&["keys", "rotate"]);
        let sealed = Program::new(&world).ssn.0.encrypt(Value::Text("999-45-6789"), Some(b"p-99")).expect("sealed");
        let text = keyfold::wire::SealedValue::from_bytes(sealed.clone()).expect("a value").to_text();
        database.sql(&format!("INSERT INTO patients (id, patient_id, ssn) VALUES (99, 'p-99', '{text}')"));
        let generation = data_encoding::HEXLOWER.encode(&sealed[2..6]);
        assert_eq!(store.select("stale-text", &[Bound::Text(generation)]).len(), 12);
        assert_eq!(store.select("stale-text", &[Bound::Text("00000000".to_owned())]).len(), 0);
    }
}

#[test]
fn the_recipes_of_the_document_do_what_they_say() {
    for database in databases() {
        let world = World::new();
        world.write("policy.toml", policy());
        let mut store = Store::new(&database);
        database.sql(&store.recipes["schema"]);
        let program = Program::new(&world);
        // So many that some share a token of four bits.
        let names = ["Meyer", "Meyerhoff", "MEYNERT", "Ångström", "Øre", "Li"];
        for id in 0..60 {
            let name = format!("{}{}", names[id as usize % 6], if id < 6 { String::new() } else { format!(" {id}") });
            assert_eq!(program.insert(&mut store, id, &format!("{:03}-45-6789", id), &name), Some(1));
        }
        assert_eq!(program.by_number(&mut store, "007 45 6789"), ["patient-7"]);
        assert_eq!(program.by_number(&mut store, "999456789"), Vec::<String>::new());
        let starts = |store: &mut Store, start: &str| program.by_start(store, start).len();
        assert_eq!((starts(&mut store, "mey"), starts(&mut store, "Meyerh"), starts(&mut store, "ången")), (30, 10, 0));
        assert_eq!(starts(&mut store, "ÅNG"), 10);

        // A number is there once.
        assert_eq!(program.insert(&mut store, 100, "007456789", "Other"), None);
        assert_eq!(program.insert_once(&mut store, 100, "007456789"), 0);
        assert_eq!(program.insert_once(&mut store, 100, "100-45-6789"), 1);

        // A new data key: the rows before it are the stale ones.
        world.succeeds(&["keys", "rotate"]);
        let program = Program::new(&world);
        assert_eq!(program.insert(&mut store, 101, "101-45-6789", "Other"), Some(1));
        let row = store.select(
            "find",
            &[Bound::List(numbers(&program.ssn.2.search_tokens(Value::Text("101456789")).expect("tokens")))],
        );
        let generation = Bound::Bytes(row[0].1[2..6].to_vec());
        let stale = store.select("stale", &[generation]);
        assert_eq!(stale.len(), 61);
        assert!(stale.iter().all(|(id, _)| id != "101"));

        // A new look-up key: the same number has two tokens, and is there once all the same.
        let run = world.succeeds(&["keys", "rotate", "--partition", "default", "--json"]);
        let json = run.json_lines().remove(0);
        let section = |name: &str| json[name].as_str().expect("a section").to_owned();
        let config = fs::read_to_string(world.config()).expect("a configuration");
        let published = section("publish");
        let old = format!("{}opens = []", &published[..published.find("opens").expect("a key")]);
        fs::write(world.config(), config.replace(&old, &section("seal"))).expect("written");
        let after = Program::new(&world);
        assert_eq!(after.ssn.2.key_ids().len(), 2);
        assert_eq!(after.by_number(&mut store, "007 45 6789"), ["patient-7"]);
        assert_eq!(after.insert_once(&mut store, 102, "007456789"), 0);
        assert_eq!(after.insert(&mut store, 102, "007456789", "Twice"), Some(1), "the constraint alone does not do");

        // Prefix tokens in a table of their own are made anew by way of a column.
        let Backend::Sqlite(_) = store.backend else { continue };
        let config_file = world.config();
        let table = ["--sql", &database.uri, "--table", "patients", "--key", "id", "--row", "patient_id"];
        let field = ["--field", "patient.name", "--from", "name", "--index", "start", "--policy", "policy.toml"];
        let backfill =
            [&["index", "backfill", "--config", common::argument(&config_file)], &table[..], &field].concat();
        let batch = |store: &mut Store, name: &str| {
            let sql = store.recipes[name].clone();
            let Backend::Sqlite(connection) = &mut store.backend else { panic!("SQLite") };
            connection.execute_batch(&sql).expect(name);
        };
        batch(&mut store, "starts-column");
        world.succeeds(&backfill);
        batch(&mut store, "starts");
        world.succeeds(&[&backfill[..], &["--verify"]].concat());
        let config = fs::read_to_string(world.config()).expect("a configuration");
        fs::write(world.config(), config.replace(&section("seal"), &section("retire"))).expect("written");
        let retired = Program::new(&world);
        let starts = |store: &mut Store, start: &str| retired.by_start(store, start).len();
        assert_eq!((starts(&mut store, "mey"), starts(&mut store, "Meyerh"), starts(&mut store, "ÅNG")), (30, 10, 10));
        assert_eq!(starts(&mut store, "twi"), 1);
        batch(&mut store, "starts-end");
        assert_eq!(starts(&mut store, "mey"), 30);
    }
}
