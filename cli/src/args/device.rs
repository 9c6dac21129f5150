//! `keyfold device`.

use super::{Source, parse_scope};
use clap::{Args, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Export the data key of a scope in a bundle for one device. Makes the scope if it is new. Give each device a scope of
    /// its own: whoever takes its key out has that scope, and no other.
    Provision(DeviceProvision),
    /// Make a new generation of the scope's key, which seals at once, and a bundle with it. What the device has sealed
    /// under the one before still opens.
    Rotate(DeviceProvision),
    /// Mark every key of the scope compromised, and have a new one seal, which no bundle made before has.
    Revoke(DeviceRevoke),
    /// Make a transport key: 32 random bytes, as they are.
    TransportKey(DeviceTransportKey),
    /// Show what a bundle holds, without its key; with a transport key or passphrase, try whether it opens.
    Inspect(DeviceInspect),
}

/// What opens a bundle.
#[derive(Args, Debug)]
#[group(id = "transport", multiple = false)]
pub(crate) struct Transport {
    /// A file of 32 bytes, or a pipe by its name, such as /dev/stdin: the transport key, which the device has already.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) transport_key: Option<PathBuf>,
    /// The bundle is under a passphrase of at least 12 characters, which is asked for. For gateways: it takes memory.
    #[arg(long)]
    pub(crate) device_passphrase: bool,
    /// As --device-passphrase, read from the first line of FILE, which may be a pipe.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) device_passphrase_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct DeviceProvision {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The scope. Other users of this machine can see the name: never name a patient.
    #[arg(value_parser = parse_scope)]
    pub(crate) scope: String,
    /// The bundle; - for standard output. Nothing is overwritten.
    #[arg(long, short, value_name = "FILE", requires = "transport", value_hint = ValueHint::FilePath)]
    pub(crate) output: OsString,
    #[command(flatten)]
    pub(crate) transport: Transport,
    /// With a passphrase: memory that each guess takes, in MiB, and the device as well when it opens the bundle; 19 to 1024.
    #[arg(long, value_name = "MIB", default_value_t = 64, conflicts_with = "transport_key",
        value_parser = clap::value_parser!(u32).range(19..=1024))]
    pub(crate) memory: u32,
    /// Print the result as one JSON object; to standard error where the bundle goes to standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DeviceRevoke {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The scope. Other users of this machine can see the name: never name a patient.
    #[arg(value_parser = parse_scope)]
    pub(crate) scope: String,
    /// Really: it cannot be taken back, and a device that has the key which seals now loses it, too.
    #[arg(long, required = true)]
    pub(crate) yes: bool,
    /// Why, for the audit log: never about a patient. Without an audit log it is nowhere.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DeviceTransportKey {
    /// The file; - for standard output. Nothing is overwritten.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: OsString,
}

#[derive(Args, Debug)]
pub(crate) struct DeviceInspect {
    /// The bundle; - for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) bundle: OsString,
    #[command(flatten)]
    pub(crate) transport: Transport,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
