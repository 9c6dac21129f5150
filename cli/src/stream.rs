//! `protect --stream` and `reveal --stream`: whole files, and all files below a folder, as streams of a field (docs/STREAMS.md).

mod folder;
mod progress;
mod refused;
mod row;

use crate::args::{Transform, Whole};
use crate::failure::{Exit, Failure, Printable};
use crate::files::interrupt::{Interrupt, Interruptible};
use crate::files::output::{Output, OutputError, Target};
use crate::files::standard::stderr;
use crate::opening;
use crate::outputs;
use crate::transform::{Direction, Input, is_new_scope, tell_of_new_scope};
use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
use keyfold::{Context, Error, ErrorKind, Field, Keyring, StreamOpener, StreamProgress, StreamSealer};
use progress::Progress;
use refused::{Refused, damaged, is_sealed, no_stream, not_begun};
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Most threads that seal or open: more would wait for the one that reads and writes, and each has buffers.
const MAX_THREADS: usize = 16;

/// Protects or reveals what the command line names. Where files of a folder were left out, the exit code is the highest of theirs: the first would depend
/// on the order of the directory.
pub(crate) fn run(args: &Transform, whole: &Whole, field: &str, direction: Direction) -> Result<ExitCode, Failure> {
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let ring = opening::open(&args.source, &args.policies.policy)?;
    if args.input == "-" && whole.row_file.as_deref() == Some(Path::new("-")) {
        return Err(Failure::new(Exit::Usage, "standard input is either the input or --row-file"));
    }
    let row = whole.row_file.as_deref().map(|file| row::read(file, &interrupt)).transpose()?;
    let context = args.context.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value));
    let context = context.map_err(|error| Failure::of_argument("--context", error))?;
    let field = ring.field(field)?.context(context);
    let field = args.scope.iter().fold(field, |field: Field, scope| field.scope(scope));
    // The handles come last: that which seals makes a key for a scope that is new, or misspelt.
    let is_folder = args.input != "-" && fs::metadata(&args.input).is_ok_and(|metadata| metadata.is_dir());
    let (job, done) = if is_folder {
        let len = folder::check(args, whole, direction, &interrupt, row.is_some())?;
        let mut job = Job::new(args, whole, field, direction, &ring, interrupt)?;
        job.progress = Progress::of_files(direction, len);
        let done = folder::run(&mut job);
        (job, done)
    } else {
        let (input, output) = open(args, whole, direction, &interrupt)?;
        let len = input.get_ref().len();
        let mut job = Job::new(args, whole, field, direction, &ring, interrupt)?;
        // Where the content goes to the terminal it would be written over.
        if args.output != "-" || !io::stdout().is_terminal() {
            job.progress = Progress::new(direction, len);
        }
        let done = one_file(&mut job, input, row.as_deref(), output);
        (job, done)
    };
    job.progress.finish();
    done?;
    job.report();
    Ok(ExitCode::from(job.worst))
}

/// What was done, for the summary.
#[derive(Default)]
struct Counts {
    /// Outputs that have their names.
    files: u64,
    /// Bytes in clear.
    bytes: u64,
    /// Files of a folder that were there already, with the right content.
    kept: u64,
    /// With --keep-going, files of a folder that were left out.
    failed: u64,
    /// Streams whose key no longer seals.
    outdated: u64,
    /// Streams under a compromised key.
    compromised: u64,
    /// With --resume, outputs of a folder whose input is gone.
    left: u64,
}

/// Whoever protects needs the opener to compare with what is there.
enum Handles {
    Seal(StreamSealer, Option<StreamOpener>),
    Open(StreamOpener),
}

struct Job<'a> {
    args: &'a Transform,
    whole: &'a Whole,
    direction: Direction,
    handles: Handles,
    threads: NonZeroUsize,
    interrupt: Interrupt,
    progress: Progress,
    counts: Counts,
    /// The highest exit code of what was left out.
    worst: u8,
    /// The first by name of those that are left.
    left: Option<PathBuf>,
}

impl<'a> Job<'a> {
    fn new(
        args: &'a Transform,
        whole: &'a Whole,
        field: Field,
        direction: Direction,
        ring: &Keyring,
        interrupt: Interrupt,
    ) -> Result<Self, Failure> {
        let handles = if let Direction::Protect { .. } = direction {
            let is_new = is_new_scope(ring, args.scope.as_deref())?;
            let sealer = pollster::block_on(field.clone().stream_sealer())?;
            if is_new {
                tell_of_new_scope();
            }
            let opener = if whole.resume { Some(pollster::block_on(field.stream_opener())?) } else { None };
            Handles::Seal(sealer, opener)
        } else {
            Handles::Open(pollster::block_on(field.stream_opener())?)
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = args.threads.map_or_else(cores, usize::from).min(MAX_THREADS);
        Ok(Self {
            args,
            whole,
            direction,
            handles,
            threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
            interrupt,
            progress: Progress::hidden(),
            counts: Counts::default(),
            worst: 0,
            left: None,
        })
    }

    /// Seals or opens what `input` has into `output`, which is to be committed if that succeeds. Whatever fails, a signal is the cause if there was one:
    /// it also ends the program that feeds our pipe.
    fn transform(&mut self, input: impl Read + Send, row: Option<&[u8]>, output: &mut Output) -> Result<(), Refused> {
        let done = self.seal_or_open(input, row, output);
        self.interrupt.check()?;
        done
    }

    fn seal_or_open(
        &mut self,
        mut input: impl Read + Send,
        row: Option<&[u8]>,
        output: &mut Output,
    ) -> Result<(), Refused> {
        let mut head = [0; STREAM_HEADER_LEN];
        let head = read_head(&mut input, &mut head)?;
        let mut sink = Sink { output, failed: None };
        let (interrupt, progress, before) = (&self.interrupt, &self.progress, self.counts.bytes);
        let watch = |stream: &mut StreamProgress<'_>| {
            if interrupt.check().is_err() {
                return Err(Error::new(ErrorKind::Closed, "interrupted"));
            }
            progress.at(before + stream.read());
            if stream.needs_renewal() { pollster::block_on(stream.renew()) } else { Ok(()) }
        };
        let (mut is_compromised, mut is_outdated) = (false, false);
        let done = match &self.handles {
            Handles::Seal(sealer, _) => {
                let seal_sealed = matches!(self.direction, Direction::Protect { seal_sealed: true });
                if !seal_sealed && StreamHeader::parse(head).is_ok() {
                    return Err(Refused::File(is_sealed()));
                }
                pollster::block_on(sealer.ready()).map_err(Failure::from)?;
                sealer.begin(row).map_err(|error| not_begun(error, row))?.seal_all(
                    &mut head.chain(input),
                    &mut sink,
                    self.threads,
                    watch,
                )
            }
            Handles::Open(opener) => {
                let header = StreamHeader::parse(head).map_err(|error| Refused::File(no_stream(error, head)))?;
                pollster::block_on(opener.load_key(&header)).map_err(Refused::of_key)?;
                let stream = opener.begin(&header, row).map_err(|error| not_begun(error, row))?;
                (is_compromised, is_outdated) = (stream.is_compromised(), !opener.is_current(&header));
                stream.open_all(&mut input, &mut sink, self.threads, watch)
            }
        };
        let failed = sink.failed;
        self.counts.bytes += done.map_err(|error| failed.map_or_else(|| damaged(error), Refused::from))?;
        self.counts.compromised += u64::from(is_compromised);
        self.counts.outdated += u64::from(is_outdated);
        Ok(())
    }

    /// Names a file that is left out, as it happens: a list of them would have no bound.
    fn leave_out(&mut self, failure: Failure) {
        self.counts.failed += 1;
        self.worst = self.worst.max(failure.code);
        let failure = failure.add("it was left out");
        // Whoever closed standard error has the exit code and the number.
        self.progress.aside(|| drop(writeln!(stderr(), "keyfold: {failure}")));
    }

    /// How the stream in `sealed` compares with what is in `clear`.
    fn compare(&mut self, sealed: &mut File, clear: &mut File, row: Option<&[u8]>) -> Result<Compared, Refused> {
        let (Handles::Open(opener) | Handles::Seal(_, Some(opener))) = &self.handles else {
            return Ok(Compared::Other);
        };
        let mut head = [0; STREAM_HEADER_LEN];
        let Ok(header) = StreamHeader::parse(read_head(sealed, &mut head)?) else { return Ok(Compared::NoStream) };
        pollster::block_on(opener.load_key(&header)).map_err(Refused::of_key)?;
        // Of another field, context or row: another stream than the one that is asked for.
        let stream = match opener.begin(&header, row) {
            Ok(stream) => stream,
            Err(error) if is_other(&error) => return Ok(Compared::NoStream),
            Err(error) => return Err(not_begun(error, row)),
        };
        let mut reader = stream.into_reader(sealed);
        let [mut ours, mut theirs] = [0, 1].map(|_| zeroize::Zeroizing::new(vec![0; 256 * 1024]));
        loop {
            self.interrupt.check()?;
            if reader.needs_renewal() {
                pollster::block_on(reader.renew()).map_err(Failure::from)?;
            }
            let n = match fill(&mut reader, &mut ours) {
                Ok(n) => n,
                Err(error) => match Error::within(&error) {
                    Some(inner) if is_other(inner) => return Ok(Compared::Damaged),
                    Some(inner) => return Err(Refused::of_content(inner.clone())),
                    None => return Err(unreadable(error)),
                },
            };
            let m = fill(clear, &mut theirs).map_err(unreadable)?;
            if ours[..n] != theirs[..m] {
                return Ok(Compared::Other);
            }
            if n == 0 {
                self.counts.compromised += u64::from(reader.is_compromised());
                self.counts.outdated += u64::from(!opener.is_current(&header));
                return Ok(if reader.is_complete() { Compared::Same } else { Compared::Damaged });
            }
        }
    }

    fn report(&self) {
        let verb = if matches!(self.direction, Direction::Reveal) { "revealed" } else { "protected" };
        let Counts { files, bytes, kept, failed, outdated, compromised, left } = self.counts;
        let line = if self.args.json {
            json!({
                "direction": verb, "streams": files, "bytes": bytes, "kept": kept, "failed": failed,
                "outdated": outdated, "compromised": compromised, "left": left, "first_left": self.left.as_ref().map(|path| path.to_string_lossy()),
            })
            .to_string()
        } else {
            let mut line = format!("{verb} {} of {}", counted(files, "stream"), counted(bytes, "byte"));
            if kept > 0 {
                line.push_str(&format!("; {kept} were there already, with the same content"));
            }
            if failed > 0 {
                line.push_str(&format!("; {} left out, each named above", counted(failed, "file")));
            }
            if outdated > 0 {
                line.push_str(&format!("; {outdated} are under an old generation"));
            }
            if compromised > 0 {
                line.push_str(&format!(
                    "; {compromised} are under a compromised key and may be forged: seal them again"
                ));
            }
            if let Some(first) = &self.left {
                let first = first.to_string_lossy();
                line.push_str(&format!(
                    "; without an input any more, and left there: {}, {} first",
                    counted(left, "output"),
                    Printable(&first)
                ));
            }
            line
        };
        // The work is done and committed: a closed standard error is no reason to fail.
        let _ = writeln!(stderr(), "{line}");
    }
}

/// What --resume finds of an output that is there.
enum Compared {
    Same,
    /// The content is another one.
    Other,
    /// The sealed side is no stream, or one of another field, context, row or scope, so that nobody knows its content.
    NoStream,
    /// The sealed side is a stream of the right kind that was changed or cut.
    Damaged,
}

/// Files of the keyring and its policies.
struct OwnFiles {
    files: Vec<PathBuf>,
    /// Device and inode of those that are there.
    places: Vec<(u64, u64)>,
}

impl OwnFiles {
    fn of(args: &Transform) -> Result<Self, Failure> {
        let files = keyfold_open::own_files(&args.source.config, &args.policies.policy)?;
        let places = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| (file.dev(), file.ino()));
        Ok(Self { places: places.collect(), files })
    }

    /// Refuses to seal one of them: whoever keeps the stream in its place can open neither.
    fn refuse_input(&self, path: &Path, place: (u64, u64)) -> Result<(), Failure> {
        if !self.places.contains(&place) {
            return Ok(());
        }
        let why = format!(
            "{} is a file of the keyring or a policy, which it takes to open what is sealed; `keyfold keys backup` copies the key records",
            path.display()
        );
        Err(Failure::new(Exit::Usage, why))
    }

    fn refuse_target(&self, target: &Target) -> Result<(), OutputError> {
        self.files.iter().try_for_each(|file| target.refuse_own(file))
    }
}

/// Opens one file or standard input, and the file or standard output that it goes to.
fn open(
    args: &Transform,
    whole: &Whole,
    direction: Direction,
    interrupt: &Interrupt,
) -> Result<(Interruptible<Input>, Output), Failure> {
    for (option, is_given) in [("--resume", whole.resume), ("--keep-going", whole.keep_going)] {
        if is_given {
            let why = format!("{option} is for folders: a single file appears whole or not at all");
            return Err(Failure::new(Exit::Usage, why));
        }
    }
    let target = Target::from_argument(&args.output);
    let input = Input::open_watched(&args.input, interrupt)?;
    let file = input.get_ref();
    target.refuse_input(file.file())?;
    let own = OwnFiles::of(args)?;
    own.refuse_target(&target)?;
    if let (Direction::Protect { seal_sealed }, Ok(metadata)) = (direction, file.file().metadata()) {
        own.refuse_input(Path::new(&args.input), (metadata.dev(), metadata.ino()))?;
        target.refuse_terminal()?;
        if !seal_sealed && file.stream_header().is_some() {
            return Err(is_sealed().of_file(&args.input));
        }
    }
    if args.output != "-" {
        outputs::refuse(&[("--output", Some(Path::new(&args.output)))], None, &[], None)?;
    }
    Ok((input, Output::create(target, args.force)?))
}

/// One file or standard input, to one file or standard output.
fn one_file(
    job: &mut Job<'_>,
    input: Interruptible<Input>,
    row: Option<&[u8]>,
    mut output: Output,
) -> Result<(), Failure> {
    let done = job.transform(input, row, &mut output).map_err(Refused::into_failure);
    done.map_err(|failure| failure.of_file(&job.args.input).leaving(&output))?;
    output.flush().map_err(|error| Failure::from(error).leaving(&output))?;
    output.commit()?;
    job.counts.files += 1;
    Ok(())
}

/// A number of things that have a regular plural.
fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// What seals writes here; remembers why it could not.
struct Sink<'o> {
    output: &'o mut Output,
    failed: Option<OutputError>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.output.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fills `buffer` as far as there is input; how far.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The first bytes of a stream, or of what may be one.
fn read_head<'h>(input: &mut impl Read, head: &'h mut [u8; STREAM_HEADER_LEN]) -> Result<&'h [u8], Refused> {
    let n = fill(input, head).map_err(unreadable)?;
    Ok(&head[..n])
}

/// Whether a stream is another one than the one that is asked for, or only a part of it; otherwise nobody knows what it is.
fn is_other(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DecryptionFailed | ErrorKind::Malformed)
}

fn unreadable(error: io::Error) -> Refused {
    Refused::File(Failure::new(Exit::Storage, format!("cannot read the input: {error}")))
}
