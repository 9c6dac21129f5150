//! `keyfold report` of a trail that somebody wrote: every line is counted once, sums do not go over, and no name becomes markup.

use crate::trail::{AT, Entry, Number, chain, entries};
use crate::world::members;
use arbitrary::{Arbitrary, Unstructured};
use keyfold::config::Config;
use keyfold::{KekAlias, Lineage, Record};
use keyfold_audit::{AuditText, Event, Expected, verify};
use keyfold_report::{Evidence, HighWaterFile, KekPlace, Key, Prices, Report, Service, Trail, Watch, is_plain};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::OnceLock;

struct Lab {
    config: Config,
    records: Vec<Record>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    anchors: Vec<(u8, Number, Number)>,
    /// More text of the anchor file, and files of their own.
    anchor_text: String,
    prices: String,
    hours: Option<String>,
    burst: u32,
    most: u64,
    /// Of the keys, which are verified and which refused.
    verified: u16,
    refused: u16,
    /// The end of the audit file.
    is_whole: bool,
    /// Pages take longer than all else.
    as_html: bool,
}

/// Reports on what the bytes describe.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(Lab::new);
    let mut data = Unstructured::new(data);
    let Ok(input) = Input::arbitrary(&mut data) else { return };
    let lines: Vec<Vec<u8>> = entries(&mut data).iter().map(Entry::bytes).collect();
    let report = lab.report(&input, &lines);
    let json = report.to_json();
    let audit = report.audit.as_ref().expect("a trail was given");
    let read: Vec<_> = lines.iter().map(|line| Event::read(line)).collect();
    let others = read.iter().filter(|event| matches!(event, Ok(None))).count();
    assert_eq!(
        u128::from(audit.events) + u128::from(audit.later) + u128::from(audit.unread),
        (lines.len() - others) as u128,
        "a line was counted twice, or not"
    );
    // Each line that is no event is unread; of events those without a time.
    assert!(audit.unread >= read.iter().filter(|event| event.is_err()).count() as u64);
    let (mut opened, mut lost, mut drilled) = (0_u64, 0_u64, 0_u64);
    for event in read.iter().filter_map(|event| event.as_ref().ok()?.as_ref()) {
        if keyfold_report::parse_time(&event.time).is_none_or(|seconds| seconds > AT) {
            continue;
        }
        lost = lost.saturating_add(event.number("lost").unwrap_or(0));
        if event.action == "use" {
            let sum = if event.text("field") == Some("keyfold.drill") { &mut drilled } else { &mut opened };
            *sum = sum.saturating_add(event.detail("opened").and_then(|n| n.parse().ok()).unwrap_or(0));
        }
    }
    assert_eq!((audit.total.opened, audit.drilled, audit.lost), (opened, drilled, lost));
    let used = audit.uses.iter().fold(0_u64, |sum, of| sum.saturating_add(of.opened));
    assert_eq!(used, opened, "each value was opened by somebody under some key");
    assert_eq!(json["audit"]["total"]["opened"], opened);
    match input.as_html {
        true => check_html(&report.to_html()),
        false => check_markdown(&report.to_markdown()),
    }
}

/// What a page is made of.
const TAGS: &str = "!DOCTYPE html head meta title style body header h1 nav ol li a main section h2 p ul figure h3 svg desc path text rect div \
                    table caption thead tr th tbody td span";
const ATTRIBUTES: &str = "html lang charset http-equiv content name href aria-label aria-labelledby id class role tabindex scope viewBox x y \
                          text-anchor d width height";

fn check_html(html: &str) {
    assert!(html.chars().all(|c| c == '\n' || is_plain(c)), "characters that are not what they seem");
    for tag in html.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag has an end");
        assert!(tag.matches('"').count() % 2 == 0, "an attribute without an end: {tag}");
        let mut names = tag
            .split('"')
            .step_by(2)
            .flat_map(|outside| outside.split([' ', '=', '/']))
            .filter(|name| !name.is_empty());
        let name = names.next().unwrap_or_default();
        assert!(TAGS.split(' ').any(|known| known == name), "a name became markup: {tag}");
        assert!(names.all(|name| ATTRIBUTES.split(' ').any(|known| known == name)), "a name became markup: {tag}");
    }
}

/// Every row of a table has as many cells as its head.
fn check_markdown(text: &str) {
    assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "characters that are not what they seem");
    let mut head = None;
    for line in text.lines() {
        let bars = line.replace("\\\\", "").replace("\\|", "").matches('|').count();
        assert!(head.is_none_or(|head| !line.starts_with('|') || bars == head), "a name became cells: {line}");
        head = line.starts_with('|').then_some(bars);
        assert!(!line.replace("<br>", "").contains('<'), "a name became markup: {line}");
    }
}

impl Lab {
    fn new() -> Self {
        let lineage = Lineage::from_bytes([0x11; 16]);
        let text = format!(
            "version = 1\n[keyring]\nname = \"clinic\"\nenvironment = \"test\"\nlineage = \"{lineage}\"\nroot_pins = [\"{:064}\"]\nscope_names = \"{:048}\"\n[store]\nuri = \"sqlite:keys.db\"\n[keks.local]\nuri = \"local:local.kek\"\n[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\nactor = \"fuzz\"\n[fields.\"patient.ssn\"]\nidentifier = \"G\"\nrow_binding = \"id\"\ncolumns = [\"ssn\"]\n",
            0, 0
        );
        let config = Config::parse(&text, "keyfold.toml").expect("a configuration");
        let records =
            members().iter().map(|member| Record::parse(&member.parts.to_bytes()).expect("a record")).collect();
        Self { config, records }
    }

    fn report(&self, input: &Input, lines: &[Vec<u8>]) -> Report {
        let mut bytes = lines.join(&b'\n');
        if input.is_whole {
            bytes.push(b'\n');
        }
        let anchors: String = input
            .anchors
            .iter()
            .map(|(of, file, seq)| {
                let (file, seq) = (file.value(), seq.value());
                json!({ "file": file, "chain": chain(*of), "seq": seq, "mac": format!("{seq:064x}"), "time": "" })
                    .to_string()
                    + "\n"
            })
            .collect();
        let expected = Expected {
            lineage: Some(self.config.keyring.lineage),
            anchors: vec![("anchors.jsonl".to_owned(), anchors + &input.anchor_text)],
            ..Expected::default()
        };
        let verification =
            keyfold::testing::block_on(verify(&[AuditText { name: "audit.jsonl".to_owned(), bytes }], &expected));
        let _ = (verification.to_json(), verification.gap());
        let key = |(at, record): (usize, &Record)| Key {
            record: record.clone(),
            verified: (input.verified >> at & 1 == 1).then_some(input.refused >> at & 1 == 0),
        };
        let mut evidence = Evidence {
            at: AT,
            as_of: true,
            not_verified: None,
            high_water: HighWaterFile::There,
            keys: self.records.iter().enumerate().map(key).collect(),
            services: vec![Service::new(self.config.clone())],
            trail: Some(Trail::new(verification, Vec::new())),
            watch: Watch {
                hours: input.hours.as_deref().and_then(|hours| hours.parse().ok()),
                burst: input.burst,
                unknown_max: input.most,
            },
            prices: Prices::parse(&input.prices).ok(),
            places: BTreeMap::from([(KekAlias::new("local").expect("an alias"), KekPlace::SameFolder)]),
        };
        lines.iter().for_each(|line| evidence.read_line(line));
        Report::new(&evidence)
    }
}
