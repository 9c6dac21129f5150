//! The column types against PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyfold::wire::{KeyId, SealedValue};
use keyfold_sqlx::{SealedBytes, SealedText};
use sqlx::{Connection, Executor, PgConnection, Row};
use std::io::Write;

/// Well-formed; no key opens it.
fn sealed() -> SealedValue {
    let mut bytes = vec![0xF5, 0x01];
    bytes.extend([7; KeyId::LEN]);
    bytes.extend([9; 60]);
    SealedValue::from_bytes(bytes).unwrap()
}

fn on_postgres(test: impl AsyncFnOnce(PgConnection)) {
    let Ok(uri) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
        // Not println!: the harness hides what a test that passes prints.
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED {}: columns on PostgreSQL (KEYFOLD_TEST_POSTGRES is not set)",
            std::thread::current().name().unwrap_or_default()
        );
        return;
    };
    let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").map(|ca| format!("?sslmode=verify-full&sslrootcert={ca}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(&(uri + &ca.unwrap_or_default())).await.unwrap();
        connection.execute("CREATE TEMPORARY TABLE t (b bytea, t text)").await.unwrap();
        test(connection).await;
    });
}

#[test]
fn both_columns_come_back() {
    on_postgres(async |mut connection| {
        let sealed = sealed();
        let insert = sqlx::query("INSERT INTO t VALUES ($1, $2), (NULL, NULL)")
            .bind(SealedBytes(sealed.clone()))
            .bind(SealedText(sealed.clone()));
        insert.execute(&mut connection).await.unwrap();
        let rows = sqlx::query("SELECT b, t, octet_length(b) AS l, t LIKE 'kf1.01%' AS k FROM t ORDER BY b NULLS LAST")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert_eq!(*rows[0].get::<SealedBytes, _>("b"), sealed);
        assert_eq!(*rows[0].get::<SealedText, _>("t"), sealed);
        assert_eq!(rows[0].get::<i32, _>("l"), i32::try_from(sealed.as_bytes().len()).unwrap());
        assert!(rows[0].get::<bool, _>("k"));
        assert_eq!(rows[1].get::<Option<SealedBytes>, _>("b"), None);
        assert_eq!(rows[1].get::<Option<SealedText>, _>("t"), None);
        // One kind of column is not taken for the other.
        assert!(rows[0].try_get::<SealedText, _>("b").is_err());
        assert!(rows[0].try_get::<SealedBytes, _>("t").is_err());
    });
}

#[test]
fn what_is_not_sealed_is_an_error_without_the_value() {
    on_postgres(async |mut connection| {
        let plain = "INSERT INTO t VALUES (convert_to('Canary 999-81-5679', 'UTF8'), 'Canary 999-81-5679')";
        connection.execute(plain).await.unwrap();
        let row = sqlx::query("SELECT b, t FROM t").fetch_one(&mut connection).await.unwrap();
        let errors = [row.try_get::<SealedBytes, _>("b").unwrap_err(), row.try_get::<SealedText, _>("t").unwrap_err()];
        for error in errors {
            let text = format!("{error} {error:?}");
            assert!(text.contains("not a canonical keyfold value") && !text.contains("Canary"), "{text}");
        }
    });
}
