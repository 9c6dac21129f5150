//! Ctrl-C and its relatives, as a flag that the main loop looks at.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// Signals that ask the command to end.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Whether the command was asked to end.
///
/// The first SIGINT, SIGTERM or SIGHUP sets a flag; a second one ends the process at once, for a
/// command that is stuck in a system call. A clone watches the same flag.
///
/// Look at it before an output is committed, too: Ctrl-C also ends the program that feeds our
/// pipe, and what arrives then is a truncated input that looks complete.
///
/// SIGPIPE needs no handler: Rust ignores it, so a closed pipe is the write error
/// [`OutputError::BrokenPipe`](super::output::OutputError::BrokenPipe).
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Installs the handlers, except for signals that the process was started to ignore: `nohup` means it, and so does
    /// whoever starts a job in the background and presses Ctrl-C for another one. Once for the whole command.
    ///
    /// # Errors
    ///
    /// The operating system refuses the handler.
    pub(crate) fn install() -> io::Result<Self> {
        DEFAULT.store(false, Ordering::SeqCst);
        if let Some(installed) = INSTALLED.get() {
            return Ok(installed.clone());
        }
        let interrupt = Self::register()?;
        Ok(INSTALLED.get_or_init(|| interrupt).clone())
    }

    fn register() -> io::Result<Self> {
        let interrupt = Self { flag: Arc::default(), signal: Arc::default() };
        for signal in SIGNALS {
            if is_ignored(signal) {
                continue;
            }
            // Handlers run in the order of registration, so the first signal passes here with the
            // flag still unset.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupt.flag))?;
            flag::register_usize(signal, Arc::clone(&interrupt.signal), signal.unsigned_abs() as usize)?;
            flag::register(signal, Arc::clone(&interrupt.flag))?;
        }
        Ok(interrupt)
    }

    /// Whether to go on.
    ///
    /// # Errors
    ///
    /// A signal arrived.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        // Acquire pairs with the handler's store of the flag, which comes after that of the signal.
        if !self.flag.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Interrupted { signal: i32::try_from(self.signal.load(Ordering::Relaxed)).unwrap_or(SIGINT) })
    }
}

/// Waits until `file` can be read or written, as `flags` say, or is gone at its other end.
///
/// # Errors
///
/// A signal arrived before that, which is noticed after at most 100 ms: [`Interrupted`] inside of an [`io::Error`].
fn wait(interrupt: Option<&Interrupt>, file: &impl AsFd, flags: PollFlags) -> io::Result<()> {
    // What need not wait is done whether somebody interrupts or not: what was done before is still to be told.
    let mut timeout = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(file, flags)], Some(&timeout)) {
            // A closed pipe is ready, too: reading then finds the end, and writing the error.
            Ok(ready) if ready > 0 => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        interrupt.map_or(Ok(()), Interrupt::check).map_err(io::Error::other)?;
        timeout.tv_nsec = 100_000_000;
    }
}

/// Waits until `file` can be written, or nobody is left who reads it. Where no command looks for signals, they end it.
///
/// # Errors
///
/// A signal arrived before that: [`Interrupted`] inside of an [`io::Error`].
pub(crate) fn wait_to_write(file: &impl AsFd) -> io::Result<()> {
    wait(INSTALLED.get(), file, PollFlags::OUT)
}

/// Makes a file that is longer than it may be (`ulimit -f`) an error of whoever writes it, as a full disk is: what SIGXFSZ does otherwise is to end the
/// process, with a core where that is wanted.
///
/// # Errors
///
/// The operating system refuses the handler.
pub(crate) fn ignore_file_size_limit() -> io::Result<()> {
    // A handler that does nothing. Programs that are started have none: it ends there.
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// What a command looks at from its installation to the end.
static INSTALLED: OnceLock<Interrupt> = OnceLock::new();
/// Whether a signal does what it does to a process without handlers, which cannot be taken away again.
static DEFAULT: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Does `work`, which looks at the flag it is given and puts things right when it is set. Before and afterwards signals do what
/// they did.
///
/// # Errors
///
/// The operating system refuses the handler.
pub(crate) fn guarded<T>(work: impl FnOnce(&Interrupt) -> T) -> io::Result<T> {
    DEFAULT.store(false, Ordering::SeqCst);
    let interrupt = Interrupt::register()?;
    for signal in SIGNALS {
        if !is_ignored(signal) {
            flag::register_conditional_default(signal, Arc::clone(&DEFAULT))?;
        }
    }
    let done = work(&interrupt);
    DEFAULT.store(INSTALLED.get().is_none(), Ordering::SeqCst);
    Ok(done)
}

/// The command was asked to end before it was done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Interrupted {
    signal: i32,
}

impl Interrupted {
    /// The one inside of an error of `std::io`.
    pub(crate) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Ctrl-C, at a terminal that does not make a signal of it.
    pub(crate) const fn by_key() -> Self {
        Self { signal: SIGINT }
    }

    /// The exit code that shells use for an end by this signal.
    pub(crate) fn exit_code(self) -> u8 {
        u8::try_from(128 + self.signal).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.signal {
            SIGINT => "SIGINT",
            SIGTERM => "SIGTERM",
            SIGHUP => "SIGHUP",
            _ => "a signal",
        };
        write!(f, "interrupted by {name}")
    }
}

impl std::error::Error for Interrupted {}

/// Whether the process was started with `signal` ignored. Where the system does not tell: no.
fn is_ignored(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    ignored_mask(&status).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Reads the mask of ignored signals, one bit each and bit 0 for signal 1, from `/proc/self/status`
/// (proc_pid_status(5)).
fn ignored_mask(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Reads from `R`, but not for longer than until an interrupt.
///
/// Without it a signal that arrives during a `read` on a silent pipe is not noticed before the next
/// byte: the handlers restart the call. Costs one `poll` per read; at most 100 ms late.
pub(crate) struct Interruptible<R> {
    input: R,
    interrupt: Interrupt,
}

impl<R> Interruptible<R> {
    /// Wraps `input`.
    pub(crate) fn new(input: R, interrupt: Interrupt) -> Self {
        Self { input, interrupt }
    }

    /// The input.
    pub(crate) const fn get_ref(&self) -> &R {
        &self.input
    }
}

impl<R: Read + AsFd> Read for Interruptible<R> {
    /// As `input`; and fails with [`Interrupted`] inside of an [`io::Error`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.interrupt.check().map_err(io::Error::other)?;
            wait(Some(&self.interrupt), &self.input, PollFlags::IN)?;
            match self.input.read(buffer) {
                // The second of a pipe that somebody made not to wait.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Interrupt, Interrupted, SIGHUP, SIGINT, ignored_mask};
    use rustix::process::{Signal, getpid, kill_process};
    use std::process::{Command, Output};
    use std::thread;
    use std::time::Duration;

    /// Set in a copy of the test program that sends signals to itself.
    const ROLE: &str = "KEYFOLD_TEST_INTERRUPT";

    /// Not a test of its own: what the copies do.
    #[test]
    fn role() {
        let Ok(role) = std::env::var(ROLE) else { return };
        let interrupt = Interrupt::install().expect("handlers");
        assert_eq!(interrupt.check(), Ok(()));
        let signal = if role == "hup" { Signal::HUP } else { Signal::INT };
        kill_process(getpid(), signal).expect("kill");
        // Another thread may be the one that takes the signal.
        for _ in 0..if matches!(&*role, "hup" | "ignored") { 20 } else { 500 } {
            thread::sleep(Duration::from_millis(10));
            if interrupt.check().is_err() {
                break;
            }
        }
        println!("after one: {:?}", interrupt.check().map_err(|i| (i.to_string(), i.exit_code())));
        if role == "twice" {
            kill_process(getpid(), Signal::INT).expect("kill");
            thread::sleep(Duration::from_secs(5));
            println!("survived the second");
        }
    }

    fn copy(role: &str, prefix: &str) -> Output {
        let exe = std::env::current_exe().expect("path of the test program");
        let name = module_path!().split_once("::").expect("a module path").1.to_owned() + "::role";
        let script = format!("{prefix} exec \"$0\" \"$@\"");
        Command::new("sh")
            .args(["-c", &script])
            .arg(exe)
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .output()
            .expect("runs")
    }

    #[test]
    fn one_signal_sets_the_flag() {
        let output = copy("once", "");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(r#"after one: Err(("interrupted by SIGINT", 130))"#), "{text}");
        assert!(output.status.success());
    }

    #[test]
    fn a_signal_that_was_ignored_stays_so() {
        for (role, prefix) in [("ignored", "trap '' INT;"), ("hup", "trap '' HUP;")] {
            let output = copy(role, prefix);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("after one: Ok(())"), "{role}: {text}");
        }
    }

    #[test]
    fn a_second_signal_ends_the_process() {
        let output = copy("twice", "");
        assert_eq!(output.status.code(), Some(130));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("after one: Err") && !text.contains("survived"), "{text}");
    }

    #[test]
    fn reads_the_mask() {
        assert_eq!(ignored_mask("Name:\tx\nSigIgn:\t0000000000001003\n"), Some(0x1003));
        assert_eq!(ignored_mask("Name:\tx\n"), None);
        assert_eq!(Interrupted { signal: SIGHUP }.exit_code(), 129);
        assert_eq!(Interrupted { signal: SIGINT }.exit_code(), 130);
    }
}
