//! `keyfold index`: how many bits, and tokens in tables.

mod advice;
mod advise;
mod backfill;

pub(crate) use advise::advise;
pub(crate) use backfill::backfill;
