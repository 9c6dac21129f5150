//! `keyfold device`: keys that leave for devices, and are taken back.

use crate::args::{DeviceInspect, DeviceProvision, DeviceRevoke, DeviceTransportKey, Transport};
use crate::failure::{Exit, Failure};
use crate::files::output::{Output, OutputError, Target};
use crate::keys::time;
use crate::{opening, passphrase, print_failed};
use data_encoding::HEXLOWER;
use keyfold::aead::Backend;
use keyfold::device::{BUNDLE_LEN, Bundle, Protection};
use keyfold::{Error, ErrorKind, Secret};
use keyfold_kms::passphrase::{Argon2Params, new_transport_key, transport_key};
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// How a bundle comes about.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Generation {
    /// With the key that seals.
    Present,
    /// With a new one.
    Next,
}

/// Exports the key of a scope.
pub(crate) fn provision(args: &DeviceProvision, generation: Generation) -> Result<(), Failure> {
    // Before anybody types a passphrase, and before anything is exported.
    let output = create(Target::from_argument(&args.output))?;
    let (key, protection) = new_transport(&args.transport, args.memory)?;
    let ring = opening::open(&args.source, &[])?;
    let is_new = generation == Generation::Present && !pollster::block_on(ring.has_scope(&args.scope))?;
    let provisioned = pollster::block_on(async {
        match generation {
            Generation::Present => ring.provision_device(&args.scope, &key, protection).await,
            Generation::Next => ring.rotate_device(&args.scope, &key, protection).await,
        }
    })?;
    let to_stdout = args.output == "-";
    write(output, &provisioned.bundle)?;
    let bundle = Bundle::parse(&provisioned.bundle)?;
    let text = if args.json {
        let mut json = as_json(&bundle);
        json["new_scope"] = json!(is_new);
        json.to_string()
    } else {
        let new = if is_new { "; the scope is new" } else { "" };
        format!("{}{new}\ninstall the bundle on one device, and delete it", as_text(&bundle))
    };
    if to_stdout { writeln!(anstream::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") }
        .map_err(print_failed)
}

/// Takes the keys of a scope back.
pub(crate) fn revoke(args: &DeviceRevoke, out: &mut impl Write) -> Result<(), Failure> {
    let ring = opening::open(&args.source, &[])?;
    let revoked = pollster::block_on(ring.revoke_device(&args.scope, args.reason.as_deref()))?;
    let keys: Vec<_> = revoked.keys.iter().map(ToString::to_string).collect();
    let seals = revoked.seals.map(|key_id| key_id.to_string());
    let text = if args.json {
        json!({ "slot": revoked.slot.to_string(), "keys": keys, "seals": seals }).to_string()
    } else {
        let seals = seals.map_or_else(String::new, |seals| {
            format!("\n{seals} seals from now on, and no bundle that was made before has it")
        });
        format!(
            "{} keys of scope {} are compromised: what is sealed under them opens only where open_compromised is set, and may be \
             forged{seals}\nwhoever has the device can still open what was sealed until now: `keyfold keys shred --scope` is the \
             end of the scope",
            keys.len(),
            revoked.slot
        )
    };
    writeln!(out, "{text}").map_err(print_failed)
}

/// Makes a transport key.
pub(crate) fn make_transport_key(args: &DeviceTransportKey) -> Result<(), Failure> {
    let output = create(Target::from_argument(&args.output))?;
    let key = Secret::try_with(|key: &mut [u8; 32]| getrandom::fill(key))
        .map_err(|error| Error::from(ErrorKind::RandomnessUnavailable).with_source(error))?;
    write(output, key.expose())?;
    let text = "a new transport key: put it into the device, and keep it apart from the bundle";
    writeln!(anstream::stderr(), "keyfold: {text}").map_err(print_failed)
}

/// Shows what a bundle says, and whether it opens.
pub(crate) fn inspect(args: &DeviceInspect, out: &mut impl Write) -> Result<(), Failure> {
    let failed =
        |error| Failure::new(Exit::Storage, format!("cannot read {}: {error}", Path::new(&args.bundle).display()));
    let mut bytes = Vec::new();
    let bundle: Box<dyn Read> =
        if args.bundle == "-" { Box::new(io::stdin()) } else { Box::new(File::open(&args.bundle).map_err(failed)?) };
    bundle.take(BUNDLE_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let bundle = Bundle::parse(&bytes).map_err(|error| Failure::from(error).at(Path::new(&args.bundle).display()))?;
    let opened = match present_transport(&args.transport, &bundle)? {
        Some(key) => bundle.open(Backend::default(), &key).map(|_| true)?,
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
        "generation {} of scope {}: {}\ndevice ID {}, issued {}, under {protection}",
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
        None => passphrase::ask_twice("--device-passphrase-file")?,
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
                None => passphrase::ask_for("passphrase of the bundle: ", "--device-passphrase-file")
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
        "the transport key file is none: it holds 32 random bytes, as `keyfold device transport-key` makes them",
    );
    const OPEN: &str = "the transport key file must be readable by its owner alone: run chmod 600";
    let mut file = passphrase::open_private(path, "cannot read the transport key file", OPEN)?;
    let no_key = |_| NO_KEY.with_detail(path.display().to_string());
    let key = Secret::try_with(|key: &mut [u8; 32]| file.read_exact(key)).map_err(no_key)?;
    // One byte more, or erased storage.
    let is_longer = file.read(&mut [0]).map_or(true, |count| count > 0);
    if is_longer || key.expose().iter().all(|byte| *byte == key.expose()[0]) {
        return Err(NO_KEY.with_detail(path.display().to_string()));
    }
    Ok(key)
}

/// An output for bytes that are no text, and never replace anything.
fn create(target: Target) -> Result<Output, Failure> {
    if target == Target::Stdout && io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, "these bytes are not for a terminal: name a file, or a pipe"));
    }
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
