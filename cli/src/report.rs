//! `keyfold report`: what configuration, key records and audit trail show, for people who review it.

use crate::args::{Report as Args, ReportFormat, ServiceFiles};
use crate::failure::{Exit, Failure};
use crate::files::output::{Output, Target};
use crate::{audit, opening, outputs};
use keyfold::KekAlias;
use keyfold::config::Config;
use keyfold_open::{Distance, is_no_answer};
use keyfold_report::{Evidence, KekPlace, Key, Prices, Report, Service, Trail, Watch};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// Writes the report. Changes nothing; with `--verify` the trail has, as of every command, that the keyring was opened.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let target = (args.output != "-").then(|| Path::new(&args.output));
    let inputs: Vec<&OsStr> = args.prices.iter().map(|file| file.as_os_str()).collect();
    outputs::refuse(&[("--output", target)], outputs::keyring(&args.source, &args.policies.policy), &inputs, None)?;
    let mut output = Output::create(Target::from_argument(&args.output), args.force)?;
    let config = read(&args.source.config, &args.policies.policy)?;
    let mut services = vec![Service::new(config)];
    for ServiceFiles { config, policies } in &args.service {
        services.push(Service::new(of_keyring(config, read(config, policies)?, &services[0].config)?));
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut evidence = Evidence {
        at: args.at.unwrap_or_else(now),
        keys: Vec::new(),
        services,
        trail: None,
        watch: Watch { hours: args.hours.clone(), burst: args.burst, unknown_max: args.burst_first },
        prices: args.prices.as_deref().map(prices).transpose()?,
        places: places(&args.source.config)?,
    };
    // The trail first: opening the keyring adds to it.
    read_trail(args, &mut evidence)?;
    evidence.keys = keys(args)?;
    let report = Report::new(&evidence);
    let text = match args.format {
        ReportFormat::Md => report.to_markdown(),
        ReportFormat::Json => format!("{:#}\n", report.to_json()),
        ReportFormat::Html => report.to_html(),
    };
    output.write(text.as_bytes())?;
    Ok(output.commit()?)
}

fn read(config: &Path, policies: &[PathBuf]) -> Result<Config, Failure> {
    keyfold_open::read_config(config, policies).map_err(Failure::of_opening)
}

/// The configuration of another service, if it uses the keyring that the report is of.
fn of_keyring(file: &Path, config: Config, reported: &Config) -> Result<Config, Failure> {
    let (own, other) = (&reported.keyring, &config.keyring);
    if (own.lineage, &own.environment) == (other.lineage, &other.environment) {
        return Ok(config);
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

/// Reads the audit files line by line, after they have been verified.
fn read_trail(args: &Args, evidence: &mut Evidence) -> Result<(), Failure> {
    if evidence.services.first().is_none_or(|service| service.config.audit.is_none()) {
        return Ok(());
    }
    let mut found = keyfold_open::audit_trail(&args.source.config).map_err(Failure::of_opening)?;
    if !args.verify {
        found.keks.clear();
    }
    let forgeable = found.forgeable.iter().map(ToString::to_string).collect();
    let files = found.files.clone();
    let verification = audit::verify_trail(found)?;
    let lines: BTreeMap<String, u64> = verification.files.iter().cloned().collect();
    evidence.trail = Some(Trail::new(verification, forgeable));
    for file in files {
        let mut left = lines.get(&file.display().to_string()).copied().unwrap_or(0);
        audit::each_line(&file, |line| {
            // What was written since then has not been verified.
            if left > 0 {
                left -= 1;
                evidence.read_line(line);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// How far each KEK that is a file is from the key records.
fn places(config: &Path) -> Result<BTreeMap<KekAlias, KekPlace>, Failure> {
    let places = keyfold_open::places(config).map_err(Failure::of_opening)?;
    let of = |file: &PathBuf| match places.distance(file) {
        Distance::SameFolder => KekPlace::SameFolder,
        Distance::SameFileSystem => KekPlace::SameFileSystem,
        Distance::Apart => KekPlace::Apart,
        Distance::Missing => KekPlace::Missing,
    };
    Ok(places.keks.iter().map(|(alias, file)| (alias.clone(), of(file))).collect())
}

fn keys(args: &Args) -> Result<Vec<Key>, Failure> {
    if !args.verify {
        let records = keyfold_open::stored_records(&args.source.config).map_err(Failure::of_opening)?;
        return Ok(records.into_iter().map(|record| Key { record, verified: None }).collect());
    }
    let ring = opening::open(&args.source, &args.policies.policy)?;
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = pollster::block_on(ring.list(after, PAGE))?;
        let Some(last) = page.last() else { break };
        after = Some(last.record.key_id());
        keys.extend(page.into_iter().map(|info| Key {
            verified: match &info.verified {
                Ok(()) => Some(true),
                // That nobody answered says nothing of the record.
                Err(error) if is_no_answer(error) => None,
                Err(_) => Some(false),
            },
            record: info.record,
        }));
    }
    ring.close();
    Ok(keys)
}
