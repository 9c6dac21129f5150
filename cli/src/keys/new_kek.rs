//! `keyfold keys new-kek`: a file with a new KEK.

use crate::args::KeysNewKek;
use crate::failure::{Exit, Failure};
use crate::opening::no_passphrase;
use crate::{passphrase, print_failed};
use keyfold_kms::passphrase::{Argon2Params, PassphraseKek};
use std::io::Write;
use zeroize::Zeroizing;

/// Makes a local KEK file, or one that opens with a passphrase.
pub(crate) fn new_kek(args: &KeysNewKek, out: &mut impl Write) -> Result<(), Failure> {
    let file = args.file.display();
    let text = if args.passphrase {
        let passphrase = passphrase(args)?;
        let params = Argon2Params::default().with_memory(args.memory * 1024)?;
        let id = PassphraseKek::create(&args.file, &passphrase, params)?;
        format!("{file}  a new KEK with a passphrase, {id}: keep copies offline, and the passphrase apart from them")
    } else {
        let kek = keyfold_kms::LocalKek::create(&args.file)?;
        format!("{file}  a new local KEK, {}: keep a copy offline, apart from the store", kek.id())
    };
    writeln!(out, "{text}").map_err(print_failed)
}

/// From the file that was named, or from the terminal, twice.
fn passphrase(args: &KeysNewKek) -> Result<Zeroizing<String>, Failure> {
    if let Some(file) = &args.source.passphrase_file {
        return passphrase::read(file).map_err(Failure::of_opening);
    }
    let first = passphrase::ask("new passphrase: ").map_err(|error| no_passphrase(&error))?;
    let second = passphrase::ask("once more: ").map_err(|error| no_passphrase(&error))?;
    if *first == *second { Ok(first) } else { Err(Failure::new(Exit::Usage, "the two passphrases differ")) }
}
