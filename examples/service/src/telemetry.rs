//! Logs and metrics. Neither has patient data: what is logged of a request is its method, route and status, not its URL.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
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

/// Collects the counters and gauges of the key cache.
pub(crate) fn metrics() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // Fails only where there is a recorder already, which this process installs nowhere else.
    let _ = metrics::set_global_recorder(recorder);
    handle
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
