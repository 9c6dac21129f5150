//! An example service: patients in PostgreSQL, every identifier encrypted (README.md says how to run it).
//!
//! - `patients`: what is sealed how, and the queries. Start here.
//! - `api`: HTTP around it.
//! - `telemetry`: logs and metrics without patient data.
//! - this file: one keyring for the whole process, kept warm, reloaded upon SIGHUP, closed upon SIGTERM.
#![forbid(unsafe_code)]

mod api;
mod patients;
mod telemetry;

use arc_swap::ArcSwap;
use axum::extract::DefaultBodyLimit;
use keyfold::{Error, ErrorKind, Keyring, Result};
use keyfold_memory::ErasingAllocator;
use metrics_exporter_prometheus::PrometheusHandle;
use patients::{Tenant, check_policy};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::alloc::System;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// A key service's answers, which have keys in clear, go through buffers of others: their threads erase what they free.
#[global_allocator]
static ALLOCATOR: ErasingAllocator<System> = ErasingAllocator(System);

/// How often keys are looked after, so that no request waits for a renewal.
const REFRESH_EVERY: Duration = Duration::from_secs(2);
/// How long requests that are under way may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest wait for a connection to the database.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time of a statement, as PostgreSQL spells it.
const STATEMENT_TIMEOUT: &str = "5s";
/// Longest name of a tenant in bytes.
const MAX_TENANT_LEN: usize = 255;
/// Longest request body in bytes.
const MAX_BODY_LEN: usize = 16 * 1024;

/// From the environment: arguments are visible to others on the machine, and the database's URI has a password.
struct Settings {
    config: PathBuf,
    policies: Vec<PathBuf>,
    database: String,
    listen: String,
    tenants: Vec<String>,
}

impl Settings {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| {
                Error::new(ErrorKind::Configuration, "an environment variable is not set").with_detail(name)
            })
        };
        Ok(Self {
            config: variable("PATIENTS_KEYFOLD")?.into(),
            policies: vec![variable("PATIENTS_POLICY")?.into()],
            database: variable("PATIENTS_DATABASE")?,
            listen: variable("PATIENTS_LISTEN")?,
            tenants: Self::tenants(&variable("PATIENTS_TENANTS")?)?,
        })
    }

    /// All of them are looked at before any key is made: keys of a tenant that nobody meant would stay.
    fn tenants(list: &str) -> Result<Vec<String>> {
        let names: Vec<String> = list.split(',').map(str::to_owned).collect();
        // They come in a header, where nothing else can be written.
        let good =
            |name: &String| (1..=MAX_TENANT_LEN).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if let Some(n) = (0..names.len()).find(|&n| !good(&names[n]) || names[..n].contains(&names[n])) {
            let detail = format!("PATIENTS_TENANTS: name {} of {}", n + 1, names.len());
            let message = "a tenant's name is empty, too long, given twice, or has a space or other character that is not \
                           visible ASCII (names are separated by commas alone)";
            return Err(Error::new(ErrorKind::Configuration, message).with_detail(detail));
        }
        Ok(names)
    }
}

/// What every request needs.
struct Service {
    settings: Settings,
    ring: Keyring,
    database: PgPool,
    /// The handles of each tenant; replaced as a whole when the configuration is reloaded.
    tenants: ArcSwap<BTreeMap<String, Arc<Tenant>>>,
}

impl Service {
    async fn start(settings: Settings) -> Result<Arc<Self>> {
        check_policy(&keyfold_open::read_config(&settings.config, &settings.policies)?.keyring.policy)?;
        let ring = keyfold_open::open(&settings.config, &settings.policies)?;
        let tenants = Self::handles(&ring, &settings.tenants).await?;
        let unavailable = |error: sqlx::Error| {
            // What the driver says may hold the URI; the kind of the error does not.
            Error::new(ErrorKind::Store, "the database cannot be used").with_detail(api::name_of(&error))
        };
        let options: PgConnectOptions = settings.database.parse().map_err(unavailable)?;
        let options = options.options([("statement_timeout", STATEMENT_TIMEOUT)]);
        let database = PgPoolOptions::new().max_connections(8).acquire_timeout(CONNECT);
        let database = database.connect_with(options).await.map_err(unavailable)?;
        patients::create_table(&database).await.map_err(unavailable)?;
        Ok(Arc::new(Self { settings, ring, database, tenants: ArcSwap::from_pointee(tenants) }))
    }

    /// The handles are made once, not per request: they hold their keys.
    async fn handles(ring: &Keyring, tenants: &[String]) -> Result<BTreeMap<String, Arc<Tenant>>> {
        let mut handles = BTreeMap::new();
        for name in tenants {
            handles.insert(name.clone(), Arc::new(Tenant::new(ring, name).await?));
        }
        Ok(handles)
    }

    /// Takes over the configuration and policy files as they are now, or goes on as before.
    async fn reload(&self) -> Result<()> {
        let Settings { config, policies, .. } = &self.settings;
        check_policy(&keyfold_open::read_config(config, policies)?.keyring.policy)?;
        keyfold_open::reload(&self.ring, config, policies)?;
        match Self::handles(&self.ring, &self.settings.tenants).await {
            Ok(handles) => self.tenants.store(Arc::new(handles)),
            Err(error) => {
                let code = error.kind().code();
                tracing::error!(code, "reloaded, but handles keep the old policy: send the signal again: {error}");
            }
        }
        Ok(())
    }
}

/// Renews keys before anybody waits for them, and has what was measured counted, whether anybody asks for it or not.
async fn keep_warm(service: Arc<Service>, metrics: PrometheusHandle) {
    let mut tick = tokio::time::interval(REFRESH_EVERY);
    loop {
        tick.tick().await;
        metrics.run_upkeep();
        if let Err(error) = service.ring.refresh().await {
            if error.kind() == ErrorKind::Closed {
                return;
            }
            // Keys stay in use for the time of grace that the configuration gives.
            tracing::warn!(code = error.kind().code(), "keys could not be renewed: {error}");
        }
    }
}

async fn reload_upon(mut hangup: Signal, service: Arc<Service>) {
    while hangup.recv().await.is_some() {
        if let Err(error) = service.reload().await {
            let code = error.kind().code();
            tracing::error!(code, "the configuration was not reloaded, the present one stays: {error}");
        }
    }
}

async fn run() -> Result<()> {
    let io = |what| move |error: std::io::Error| Error::new(ErrorKind::Io, what).with_detail(error.kind().to_string());
    let signal_of = |kind| signal(kind).map_err(io("cannot handle signals"));
    // Before anything else: a signal that comes early must not be lost.
    let (hangup, mut terminate, mut interrupt) =
        (signal_of(SignalKind::hangup())?, signal_of(SignalKind::terminate())?, signal_of(SignalKind::interrupt())?);
    let metrics =
        telemetry::metrics().map_err(|_| Error::new(ErrorKind::Internal, "the buckets of a metric are wrong"))?;
    let service = Service::start(Settings::from_environment()?).await?;
    let listener = TcpListener::bind(&service.settings.listen).await.map_err(io("cannot listen"))?;
    let address = listener.local_addr().map_err(io("cannot listen"))?;
    tokio::spawn(keep_warm(service.clone(), metrics.clone()));
    tokio::spawn(reload_upon(hangup, service.clone()));
    tracing::info!(%address, "listening");

    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    let app = api::router(service.clone(), metrics).layer(DefaultBodyLimit::max(MAX_BODY_LEN));
    let server = axum::serve(listener, app).with_graceful_shutdown(async move { stopping.notified().await });
    let mut server = tokio::spawn(server.into_future());
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut server => Some(ended),
    };
    if ended.is_none() {
        tracing::info!("stopping: no new connections, requests under way may finish");
        stop.notify_one();
        if tokio::time::timeout(DRAIN, &mut server).await.is_err() {
            tracing::warn!("some requests did not finish in time");
            server.abort();
        }
    }
    service.ring.close();
    // Not awaited for longer than this: a query that hangs must not keep the process.
    let _ = tokio::time::timeout(CONNECT, service.database.close()).await;
    match ended {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(io("the server failed")(error)),
        Some(Err(_)) => Err(Error::new(ErrorKind::Internal, "the server panicked")),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::start();
    match run().await {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(code = error.kind().code(), "{error}");
            ExitCode::FAILURE
        }
    }
}
