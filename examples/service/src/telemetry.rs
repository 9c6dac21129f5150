//! Logs and metrics. Neither has patient data: what is logged of a request is its method, route and status, not its URL.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Instant;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// The crates that log. Others might say what they should not: the database's, for example, logs queries.
const OURS: [&str; 5] = ["keyfold", "keyfold_kms", "keyfold_open", "keyfold_store", "patients"];

/// Logs JSON lines to standard error.
pub(crate) fn start() {
    let layer = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr);
    let ours = Targets::new().with_targets(OURS.map(|name| (name, Level::INFO)));
    tracing_subscriber::registry().with(layer.with_filter(ours)).init();
}

/// Seconds that a request to a key service takes: a local file answers below a millisecond, a service in the cloud in
/// some ten, and one in trouble when its client gives up. Without buckets the exporter would make a summary of them, which
/// cannot be added up over processes.
const KMS_BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Collects the counters, gauges and histograms of Keyfold. Needs [`PrometheusHandle::run_upkeep`] from time to time.
pub(crate) fn metrics() -> Result<PrometheusHandle, BuildError> {
    let kms = Matcher::Full("keyfold_kms_request_seconds".to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(kms, &KMS_BUCKETS)?.build_recorder();
    let handle = recorder.handle();
    // Fails only where there is a recorder already, which this process installs nowhere else.
    let _ = metrics::set_global_recorder(recorder);
    Ok(handle)
}

/// Logs a request when it has been answered.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let (status, us) = (response.status().as_u16(), start.elapsed().as_micros() as u64);
    tracing::info!(%method, route, status, us, "request");
    response
}
