//! Configurations and policies as they are in files.

use crate::{audit, io};
use keyfold::config::Config;
use keyfold::{Error, ErrorKind, Policy, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest configuration or policy file in bytes.
const MAX_CONFIG_LEN: u64 = 4 * 1024 * 1024;
const NO_CONFIG: &str = "cannot read the configuration (is this its file? init makes one)";

/// Reads the configuration file `path` and adds the fields of `policies`.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): a file cannot be read. - [`Configuration`](ErrorKind::Configuration): names file, line and key.
pub fn read_config(path: &Path, policies: &[PathBuf]) -> Result<Config> {
    read(path, policies).map(|(config, _)| config)
}

/// Reads policy files alone: what they say needs no keyring.
///
/// # Errors
///
/// As for [`read_config`].
pub fn read_policies(policies: &[PathBuf]) -> Result<Policy> {
    let mut policy = Policy::new();
    for path in policies {
        let text = read_text(path, "cannot read the policy")?;
        keyfold::config::add_policy(&mut policy, &text, &path.display().to_string())?;
    }
    Ok(policy)
}

/// As [`read_config`], with the SHA-256 of what was read.
///
/// # Errors
///
/// As for [`read_config`].
pub fn read_config_with_digests(path: &Path, policies: &[PathBuf]) -> Result<(Config, ConfigDigests)> {
    let mut files = Vec::new();
    let (config, digest) = read_each(path, policies, |file, text| {
        files.push((file.to_owned(), audit::hex(Sha256::digest(text).as_slice())))
    })?;
    Ok((config, ConfigDigests { configuration_sha256: audit::hex(digest.finalize().as_slice()), files }))
}

/// What a configuration and its policies are known by.
#[derive(Clone, Debug)]
pub struct ConfigDigests {
    /// Of all files together, as the audit trail has it wherever a keyring is opened with them: `configuration_sha256`, in
    /// hexadecimal.
    pub configuration_sha256: String,
    /// Of each file, the configuration first.
    pub files: Vec<(PathBuf, String)>,
}

/// As [`read_config`], with a digest of all files: of each its length in 8 bytes and its text.
pub(crate) fn read(path: &Path, policies: &[PathBuf]) -> Result<(Config, Sha256)> {
    read_each(path, policies, |_, _| {})
}

/// As [`read`]; `each` gets every file and its text.
fn read_each(path: &Path, policies: &[PathBuf], mut each: impl FnMut(&Path, &str)) -> Result<(Config, Sha256)> {
    let text = read_text(path, NO_CONFIG)?;
    let digest = |digest: Sha256, text: &str| digest.chain_update((text.len() as u64).to_be_bytes()).chain_update(text);
    let mut hash = digest(Sha256::new(), &text);
    each(path, &text);
    let mut config = Config::parse(&text, &path.display().to_string())?;
    for policy in policies {
        let text = read_text(policy, "cannot read the policy")?;
        hash = digest(hash, &text);
        each(policy, &text);
        config.add_policy(&text, &policy.display().to_string())?;
    }
    Ok((config, hash))
}

fn read_text(path: &Path, failed: &'static str) -> Result<String> {
    let metadata = fs::metadata(path).map_err(|error| io(error, path, failed))?;
    if !metadata.is_file() || metadata.len() > MAX_CONFIG_LEN {
        return Err(Error::new(ErrorKind::Configuration, "a configuration is a regular file of at most 4 MiB")
            .with_detail(path.display().to_string()));
    }
    if metadata.permissions().mode() & 0o002 != 0 {
        return Err(Error::new(
            ErrorKind::Configuration,
            "anyone on the machine can write the file, and it decides what is trusted and protected: run chmod o-w",
        )
        .with_detail(path.display().to_string()));
    }
    let bytes = fs::read(path).map_err(|error| io(error, path, failed))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::Configuration, "not UTF-8 text").with_detail(path.display().to_string()))
}
