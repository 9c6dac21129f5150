//! One process of the soak test, which tools/soak.py starts, kills and watches:
//!
//!     soak init FOLDER URI...     makes a keyring whose KEKs have these URIs
//!     soak work FOLDER NAME       seals, opens, rotates, reparents, rewraps and reloads until it is killed
//!     soak verify FOLDER          opens every value that any process has acknowledged
//!
//! A value is acknowledged when its line is in the file `sealed-NAME`, whole: kind, scope, number, sealed parts in hexadecimal, full stop.
//! What was sealed follows from the number.
//! Key service, store and system may fail at any time; an error that says something else than this is printed as `unexpected`.

use data_encoding::HEXLOWER;
use keyfold::wire::{DocumentHeader, MANIFEST_LEN, STREAM_HEADER_LEN, StreamHeader};
use keyfold::{
    ColumnBytes, DocumentBody, DocumentValue, Error, ErrorKind, KekAlias, Keyring, KmsErrorKind, Result, RewrapOptions,
    RowError, Value,
};
use keyfold_open::NewKeyring;
use pollster::block_on;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Keys are few beside what is held, so that memory stops growing soon; and they are confirmed often.
const CONFIG: &str = "
[cache]
max_age = '10s'
check_every = '1s'
grace = '10m'
max_keys = 64
[rotation]
data_age = 'never'
root_age = 'never'
";
const POLICY: &str = "
version = 1
[fields.note]
row_binding = 'none'
columns = ['note']
[fields.name]
mode = 'document'
paths = ['$.name', '$.address']
[documents.patient]
row_binding = 'none'
[fields.image]
mode = 'stream'
row_binding = 'none'
";
const SCOPES: [&str; 4] = ["ward-1", "ward-2", "ward-3", "ward-4"];
const PATHS: [&str; 2] = ["$['name']", "$['address']"];
const ROWS: usize = 16;
/// A chunk and a part of one.
const STREAM_LEN: usize = 20_000;
/// Between two operations, so that processes and machine have time for all else.
const PAUSE: Duration = Duration::from_millis(20);
const REFRESH_EVERY: Duration = Duration::from_secs(2);
const REPORT_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Kind {
    Field,
    Column,
    Document,
    Stream,
}

impl Kind {
    const ALL: [(Self, &str); 4] =
        [(Self::Field, "field"), (Self::Column, "column"), (Self::Document, "document"), (Self::Stream, "stream")];

    fn draw() -> Self {
        // Streams are long.
        match below(20) {
            0..12 => Self::Field,
            12..16 => Self::Column,
            16..19 => Self::Document,
            _ => Self::Stream,
        }
    }

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What was sealed under this number.
fn text(number: u64, part: usize) -> String {
    format!("patient {number}, part {part}")
}

fn image(number: u64) -> Vec<u8> {
    text(number, 0).bytes().cycle().take(STREAM_LEN).collect()
}

fn of_row(error: RowError) -> Error {
    error.error
}

async fn seal(ring: &Keyring, kind: Kind, scope: &str, number: u64) -> Result<Vec<Vec<u8>>> {
    let texts: Vec<String> = (0..ROWS).map(|part| text(number, part)).collect();
    Ok(match kind {
        Kind::Field => {
            vec![ring.field("note")?.scope(scope).encryptor().await?.encrypt(Value::Text(&texts[0]), None)?]
        }
        Kind::Column => {
            let values: Vec<_> = texts.iter().map(|text| Value::Text(text)).collect();
            let encryptor = ring.field("note")?.scope(scope).encryptor().await?;
            let column = encryptor.encrypt_parts(&values[..], None::<&[&[u8]]>).await.map_err(of_row)?;
            (0..ROWS).map(|row| column.bytes(row).to_vec()).collect()
        }
        Kind::Document => {
            let value =
                |part: usize| DocumentValue { field: "name", path: PATHS[part], value: Value::Text(&texts[part]) };
            let sealer = ring.documents("patient")?.scope(scope).sealer().await?;
            let sealed = sealer.seal(None, &[value(0), value(1)], &[], number)?;
            let bodies = (0..PATHS.len()).map(|part| sealed.bodies.bytes(part).to_vec());
            let manifest = sealed.manifest.ok_or(ErrorKind::Internal)?;
            [sealed.header.as_bytes().to_vec(), manifest.to_vec()].into_iter().chain(bodies).collect()
        }
        Kind::Stream => {
            let mut stream = ring.field("image")?.scope(scope).stream_sealer().await?.begin(None)?;
            let mut sealed = stream.header().as_bytes().to_vec();
            stream.update(&image(number), &mut sealed)?;
            stream.finish(&mut sealed)?;
            vec![sealed]
        }
    })
}

/// Opens what [`seal`] made; says whether it is what was sealed.
async fn open(ring: &Keyring, item: &Item) -> Result<bool> {
    let texts: Vec<String> = (0..ROWS).map(|part| text(item.number, part)).collect();
    let parts = &item.parts;
    let part = |i: usize| parts.get(i).map(Vec::as_slice).ok_or(ErrorKind::Malformed);
    Ok(match item.kind {
        Kind::Field | Kind::Column => {
            let reader = ring.field("note")?.scope(&item.scope).decryptor().await?;
            reader.load_keys(&parts[..]).await.map_err(of_row)?;
            let opened = reader.decrypt_column(&parts[..], None::<&[&[u8]]>).map_err(of_row)?;
            let rows = if matches!(item.kind, Kind::Field) { 1 } else { ROWS };
            opened.len() == rows && (0..rows).all(|row| opened.value(row) == Value::Text(&texts[row]))
        }
        Kind::Document => {
            let header = DocumentHeader::parse(part(0)?)?;
            let manifest: &[u8; MANIFEST_LEN] = part(1)?.try_into().map_err(|_| ErrorKind::Malformed)?;
            let reader = ring.documents("patient")?.scope(&item.scope).opener().await?;
            reader.load_key(&header).await?;
            let body = |i: usize| Ok::<_, Error>(DocumentBody { field: "name", path: PATHS[i], body: part(i + 2)? });
            let opened = reader.open(&header, None, &[body(0)?, body(1)?], &[], Some(manifest))?;
            let values = opened.values();
            opened.sequence() == Some(item.number)
                && (0..PATHS.len()).all(|i| values.value(i) == Value::Text(&texts[i]))
        }
        Kind::Stream => {
            let header = StreamHeader::parse(part(0)?)?;
            let reader = ring.field("image")?.scope(&item.scope).stream_opener().await?;
            reader.load_key(&header).await?;
            let (mut stream, mut opened) = (reader.begin(&header, None)?, Vec::new());
            stream.update(&part(0)?[STREAM_HEADER_LEN..], &mut opened)?;
            stream.finish(&mut opened)?;
            opened == image(item.number)
        }
    })
}

/// A value that was acknowledged.
struct Item {
    kind: Kind,
    scope: String,
    number: u64,
    parts: Vec<Vec<u8>>,
}

impl Item {
    fn line(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|part| HEXLOWER.encode(part)).collect();
        format!("{} {} {} {} .\n", self.kind.name(), self.scope, self.number, parts.join(","))
    }

    /// `None`: it was cut off before it was whole.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix(" .\n")?.split(' ');
        let kind = words.next()?;
        let kind = Kind::ALL.iter().find(|(_, name)| *name == kind)?.0;
        let (scope, number, parts) = (words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?);
        let parts = parts.split(',').map(|part| HEXLOWER.decode(part.as_bytes()).ok()).collect::<Option<_>>()?;
        Some(Self { kind, scope, number, parts })
    }
}

/// From 0 to less than `end`.
fn below(end: u64) -> u64 {
    getrandom::u64().expect("the system has random numbers") % end
}

fn ledgers(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let is_ledger = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sealed-"));
    files.filter(|path| path.as_ref().map_or(true, is_ledger)).collect()
}

/// Any value of any process, old or new.
fn pick(folder: &Path) -> io::Result<Option<Item>> {
    let files = ledgers(folder)?;
    let Some(path) = files.get(usize::try_from(below(files.len().max(1) as u64)).unwrap_or(0)) else { return Ok(None) };
    let mut file = File::open(path)?;
    let at = below(file.metadata()?.len().max(1));
    file.seek(SeekFrom::Start(at))?;
    let (mut lines, mut line) = (BufReader::new(file), String::new());
    lines.read_line(&mut line)?;
    line.clear();
    lines.read_line(&mut line)?;
    Ok(Item::parse(&line))
}

/// What a process has done, and how often what came in between.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn note<T>(&mut self, what: &'static str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.add(what);
                Some(value)
            }
            Err(error) => {
                use KmsErrorKind::{MalformedResponse, Throttled, Timeout, Unavailable};
                let is_fault = matches!(
                    error.kind(),
                    ErrorKind::Kms(Throttled | Timeout | Unavailable | MalformedResponse)
                        | ErrorKind::Store
                        | ErrorKind::Io
                        | ErrorKind::Conflict
                        | ErrorKind::DeadlineExceeded
                );
                if !is_fault {
                    println!("unexpected {what}: {error}");
                }
                self.add(error.kind().name());
                None
            }
        }
    }
}

struct Worker {
    folder: PathBuf,
    ring: Keyring,
    ledger: File,
    /// The last line was cut off: what follows begins a new one.
    torn: bool,
    tally: Tally,
    plant: Option<String>,
}

impl Worker {
    fn config(&self) -> (PathBuf, [PathBuf; 1]) {
        (self.folder.join("keyfold.toml"), [self.folder.join("policy.toml")])
    }

    fn seal(&mut self) {
        let (kind, number) = (Kind::draw(), below(1 << 48));
        let scope = SCOPES[usize::try_from(below(4)).unwrap_or(0)];
        let sealed = block_on(seal(&self.ring, kind, scope, number));
        let Some(parts) = self.tally.note("sealed", sealed) else { return };
        let mut item = Item { kind, scope: scope.to_owned(), number, parts };
        self.fail_on_purpose(&mut item);
        let line = if self.torn { format!("\n{}", item.line()) } else { item.line() };
        // One call: a line that is there to its end was acknowledged.
        match self.ledger.write(line.as_bytes()) {
            Ok(written) if written == line.len() => {
                self.torn = false;
                self.tally.add("acknowledged");
            }
            Ok(_) => self.torn = true,
            Err(_) => self.tally.add("Io"),
        }
    }

    /// What tools/soak.py must find.
    fn fail_on_purpose(&self, item: &mut Item) {
        match self.plant.as_deref() {
            Some("memory") => std::mem::forget(vec![1_u8; 4096]),
            Some("descriptors") if below(100) == 0 => std::mem::forget(File::open("/dev/null")),
            Some("loss") if below(1000) == 0 => *item.parts[0].last_mut().expect("a sealed part") ^= 1,
            _ => {}
        }
    }

    fn open(&mut self) {
        let Ok(picked) = pick(&self.folder) else { return self.tally.add("Io") };
        let Some(item) = picked else { return };
        let opened = block_on(open(&self.ring, &item));
        if self.tally.note("opened", opened) == Some(false) {
            println!("unexpected opened: another value than was sealed");
        }
    }

    fn rotate(&mut self) {
        let scope = SCOPES[usize::try_from(below(4)).unwrap_or(0)];
        let rotated = block_on(self.ring.rotate_data_key(Some(scope)));
        self.tally.note("rotated", rotated);
    }

    /// Another root, its pin in the configuration, and every key under it.
    fn change_root(&mut self) {
        let rotated = block_on(self.ring.rotate_root());
        let Some(rotated) = self.tally.note("roots", rotated) else { return };
        let pinned =
            self.pin(rotated.new.commitment()).map_err(|error| Error::new(ErrorKind::Io, "pin").with_source(error));
        if self.tally.note("pinned", pinned).is_some() {
            self.reload();
            self.reparent();
        }
    }

    fn pin(&self, pin: &[u8; 32]) -> io::Result<()> {
        let (path, new) = (self.config().0, self.folder.join(format!("keyfold.toml.{}", std::process::id())));
        let text = fs::read_to_string(&path)?;
        fs::write(&new, text.replace("root_pins = [", &format!("root_pins = [\"{}\", ", HEXLOWER.encode(pin))))?;
        fs::rename(new, path)
    }

    fn reparent(&mut self) {
        let walk = async {
            let mut walk = self.ring.reparent().await?;
            while !walk.step(100).await?.done {}
            Ok(())
        };
        let done = block_on(walk);
        self.tally.note("reparented", done);
    }

    /// Makes the wraps that were missing because a KEK was away.
    fn rewrap(&mut self) {
        let walk = async {
            let mut walk = self.ring.rewrap(RewrapOptions::default()).await?;
            while !walk.step(100).await?.done {}
            Ok(())
        };
        let done = block_on(walk);
        self.tally.note("rewrapped", done);
    }

    fn reload(&mut self) {
        let (config, policy) = self.config();
        let done = keyfold_open::reload(&self.ring, &config, &policy);
        self.tally.note("reloaded", done);
    }

    fn refresh(&mut self) {
        let done = block_on(self.ring.refresh());
        self.tally.note("refreshed", done);
    }

    fn work(mut self) -> ! {
        let (mut refreshed, mut reported) = (Instant::now(), Instant::now());
        loop {
            match below(8000) {
                0..32 => self.rotate(),
                32 => self.change_root(),
                33..43 => self.reparent(),
                43..53 => self.rewrap(),
                53..93 => self.reload(),
                93..4000 => self.seal(),
                _ => self.open(),
            }
            if refreshed.elapsed() > REFRESH_EVERY {
                self.refresh();
                refreshed = Instant::now();
            }
            if reported.elapsed() > REPORT_EVERY {
                let counts: Vec<String> = self.tally.0.iter().map(|(what, count)| format!("{what}={count}")).collect();
                println!("did {}", counts.join(" "));
                reported = Instant::now();
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn init(folder: &Path, uris: &[String]) -> Result<()> {
    let named = uris.iter().enumerate().map(|(i, uri)| Ok((KekAlias::new(&format!("kek-{i}"))?, uri.clone())));
    let new = NewKeyring {
        name: "soak".to_owned(),
        environment: "test".to_owned(),
        keks: named.collect::<Result<_>>()?,
        ..NewKeyring::default()
    };
    let made = block_on(keyfold_open::init_with(folder, &new, &keyfold_open::Options::default()))?;
    let text = fs::read_to_string(&made.config).expect("just written");
    // One KEK is enough to make a root; `rewrap` makes what is missing.
    let text = text.replace("[keyring]\n", "[keyring]\nquorum = 1\n") + CONFIG;
    fs::write(&made.config, text).expect("a folder of ours");
    fs::write(folder.join("policy.toml"), POLICY).expect("a folder of ours");
    Ok(())
}

fn ring(folder: &Path) -> Result<Keyring> {
    keyfold_open::open(&folder.join("keyfold.toml"), &[folder.join("policy.toml")])
}

/// Opens everything; says whether nothing is lost.
fn verify(folder: &Path) -> Result<bool> {
    let (ring, mut opened, mut lost, mut torn) = (ring(folder)?, 0_u64, 0_u64, 0_u64);
    for path in ledgers(folder).expect("a folder of ours") {
        let mut lines = BufReader::new(File::open(path).expect("a file of ours"));
        let mut line = String::new();
        while lines.read_line(&mut line).expect("a file of ours") > 0 {
            match Item::parse(&line) {
                None => torn += u64::from(line != "\n"),
                Some(item) => match block_on(open(&ring, &item)) {
                    Ok(true) => opened += 1,
                    result => {
                        lost += 1;
                        println!("lost: {} {} {}: {result:?}", item.kind.name(), item.scope, item.number);
                    }
                },
            }
            line.clear();
        }
    }
    let keys = block_on(ring.list(None, usize::MAX))?.len();
    println!("opened={opened} lost={lost} torn={torn} keys={keys}");
    Ok(lost == 0)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["init", folder, ..] if words.len() > 2 => init(Path::new(folder), &arguments[2..]).map(|()| true),
        ["work", folder, name] => {
            let folder = PathBuf::from(folder);
            let ledger = OpenOptions::new().create(true).append(true).open(folder.join(format!("sealed-{name}")));
            let (ledger, plant) = (ledger.expect("a folder of ours"), std::env::var("KEYFOLD_SOAK_PLANT").ok());
            // A process that was killed may have left half of a line.
            let worker =
                |ring| Worker { folder: folder.clone(), ring, ledger, torn: true, tally: Tally::default(), plant };
            ring(&folder).map(|ring| worker(ring).work())
        }
        ["verify", folder] => verify(Path::new(folder)),
        _ => {
            eprintln!("soak init FOLDER URI... | work FOLDER NAME | verify FOLDER");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
