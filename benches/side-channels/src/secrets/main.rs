//! Operations on keys and values that memcheck takes for undefined: `check.py` runs this under valgrind, and says what each report means.
//!
//! Keys are secret, and values and all that is computed of both. Sealed bytes, tokens and MACs become public where they leave, as they would be
//! stored; what is sealed, and how long it is, is public as well. Each case is a function that is not inlined, so that reports name it.

mod planted;
mod primitives;
mod records;
mod valgrind;
mod values;

use keyfold::aead::Backend;
use std::process::ExitCode;

/// A piece of work with secrets.
pub(crate) type Case = (&'static str, fn());

fn main() -> ExitCode {
    if !valgrind::is_running() {
        eprintln!("runs under valgrind: benches/side-channels/check.py");
        return ExitCode::FAILURE;
    }
    let backends: Vec<_> = Backend::ALL.iter().map(|backend| backend.name()).collect();
    let aes = if valgrind::has_aes() { "instructions" } else { "no instructions" };
    println!("{aes} for AES; keyrings on {}; backends: {}", Backend::default().name(), backends.join(", "));
    let cases = [planted::CASES, primitives::CASES, records::CASES, values::CASES].concat();
    for (name, work) in &cases {
        println!("{name}");
        work();
    }
    ExitCode::SUCCESS
}
