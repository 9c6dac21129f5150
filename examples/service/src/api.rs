//! HTTP: routes, and what an answer says when something fails.
//!
//! A medical record number is searched for with POST and a JSON body, never in a URL: proxies, browsers and load
//! balancers write URLs to their logs. The random ID of a row may be in a URL.

use crate::Service;
use crate::patients::{Patient, Secret, Tenant, check_mrn};
use crate::telemetry;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use keyfold::{Error, ErrorKind};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The header that names the tenant. It stands for what a real service takes from the caller's token.
const TENANT_HEADER: &str = "x-tenant";
/// How long `/healthz` waits for each of what it asks, all at once: whoever probes gives up soon.
const PROBE: Duration = Duration::from_secs(1);

pub(crate) fn router(service: Arc<Service>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/patients", post(create))
        .route("/patients/search", post(search))
        .route("/patients/{id}", get(read))
        .route("/healthz", get(health))
        .with_state(service)
        .route("/metrics", get(async move || metrics.render()))
        .layer(middleware::from_fn(telemetry::observe))
}

/// Why a request failed. Never holds what the request or the database said.
pub(crate) enum Failure {
    /// The body is not what it should be.
    BadRequest,
    /// A member of the body has a value that cannot be right: which one and why.
    Invalid(&'static str),
    TooLarge,
    UnknownTenant,
    NotFound,
    /// A patient of the tenant has this medical record number already.
    Conflict,
    Keyfold(Error),
    Database(sqlx::Error),
}

impl Failure {
    /// The name of what happened, which is safe to show and to log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BadRequest | Self::Invalid(_) => "BadRequest",
            Self::TooLarge => "TooLarge",
            Self::UnknownTenant => "UnknownTenant",
            Self::NotFound => "NotFound",
            Self::Conflict => "Conflict",
            Self::Keyfold(error) => error.kind().name(),
            Self::Database(error) => name_of(error),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownTenant => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Keyfold(error) => match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::LimitExceeded => StatusCode::UNPROCESSABLE_ENTITY,
                // Somebody may try again later, or elsewhere.
                ErrorKind::Kms(_)
                | ErrorKind::Store
                | ErrorKind::Conflict
                | ErrorKind::DeadlineExceeded
                | ErrorKind::Closed
                | ErrorKind::RandomnessUnavailable => StatusCode::SERVICE_UNAVAILABLE,
                // What is stored is not what was stored, or the service is set up wrongly.
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::Database(error) => match name_of(error) {
                "DatabaseUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

/// What went wrong with the database, without what it says: that may quote a row.
pub(crate) fn name_of(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            "DatabaseUnavailable"
        }
        // A column held what was never sealed, or was damaged.
        sqlx::Error::ColumnDecode { .. } => ErrorKind::Malformed.name(),
        sqlx::Error::Configuration(_) => "DatabaseConfiguration",
        _ => "DatabaseRefused",
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Keyfold(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        // Its text quotes the body, which is about a patient.
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            _ => Self::BadRequest,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, name) = (self.status(), self.name());
        let code = match &self {
            Self::Keyfold(error) => Some(error.kind().code()),
            _ => None,
        };
        if status.is_server_error() {
            // The texts of Keyfold's errors are made to be logged; those of the database are not.
            let detail = if let Self::Keyfold(error) = &self { error.to_string() } else { String::new() };
            tracing::error!(error = name, code, detail, "a request failed");
        }
        let message = if let Self::Invalid(message) = self { Some(message) } else { None };
        (status, Json(json!({ "error": name, "code": code, "message": message }))).into_response()
    }
}

/// The tenant of a request.
struct OfTenant(Arc<Tenant>);

impl FromRequestParts<Arc<Service>> for OfTenant {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Failure> {
        let name = parts.headers.get(TENANT_HEADER).and_then(|name| name.to_str().ok());
        // Only those that the service knows: whoever could name new ones could have keys made without end.
        let tenant = name.and_then(|name| service.tenants.load().get(name).cloned());
        tenant.map(Self).ok_or(Failure::UnknownTenant)
    }
}

#[derive(Serialize)]
struct Stored {
    id: String,
}

async fn create(
    State(service): State<Arc<Service>>,
    OfTenant(tenant): OfTenant,
    body: Result<Json<Patient>, JsonRejection>,
) -> Result<(StatusCode, Json<Stored>), Failure> {
    let Json(patient) = body?;
    patient.check()?;
    let id = tenant.insert(&service.database, &patient).await?;
    Ok((StatusCode::CREATED, Json(Stored { id })))
}

async fn read(
    State(service): State<Arc<Service>>,
    OfTenant(tenant): OfTenant,
    Path(id): Path<String>,
) -> Result<Json<Patient>, Failure> {
    Ok(Json(tenant.get(&service.database, &id).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    mrn: Secret,
}

#[derive(Serialize)]
struct Found {
    id: String,
    #[serde(flatten)]
    patient: Patient,
}

async fn search(
    State(service): State<Arc<Service>>,
    OfTenant(tenant): OfTenant,
    body: Result<Json<Search>, JsonRejection>,
) -> Result<Json<Found>, Failure> {
    let Json(Search { mrn }) = body?;
    check_mrn(&mrn)?;
    let (id, patient) = tenant.find(&service.database, &mrn).await?;
    Ok(Json(Found { id, patient }))
}

/// Whether requests can be served. Keys that are held serve them even while the key service is away; `keys` says then
/// what is wrong, and the status stays 200 until they may no longer be used.
async fn health(State(service): State<Arc<Service>>) -> Response {
    const LATE: &str = "NoAnswer";
    let tenants = service.tenants.load_full();
    let ready = async {
        for tenant in tenants.values() {
            tenant.ready().await?;
        }
        Ok(())
    };
    let (database, store, keys, usable) = tokio::join!(
        timeout(PROBE, sqlx::query("SELECT 1").execute(&service.database)),
        timeout(PROBE, service.ring.list(None, 1)),
        timeout(PROBE, service.ring.refresh()),
        timeout(PROBE, ready),
    );
    // Where a renewal takes longer, what counts is whether the keys that are held may be used meanwhile.
    let usable = usable.unwrap_or_else(|_| tenants.values().try_for_each(|tenant| tenant.usable()));
    let database = database.map_or(LATE, |done| done.map_or_else(|error| name_of(&error), |_| OK));
    let store = store.map_or(LATE, |done| said(done.map(drop)));
    let keys = keys.map_or(LATE, said);
    let healthy = database == OK && usable.is_ok();
    let body = json!({ "database": database, "store": store, "keys": keys, "usable": said(usable) });
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

const OK: &str = "ok";

fn said(result: keyfold::Result<()>) -> &'static str {
    result.map_or_else(|error| error.kind().name(), |()| OK)
}
