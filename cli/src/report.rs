//! `keyfold report`: what configuration, key records and audit trail show, for people who review it.

use crate::args::{Report as Args, ReportFormat, ServiceFiles};
use crate::failure::{Exit, Failure};
use crate::files::output::{Output, Target};
use crate::{audit, opening, outputs};
use keyfold::config::Config;
use keyfold::{Error, ErrorKind, KekAlias};
use keyfold_open::{ConfigDigests, Distance, MissingFiles, Wraps, is_no_answer};
use keyfold_report::{
    Digests, Evidence, FileDigest, HighWaterFile, KekPlace, Key, Prices, Report, Service, Trail, Watch,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// Writes the report. Makes no file that is missing; with `--verify` the trail has, as of every command, that the keyring was opened. Fails
/// behind the report where it could not verify what it was asked to.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let target = (args.output != "-").then(|| Path::new(&args.output));
    let inputs: Vec<&OsStr> = args.prices.iter().map(|file| file.as_os_str()).collect();
    outputs::refuse(&[("--output", target)], outputs::keyring(&args.source, &args.policies.policy), &inputs, None)?;
    let mut output = Output::create(Target::from_argument(&args.output), args.force)?;
    let mut services = vec![read(&args.source.config, &args.policies.policy)?];
    for ServiceFiles { config, policies } in &args.service {
        services.push(of_keyring(config, read(config, policies)?, &services[0].config)?);
    }
    // Before anything is opened.
    let missing = keyfold_open::missing_files(&args.source.config).map_err(Failure::of_opening)?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut evidence = Evidence {
        at: args.at.unwrap_or_else(now),
        as_of: args.at.is_some(),
        keys: Vec::new(),
        not_verified: None,
        high_water: high_water(&services[0].config, &missing),
        services,
        trail: None,
        watch: Watch { hours: args.hours.clone(), burst: args.burst, unknown_max: args.burst_first },
        prices: args.prices.as_deref().map(prices).transpose()?,
        places: places(&args.source.config)?,
    };
    // The trail first: opening the keyring adds to it.
    read_trail(args, &mut evidence)?;
    let unverified = keys(args, &missing, &mut evidence.keys)?;
    evidence.not_verified = unverified.as_ref().map(|unverified| unverified.why.clone());
    let report = Report::new(&evidence);
    let text = match args.format {
        ReportFormat::Md => report.to_markdown(),
        ReportFormat::Json => format!("{:#}\n", report.to_json()),
        ReportFormat::Html => report.to_html(),
    };
    output.write(text.as_bytes())?;
    output.commit()?;
    if args.verify { check_verified(unverified, &report, &missing) } else { Ok(()) }
}

/// That records could not be verified, or not all.
struct Unverified {
    /// For the command.
    failure: Failure,
    /// For the report.
    why: String,
}

impl Unverified {
    fn of_opening(error: Error, missing: &MissingFiles) -> Self {
        let why = why_unopened(&error, missing);
        Self { failure: Failure::of_opening(error).add("key records were not verified"), why }
    }

    /// Nobody answered for `unanswered` of `all` records, or their KEK is another one; `error` is what one of them met. It may name KEKs and services, which a report does not.
    fn of_answers(error: Error, unanswered: usize, all: usize) -> Self {
        let kind = error.kind();
        let records = format!("{unanswered} of {all} key record{}", if all == 1 { "" } else { "s" });
        let cause = match kind {
            ErrorKind::Configuration => "the configuration lacks their KEKs",
            ErrorKind::PolicyRefused => "their KEKs are for recovery alone",
            _ if Wraps::do_not_unwrap(&error) => {
                "nothing opens that their KEK wraps, so it is another KEK, or each record was changed"
            }
            _ => "the key service did not answer, or refused",
        };
        let why = format!("{records}: {cause} ({} {})", kind.code(), kind.name());
        let were = if unanswered == 1 { "was" } else { "were" };
        let is_other_kek = Wraps::do_not_unwrap(&error);
        let failure = Failure::from(error).add(&format!("{records} {were} not verified"));
        Self { failure: if is_other_kek { failure.add(Wraps::ADVICE).of_keys() } else { failure }, why }
    }

    /// Both, with the failure of this one.
    fn and(self, other: Self) -> Self {
        Self { failure: self.failure.add(&other.why), why: format!("{}; {}", self.why, other.why) }
    }
}

/// Fails where nobody vouches for records, where the trail is not what was written, and where records could not be verified, or not be held against what
/// this machine has seen.
fn check_verified(unverified: Option<Unverified>, report: &Report, missing: &MissingFiles) -> Result<(), Failure> {
    const MADE: &str = "the report was made, and says so";
    let refused = match report.keys.refused {
        0 => None,
        1 => Some("1 key record is not vouched for: take it for tampering".to_owned()),
        n => Some(format!("{n} key records are not vouched for: take them for tampering")),
    };
    let is_changed = report.audit.as_ref().is_some_and(|trail| !trail.clean);
    let told = |failure: Option<Failure>, exit, said: &str| match failure {
        Some(failure) => failure.add(said),
        None => Failure::new(exit, said.to_owned()),
    };
    let mut failure = unverified.map(|unverified| unverified.failure);
    if let Some(refused) = refused {
        failure = Some(told(failure, Exit::Key, &refused).of_keys());
    }
    if is_changed {
        let said = "the audit trail is not what was written: audit verify names what is wrong";
        failure = Some(told(failure, Exit::Data, said));
    }
    if let Some(failure) = failure {
        return Err(failure.add(MADE));
    }
    let Some(file) = &missing.high_water else { return Ok(()) };
    let why = format!(
        "the high-water file {} is missing: an older copy of the key store would not be noticed. Unless this machine is new, find out where it \
         went; the next command that opens the keyring, such as keys list, makes it anew",
        file.display()
    );
    Err(Failure::new(Exit::Storage, why).add(MADE))
}

/// Why a keyring did not open, for the report: the error may name files and services, which a report does not.
fn why_unopened(error: &Error, missing: &MissingFiles) -> String {
    let file = match (&missing.trail, &missing.anchors) {
        (Some(_), _) => "audit file",
        (None, Some(_)) => "file of anchors",
        (None, None) => {
            let kind = error.kind();
            return format!("the keyring does not open ({} {}); the command says why", kind.code(), kind.name());
        }
    };
    let others = if missing.is_put_aside { ", though files that were put aside are there" } else { "" };
    format!("opening the keyring would make anew the {file}, which is missing{others}")
}

fn high_water(config: &Config, missing: &MissingFiles) -> HighWaterFile {
    match (&config.high_water, &missing.high_water) {
        (None, _) => HighWaterFile::NotSet,
        (Some(_), None) => HighWaterFile::There,
        (Some(_), Some(_)) => HighWaterFile::Missing,
    }
}

fn read(config: &Path, policies: &[PathBuf]) -> Result<Service, Failure> {
    let (config, digests) = keyfold_open::read_config_with_digests(config, policies).map_err(Failure::of_opening)?;
    let ConfigDigests { configuration_sha256, files } = digests;
    let file = |(path, sha256): (PathBuf, String)| FileDigest { file: path.display().to_string(), sha256 };
    let digests = Digests { configuration_sha256, files: files.into_iter().map(file).collect() };
    Ok(Service { digests: Some(digests), ..Service::new(config) })
}

/// The configuration of another service, if it uses the keyring that the report is of.
fn of_keyring(file: &Path, service: Service, reported: &Config) -> Result<Service, Failure> {
    let (own, other) = (&reported.keyring, &service.config.keyring);
    if (own.lineage, &own.environment) == (other.lineage, &other.environment) {
        return Ok(service);
    }
    let why = format!(
        "--service {}: it uses another keyring, lineage {} in {}, and the report is of lineage {} in {}",
        file.display(),
        other.lineage,
        other.environment,
        own.lineage,
        own.environment
    );
    Err(Failure::new(Exit::Policy, why))
}

fn prices(file: &Path) -> Result<Prices, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::Storage, format!("cannot read {}: {error}", file.display())))?;
    Prices::parse(&text).map_err(|error| Failure::new(Exit::Policy, format!("{}: {error}", file.display())))
}

/// Reads the audit files line by line, as they were verified.
fn read_trail(args: &Args, evidence: &mut Evidence) -> Result<(), Failure> {
    if evidence.services.first().is_none_or(|service| service.config.audit.is_none()) {
        return Ok(());
    }
    let mut found = keyfold_open::audit_trail(&args.source.config).map_err(Failure::of_opening)?;
    if !args.verify {
        found.keks.clear();
    }
    let forgeable = found.forgeable.iter().map(ToString::to_string).collect();
    let (verification, files) = audit::verify_trail(found)?;
    evidence.trail = Some(Trail::new(verification, forgeable));
    // Not by path, where another file may lie by now; nor what was written since then.
    Ok(files.each_line(|line| evidence.read_line(line))?)
}

/// How far each KEK that is a file is from the key records.
fn places(config: &Path) -> Result<BTreeMap<KekAlias, KekPlace>, Failure> {
    let places = keyfold_open::places(config).map_err(Failure::of_opening)?;
    let of = |file: &PathBuf| match places.distance(file) {
        Distance::SameFolder => Some(KekPlace::SameFolder),
        Distance::SameFileSystem => Some(KekPlace::SameFileSystem),
        Distance::Apart => Some(KekPlace::Apart),
        // What cannot be looked at is not missing.
        Distance::Missing => matches!(file.try_exists(), Ok(false)).then_some(KekPlace::Missing),
    };
    Ok(places.keks.iter().filter_map(|(alias, file)| Some((alias.clone(), of(file)?))).collect())
}

/// Reads the key records into `keys`, with `--verify` through the keyring. Returns why they could not be verified, or not all.
fn keys(args: &Args, missing: &MissingFiles, keys: &mut Vec<Key>) -> Result<Option<Unverified>, Failure> {
    let opened = match args.verify {
        true => {
            keyfold_open::open_to_look(&args.source.config, &args.policies.policy, &opening::options(&args.source)?)
                .map(Some)
        }
        false => Ok(None),
    };
    let (ring, unopened) = match opened {
        Ok(ring) => (ring, None),
        Err(error) => (None, Some(error)),
    };
    let Some(ring) = ring else {
        let records = keyfold_open::stored_records(&args.source.config).map_err(Failure::of_opening)?;
        keys.extend(records.into_iter().map(|record| Key { record, verified: None }));
        return Ok(unopened.map(|error| Unverified::of_opening(error, missing)));
    };
    let (mut after, mut unanswered, mut no_answer) = (None, 0, None);
    let (mut wraps, mut unopened, mut wrong_wrap) = (Wraps::default(), Vec::new(), None);
    loop {
        let page = pollster::block_on(ring.list(after, PAGE))?;
        let Some(last) = page.last() else { break };
        after = Some(last.record.key_id());
        for info in page {
            wraps.note(&info.record, info.verified.as_ref().copied());
            let verified = match info.verified {
                Ok(()) => Some(true),
                // That nobody answered says nothing of the record.
                Err(error) if is_no_answer(&error) => {
                    unanswered += 1;
                    no_answer = Some(error);
                    None
                }
                Err(error) => {
                    if Wraps::do_not_unwrap(&error) {
                        unopened.push(keys.len());
                        wrong_wrap = Some(error);
                    }
                    Some(false)
                }
            };
            keys.push(Key { verified, record: info.record });
        }
    }
    ring.close();
    // Nor does what another KEK does not unwrap.
    let wrong_wrap = wrong_wrap.filter(|_| wraps.are_of_other_keks());
    if wrong_wrap.is_some() {
        unopened.iter().for_each(|&index| keys[index].verified = None);
    }
    let of_keks = wrong_wrap.map(|error| Unverified::of_answers(error, unopened.len(), keys.len()));
    let of_answers = no_answer.map(|error| Unverified::of_answers(error, unanswered, keys.len()));
    Ok(of_keks.into_iter().chain(of_answers).reduce(Unverified::and))
}
