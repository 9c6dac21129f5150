//! `protect --stream` and `reveal --stream`: whole files, and all files below a folder, as streams of a field (docs/STREAMS.md).

mod folder;
mod own;
mod progress;
mod refused;
mod row;
mod summary;

use crate::args::{Transform, Whole};
use crate::failure::{Exit, Failure, is_flooded};
use crate::files::interrupt::{Interrupt, Interruptible};
use crate::files::output::{Output, OutputError, Target};
use crate::files::standard::stderr;
use crate::opening;
use crate::outputs;
use crate::transform::{Direction, Input, context_of, is_new_scope, tell_of_new_scope};
use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
use keyfold::{Error, ErrorKind, Field, Keyring, StreamOpener, StreamProgress, StreamSealer};
use own::OwnFiles;
use progress::Progress;
use refused::{Refused, damaged, is_sealed, no_stream, not_begun, system_error};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use summary::{Counts, counted};

/// Most threads that seal or open: more would wait for the one that reads and writes, and each has buffers.
const MAX_THREADS: usize = 16;
/// How long a lookup waits that key IDs of other streams are in the way of.
const MOMENT: Duration = Duration::from_millis(20);

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
    let field = ring.field(field)?.context(context_of(args, direction)?);
    let field = args.scope.iter().fold(field, |field: Field, scope| field.scope(scope));
    // The handles come last: that which seals makes a key for a scope that is new, or misspelt.
    let is_folder = args.input != "-" && fs::metadata(&args.input).is_ok_and(|metadata| metadata.is_dir());
    let (mut job, done) = if is_folder {
        let len = folder::check(args, whole, direction, &interrupt, row.is_some())?;
        let mut job = Job::new(args, whole, field, direction, &ring, interrupt)?;
        job.progress = Progress::of_files(direction, len);
        let done = folder::run(&mut job).and_then(|()| Ok(ring.record_uses()?));
        (job, done)
    } else {
        let (input, output) = open(args, whole, direction, &interrupt)?;
        let len = input.get_ref().len();
        let mut job = Job::new(args, whole, field, direction, &ring, interrupt)?;
        // Where the content goes to the terminal it would be written over.
        if args.output != "-" || !io::stdout().is_terminal() {
            job.progress = Progress::new(direction, len);
        }
        let done = one_file(&mut job, &ring, input, row.as_deref(), output);
        (job, done)
    };
    job.progress.finish();
    done?;
    job.counts.judge(&ring);
    summary::report(&job);
    Ok(ExitCode::from(job.worst))
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
        let head = read_head(&mut input, &mut head).map_err(|error| Refused::unreadable(&error))?;
        let mut sink = Sink { output, failed: None };
        let (interrupt, progress, before) = (&self.interrupt, &self.progress, self.counts.bytes);
        let watch = |stream: &mut StreamProgress<'_>| {
            if interrupt.check().is_err() {
                return Err(Error::new(ErrorKind::Closed, "interrupted"));
            }
            progress.at(before + stream.read());
            if stream.needs_renewal() { pollster::block_on(stream.renew()) } else { Ok(()) }
        };
        let done = match &self.handles {
            Handles::Seal(sealer, _) => {
                let seal_sealed = matches!(self.direction, Direction::Protect { seal_sealed: true });
                if !seal_sealed && StreamHeader::parse(head).is_ok() {
                    return Err(Refused::Input(is_sealed()));
                }
                pollster::block_on(sealer.ready()).map_err(Failure::from)?;
                let stream = sealer.begin(row).map_err(|error| not_begun(error, row))?;
                let under = (stream.header().key_id(), false, false);
                stream.seal_all(&mut head.chain(input), &mut sink, self.threads, watch).map(|bytes| (bytes, under))
            }
            Handles::Open(opener) => {
                let header = StreamHeader::parse(head).map_err(|error| Refused::Input(no_stream(error, head)))?;
                self.load_key(opener, &header)?;
                let stream = opener.begin(&header, row).map_err(|error| not_begun(error, row))?;
                let under = (header.key_id(), !opener.is_current(&header), stream.is_compromised());
                stream.open_all(&mut input, &mut sink, self.threads, watch).map(|bytes| (bytes, under))
            }
        };
        let failed = sink.failed;
        let done = done.map_err(|error| failed.map_or_else(|| damaged(error), Refused::from))?;
        let (bytes, (key_id, is_outdated, is_compromised)) = done;
        self.counts.bytes += bytes;
        self.counts.stream(key_id, is_outdated, is_compromised);
        Ok(())
    }

    /// Has the key of a stream loaded. Where streams with made-up key IDs use up what may be looked up in a second, it waits: they are no fault of this one.
    fn load_key(&self, opener: &StreamOpener, header: &StreamHeader) -> Result<(), Refused> {
        loop {
            match pollster::block_on(opener.load_key(header)) {
                Err(error) if is_flooded(&error) => {
                    self.interrupt.check()?;
                    std::thread::sleep(MOMENT);
                }
                loaded => return loaded.map_err(Refused::of_key),
            }
        }
    }

    /// Names what is left out, as it happens: a list of them would have no bound.
    fn leave_out(&mut self, failure: Failure) {
        self.tell(failure.add("it was left out"));
    }

    /// Says what is wrong, and goes on.
    fn tell(&mut self, failure: Failure) {
        self.worst = self.worst.max(failure.code);
        // Whoever closed standard error has the exit code and the number.
        self.progress.aside(|| drop(writeln!(stderr(), "keyfold: {failure}")));
    }

    /// How the stream in `sealed` compares with what is in `clear`.
    fn compare(&mut self, sealed: &mut File, clear: &mut File, row: Option<&[u8]>) -> Result<Compared, Refused> {
        let (Handles::Open(opener) | Handles::Seal(_, Some(opener))) = &self.handles else {
            return Ok(Compared::Other);
        };
        let is_protect = matches!(self.direction, Direction::Protect { .. });
        // An output can be made anew, whatever it is; an input cannot.
        let unread = |error, is_output| {
            if is_output { Ok(Compared::Unread(error)) } else { Err(Refused::unreadable(&error)) }
        };
        let mut head = [0; STREAM_HEADER_LEN];
        let header = match read_head(sealed, &mut head) {
            Ok(head) => StreamHeader::parse(head),
            Err(error) => return unread(error, is_protect),
        };
        let Ok(header) = header else { return Ok(Compared::NoStream) };
        match self.load_key(opener, &header) {
            Ok(()) => {}
            Err(Refused::Input(failure) | Refused::Item(failure)) if is_protect => {
                return Ok(Compared::Unopened(failure));
            }
            Err(refused) => return Err(refused),
        }
        // Of another field, context or row: another stream than the one that is asked for.
        let stream = match opener.begin(&header, row) {
            Ok(stream) => stream,
            Err(error) if is_other(&error) => return Ok(Compared::NoStream),
            Err(error) => return Err(not_begun(error, row)),
        };
        if stream.is_compromised() && is_protect && self.args.force {
            return Ok(Compared::Other);
        }
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
                    Some(inner) if inner.kind() == ErrorKind::Io => {
                        let number = system_error(inner).and_then(io::Error::raw_os_error);
                        return unread(number.map_or(error, io::Error::from_raw_os_error), is_protect);
                    }
                    Some(inner) => return Err(Refused::of_content(inner.clone())),
                    None => return unread(error, is_protect),
                },
            };
            let m = match fill(clear, &mut theirs) {
                Ok(m) => m,
                Err(error) => return unread(error, !is_protect),
            };
            if ours[..n] != theirs[..m] {
                return Ok(Compared::Other);
            }
            if n == 0 {
                if !reader.is_complete() {
                    return Ok(Compared::Damaged);
                }
                self.counts.stream(header.key_id(), !opener.is_current(&header), reader.is_compromised());
                return Ok(Compared::Same);
            }
        }
    }
}

/// What --resume finds of an output that is there.
enum Compared {
    Same,
    /// The content is another one, or whoever made it can be anybody who has the key, and it is to be made anew.
    Other,
    /// The output does not open, for a reason that is its key's.
    Unopened(Failure),
    /// The output cannot be read.
    Unread(io::Error),
    /// The sealed side is no stream, or one of another field, context, row or scope, so that nobody knows its content.
    NoStream,
    /// The sealed side is a stream of the right kind that was changed or cut.
    Damaged,
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
    ring: &Keyring,
    input: Interruptible<Input>,
    row: Option<&[u8]>,
    mut output: Output,
) -> Result<(), Failure> {
    let done = job.transform(input, row, &mut output).map_err(Refused::into_failure);
    done.map_err(|failure| failure.of_file(&job.args.input).leaving(&output))?;
    output.flush().map_err(|error| Failure::from(error).leaving(&output))?;
    ring.record_uses().map_err(|error| Failure::from(error).leaving(&output))?;
    output.commit()?;
    job.counts.files += 1;
    Ok(())
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
fn read_head<'h>(input: &mut impl Read, head: &'h mut [u8; STREAM_HEADER_LEN]) -> io::Result<&'h [u8]> {
    let n = fill(input, head)?;
    Ok(&head[..n])
}

/// Whether a stream is another one than the one that is asked for, or only a part of it; otherwise nobody knows what it is.
fn is_other(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DecryptionFailed | ErrorKind::Malformed)
}
