//! A statement: an audit file of one chain with one event, such as a certificate that a scope was destroyed.

use crate::line::{BEGUN, Chain, ReadLine, STATEMENT};
use keyfold::{AuditAction, BoxFuture, ChainStart, Error, ErrorKind, KekAlias, Kms, Lineage, Result};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// Signs `body` under the audit KEK `kek`: returns two lines, the first of which holds a new key that `kek` wraps, and the
/// second the statement with its MAC. One request, for which the right to encrypt is enough.
///
/// Only who may decrypt under `kek` can verify it. It proves that somebody who may encrypt under `kek`, so any service that writes
/// an audit trail, made it, and that nobody changed it since; not that it is true. It says when it was made, by the clock of that
/// machine.
///
/// # Errors
///
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): it is longer than 64 MiB.
/// - [`Kms`](ErrorKind::Kms): the KEK did not wrap. - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable)
pub fn sign_statement<'a>(
    kek: &'a dyn Kms,
    alias: &'a KekAlias,
    lineage: Lineage,
    environment: &'a str,
    kind: &'a str,
    body: &'a Json,
) -> BoxFuture<'a, Result<String>> {
    Box::pin(async move {
        let (start, ratchet) = ChainStart::begin(kek, lineage, environment).await?;
        let mut chain = Chain::new(start, alias.clone(), ratchet);
        let mut out = Vec::new();
        let header = chain.ahead();
        chain.add_line(&mut out, 0, BEGUN, |line| {
            line.add("file", 1)?;
            header.describe(line)
        })?;
        let at = out.len() as u64;
        chain.add_line(&mut out, at, STATEMENT, |line| {
            line.add("kind", kind)?;
            line.add("body", body)
        })?;
        String::from_utf8(out)
            .map_err(|error| Error::new(ErrorKind::Internal, "JSON is text").with_source(error.utf8_error()))
    })
}

/// What an event of an audit trail says of a statement that was signed: the SHA-256 of its file. `None`: the line is no such event.
/// Verifies nothing.
#[must_use]
pub fn signed_digest(line: &[u8]) -> Option<String> {
    let line = ReadLine::parse(line).filter(|line| line.action == AuditAction::StatementSigned.name())?;
    Some(line.members()?.get("details")?.get("sha256")?.as_str()?.to_owned())
}

#[derive(Deserialize)]
struct Said {
    kind: Json,
    body: Json,
}

/// Verifies what [`sign_statement`] made, and returns it as an object: `kind`, `body`, `time`, `environment`, `lineage`. One request,
/// which needs the right to decrypt.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): not a statement, or not all of it.
/// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): it was changed, or `kek` did not sign it.
/// - [`Kms`](ErrorKind::Kms): the KEK did not unwrap.
// F-15.5-1.
pub fn verify_statement<'a>(text: &'a str, kek: &'a dyn Kms) -> BoxFuture<'a, Result<Json>> {
    const NO_STATEMENT: Error = Error::new(ErrorKind::Malformed, "not a signed statement, or only a part of one");
    Box::pin(async move {
        let lines = text.strip_suffix('\n').and_then(|text| text.split_once('\n')).ok_or(NO_STATEMENT)?;
        let (header, statement) = (ReadLine::parse(lines.0.as_bytes()), ReadLine::parse(lines.1.as_bytes()));
        let (header, statement) = header.zip(statement).ok_or(NO_STATEMENT)?;
        let (start, _) = header.start().ok_or(NO_STATEMENT)?;
        let placed = (header.seq, header.at) == (0, 0)
            && (statement.seq, statement.at) == (1, lines.0.len() as u64 + 1)
            && statement.chain == header.chain
            && statement.action == STATEMENT;
        if !placed {
            return Err(NO_STATEMENT);
        }
        let mut ratchet = start.open(kek).await?;
        let header_is_good = ratchet.verifies(&[0; 32], header.covered, &header.mac);
        ratchet.step();
        if !header_is_good || !ratchet.verifies(&header.mac, statement.covered, &statement.mac) {
            return Err(Error::new(ErrorKind::DecryptionFailed, "the statement was changed after it was signed"));
        }
        // Only now: what somebody made up may take a hundred times its length.
        let Said { kind, body } = serde_json::from_str(lines.1).map_err(|_| NO_STATEMENT)?;
        Ok(json!({
            "kind": kind, "body": body, "time": statement.time, "environment": start.environment,
            "lineage": start.lineage.to_string(),
        }))
    })
}
