//! `keyfold protect`, `keyfold reveal` and `keyfold rebind`: a file goes through the cipher in batches, on every core, and appears
//! under its name when everything has succeeded. A little over 500 lines: from the command line to the summary in one file.

mod context;
mod csv;
mod hl7;
mod merges;
mod ndjson;
mod progress;
mod random;
mod tokens;

use crate::args::{Format, Rebind, Transform};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::{Interrupt, Interruptible};
use crate::files::output::{Output, Target};
use crate::files::standard::stderr;
use crate::files::{is_closed, pipeline};
use crate::opening::{self, refuse_new_scope};
use crate::outputs;
pub(crate) use context::{context_of, refuse_empty_context};
pub(crate) use csv::similar;
pub(crate) use hl7::Clear;
use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
use keyfold::{AuditAction, AuditEvent, Context, FieldMode, FieldPolicy, Keyring};
pub(crate) use keyfold_documents::Direction;
use keyfold_documents::{FieldCipher, FieldKeys};
use merges::Merges;
use progress::Progress;
use rustix::fs::OFlags;
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
pub(crate) use tokens::cell as token_cell;
use zeroize::Zeroizing;

/// A batch after the cipher: what is to be written, and what it was.
struct Done {
    /// Erased on drop, since it is plaintext on the way back.
    bytes: Zeroizing<Vec<u8>>,
    counts: Counts,
}

/// What was done, for the summary.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// Bytes of the input.
    input_len: u64,
    /// CSV rows, JSON documents or HL7 messages.
    records: u64,
    /// Values that were encrypted or decrypted.
    values: u64,
    /// Records whose identifier was replaced.
    rebound: u64,
    /// Values whose key no longer seals.
    outdated: u64,
    /// Values under a compromised key.
    compromised: u64,
    /// JSON documents or HL7 messages that were passed through.
    unmatched: u64,
    /// Values that an index cannot take, and that have no token in it, for each index.
    unindexed: u64,
    /// Values that look sealed after revealing, because no rule covers them.
    still_sealed: u64,
    /// Columns of a CSV file that were not protected.
    clear_columns: Vec<String>,
    /// Fields whose values keep their format, so that nothing shows whether they were changed.
    unauthenticated: Vec<String>,
    /// Of re-encrypting: indexes whose tokens the file has, which stay as they are; before the end, their columns or members.
    left_tokens: Vec<String>,
    /// Of revealing a CSV file: columns of indexes that it lacks, of fields that it has. Under another name they stay.
    missing_tokens: Vec<String>,
    /// Fields whose indexes show nobody knows how much of a row.
    unchecked_indexes: Vec<String>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.input_len += other.input_len;
        self.records += other.records;
        self.values += other.values;
        self.rebound += other.rebound;
        self.outdated += other.outdated;
        self.compromised += other.compromised;
        self.unmatched += other.unmatched;
        self.unindexed += other.unindexed;
        self.still_sealed += other.still_sealed;
    }
}

/// What every format needs to know.
struct Job<'a> {
    args: &'a Transform,
    direction: Direction,
    ring: &'a Keyring,
    context: Context,
    /// Which rows take the place of which; empty unless rebinding.
    merges: &'a Merges,
}

impl Job<'_> {
    /// Says that a key is made for a scope, if one is, when it is certain that the context has what the fields need that `keep` chooses.
    fn tell_of_new_scope(&self, keep: impl Fn(&FieldPolicy) -> bool) -> Result<(), Failure> {
        if !matches!(self.direction, Direction::Protect { .. }) {
            return Ok(());
        }
        let policy = self.ring.policy();
        let needed = policy.fields().filter(|field| keep(field));
        let has = |key: &String| self.args.context.iter().any(|(given, _)| given == key);
        let lacks = |field: &&std::sync::Arc<FieldPolicy>| !field.required_context.iter().all(has);
        match needed.into_iter().find(lacks) {
            // Making its cipher says which key is missing, and makes none.
            Some(field) => {
                drop(pollster::block_on(self.ring.field(&field.name)?.context(self.context.clone()).encryptor())?)
            }
            None if is_new_scope(self.ring, self.args.scope.as_deref())? => tell_of_new_scope(),
            None => {}
        }
        Ok(())
    }

    /// Refuses to replace identifiers whose indexes the file has: their tokens would still find the old ones.
    fn refuse_indexed_identifiers(&self) -> Result<(), Failure> {
        let policy = self.ring.policy();
        let is_indexed = |field: &&std::sync::Arc<FieldPolicy>| {
            let may_be_identifier = matches!(field.mode, FieldMode::Deterministic { .. });
            may_be_identifier && field.indexes.iter().any(|index| index.column.is_some())
        };
        match policy.fields().find(is_indexed) {
            None => Ok(()),
            Some(field) => {
                let why = "rebind does not write indexes anew; reveal the file, change it and protect it";
                Err(Failure::new(Exit::Policy, format!("field {}: {why}", field.name)))
            }
        }
    }

    /// The keys of the fields that `keep` chooses.
    fn keys(&self, keep: impl Fn(&FieldPolicy) -> bool) -> Result<FieldKeys<'_>, Failure> {
        self.tell_of_new_scope(&keep)?;
        Ok(FieldKeys {
            ring: self.ring,
            direction: self.direction,
            scope: self.args.scope.as_deref(),
            context: self.context.clone(),
            tokens: self.tokens(keep)?,
        })
    }
}

/// Whether protecting makes a key for a scope.
pub(crate) fn is_new_scope(ring: &Keyring, scope: Option<&str>) -> Result<bool, Failure> {
    Ok(scope.map_or(Ok(true), |scope| pollster::block_on(ring.has_scope(scope))).map(|is_there| !is_there)?)
}

/// Says that it does. Whoever reads it can tell: a misspelt name gets here as well.
pub(crate) fn tell_of_new_scope() {
    let _ = writeln!(stderr(), "the scope is new: a key is made for it");
}

/// Protects, reveals or re-encrypts. Returns the flag of signals, which are handled from now on.
pub(crate) fn run(args: &Transform, direction: Direction) -> Result<Interrupt, Failure> {
    transform(args, direction, &Merges::default())
}

/// Moves values to other rows.
pub(crate) fn rebind(args: &Rebind) -> Result<(), Failure> {
    transform(&args.transform, Direction::Rebind, &Merges::read(args)?).map(drop)
}

/// Reads, transforms, writes; then reports.
fn transform(args: &Transform, direction: Direction, merges: &Merges) -> Result<Interrupt, Failure> {
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    refuse_whole(&args.input, direction)?;
    let format = args.format.map_or_else(|| format_of(&args.input), Ok).map_err(|failure| match direction {
        Direction::Protect { .. } => failure.add("--stream FIELD protects a whole file of any kind, such as an image"),
        Direction::Reveal => failure.add("--stream FIELD reveals what `protect --stream` made"),
        _ => failure,
    })?;
    let ring = opening::open(&args.source, &args.policies.policy)?;
    let context = context_of(args, direction)?;
    let job = Job { args, direction, ring: &ring, context, merges };
    if direction == Direction::Rebind {
        job.refuse_indexed_identifiers()?;
    }
    if direction == Direction::Reencrypt {
        refuse_new_scope(&ring, args.scope.as_deref())?;
    }
    let target = Target::from_argument(&args.output);
    let input = Input::open_watched(&args.input, &interrupt)?;
    target.refuse_input(input.get_ref().file())?;
    for file in keyfold_open::own_files(&args.source.config, &args.policies.policy)? {
        target.refuse_own(&file)?;
    }
    if let Some(map) = merges.file() {
        target.refuse_own(map)?;
    }
    if args.output != "-" {
        let output = [("--output", Some(Path::new(&args.output)))];
        outputs::refuse(&output, None, &[], args.tokens.as_deref())?;
    }
    let mut output = Output::create(target, args.force)?;
    let mut progress = Progress::new(direction, input.get_ref().len());
    let mut counts = Counts::default();
    let result = match format {
        Format::Csv => csv::run(&job, input, &mut output, &interrupt, &mut progress, &mut counts),
        Format::Json | Format::Ndjson => {
            let whole = format == Format::Json;
            ndjson::run(&job, input, whole, &mut output, &interrupt, &mut progress, &mut counts)
        }
        Format::Hl7 => hl7::run(&job, input, &mut output, &interrupt, &mut progress, &mut counts),
    };
    progress.finish();
    // A signal also ends the program that feeds our pipe, and the error that follows is not the cause.
    match interrupt.check() {
        Err(interrupted) => return Err(Failure::from(interrupted).leaving(&output)),
        Ok(()) => result.map_err(|failure| failure.of_file(&args.input).leaving(&output))?,
    }
    merges.refuse_missing()?;
    if direction == Direction::Rebind {
        // Before the output appears: what moved values to other rows must be known.
        let event = AuditEvent::new(AuditAction::Rebind).detail("records", counts.rebound);
        ring.audit(event.detail("values", counts.values))?;
    }
    output.flush().map_err(|error| Failure::from(error).leaving(&output))?;
    // Before the output appears: what was opened for it must be known.
    ring.record_uses().map_err(|error| Failure::from(error).leaving(&output))?;
    output.commit()?;
    if matches!(direction, Direction::Protect { .. }) {
        let policy = ring.policy();
        let unchecked = policy.fields().filter(|field| field.has_unchecked_indexes());
        counts.unchecked_indexes = unchecked.map(|field| field.name.clone()).collect();
    }
    if direction == Direction::Reencrypt {
        counts.left_tokens = indexes_in(&ring, &counts.left_tokens);
        let event = AuditEvent::new(AuditAction::Reencrypt);
        ring.audit(event.detail("rows", counts.records).detail("resealed", counts.outdated))?;
    }
    report(args, direction, counts);
    Ok(interrupt)
}

/// Refuses what is no file of fields, whatever it is called: a folder, and what `protect --stream` has made of a file.
fn refuse_whole(input: &OsStr, direction: Direction) -> Result<(), Failure> {
    refuse_nameless(input)?;
    let path = Path::new(input);
    // Of others, opening says what is wrong with them; and what is read from a pipe would be missing.
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let is_stream = metadata.is_file() && Input::open(input)?.stream_header().is_some();
    let why = match direction {
        _ if !metadata.is_dir() && !is_stream => return Ok(()),
        Direction::Protect { .. } | Direction::Reveal if metadata.is_dir() => {
            "is a folder; --stream FIELD takes all files below it, each as a whole"
        }
        Direction::Rebind | Direction::Reencrypt if metadata.is_dir() => "is a folder",
        Direction::Protect { .. } => "is a stream, so a file that is protected already",
        Direction::Reveal => "is a stream; --stream FIELD reveals it",
        Direction::Rebind | Direction::Reencrypt => {
            "is a stream, which keeps its key and its row; reveal it, and protect it again, both with --stream FIELD"
        }
    };
    // As of a value that is sealed already.
    let exit = if is_stream && matches!(direction, Direction::Protect { .. }) { Exit::Policy } else { Exit::Usage };
    Err(Failure::new(exit, format!("{} {why}", path.display())))
}

/// Refuses the empty string, as of a variable of a script that was not set.
fn refuse_nameless(input: &OsStr) -> Result<(), Failure> {
    match input.is_empty() {
        true => Err(Failure::new(Exit::Usage, "a name is needed for the input, and this one is empty")),
        false => Ok(()),
    }
}

/// The indexes that have these columns or members.
fn indexes_in(ring: &Keyring, columns: &[String]) -> Vec<String> {
    let policy = ring.policy();
    let of_field = |field: &FieldPolicy| -> Vec<String> {
        let left =
            field.indexes.iter().filter(|index| index.column.as_ref().is_some_and(|name| columns.contains(name)));
        left.map(|index| format!("{} index {}", field.name, index.name)).collect()
    };
    policy.fields().flat_map(|field| of_field(field)).collect()
}

/// The names of the fields whose values nothing authenticates.
fn unauthenticated(fields: &[FieldCipher]) -> Vec<String> {
    fields.iter().filter(|field| field.keeps_format()).map(|field| field.policy().name.clone()).collect()
}

/// Runs batches through `work` and writes what comes out, in order.
fn pump<B: Send>(
    job: &Job<'_>,
    source: impl FnMut() -> Result<Option<B>, Failure> + Send,
    work: impl Fn(B) -> Result<Done, Failure> + Sync,
    interrupt: &Interrupt,
    progress: &mut Progress,
    counts: &mut Counts,
    output: &mut Output,
) -> Result<(), Failure> {
    let threads =
        job.args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    pipeline::run(threads, source, work, |mut done: Done| {
        interrupt.check()?;
        output.write(&done.bytes)?;
        // Erasing is much faster for what has been cleared, since all of it is spare capacity then.
        done.bytes.clear();
        counts.add(done.counts);
        progress.advance(counts);
        Ok(())
    })
}

fn report(args: &Transform, direction: Direction, counts: Counts) {
    let mut err = stderr();
    let verb = match direction {
        Direction::Protect { .. } => "protected",
        Direction::Reveal => "revealed",
        Direction::Rebind => "rebound",
        Direction::Reencrypt => "re-encrypted",
    };
    let line = if args.json {
        json!({
            "direction": verb, "records": counts.records, "values": counts.values, "outdated": counts.outdated,
            "compromised": counts.compromised, "rebound": counts.rebound, "unmatched": counts.unmatched,
            "still_sealed": counts.still_sealed, "clear_columns": counts.clear_columns,
            "unauthenticated": counts.unauthenticated, "unindexed": counts.unindexed, "unchecked_indexes": counts.unchecked_indexes,
            "left_tokens": counts.left_tokens, "missing_tokens": counts.missing_tokens,
        })
        .to_string()
    } else {
        let mut line = format!("{verb} {} values in {} records", counts.values, counts.records);
        if direction == Direction::Reencrypt {
            line = format!("{verb} {} of {} values in {} records", counts.outdated, counts.values, counts.records);
        }
        if direction == Direction::Reveal {
            let are = if counts.outdated == 1 { "is" } else { "are" };
            line.push_str(&format!("; {} {are} under an old generation", values(counts.outdated)));
        }
        if direction == Direction::Rebind {
            line.push_str(&format!(", of which {} have a new identifier", counts.rebound));
        }
        if counts.compromised > 0 {
            let told = match direction {
                Direction::Reencrypt if counts.compromised == 1 => {
                    "was under a compromised key and may have been forged"
                }
                Direction::Reencrypt => "were under a compromised key and may have been forged",
                _ if counts.compromised == 1 => "is under a compromised key and may be forged: seal it again",
                _ => "are under a compromised key and may be forged: seal them again",
            };
            line.push_str(&format!("; {} {told}", values(counts.compromised)));
        }
        if !counts.clear_columns.is_empty() {
            let names: Vec<String> = counts.clear_columns.iter().map(|name| format!("{name:?}")).collect();
            line.push_str(&format!("; in clear: {}", names.join(", ")));
        }
        if !counts.unauthenticated.is_empty() {
            let names = counts.unauthenticated.join(", ");
            line.push_str(&format!("; not authenticated, since the format is kept: {names}"));
            if direction != Direction::Reveal {
                line.push_str(" (nor does it show if they had been protected before)");
            }
        }
        if !counts.unchecked_indexes.is_empty() {
            let names = counts.unchecked_indexes.join(", ");
            line.push_str(&format!(
                "; WARNING: without `rows` in the policy nobody checks what their indexes show together: {names}"
            ));
        }
        if !counts.left_tokens.is_empty() {
            line.push_str(&format!(
                "; tokens of indexes stay as they were, also those under an old look-up key: {} (reveal and protect the file to have them anew)",
                counts.left_tokens.join(", ")
            ));
        }
        if !counts.missing_tokens.is_empty() {
            let names: Vec<String> = counts.missing_tokens.iter().map(|name| format!("{name:?}")).collect();
            line.push_str(&format!(
                "; without tokens in {}, where the policy has those of indexes: under another name they have stayed",
                names.join(", ")
            ));
        }
        if counts.unindexed > 0 {
            line.push_str(&format!("; {} values have no token, since their index cannot take them", counts.unindexed));
        }
        if counts.unmatched > 0 {
            line.push_str(&format!(
                "; {} of them passed through, since no field of the policy applies",
                counts.unmatched
            ));
        }
        if counts.still_sealed > 0 {
            line.push_str(&format!(
                "; {} values still look sealed, since no field of the policy covers them",
                counts.still_sealed
            ));
        }
        line
    };
    // The work is done and committed: a closed standard error is no reason to fail.
    let _ = writeln!(err, "{line}");
}

fn values(count: u64) -> String {
    if count == 1 { "1 value".to_owned() } else { format!("{count} values") }
}

/// What a header of a single cell hints at.
pub(crate) fn other_delimiter(header: &[String]) -> Option<&'static str> {
    match header {
        [name] if name.contains(';') => Some("its header is a single cell with semicolons in it: try --delimiter ';'"),
        [name] if name.contains('\t') => Some("its header is a single cell with tabs in it: try --delimiter '\\t'"),
        _ => None,
    }
}

/// The format that the extension of the input says.
pub(crate) fn format_of(input: &OsStr) -> Result<Format, Failure> {
    match Path::new(input).extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => Ok(Format::Csv),
        Some("json") => Ok(Format::Json),
        Some("ndjson" | "jsonl") => Ok(Format::Ndjson),
        Some("hl7") => Ok(Format::Hl7),
        _ => Err(Failure::new(
            Exit::Usage,
            "the input's name does not tell its format; say --format csv, json, ndjson or hl7",
        )),
    }
}

/// A file or standard input.
pub(crate) struct Input(File);

impl Input {
    /// # Errors
    ///
    /// [`Storage`](Exit::Storage): it cannot be opened, or the process has no standard input. [`Usage`](Exit::Usage): it is a folder.
    pub(crate) fn open(argument: &OsStr) -> Result<Self, Failure> {
        Self::open_with(argument, OFlags::empty())
    }

    /// As [`open`](Self::open), and neither opening it nor reading waits for longer than until an interrupt.
    pub(crate) fn open_watched(argument: &OsStr, interrupt: &Interrupt) -> Result<Interruptible<Self>, Failure> {
        // Otherwise opening a named pipe waits for somebody who writes, and so does reading it here.
        let is_pipe = fs::metadata(argument).is_ok_and(|metadata| metadata.file_type().is_fifo());
        let input = Self::open_with(argument, if is_pipe { OFlags::NONBLOCK } else { OFlags::empty() })?;
        Ok(Interruptible::new(input, interrupt.clone()))
    }

    fn open_with(argument: &OsStr, flags: OFlags) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::new(Exit::Storage, format!("cannot read {}: {error}", Path::new(argument).display()))
        };
        refuse_nameless(argument)?;
        if argument == "-" {
            if is_closed(io::stdin()) {
                return Err(Failure::new(Exit::Storage, "standard input is closed"));
            }
            let duplicate = io::stdin().as_fd().try_clone_to_owned().map_err(cannot)?;
            return Ok(Self(duplicate.into()));
        }
        let flags = flags.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(argument).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.is_dir() {
            return Err(Failure::new(Exit::Usage, format!("{} is a folder", Path::new(argument).display())));
        }
        Ok(Self(file))
    }

    pub(crate) const fn file(&self) -> &File {
        &self.0
    }

    /// The header of the stream that a file is. Standard input is none: what was looked at would be missing.
    pub(crate) fn stream_header(&self) -> Option<StreamHeader> {
        let mut head = [0; STREAM_HEADER_LEN];
        self.len()?;
        let n = self.0.read_at(&mut head, 0).ok()?;
        StreamHeader::parse(&head[..n]).ok()
    }

    /// Bytes to come, where that is known.
    pub(crate) fn len(&self) -> Option<u64> {
        self.0.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        debug_assert!(self.0.as_raw_fd() >= 0);
        self.0.as_fd()
    }
}
