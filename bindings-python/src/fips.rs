//! What of this build runs in a FIPS 140 module.

use keyfold::fips::{self, Module};
use pyo3::prelude::*;

/// What `fips_status` says.
#[pyclass(module = "keyfold", frozen, get_all)]
pub(crate) struct FipsStatus {
    /// The name of the FIPS 140 module; None: this build has none.
    module: Option<&'static str>,
    /// The version of the library that the module is a part of.
    version: Option<&'static str>,
    /// Whether the module says that it is in FIPS mode.
    in_fips_mode: bool,
    /// Everything cryptographic that the library does, but for KEKs, which docs/FIPS.md speaks of.
    services: Vec<FipsService>,
}

#[pymethods]
impl FipsStatus {
    fn __repr__(&self) -> String {
        format!("<keyfold.FipsStatus {}>", fips::status())
    }
}

/// Something cryptographic that the library does.
#[pyclass(module = "keyfold", frozen, get_all)]
#[derive(Clone)]
pub(crate) struct FipsService {
    /// What for.
    name: &'static str,
    /// By which algorithms.
    algorithm: &'static str,
    /// What computes them.
    computed_by: &'static str,
    /// Whether that is the module, in a way that its indicator counts as approved.
    approved: bool,
}

#[pymethods]
impl FipsService {
    fn __repr__(&self) -> String {
        let Self { name, algorithm, computed_by, approved } = self;
        let approved = if *approved { "approved" } else { "not approved" };
        format!("<keyfold.FipsService {name}: {algorithm} by {computed_by}, {approved}>")
    }
}

/// Return which FIPS 140 module this build has, whether it is in FIPS mode, and what runs in it. Keyfold itself is not validated.
#[pyfunction]
pub(crate) fn fips_status() -> FipsStatus {
    let status = fips::status();
    let services = status.services.iter().map(|service| FipsService {
        name: service.name,
        algorithm: service.algorithm,
        computed_by: service.computed_by,
        approved: service.is_approved,
    });
    FipsStatus {
        module: status.module.map(|Module { name, .. }| name),
        version: status.module.map(|Module { version, .. }| version),
        in_fips_mode: status.module.is_some_and(|module| module.is_in_fips_mode),
        services: services.collect(),
    }
}
