//! One peer in a process of its own: `../run.py` writes a line of work (`one N`, `column N`, `large N`, `threads N`), and gets a line of JSON.
//!
//! `keyfold-peers NAME`, with a name of `PEERS`. The numbers are those of `../worker.py`: nanoseconds of CPU time per value.

mod bare;
#[cfg(feature = "esdk")]
mod esdk;
mod ours;
mod tink;

use keyfold_benches::{AAD_LEN, VALUE_LEN};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const LARGE_LEN: usize = 1_000_000;

/// Something that seals values of bytes, each with an AAD of its own.
trait Peer {
    /// What is due before a key may be used further. Before each work, outside of the clock: it is so seldom.
    fn renew(&self) {}

    fn seal(&self, value: &[u8], aad: &[u8]) -> Vec<u8>;
    fn open(&self, sealed: &[u8], aad: &[u8]) -> Opened;

    /// One after the other, by default.
    fn seal_column(&self, rows: &Rows) -> Column {
        Column::Each(rows.each().map(|(value, aad)| self.seal(value, aad)).collect())
    }

    fn open_column(&self, sealed: &Column, rows: &Rows) -> Column {
        let Column::Each(sealed) = sealed else { unreachable!("seal_column makes no other") };
        Column::Opened(sealed.iter().zip(rows.each()).map(|(sealed, (_, aad))| self.open(sealed, aad)).collect())
    }

    /// Itself, if threads can share it.
    fn shared(&self) -> Option<&(dyn Peer + Sync)>;

    /// What binds a value to its row: the whole AAD, or what the peer makes its AAD of.
    fn aad(&self, row: usize) -> Vec<u8> {
        format!("{:84}row-{row:012}", r#"{"field":"patient.mrn","tenant":"clinic7"}"#).into_bytes()
    }
}

/// An opened value, as the peer has it.
enum Opened {
    Bytes(Vec<u8>),
    Keyfold(keyfold::Opened),
}

impl Opened {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Keyfold(opened) => match opened.value() {
                keyfold::Value::Bytes(bytes) => bytes,
                _ => unreachable!("bytes were sealed"),
            },
        }
    }
}

/// A column of values, sealed or opened.
enum Column {
    Each(Vec<Vec<u8>>),
    Opened(Vec<Opened>),
    /// All in one buffer, each as long as the next.
    Together(Vec<u8>),
    Keyfold(keyfold::SealedColumn),
    KeyfoldOpened(keyfold::OpenedColumn),
}

/// The input.
struct Rows {
    values: Vec<Vec<u8>>,
    aads: Vec<Vec<u8>>,
    arrow: keyfold_benches::Rows,
}

impl Rows {
    fn new(peer: &dyn Peer, n: usize) -> Self {
        let values = (0..n).map(|row| format!("MRN-{row:012}").into_bytes()).collect();
        Self { values, aads: (0..n).map(|row| peer.aad(row)).collect(), arrow: keyfold_benches::Rows::new(n) }
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().zip(&self.aads).map(|(value, aad)| (&value[..], &aad[..]))
    }

    fn require(&self, opened: &Column) {
        let same = match opened {
            Column::Opened(values) => values.iter().map(Opened::bytes).eq(self.values.iter().map(|value| &value[..])),
            Column::Together(values) => values.chunks(VALUE_LEN).eq(self.values.iter().map(|value| &value[..])),
            Column::KeyfoldOpened(column) => column.data() == self.values.concat(),
            Column::Each(_) | Column::Keyfold(_) => false,
        };
        assert!(same, "what was opened is not what was sealed");
    }
}

/// Bytes of a sealed column.
fn bytes(sealed: &Column) -> usize {
    use keyfold::ColumnBytes;
    match sealed {
        Column::Each(all) => all.iter().map(Vec::len).sum(),
        Column::Together(all) => all.len(),
        Column::Opened(_) | Column::KeyfoldOpened(_) => unreachable!("it is sealed"),
        Column::Keyfold(column) => (0..column.len()).map(|row| column.bytes(row).len()).sum(),
    }
}

fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("a process has used no negative time")
}

/// Nanoseconds of CPU time, and the result.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = cpu();
    let result = black_box(work());
    ((cpu() - start).as_nanos() as f64, result)
}

fn one(peer: &dyn Peer, n: usize) -> String {
    let rows = Rows::new(peer, n);
    let (sealing, sealed) = timed(|| rows.each().map(|(value, aad)| peer.seal(value, aad)).collect::<Vec<_>>());
    let (opening, opened) =
        timed(|| sealed.iter().zip(&rows.aads).map(|(sealed, aad)| peer.open(sealed, aad)).collect::<Vec<_>>());
    rows.require(&Column::Opened(opened));
    format!(r#"{{"seal": {}, "open": {}}}"#, sealing / n as f64, opening / n as f64)
}

fn column(peer: &dyn Peer, n: usize) -> String {
    let rows = Rows::new(peer, n);
    let (sealing, sealed) = timed(|| peer.seal_column(&rows));
    let (opening, opened) = timed(|| peer.open_column(&sealed, &rows));
    rows.require(&opened);
    let each = bytes(&sealed) as f64 / n as f64;
    format!(r#"{{"seal": {}, "open": {}, "bytes": {each}}}"#, sealing / n as f64, opening / n as f64)
}

fn large(peer: &dyn Peer, n: usize) -> String {
    let (value, aad) = (vec![7; LARGE_LEN], peer.aad(0));
    let (mut sealing, mut opening) = (0.0, 0.0);
    for _ in 0..n {
        let (took, sealed) = timed(|| peer.seal(&value, &aad));
        sealing += took;
        let (took, opened) = timed(|| peer.open(&sealed, &aad));
        opening += took;
        assert!(opened.bytes() == value, "what was opened is not what was sealed");
    }
    format!(r#"{{"seal": {}, "open": {}}}"#, sealing / n as f64, opening / n as f64)
}

/// What a second thread gains: wall time of one that seals a column, and of two that seal one each; CPU time per value of two to one.
fn threads(peer: &(dyn Peer + Sync), n: usize) -> String {
    let rows = Rows::new(peer, n);
    let run = |threads: usize| {
        let barrier = Barrier::new(threads + 1);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    barrier.wait();
                    black_box(peer.seal_column(&rows));
                });
            }
            let start = (Instant::now(), cpu());
            barrier.wait();
            start
        })
    };
    let [one, two] = [1, 2].map(|threads| {
        let (wall, used) = run(threads);
        (wall.elapsed().as_secs_f64(), (cpu() - used).as_secs_f64())
    });
    format!(r#"{{"gain": {}, "cpu": {}}}"#, 2.0 * one.0 / two.0, two.1 / one.1 / 2.0)
}

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let (setting, peer): (&str, Box<dyn Peer>) = match name.as_str() {
        "keyfold" => ("`encrypt_column`, `Encryptor::encrypt` for one value", Box::new(ours::Keyfold::new())),
        "ring" => ("`LessSafeKey`, in place; one buffer for a column", Box::new(bare::Bare(bare::ring()))),
        "aws_lc_rs" => ("`LessSafeKey`, in place; one buffer for a column", Box::new(bare::Bare(bare::aws_lc_rs()))),
        "rustcrypto" => ("`aes-gcm`, in place; one buffer for a column", Box::new(bare::Bare(bare::rustcrypto()))),
        "tink" => ("`AES256_GCM`", Box::new(tink::keyset())),
        "tink_envelope" => ("`KmsEnvelopeAead`, KEK in memory", Box::new(tink::envelope())),
        #[cfg(feature = "esdk")]
        "esdk" => ("raw AES keyring, committing suite without signature; it has no cache", Box::new(esdk::Esdk::new())),
        _ => {
            eprintln!("no such peer, or not built in");
            return ExitCode::FAILURE;
        }
    };
    assert!(name == "keyfold" || peer.aad(0).len() == AAD_LEN, "all authenticate as many bytes");
    let works =
        if peer.shared().is_some() { r#""one", "column", "large", "threads""# } else { r#""one", "column", "large""# };
    println!(r#"{{"setting": "{setting}", "works": [{works}]}}"#);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (what, n) = line.split_once(' ').unwrap_or((&line, "1"));
        let n = n.trim().parse().expect("run.py writes numbers");
        peer.renew();
        let answer = match what {
            "one" => one(&*peer, n),
            "column" => column(&*peer, n),
            "large" => large(&*peer, n),
            "threads" => threads(peer.shared().expect("it was not among its works"), n),
            _ => break,
        };
        println!("{answer}");
        std::io::stdout().flush().expect("run.py reads");
    }
    ExitCode::SUCCESS
}
