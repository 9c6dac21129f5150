//! What a configuration file may say. A little over 500 lines: every table is held against the same file.

use super::*;
use crate::cache::CachePolicy;
use crate::keys::MemoryLock;
use crate::rotation::RotationPolicy;
use crate::wire::Suite;

const CONFIG: &str = concat!(
    include_str!("tests.toml"),
    r#"[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
columns = ["ssn"]
[fields."patient.id"]
mode = "deterministic"
join_group = "patient"
keep_prefix = "Patient/"
padding = 16
"#
);

fn error(from: &str, to: &str) -> String {
    assert!(CONFIG.contains(from), "{from}");
    let config = CONFIG.replace("padding = 16\n", "").replace(from, to);
    let error = Config::parse(&config, "keyfold.toml").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.to_string()
}

#[test]
fn a_whole_file() {
    let config = Config::parse(&CONFIG.replace("padding = 16\n", ""), "keyfold.toml").unwrap();
    assert_eq!(config.store, "sqlite:keys.db");
    let ssn = config.keyring.policy.field("patient.ssn").unwrap();
    assert_eq!(ssn.identifier, HipaaClassOf::g());
    assert_eq!(config.keyring.lookup["default"].seals.generation(), 3);
}

#[test]
fn what_hl7_messages_may_have_is_one_list_of_all_files() {
    let mut config = Config::parse(&CONFIG.replace("padding = 16\n", ""), "keyfold.toml").unwrap();
    assert_eq!(config.keyring.policy.hl7(), &crate::policy::Hl7Policy::default());
    config.add_policy("version = 1\n[hl7]\nclear = [\"PID-8\"]\n", "a.toml").unwrap();
    assert!(config.keyring.policy.hl7().versions.is_none());
    config.add_policy("version = 1\n[hl7]\nversions = [\"2.5\"]\nclear = [\"SFT\"]\n", "b.toml").unwrap();
    let hl7 = config.keyring.policy.hl7();
    assert_eq!(hl7.versions.iter().flatten().collect::<Vec<_>>(), ["2.5"]);
    assert_eq!(hl7.clear.iter().flatten().collect::<Vec<_>>(), ["PID-8", "SFT"]);
    let unknown = config.add_policy("version = 1\n[hl7]\nclaer = []\n", "c.toml").unwrap_err();
    assert!(unknown.to_string().contains("claer"), "{unknown}");
}

#[test]
fn places_in_every_format() {
    let each = r#"row_binding = { column = "id", path = "$.id", segment = "PID-3.1" }
segments = ["PID-19", "NK1-37"]"#;
    let config = CONFIG.replace("padding = 16\n", "").replace(r#"row_binding = "patient_id""#, each);
    let config = Config::parse(&config, "keyfold.toml").unwrap();
    let ssn = config.keyring.policy.field("patient.ssn").unwrap();
    assert_eq!(ssn.segments, ["PID-19", "NK1-37"]);
    let [column, path] = ["id", "$.id"].map(|name| Some(name.to_owned()));
    let of_segments = |places: &[&str]| crate::policy::RowBinding::Bound {
        column: column.clone(),
        path: path.clone(),
        segment: Some(places.iter().map(|&place| place.to_owned()).collect()),
    };
    assert_eq!(ssn.row_binding, of_segments(&["PID-3.1"]));
    let several = r#"row_binding = { column = "id", path = "$.id", segments = ["PID-3.1", "MSH-10"] }"#;
    let config = CONFIG.replace("padding = 16\n", "").replace(r#"row_binding = "patient_id""#, several);
    let config = Config::parse(&config, "keyfold.toml").unwrap();
    let ssn = config.keyring.policy.field("patient.ssn").unwrap();
    assert_eq!(ssn.row_binding, of_segments(&["PID-3.1", "MSH-10"]));
    for (binding, says) in [
        (r#"{ segment = "PID-3.1", segments = ["MSH-10"] }"#, "either segment or segments"),
        ("{ segments = [] }", "no column, no path and no segment"),
    ] {
        assert!(
            error(r#"row_binding = "patient_id""#, &format!("row_binding = {binding}")).contains(says),
            "{binding}"
        );
    }
    assert!(error(r#"row_binding = "patient_id""#, "row_binding = {}").contains("no column, no path and no segment"));
}

struct HipaaClassOf;
impl HipaaClassOf {
    fn g() -> Option<crate::policy::HipaaClass> {
        crate::policy::HipaaClass::new('G')
    }
}

#[test]
fn errors_name_file_line_and_key() {
    let joined = Config::parse(CONFIG, "keyfold.toml").unwrap_err().to_string();
    assert!(joined.contains("keyfold.toml:20, [fields.\"patient.id\"]"), "{joined}");
    assert!(joined.contains("no padding"), "{joined}");
    for (from, to, place, why) in [
        ("version = 1", "version = 2", "keyfold.toml:2, version", "found 2"),
        ("lineage = \"0011", "lineage = \"XX11", "keyfold.toml:6, lineage", "32 lower-case"),
        ("[\"000102", "[\"0102", "keyfold.toml:7, root_pins", "64 lower-case"),
        ("name = \"clinic\"", "nam = \"clinic\"", "keyfold.toml:4, nam", "unknown field"),
        ("environment = \"test\"", "environment = \"Te st\"", "keyfold.toml:5, environment", "1 to 64"),
        ("identifier = \"G\"", "identifier = \"Z\"", "keyfold.toml:16, [fields.\"patient.ssn\"]", "A to R"),
        ("row_binding = \"patient_id\"\n", "", "keyfold.toml:16, [fields.\"patient.ssn\"]", "must be bound"),
        ("row_binding = \"patient_id\"", "row_binding = 5", "keyfold.toml:18, row_binding", "expected a column"),
        ("[keks.local]", "[keks.\"LOCAL\"]", "keyfold.toml:11, [keks.\"LOCAL\"]", "alias"),
        ("uri = \"sqlite:keys.db\"", "uri = 3", "keyfold.toml:10, uri", "string"),
        ("columns = [\"ssn\"]", "columns = [\"ssn\"", "keyfold.toml:", "array"),
        ("[fields.\"patient.ssn\"]", "[fields.patient.ssn]", "keyfold.toml:16, [fields.patient.ssn]", "put in quotes"),
    ] {
        let text = error(from, to);
        assert!(text.contains(place) && text.contains(why), "{text}\nshould name {place} and {why}");
    }
}

#[test]
fn policies_add_fields_once() {
    let mut config = Config::parse(&CONFIG.replace("padding = 16\n", ""), "keyfold.toml").unwrap();
    config.add_policy("version = 1\n[fields.a]\n", "a.toml").unwrap();
    let again = config.add_policy("version = 1\n[fields.a]\n", "b.toml").unwrap_err().to_string();
    assert!(again.contains("b.toml:2, [fields.a]") && again.contains("defined twice"), "{again}");
    assert!(config.add_policy("version = 1\n[keyring]\n", "c.toml").is_err(), "a policy decides no trust");
}

fn parse_with(section: &str) -> Result<Config> {
    let text = CONFIG.replace("padding = 16\n", "").replace("[keks.local]", &format!("{section}\n[keks.local]"));
    Config::parse(&text, "keyfold.toml")
}

#[test]
fn the_cache_has_defaults_that_fit_each_other() {
    let cache = |lines: &str| parse_with(&format!("[cache]\n{lines}")).map(|config| config.keyring.cache);
    let minute = core::time::Duration::from_secs(60);
    let default = CachePolicy::default();
    assert_eq!(parse_with("").unwrap().keyring.cache, default);
    assert_eq!(cache("").unwrap(), default);
    let all = "max_age = \"5m\"\ngrace = \"2h\"\nmax_idle = \"1h\"\ncheck_every = \"30s\"\nnegative = \"0s\"\n\
               max_keys = 1000\nmax_bytes = \"16MiB\"";
    let expected = CachePolicy {
        max_age: 5 * minute,
        grace: 120 * minute,
        max_idle: 60 * minute,
        check_every: minute / 2,
        negative: core::time::Duration::ZERO,
        max_keys: 1000,
        max_bytes: 16 << 20,
    };
    assert_eq!(cache(all).unwrap(), expected);
    assert_eq!(cache("max_bytes = 4096\nmax_keys = 0").unwrap().max_bytes, 4096);
    // One setting alone is enough: what depends on it moves along.
    let short = cache("max_age = \"10s\"").unwrap();
    assert_eq!((short.check_every, short.max_idle), (minute / 6, default.max_idle));
    assert_eq!(cache("max_age = \"2h\"").unwrap().max_idle, 120 * minute);
    for (line, why) in [
        ("max_age = \"0s\"", "1s to 24h"),
        ("max_age = \"25h\"", "1s to 24h"),
        ("max_age = 600", "expected a string"),
        ("grace = \"8d\"", "at most 7d"),
        ("max_idle = \"1m\"", "max_age to 24h"),
        ("check_every = \"11m\"", "1s to max_age"),
        ("negative = \"2s\"", "at most 1s"),
        ("max_keys = -1", "usize"),
        ("max_bytes = \"64MB\"", "KiB, MiB or GiB"),
        ("max_bytes = 1.5", "number of bytes"),
        ("ttl = \"1m\"", "unknown field"),
    ] {
        let text = cache(line).unwrap_err().to_string();
        let key = line.split(' ').next().unwrap();
        assert!(text.contains(&format!("keyfold.toml:12, {key}")) && text.contains(why), "{text}\nshould say {why}");
    }
}

#[test]
fn frames_are_accepted_where_the_policy_says_so() {
    let field = |lines: &str| {
        let mut config = Config::parse(&CONFIG.replace("padding = 16\n", ""), "keyfold.toml")?;
        config.add_policy(&format!("version = 1\n[fields.f]\n{lines}\n"), "policy.toml")?;
        Ok::<_, Error>(config.keyring.policy.field("f").unwrap().clone())
    };
    let accepting = field("accept = [\"01\", \"03\"]").unwrap();
    assert_eq!(accepting.accepted_suites, [Suite::Field, Suite::Frame]);
    assert_eq!(accepting.max_frame_records, 4096);
    assert_eq!(field("accept = [\"01\", \"03\"]\nmax_frame_records = 65536").unwrap().max_frame_records, 65_536);
    assert_eq!(field("").unwrap().accepted_suites, [Suite::Field]);
    for (lines, why) in [
        ("accept = [\"03\"]", "also accepts the suite of the values inside"),
        ("accept = [\"04\"]", "suite 04 is for fields with mode"),
        ("accept = [\"06\"]", "suites that this build opens"),
        ("max_frame_records = 4096", "for fields that accept frames"),
        ("accept = [\"01\", \"03\"]\nmax_frame_records = 0", "1 to 65,536"),
        ("accept = [\"01\", \"03\"]\nmax_frame_records = 65537", "1 to 65,536"),
        ("accept = [\"01\", \"03\"]\nmax_frame_records = -1", "invalid value"),
    ] {
        let text = field(lines).unwrap_err().to_string();
        assert!(text.contains("policy.toml:") && text.contains(why), "{text}\nshould say {why}");
    }
}

#[test]
fn rotation_has_defaults_and_can_be_switched_off() {
    let parse = parse_with;
    let day = core::time::Duration::from_secs(86_400);
    let default = parse("").unwrap().keyring;
    assert_eq!(default.rotation, RotationPolicy::default());
    assert_eq!((default.rotation.data_age, default.rotation.root_age), (Some(90 * day), Some(365 * day)));
    assert!(!default.open_compromised);
    let all = "[rotation]\ndata_age = \"1d\"\nroot_age = \"never\"\ndata_messages = 1000\nlead = \"10m\"";
    let expected = RotationPolicy { data_age: Some(day), root_age: None, data_messages: Some(1000), lead: day / 144 };
    assert_eq!(parse(all).unwrap().keyring.rotation, expected);
    assert_eq!(parse("[rotation]\ndata_messages = \"never\"").unwrap().keyring.rotation.data_messages, None);
    for (line, why) in [
        ("data_age = \"90\"", "whole number and a unit"),
        ("data_age = \"0s\"", "at least one second"),
        ("root_age = \"0d\"", "at least one second"),
        ("root_age = 5", "expected a string"),
        ("data_messages = 0", "at least 1"),
        ("data_messages = -1", "whole number"),
        ("data_messages = \"many\"", "whole number"),
        ("lead = \"never\"", "whole number and a unit"),
        ("age = \"1d\"", "unknown field"),
    ] {
        let text = parse(&format!("[rotation]\n{line}")).unwrap_err().to_string();
        let key = line.split(' ').next().unwrap();
        assert!(text.contains(&format!("keyfold.toml:12, {key}")) && text.contains(why), "{text}\nshould say {why}");
    }
    let open = CONFIG.replace("padding = 16\n", "").replace("[store]", "open_compromised = true\n[store]");
    assert!(Config::parse(&open, "keyfold.toml").unwrap().keyring.open_compromised);
}

#[test]
fn how_keks_are_used() {
    use crate::keyring::KekUse;
    let text = CONFIG.replace("padding = 16\n", "").replace("[keyring]", "[keyring]\nquorum = 2").replace(
        "[lookup.default]",
        r#"[keks.cloud]
uri = "local:cloud.kek"
deadline = "5s"
[keks.old]
uri = "local:old.kek"
compromised = true
[keks.going]
uri = "local:going.kek"
retired = true
[keks.offline]
uri = "passphrase:offline.kek"
use = "recovery"
[keks.glass]
uri = "passphrase:glass.kek"
use = "break-glass"
[recovery]
on = true
reason = "region away"
[lookup.default]"#,
    );
    let config = Config::parse(&text, "keyfold.toml").unwrap();
    let alias = |text: &str| KekAlias::new(text).unwrap();
    let keks = &config.keyring.keks;
    assert_eq!(keks.uses[&alias("offline")], KekUse::Recovery);
    assert_eq!(keks.uses[&alias("glass")], KekUse::BreakGlass);
    assert!(!keks.uses.contains_key(&alias("cloud")));
    assert!(keks.compromised.contains(&alias("old")) && keks.compromised.len() == 1);
    assert!(keks.retired.contains(&alias("going")) && keks.retired.len() == 1);
    assert_eq!(keks.quorum, Some(2));
    assert_eq!(keks.recovery.as_ref().unwrap().reason.as_deref(), Some("region away"));
    assert_eq!(config.deadlines[&alias("cloud")], Duration::from_secs(5));
    let off = Config::parse(&text.replace("on = true", "on = false"), "keyfold.toml").unwrap();
    assert_eq!(off.keyring.keks.recovery, None);
    // One of the six is compromised, one retired.
    assert!(Config::parse(&text.replace("quorum = 2", "quorum = 4"), "keyfold.toml").is_ok());
    let wrong = Config::parse(&text.replace("quorum = 2", "quorum = 5"), "keyfold.toml").unwrap_err().to_string();
    assert!(wrong.contains("keyfold.toml:4, quorum") && wrong.contains("5 of 4"), "{wrong}");
}

#[test]
fn wrong_keks_name_their_line() {
    let kek = "uri = \"local:local.kek\"";
    for (line, says) in [
        ("use = \"sometimes\"", "unknown variant"),
        ("deadline = \"0s\"", "1 second to 5 minutes"),
        ("deadline = \"301s\"", "1 second to 5 minutes"),
        ("deadline = \"5\"", "a whole number and a unit"),
        ("compromised = \"yes\"", "expected a boolean"),
    ] {
        let text = error(kek, &format!("{kek}\n{line}"));
        assert!(text.contains("keyfold.toml:13") && text.contains(says), "{text}");
    }
    let twice = error(kek, &format!("{kek}\n[keks.second]\n{kek}"));
    assert!(twice.contains("same URI") && twice.contains("local, second"), "{twice}");
    for (section, says) in [
        ("[recovery]\non = true\nreason = \" \"", "1 to 512 bytes"),
        ("[recovery]\non = true\nreason = \"a\\nb\"", "1 to 512 bytes"),
        ("[recovery]\nreason = \"why\"", "missing field"),
    ] {
        let text = error(kek, &format!("{kek}\n{section}"));
        assert!(text.contains("keyfold.toml:13") && text.contains(says), "{text}");
    }
    let text = error("[keyring]", "[keyring]\nquorum = 0");
    assert!(text.contains("keyfold.toml:4, quorum") && text.contains("0 of 1"), "{text}");
}

#[test]
fn a_field_may_be_migrated_for_a_time() {
    let parse = |migration: &str| {
        let mut config = Config::parse(&CONFIG.replace("padding = 16\n", ""), "keyfold.toml").expect("good");
        let text = format!("version = 1\n[fields.x]\nmigration = {migration}\n");
        config
            .add_policy(&text, "policy.toml")
            .map(|()| config.keyring.policy.field("x").and_then(|field| field.migration))
    };
    let migration = parse("{ until = \"2027-03-31\", phase = \"cut-over\" }").expect("good").expect("there");
    assert_eq!((migration.until, migration.phase), (20_908, crate::MigrationPhase::CutOver));
    for wrong in [
        "{ until = \"2027-03-31\" }",
        "{ phase = \"dual-write\" }",
        "{ until = \"2027-02-30\", phase = \"dual-write\" }",
        "{ until = \"2027-03-31\", phase = \"clear\" }",
        "{ until = \"2027-03-31\", phase = \"dual-write\", forever = true }",
        "true",
    ] {
        let error = parse(wrong).expect_err(wrong).to_string();
        assert!(error.contains("policy.toml:"), "{error}");
    }
}

#[test]
fn audit_has_defaults_bounds_and_a_kek_of_its_own() {
    let kek = "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[keks.old]\nuri = \"local:old\"\nwraps = \"audit\"\n";
    let config = |lines: &str| parse_with(&format!("{kek}[audit]\n{lines}\n"));
    assert!(parse_with(kek).unwrap().audit.is_none());
    let given = config("file = \"a\"\nkek = \"audit\"").unwrap();
    assert_eq!(given.audit_keks.keys().map(KekAlias::as_str).collect::<Vec<_>>(), ["audit", "old"]);
    assert!(given.keks.keys().all(|alias| alias.as_str() == "local"), "an audit KEK is asked for no root");
    let audit = given.audit.unwrap();
    let seconds = core::time::Duration::from_secs;
    assert_eq!(
        (audit.on_failure, audit.interval, audit.anchor_interval),
        (OnAuditFailure::Refuse, seconds(60), seconds(600))
    );
    assert_eq!((audit.max_size, audit.anchor_every, audit.anchors, audit.actor), (64 << 20, 1000, None, None));
    for (lines, why) in [
        ("kek = \"audit\"", "file"),
        ("file = \"\"\nkek = \"audit\"", "name of a file"),
        ("file = \"a\"\nkek = \"local\"", "wraps = \"audit\""),
        ("file = \"a\"\nkek = \"none\"", "wraps = \"audit\""),
        ("file = \"a\"\nkek = \"audit\"\non_failure = \"ignore\"", "on_failure"),
        ("file = \"a\"\nkek = \"audit\"\ninterval = \"0s\"", "out of bounds"),
        ("file = \"a\"\nkek = \"audit\"\ninterval = \"2h\"", "out of bounds"),
        ("file = \"a\"\nkek = \"audit\"\nmax_size = 1000", "out of bounds"),
        ("file = \"a\"\nkek = \"audit\"\nanchor_every = 0", "out of bounds"),
        ("file = \"a\"\nkek = \"audit\"\nanchor_interval = \"2d\"", "out of bounds"),
        ("file = \"a\"\nkek = \"audit\"\nactor = \"a\\nb\"", "actor"),
    ] {
        let error = config(lines).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("keyfold.toml:"), "{lines}: {error}");
    }
}

#[test]
fn journals_and_shredding() {
    let parse = |store: &str, shred: &str| {
        let text = CONFIG.replace("padding = 16\n", "").replace("[keks.local]", &format!("{store}{shred}[keks.local]"));
        Config::parse(&text, "keyfold.toml")
    };
    let plain = parse("", "").unwrap();
    assert!(plain.journals.is_empty() && plain.backups.is_empty() && plain.archives.is_empty());
    assert_eq!(plain.keyring.shred.waiting.as_secs(), 7 * 86_400);
    assert_eq!(parse("journal = \"file:a\"\n", "").unwrap().journals, ["file:a"]);
    let full = "[shred]\nwaiting = \"30d\"\nbackups = [\"nightly\"]\narchives = [\"tapes\", \"wal\"]\n";
    let config = parse("journal = [\"file:a\", \"file:b\"]\n", full).unwrap();
    assert_eq!((config.journals.len(), config.backups.len(), config.archives.len()), (2, 1, 2));
    assert_eq!(config.keyring.shred.waiting.as_secs(), 30 * 86_400);
    for (store, shred, says) in [
        ("journal = 7\n", "", "a text or a list of texts"),
        ("", "[shred]\nwaiting = \"6d\"\n", "waiting"),
        ("", "[shred]\nwait = \"7d\"\n", "wait"),
    ] {
        let error = parse(store, shred).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn memory_is_locked_as_far_as_possible_unless_it_has_to_be() {
    let parse = |memory: &str| {
        Config::parse(
            &CONFIG.replace("padding = 16\n", "").replace("[keks.local]", &format!("{memory}[keks.local]")),
            "c",
        )
    };
    for (memory, lock) in [
        ("", MemoryLock::BestEffort),
        ("[memory]\n", MemoryLock::BestEffort),
        ("[memory]\nlock = \"best-effort\"\n", MemoryLock::BestEffort),
        ("[memory]\nlock = \"required\"\n", MemoryLock::Required),
    ] {
        assert_eq!(parse(memory).unwrap().keyring.memory, lock, "{memory}");
    }
    for memory in ["[memory]\nlock = true\n", "[memory]\nlock = \"always\"\n", "[memory]\nlocked = \"required\"\n"] {
        assert_eq!(parse(memory).unwrap_err().kind(), ErrorKind::Configuration, "{memory}");
    }
}

#[test]
fn a_partition_that_is_added_is_read_back() {
    let key_id = |n: u8| format!("{n:08x}0000000000000000000000000000000000000000").parse().expect("a key ID");
    let keys = LookupKeys {
        partition: "0102030405060708090a0b0c0d0e0f10".parse().expect("a partition"),
        seals: key_id(7),
        opens: vec![key_id(5), key_id(6)],
    };
    for name in ["asthma", "with \"both' quotes and \\", "ünicode", "]"] {
        let text = format!("{CONFIG}\n{}\n", Config::partition(name, &keys)).replace("padding = 16\n", "");
        let config = Config::parse(&text, "keyfold.toml").expect("a configuration");
        assert_eq!(config.keyring.lookup[name], keys);
    }
}

#[test]
fn indexes_and_formats() {
    let policy = |text: &str| {
        let mut config = Config::parse(&CONFIG.replace("padding = 16\n", ""), "keyfold.toml")?;
        config.add_policy(&format!("version = 1\n{text}"), "policy.toml")?;
        Ok::<_, Error>(config.keyring.policy)
    };
    let good = policy(
        r#"
rows = 1000000
[fields.name]
[fields.name.index.start]
kind = "prefix"
length = [3, 4]
bits = 5
column = "name_start"
[fields.name.index.phone]
kind = "phone"
country_code = "49"
trunk_prefix = "0"
bits = 6
partition = "study"
[fields.name.index.whole]
kind = "case-folded"
bits = 256
unique = true
[fields.visit]
mode = "format-preserving"
format = "timestamp"
from = "2024-01-01T00:00:00Z"
until = "2026-01-01T00:00:00Z"
unit = "minute"
"#,
    )
    .unwrap();
    let name = good.field("name").unwrap();
    assert_eq!(name.indexes.iter().map(|index| &*index.name).collect::<Vec<_>>(), ["phone", "start", "whole"]);
    assert_eq!(name.partitions().collect::<Vec<_>>(), ["study", "default", "default"]);
    assert_eq!(good.field("visit").unwrap().value_type, Some(crate::value::ValueType::Timestamp));
    let index = |text: &str| policy(&format!("[fields.x.index.y]\nbits = 8\n{text}")).unwrap_err().to_string();
    let field = |text: &str| policy(&format!("[fields.x]\n{text}")).unwrap_err().to_string();
    for (found, expected) in [
        (index("kind = \"exact\"\npart = \"year\""), "date-part"),
        (index("kind = \"date-part\""), "month-day"),
        (index("kind = \"prefix\""), "length = 3"),
        (index("kind = \"prefix\"\nlength = 2"), "from 3 to 32"),
        (index("kind = \"digits\"\ncountry_code = \"1\""), "phone"),
        (index("kind = \"sounds-like\""), "unknown variant"),
        (index("kind = \"exact\"\ninternational_prefix = \"011\""), "phone"),
        (index("kind = \"exact\"\nunique = true"), "full width"),
        (field("format = \"digits\""), "format-preserving"),
        (field("length = 20"), "token"),
        (field("mode = \"token\"\nlength = 10"), "20 to 64 digits"),
        (field("mode = \"token\"\nalphabet = \"base64\""), "alphanumeric"),
        (field("mode = \"token\"\nrow_binding = \"id\""), "any row"),
        (field("mode = \"format-preserving\""), "format is"),
        (field("mode = \"format-preserving\"\nformat = \"date\""), "too few dates"),
        (field("mode = \"format-preserving\"\nformat = \"digits\"\nunit = \"second\""), "timestamp"),
        (field("mode = \"format-preserving\"\nformat = \"digits\"\nrow_binding = \"id\""), "replaced, not sealed"),
        (
            field(
                "mode = \"format-preserving\"\nformat = \"timestamp\"\nunit = \"minute\"\nfrom = \"2024-01-01T00:00:00Z\"\nuntil = \"2025-01-01T00:00:00Z\"",
            ),
            "1,000,000",
        ),
        (
            policy("rows = 100000\n[fields.x.index.y]\nkind = \"exact\"\nbits = 14").unwrap_err().to_string(),
            "policy.toml:2, rows: the indexes together show too much of a row; those of full width are not counted: 14 bits, of which 100000 rows allow 13",
        ),
    ] {
        assert!(found.contains(expected), "{found} has no {expected:?}");
    }
}
