//! `keyfold keys new-kek`: a file with a new KEK.

use crate::args::KeysNewKek;
use crate::failure::{Exit, Failure};
use crate::{outputs, passphrase, print_done};
use keyfold_kms::passphrase::{Argon2Params, PassphraseKek};
use std::io::Write;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Makes a local KEK file, or one that opens with a passphrase.
pub(crate) fn new_kek(args: &KeysNewKek, out: &mut impl Write) -> Result<(), Failure> {
    let file = args.file.display();
    // Before anybody types a passphrase for nothing.
    if std::fs::symlink_metadata(&args.file).is_ok() {
        return Err(Failure::new(Exit::Storage, format!("{file}: File exists; nothing was changed")));
    }
    outputs::refuse(&[("FILE", Some(args.file.as_path()))], None, &[], None)?;
    let text = if args.passphrase {
        let passphrase = passphrase(args)?;
        let params = Argon2Params::default().with_memory(args.memory * 1024)?;
        let id = PassphraseKek::create(&args.file, &passphrase, params)?;
        format!("{file}  a new KEK with a passphrase, {id}: keep copies offline, and the passphrase apart from them")
    } else {
        let kek = keyfold_kms::LocalKek::create(&args.file)?;
        format!("{file}  a new local KEK, {}: keep a copy offline, apart from the store", kek.id())
    };
    print_done(out, &text, &format!("{file} was made, with a new KEK"))
}

/// From the file that was named, or from the terminal, twice.
fn passphrase(args: &KeysNewKek) -> Result<Zeroizing<String>, Failure> {
    let named = std::env::var_os("KEYFOLD_PASSPHRASE_FILE").map(PathBuf::from);
    if let Some(file) = args.passphrase_file.clone().or(named) {
        return passphrase::read(&file).map_err(Failure::of_opening);
    }
    passphrase::ask_twice("name a file with --passphrase-file, or with the variable KEYFOLD_PASSPHRASE_FILE")
}
