//! `keyfold device`: keys that leave for devices, and are taken back.

use crate::args::{DeviceInspect, DeviceProvision, DeviceRevoke, DeviceTransportKey, Transport};
use crate::failure::{Exit, Failure};
use crate::files::output::{Output, OutputError, Target};
use crate::files::standard::stderr;
use crate::keys::time;
use crate::{opening, outputs, passphrase, print_done, print_failed};
use data_encoding::HEXLOWER;
use keyfold::aead::Backend;
use keyfold::device::{BUNDLE_LEN, Bundle, Protection};
use keyfold::wire::KeyId;
use keyfold::{Error, ErrorKind, Keyring, Secret};
use keyfold_kms::passphrase::{Argon2Params, new_transport_key, transport_key};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How a bundle comes about.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Generation {
    /// With the key that seals.
    Present,
    /// With a new one.
    Next,
}

/// Exports the key of a scope. Where the bundle goes to standard output, what is said of it does not go to `out`.
pub(crate) fn provision(args: &DeviceProvision, generation: Generation, out: &mut impl Write) -> Result<(), Failure> {
    // Before anybody types a passphrase, and before anything is exported.
    let output = create(&args.output, outputs::keyring(&args.source, &[]))?;
    let (key, protection) = new_transport(&args.transport, args.memory)?;
    let ring = opening::open(&args.source, &[])?;
    warn_unrecorded(&ring, "which key leaves");
    let is_new = generation == Generation::Present && !pollster::block_on(ring.has_scope(&args.scope))?;
    let provisioned = pollster::block_on(async {
        match generation {
            Generation::Present => ring.provision_device(&args.scope, &key, protection).await,
            Generation::Next => ring.rotate_device(&args.scope, &key, protection).await,
        }
    })?;
    let to_stdout = args.output == "-";
    write(output, &provisioned.bundle).map_err(|failure| failure.add(done_already(generation, is_new)))?;
    let bundle = Bundle::parse(&provisioned.bundle)?;
    // The latest moment: `data_messages` and `keys rotate` may come first.
    let seals_until = ring.rotation().data_age.map(|age| provisioned.key.activated_at().saturating_add(age.as_secs()));
    let text = if args.json {
        let mut json = as_json(&bundle);
        json["scope"] = json!(args.scope);
        json["new_scope"] = json!(is_new);
        json["seals_until"] = json!(seals_until);
        json.to_string()
    } else {
        let scope = match (generation, is_new) {
            (Generation::Next, _) => "the generation before still opens, in the backend",
            (_, true) => "the scope was made now: it is a new one, or its name is misspelt",
            (_, false) => "the scope was there: other bundles may have this key",
        };
        let until = seals_until.map_or_else(
            || "until it is rotated".to_owned(),
            |until| format!("until {} at the latest ([rotation] data_age)", time(until)),
        );
        format!(
            "scope {}: {}\n{scope}\nthe backend seals under this key {until}; the device opens nothing that is sealed after that, until it \
             has the next bundle\ninstall the bundle on one device, and delete it",
            args.scope,
            as_text(&bundle)
        )
    };
    if to_stdout {
        return writeln!(stderr(), "{text}").map_err(print_failed);
    }
    let done = match generation {
        Generation::Next => format!("the key was rotated: {} seals, and", bundle.key_id()),
        Generation::Present => String::new(),
    };
    let place = Path::new(&args.output).display();
    let done = format!("{done} the bundle is in {place}; `keyfold device inspect` shows what it has");
    print_done(out, &text, done.trim_start())
}

/// What has happened where the bundle could not be written.
const fn done_already(generation: Generation, is_new: bool) -> &'static str {
    match (generation, is_new) {
        (Generation::Next, _) => {
            "the key was rotated all the same, and seals: `keyfold device provision` makes a bundle with it"
        }
        (_, true) => "the scope was made all the same: repeat the command",
        (_, false) => "no key was changed: repeat the command",
    }
}

/// Says that nobody will be able to tell `what`.
// F-16-3.
fn warn_unrecorded(ring: &Keyring, what: &str) {
    if !ring.is_audited() {
        tracing::warn!("the configuration has no [audit] section: nothing records {what}");
    }
}

/// Takes the keys of a scope back.
pub(crate) fn revoke(args: &DeviceRevoke, out: &mut impl Write) -> Result<(), Failure> {
    let ring = opening::open(&args.source, &[])?;
    warn_unrecorded(&ring, if args.reason.is_some() { "this, nor the reason" } else { "this" });
    let revoked = pollster::block_on(ring.revoke_device(&args.scope, args.reason.as_deref()))?;
    let text_of = |keys: &[KeyId]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let seals = revoked.seals.map(|key_id| key_id.to_string());
    let text = if args.json {
        json!({
            "scope": args.scope, "slot": revoked.slot.to_string(), "keys": text_of(&revoked.keys),
            "already": text_of(&revoked.already), "seals": seals,
        })
        .to_string()
    } else {
        let fresh = revoked.keys.len() - revoked.already.len();
        let (s, are) = if fresh == 1 { ("", "is") } else { ("s", "are") };
        let were = if revoked.already.len() == 1 { "was" } else { "were" };
        let seals = seals.map_or_else(String::new, |seals| {
            format!("\n{seals} seals from now on, and no bundle that was made before has it")
        });
        format!(
            "{fresh} key{s} of scope {} (ID {}) {are} compromised from now on, and {} {were} already: what is sealed under them opens only where \
             open_compromised is set, and may be forged{seals}\nwhoever has the device can still open what was sealed until now: `keyfold keys shred --scope` is the \
             end of the scope",
            args.scope,
            revoked.slot,
            revoked.already.len(),
        )
    };
    let done = format!(
        "every key of scope ID {} was compromised: do not repeat that, which revokes the key that seals now; `keyfold keys list` shows them",
        revoked.slot
    );
    print_done(out, &text, &done)
}

/// Makes a transport key.
pub(crate) fn make_transport_key(args: &DeviceTransportKey) -> Result<(), Failure> {
    let output = create(&args.output, None)?;
    let key = Secret::try_with(|key: &mut [u8; 32]| getrandom::fill(key))
        .map_err(|error| Error::from(ErrorKind::RandomnessUnavailable).with_source(error))?;
    write(output, key.expose())?;
    let place = if args.output == "-" { String::new() } else { format!(" in {}", Path::new(&args.output).display()) };
    let text = format!("a new transport key{place}: put it into the device, and keep it apart from the bundle");
    writeln!(stderr(), "keyfold: {text}").map_err(print_failed)
}

/// Shows what a bundle says, and whether it opens.
pub(crate) fn inspect(args: &DeviceInspect, out: &mut impl Write) -> Result<(), Failure> {
    const NONE: Error = Error::new(ErrorKind::Malformed, "not a bundle for a device, or not all of one");
    const OTHER: Error =
        Error::new(ErrorKind::DecryptionFailed, "the passphrase is another one, or the bundle was edited");
    let failed =
        |error| Failure::new(Exit::Storage, format!("cannot read {}: {error}", Path::new(&args.bundle).display()));
    let mut bytes = Vec::new();
    let bundle: Box<dyn Read> =
        if args.bundle == "-" { Box::new(io::stdin()) } else { Box::new(File::open(&args.bundle).map_err(failed)?) };
    bundle.take(BUNDLE_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let none = |error: Error| if error.kind() == ErrorKind::Malformed { NONE } else { error };
    let bundle =
        Bundle::parse(&bytes).map_err(|error| Failure::from(none(error)).at(Path::new(&args.bundle).display()))?;
    let other = |error: Error| match (error.kind(), bundle.protection()) {
        (ErrorKind::DecryptionFailed, Protection::Passphrase(_)) => OTHER,
        _ => error,
    };
    let opened = match present_transport(&args.transport, &bundle)? {
        Some(key) => bundle.open(Backend::default(), &key).map(|_| true).map_err(other)?,
        None => false,
    };
    let text = if args.json {
        let mut json = as_json(&bundle);
        json["opened"] = json!(opened);
        json.to_string()
    } else {
        let proven =
            if opened { "it opens" } else { "nothing of this is proven without its transport key or passphrase" };
        format!("{}\n{proven}", as_text(&bundle))
    };
    writeln!(out, "{text}").map_err(print_failed)
}

fn as_json(bundle: &Bundle<'_>) -> Json {
    let (protection, cost) = match bundle.protection() {
        Protection::TransportKey => ("transport-key", Json::Null),
        Protection::Passphrase(cost) => {
            ("passphrase", json!({ "memory_kib": cost.memory, "passes": cost.passes, "lanes": cost.lanes }))
        }
    };
    json!({
        "key_id": bundle.key_id().to_string(), "generation": bundle.key_id().generation(),
        "lineage": bundle.lineage().to_string(), "slot": bundle.scope().to_string(),
        "device_id": HEXLOWER.encode(&bundle.device_id()), "issued": bundle.issued() / 1_000_000,
        "protection": protection, "argon2id": cost,
    })
}

fn as_text(bundle: &Bundle<'_>) -> String {
    let protection = match bundle.protection() {
        Protection::TransportKey => "a transport key".to_owned(),
        Protection::Passphrase(cost) => format!("a passphrase, {} MiB", cost.memory / 1024),
    };
    format!(
        "generation {} of scope ID {}: {}\ndevice ID {}, issued {}, under {protection}",
        bundle.key_id().generation(),
        bundle.scope(),
        bundle.key_id(),
        HEXLOWER.encode(&bundle.device_id()),
        time(bundle.issued() / 1_000_000),
    )
}

/// The transport key of a new bundle.
fn new_transport(transport: &Transport, memory: u32) -> Result<(Secret<32>, Protection), Failure> {
    if let Some(file) = &transport.transport_key {
        return Ok((read_key(file).map_err(Failure::of_opening)?, Protection::TransportKey));
    }
    let passphrase = match &transport.device_passphrase_file {
        Some(file) => passphrase::read(file).map_err(Failure::of_opening)?,
        None => passphrase::ask_twice("name a file with --device-passphrase-file")?,
    };
    // RFC 9106, §4: the second recommended choice, for machines with little memory.
    let (key, cost) = new_transport_key(&passphrase, Argon2Params::new(memory * 1024, 3, 4)?)?;
    Ok((key, Protection::Passphrase(cost)))
}

/// The transport key of a bundle that is there, if anybody gives it.
fn present_transport(transport: &Transport, bundle: &Bundle<'_>) -> Result<Option<Secret<32>>, Failure> {
    let wrong = |why| Err(Failure::new(Exit::Usage, why));
    let given = transport.device_passphrase || transport.device_passphrase_file.is_some();
    match (&transport.transport_key, bundle.protection()) {
        (None, _) if !given => Ok(None),
        (Some(file), Protection::TransportKey) => Ok(Some(read_key(file).map_err(Failure::of_opening)?)),
        (Some(_), Protection::Passphrase(_)) => wrong("the bundle opens with a passphrase, not with a transport key"),
        (None, Protection::TransportKey) => wrong("the bundle opens with a transport key, not with a passphrase"),
        (None, Protection::Passphrase(cost)) => {
            let passphrase = match &transport.device_passphrase_file {
                Some(file) => passphrase::read(file).map_err(Failure::of_opening)?,
                None => passphrase::ask("passphrase of the bundle: ", "name a file with --device-passphrase-file")
                    .map_err(|error| opening::no_passphrase(&error))?,
            };
            Ok(Some(transport_key(&passphrase, &cost)?))
        }
    }
}

/// The 32 bytes of a transport key file.
fn read_key(path: &Path) -> keyfold::Result<Secret<32>> {
    const NO_KEY: Error = Error::new(
        ErrorKind::Configuration,
        "not a transport key, which has exactly 32 random bytes: `keyfold device transport-key` makes one",
    );
    const ERASED: Error = Error::new(
        ErrorKind::Configuration,
        "not a transport key: 32 random bytes are not all the same, as those of erased storage are",
    );
    const OPEN: &str = "the transport key file must be readable by its owner alone: run chmod 600";
    let mut file = passphrase::open_private(path, "cannot read the transport key file", OPEN)?;
    let no_key = |_: io::Error| NO_KEY.with_detail(path.display().to_string());
    let key = Secret::try_with(|key: &mut [u8; 32]| file.read_exact(key)).map_err(no_key)?;
    if key.expose().iter().all(|byte| *byte == key.expose()[0]) {
        return Err(ERASED.with_detail(path.display().to_string()));
    }
    if file.read(&mut [0]).map_or(true, |count| count > 0) {
        return Err(no_key(io::ErrorKind::InvalidData.into()));
    }
    Ok(key)
}

/// The file of `--output`, for bytes that are no text, and never replace anything, nor are what the keyring lives in.
fn create(argument: &OsStr, keyring: Option<(&Path, &[PathBuf])>) -> Result<Output, Failure> {
    let file = (argument != "-").then(|| Path::new(argument));
    outputs::refuse(&[("--output", file)], keyring, &[], None)?;
    let target = Target::from_argument(argument);
    target.refuse_terminal()?;
    Output::create(target, false).map_err(never_overwritten)
}

fn write(mut output: Output, bytes: &[u8]) -> Result<(), Failure> {
    output.write(bytes)?;
    output.commit().map_err(never_overwritten)
}

fn never_overwritten(error: OutputError) -> Failure {
    match error {
        OutputError::Exists { target } => {
            Failure::new(Exit::Usage, format!("{target} already exists, and is never overwritten: name another file"))
        }
        error => error.into(),
    }
}
