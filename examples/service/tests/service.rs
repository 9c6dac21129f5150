//! What the example service promises, shown on its binary.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CANARY, World, answer, mrn, patient, request, world, world_with};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const TENANTS: [&str; 2] = ["clinic-a", "clinic-b"];

/// Patient `n` comes back byte for byte, by ID and by number.
#[track_caller]
fn assert_reads(world: &World, tenant: &str, n: usize, id: &str) {
    let read = world.get(tenant, id);
    assert_eq!((read.status, read.json()), (200, patient(tenant, n)));
    let mut expected = patient(tenant, n);
    expected["id"] = id.into();
    assert_eq!(world.search(tenant, &mrn(n)).json(), expected);
}

#[test]
fn a_thousand_patients_of_two_tenants_come_back() {
    const THREADS: usize = 8;
    let Some(world) = world("thousand") else { return };
    let stored: Vec<(usize, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let world = &world;
                let numbers = (thread..1_000).step_by(THREADS);
                // Both tenants have patients with the same numbers.
                scope.spawn(move || numbers.map(|n| (n, world.store(TENANTS[n % 2], n / 2))).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    std::thread::scope(|scope| {
        for chunk in stored.chunks(stored.len().div_ceil(THREADS)) {
            let world = &world;
            scope.spawn(move || {
                for (n, id) in chunk {
                    assert_reads(world, TENANTS[n % 2], n / 2, id);
                    assert_eq!(world.get(TENANTS[(n + 1) % 2], id).error(), (404, "NotFound".to_owned()));
                }
            });
        }
    });
    assert_eq!(world.search("clinic-a", &mrn(1_000)).error(), (404, "NotFound".to_owned()));
    let again = world.call("POST", "/patients", "clinic-a", &patient("clinic-a", 7).to_string());
    assert_eq!(again.error(), (409, "Conflict".to_owned()));
    // Equal numbers of two tenants do not look equal.
    assert_eq!(world.sql("SELECT mrn_lookup FROM patients GROUP BY mrn_lookup HAVING count(*) > 1"), 0);
    let metrics = world.call("GET", "/metrics", "", "").body;
    assert!(!metrics.contains(CANARY), "{metrics}");
    for line in [
        "# TYPE keyfold_kms_request_seconds histogram",
        "keyfold_kms_request_seconds_bucket{",
        "le=\"0.0005\"",
        "le=\"30\"",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert_eq!(world.call("GET", "/healthz", "", "").status, 200);
    world.check_silence();
}

#[test]
fn what_is_no_patient_is_refused_without_being_repeated() {
    let Some(world) = world("refused") else { return };
    for (body, status, error) in [
        (format!("{{\"mrn\":\"{CANARY}\"}}"), 400, "BadRequest"),
        (format!("{{\"mrn\":{{\"{CANARY}\":1}}}}"), 400, "BadRequest"),
        (patient("x", 1).to_string().replace("\"ssn\"", &format!("\"{CANARY}\":1,\"ssn\"")), 400, "BadRequest"),
        (CANARY.to_owned(), 400, "BadRequest"),
        (String::new(), 400, "BadRequest"),
        (patient("x", 1).to_string().replace("Zoë", &"x".repeat(17 * 1024)), 413, "TooLarge"),
    ] {
        let answer = world.call("POST", "/patients", "clinic-a", &body);
        assert_eq!(answer.error(), (status, error.to_owned()), "{body}");
    }
    let search = serde_json::json!({ "mrn": "" }).to_string();
    let answer = world.call("POST", "/patients/search", "clinic-a", &search);
    assert_eq!((answer.status, &answer.json()["message"]), (400, &"mrn is empty".into()));
    for (member, value) in [("mrn", ""), ("ssn", ""), ("name", ""), ("mrn", " "), ("ssn", "\t"), ("name", "\u{a0}")] {
        let mut patient = patient("x", 1);
        patient[member] = value.into();
        let answer = world.call("POST", "/patients", "clinic-a", &patient.to_string());
        assert_eq!(answer.error(), (400, "BadRequest".to_owned()), "{patient}");
        assert_eq!(answer.json()["message"], format!("{member} is empty"));
    }
    for date in [
        "",
        "1950",
        "1950-12",
        "1950-12-1",
        "1950-12-010",
        "1950-12-00",
        "1950-12-32",
        "1950-13-01",
        "1950-00-01",
        "1950-04-31",
        "1950-02-29",
        "1900-02-29",
        "1950/12/10",
        "10.12.1950",
        "+950-12-10",
        " 950-12-10",
        "1950-12-10T00",
        "１950-12-1",
    ] {
        let mut patient = patient("x", 1);
        patient["birth_date"] = date.into();
        let answer = world.call("POST", "/patients", "clinic-a", &patient.to_string());
        assert_eq!(answer.error(), (400, "BadRequest".to_owned()), "{date}");
        assert!(answer.json()["message"].as_str().unwrap().starts_with("birth_date is not a date"), "{date}");
    }
    for tenant in ["", "clinic-c", "Clinic-A"] {
        assert_eq!(world.search(tenant, "x").error(), (403, "UnknownTenant".to_owned()));
    }
    assert_eq!(world.get("clinic-a", &format!("{CANARY}'--")).error().0, 404);
    assert_eq!(world.sql("SELECT FROM patients"), 0);
    for (n, date) in ["2000-02-29", "2024-02-29", "1950-12-31", "0001-04-30"].into_iter().enumerate() {
        let mut patient = patient("x", n);
        patient["birth_date"] = date.into();
        assert_eq!(world.call("POST", "/patients", "clinic-a", &patient.to_string()).status, 201, "{date}");
    }
    world.check_silence();
}

#[test]
fn an_edited_database_is_refused() {
    let Some(world) = world("edited") else { return };
    let [one, two] = [1, 2].map(|n| world.store("clinic-a", n));
    let other = world.store("clinic-b", 1);
    let swap = |column: &str| {
        let swapped = format!(
            "UPDATE patients p SET {column} = q.{column} FROM patients q
             WHERE p.id IN ('{one}', '{two}') AND q.id IN ('{one}', '{two}') AND p.id <> q.id"
        );
        assert_eq!(world.sql(&swapped), 2);
    };
    let refused = |tenant: &str, id: &str, error: &str| {
        assert_eq!(world.get(tenant, id).error(), (500, error.to_owned()));
    };
    for column in ["mrn", "ssn", "name", "birth_date"] {
        swap(column);
        refused("clinic-a", &one, "DecryptionFailed");
        assert_eq!(world.search("clinic-a", &mrn(2)).error(), (500, "DecryptionFailed".to_owned()));
        swap(column);
        assert_reads(&world, "clinic-a", 1, &one);
    }
    // The one column that can be moved is noticed, too.
    world.sql("ALTER TABLE patients DROP CONSTRAINT patients_tenant_mrn_lookup_key");
    swap("mrn_lookup");
    assert_eq!(world.search("clinic-a", &mrn(1)).error(), (500, "DecryptionFailed".to_owned()));
    swap("mrn_lookup");
    // Two columns of a row.
    world.sql("UPDATE patients SET ssn = name, name = ssn");
    refused("clinic-a", &one, "DecryptionFailed");
    world.sql("UPDATE patients SET ssn = name, name = ssn");
    // Rows that are given to another tenant.
    world.sql("UPDATE patients SET tenant = CASE tenant WHEN 'clinic-a' THEN 'clinic-b' ELSE 'clinic-a' END");
    refused("clinic-b", &one, "DecryptionFailed");
    refused("clinic-a", &other, "DecryptionFailed");
    assert_eq!(world.search("clinic-b", &mrn(2)).error(), (404, "NotFound".to_owned()));
    world.sql("UPDATE patients SET tenant = CASE tenant WHEN 'clinic-a' THEN 'clinic-b' ELSE 'clinic-a' END");
    // All values of a row of another tenant, under the ID of one's own.
    world.sql(&format!(
        "UPDATE patients p SET mrn_lookup = p.mrn_lookup, mrn = q.mrn, ssn = q.ssn, name = q.name
         FROM patients q WHERE p.id = '{other}' AND q.id = '{one}'"
    ));
    refused("clinic-b", &other, "WrongScope");
    // Plaintext and rubbish.
    world.sql(&format!("UPDATE patients SET ssn = 'plain' WHERE id = '{one}'"));
    refused("clinic-a", &one, "Malformed");
    world.sql(&format!("UPDATE patients SET ssn = set_byte(name, 60, 0) WHERE id = '{one}'"));
    refused("clinic-a", &one, "DecryptionFailed");
    assert_reads(&world, "clinic-a", 2, &two);
    world.check_silence();
}

/// Operators of the database's own, found before those of PostgreSQL: whoever controls the database has every query
/// answered with whole rows, in which nothing was moved.
#[test]
fn a_row_that_was_not_asked_for_is_refused() {
    let Some(world) = world("unasked") else { return };
    let [one, two] = [1, 2].map(|n| world.store("clinic-a", n));
    let lookup = |id: &str| format!("(SELECT mrn_lookup FROM public.patients WHERE id OPERATOR(pg_catalog.=) '{id}')");
    for (kind, asked, answered) in
        [("text", format!("'{one}'"), format!("'{two}'")), ("bytea", lookup(&one), lookup(&two))]
    {
        world.sql("CREATE SCHEMA IF NOT EXISTS evil");
        world.sql(&format!(
            "CREATE FUNCTION evil.equal({kind}, {kind}) RETURNS boolean LANGUAGE sql STABLE AS $$
             SELECT $1 OPERATOR(pg_catalog.=)
                 CASE WHEN $2 OPERATOR(pg_catalog.=) {asked} THEN {answered} ELSE $2 END $$"
        ));
        world.sql(&format!("CREATE OPERATOR evil.= (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.equal)"));
    }
    world.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, evil, pg_catalog', current_database()); \
         END $$",
    );
    assert_reads(&world, "clinic-a", 1, &one);
    // Connections that are made from now on have the operators.
    world.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    world.wait_for("the operators", |world| {
        let read = world.get("clinic-a", &two);
        read.status == 200 && world.get("clinic-a", &one).json() != patient("clinic-a", 1)
    });
    let refused = (500, "DecryptionFailed".to_owned());
    assert_eq!(world.get("clinic-a", &one).error(), refused);
    assert_eq!(world.search("clinic-a", &mrn(1)).error(), refused);
    assert_reads(&world, "clinic-a", 2, &two);
    world.check_silence();
}

#[test]
fn a_rotation_by_another_process_is_picked_up_and_values_follow() {
    let Some(world) = world("rotated") else { return };
    let ids: Vec<String> = (0..5).map(|n| world.store("clinic-a", n)).collect();
    let old = world.generations("ssn");
    let ring = keyfold_open::open(&world.config(), &[world.policy()]).unwrap();
    let new = world.block_on(ring.rotate_data_key(Some("clinic-a"))).unwrap().new.key_id().generation();
    // Without the signal it shows when `check_every` is over.
    world.signal(Signal::HUP);
    world.wait_for("the reload", |world| world.log().contains("configuration reloaded"));
    world.wait_for("the new key", |world| {
        world.get("clinic-a", &ids[0]);
        world.generations("ssn").len() == 2
    });
    for (n, id) in ids.iter().enumerate() {
        assert_reads(&world, "clinic-a", n, id);
    }
    assert_eq!(old.len(), 1);
    for column in ["mrn", "ssn", "name", "birth_date"] {
        assert_eq!(world.generations(column), [i32::try_from(new).unwrap()], "{column} was not sealed again");
    }
    for (n, id) in ids.iter().enumerate() {
        assert_reads(&world, "clinic-a", n, id);
    }
    assert_eq!(world.log().matches("sealed again").count(), 5, "once for each row");
    world.check_silence();
}

#[test]
fn the_configuration_is_reloaded_whole_or_not_at_all() {
    let Some(world) = world("reloaded") else { return };
    let id = world.store("clinic-a", 1);
    let good = fs::read_to_string(world.policy()).unwrap();
    let config = fs::read_to_string(world.config()).unwrap();
    let lens = |id: &str| -> i32 {
        let query = format!("SELECT octet_length(ssn) FROM patients WHERE id = '{id}'");
        world.block_on(sqlx::query_scalar(&query).fetch_one(&world.database)).unwrap()
    };
    let failures = || world.log().matches("the configuration was not reloaded").count();
    let another_lineage = config.replacen("lineage = \"", "lineage = \"00", 1).replacen("00", "", 0);
    for (n, (path, broken)) in [
        (world.policy(), "version = 1\nnonsense".to_owned()),
        (world.policy(), good.replace("[fields.\"patient.ssn\"]", "[fields.\"patient.other\"]")),
        (world.policy(), good.replacen("row_binding = \"id\"", "row_binding = \"none\"", 1)),
        (world.config(), another_lineage),
        (world.config(), config.replace("local.kek", "missing.kek")),
        (world.config(), String::new()),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&path, broken).unwrap();
        world.signal(Signal::HUP);
        world.wait_for("the error", |_| failures() > n);
        assert_reads(&world, "clinic-a", 1, &id);
        assert_eq!(lens(&world.store("clinic-a", n + 10)), lens(&id));
        fs::write(world.policy(), &good).unwrap();
        fs::write(world.config(), &config).unwrap();
    }
    assert_eq!(failures(), 6, "one error each");
    assert!(!world.log().contains("configuration reloaded"));

    let padded = good
        .replace("[fields.\"patient.ssn\"]", "[fields.\"patient.new\"]\n\n[fields.\"patient.ssn\"]\npadding = 1024");
    fs::write(world.policy(), padded).unwrap();
    world.signal(Signal::HUP);
    let n = std::cell::Cell::new(100);
    world.wait_for("the new policy", |world| {
        n.set(n.get() + 1);
        lens(&world.store("clinic-a", n.get())) > 1024
    });
    assert_reads(&world, "clinic-a", 1, &id);
    assert_reads(&world, "clinic-a", 10, world.search("clinic-a", &mrn(10)).json()["id"].as_str().unwrap());
    world.check_silence();
}

#[test]
fn a_key_service_that_is_away_does_not_stop_what_is_warm() {
    let Some(world) = world("outage") else { return };
    let id = world.store("clinic-a", 1);
    let kek = world.folder.path().join("ring/local.kek");
    let away = world.folder.path().join("away.kek");
    fs::rename(&kek, &away).unwrap();
    // A reload in the middle of it is refused: the KEK cannot be opened.
    world.signal(Signal::HUP);
    world.wait_for("the error", |world| world.log().contains("the configuration was not reloaded"));
    for n in 2..50 {
        let stored = world.store(TENANTS[n % 2], n);
        assert_reads(&world, TENANTS[n % 2], n, &stored);
    }
    assert_reads(&world, "clinic-a", 1, &id);
    assert_eq!(world.call("GET", "/healthz", "", "").status, 200);
    fs::rename(&away, &kek).unwrap();
    world.check_silence();
}

// Failure K17
#[test]
fn requests_under_way_finish_and_it_ends_in_time() {
    let Some(mut world) = world("stopped") else { return };
    world.store("clinic-a", 1);
    let bytes = request("POST", "/patients", "clinic-a", &patient("clinic-a", 2).to_string());
    let (first, rest) = bytes.split_at(bytes.len() - 20);
    let mut under_way: Vec<TcpStream> = (0..5).map(|_| world.send(first)).collect();
    let mut idle = world.send(b"");
    // The ones under way have been accepted when a later one has been answered.
    world.store("clinic-b", 3);
    let start = Instant::now();
    world.signal(Signal::TERM);
    world.wait_for("it stops", |world| world.log().contains("stopping"));
    world.wait_for("nobody listens", |world| TcpStream::connect(world.address).is_err());
    let mut statuses = Vec::new();
    for stream in &mut under_way {
        stream.write_all(rest).unwrap();
        statuses.push(answer(stream).status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409], "one was stored, the others have the same number");
    assert_eq!(world.exit_code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    let log = world.log();
    assert!(log.contains("keyring closed") && log.contains("\"stopped\"") && !log.contains("in time"), "{log}");
    // Nothing was sent on it, and nothing is said.
    let _ = idle.write_all(b"x");
    assert_eq!(world.sql("SELECT FROM patients"), 3);
    world.check_silence();
}

#[test]
fn requests_that_hang_are_cut_off() {
    let Some(mut world) = world("hanging") else { return };
    let bytes = request("POST", "/patients", "clinic-a", &patient("clinic-a", 2).to_string());
    let _hangs = world.send(&bytes[..bytes.len() - 20]);
    world.store("clinic-b", 3);
    let start = Instant::now();
    world.signal(Signal::INT);
    assert_eq!(world.exit_code(), Some(0));
    assert!(world.log().contains("did not finish in time"), "{}", world.log());
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
}

#[test]
fn a_silent_database_does_not_keep_the_health_check_waiting() {
    let Some(world) = world("silent") else { return };
    world.store("clinic-a", 1);
    let health = || {
        let start = Instant::now();
        let answer = world.call("GET", "/healthz", "", "");
        assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
        let json = answer.json();
        let [database, usable] = ["database", "usable"].map(|name| json[name].as_str().unwrap().to_owned());
        (answer.status, database, json["store"] == "ok", usable)
    };
    let ok = || "ok".to_owned();
    assert_eq!(health(), (200, ok(), true, ok()));
    world.set_silent(true);
    // All keys are due from now on, and may be used while nobody answers.
    world.signal(Signal::HUP);
    world.wait_for("the reload", |world| world.log().contains("configuration reloaded"));
    for _ in 0..4 {
        assert_eq!(health(), (503, "NoAnswer".to_owned(), false, ok()));
    }
    world.set_silent(false);
    world.wait_for("it is well again", |_| health() == (200, ok(), true, ok()));
    world.check_silence();
}

#[test]
fn values_under_a_compromised_key_are_not_sealed_again() {
    let Some(world) = world_with("compromised", |config| {
        assert!(config.contains("[keyring]\n"));
        config.replacen("[keyring]\n", "[keyring]\nopen_compromised = true\n", 1)
    }) else {
        return;
    };
    let id = world.store("clinic-a", 1);
    let ring = keyfold_open::open(&world.config(), &[world.policy()]).unwrap();
    let old = world.block_on(ring.rotate_data_key(Some("clinic-a"))).unwrap().old.unwrap();
    world.block_on(ring.change_state(old, keyfold::KeyState::Compromised)).unwrap();
    let before = world.generations("ssn");
    world.signal(Signal::HUP);
    world.wait_for("the reload", |world| world.log().contains("configuration reloaded"));
    world.wait_for("the state is known", |world| {
        assert_reads(world, "clinic-a", 1, &id);
        world.log().contains("a value under a compromised key was read")
    });
    assert_eq!(world.generations("ssn"), before);
    assert!(!world.log().contains("sealed again under"), "{}", world.log());
    world.check_silence();
}
