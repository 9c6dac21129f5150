//! KEKs in hardware security modules, by way of PKCS#11: `pkcs11://token=LABEL;object=LABEL?module-path=FILE&pin_file=FILE&…`.
//!
//! The payload goes through the HSM; the KEK never leaves it. A wrapped key is
//!
//! - AES-GCM: nonce (12 bytes) ‖ ciphertext (64) ‖ tag (16), with the context as associated data. Nonces are random, so one
//!   KEK wraps at most 2³² keys.
//! - AES-KWP: 72 bytes (RFC 5649), without the context.
//!
//! The KEK version of a wrapped key is `MECHANISM;token=LABEL;object=LABEL`; another one is refused without asking the HSM. A key
//! of an HSM has no versions: rotation is a key with another label, under another alias.
//!
//! The calls of the library block, so they have threads of their own. One that hangs keeps its session and its thread until
//! it returns; the operation ends by its timeout. docs/kms/pkcs11.md has the set-up.

mod config;
mod examine;
mod module;
mod refused;
mod table;

pub use config::{Pkcs11Config, Wrapping};
pub use table::TABLE;

use crate::examine::{Finding, Profile};
use crate::layer::{Adapter, Attempt, Failure, Layered};
use crate::per_process::PerProcess;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use keyfold::{
    BoxFuture, Error, ErrorKind, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use module::{Module, Seat, unpoisoned};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use table::{failure, is_judgement};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const GCM_LEN: usize = NONCE_LEN + 64 + TAG_LEN;
const KWP_LEN: usize = 64 + 8;

/// A KEK in an HSM.
///
/// # Examples
///
/// ```
/// use keyfold_kms::pkcs11::Pkcs11Kek;
/// use std::path::Path;
///
/// let uri = "pkcs11://token=clinic;object=kek-2026?module-path=/usr/lib/softhsm/libsofthsm2.so&pin_file=/run/secrets/pin";
/// let kek = Pkcs11Kek::from_uri(uri, Path::new("."))?; // Loads no library yet.
/// # let _: &dyn keyfold::Kms = &kek;
/// # Ok::<(), keyfold::Error>(())
/// ```
pub type Pkcs11Kek = Layered<Hsm>;

/// One key of a token, without the layer: see [`Pkcs11Kek`].
pub struct Hsm {
    config: Arc<Pkcs11Config>,
    label: String,
    state: PerProcess<State>,
}

struct State {
    /// One for each session that may be open.
    permits: Arc<Semaphore>,
    /// Sessions that nobody uses at present.
    idle: Mutex<Vec<Seat>>,
}

impl Pkcs11Kek {
    /// The KEK that `config` names. Loads no library yet.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): a name or limit is not allowed.
    pub fn open(config: Pkcs11Config) -> Result<Self> {
        config.check()?;
        let limits = config.limits;
        Self::new(Hsm { label: config.to_string(), config: Arc::new(config), state: PerProcess::new() }, limits)
    }

    /// The KEK that `uri` names: see [`Pkcs11Config::from_uri`].
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): as for [`open`](Self::open), or the URI is wrong.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        Self::open(Pkcs11Config::from_uri(uri, folder)?)
    }
}

impl Hsm {
    /// How the configured key wrapped these bytes.
    fn wrapping_of(&self, wrapped: &WrappedKey) -> Attempt<Wrapping> {
        let Some(wrapping) = self.config.wrapping_of(&wrapped.kek_version) else {
            let message = "the record names another token or key than the configured one";
            return Err(Failure::new(KmsErrorKind::WrongKey, message));
        };
        let len = if wrapping == Wrapping::AesKwp { KWP_LEN } else { GCM_LEN };
        match wrapped.bytes.len() == len {
            true => Ok(wrapping),
            false => {
                let message = "no key of an HSM wraps to that many bytes";
                Err(Failure::new(KmsErrorKind::InvalidCiphertext, message))
            }
        }
    }

    /// Does `work` in a session, on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        trace: Option<&KmsTrace>,
        work: impl FnOnce(&Seat) -> Attempt<T> + Send + 'static,
    ) -> Attempt<T> {
        let Ok(state) = self.state.get(|| {
            let permits = Arc::new(Semaphore::new(self.config.sessions));
            Ok::<_, Infallible>(State { permits, idle: Mutex::default() })
        });
        let stopped = |cause| {
            let error = Error::new(ErrorKind::Internal, "the thread that waits for the HSM ended without a result");
            Failure::from(error).detail(cause)
        };
        // Goes to the thread, which may outlive this future.
        let permit = Arc::clone(&state.permits).acquire_owned().await.map_err(|error| stopped(error.to_string()))?;
        if let Some(trace) = trace {
            trace.request_sent();
        }
        let config = Arc::clone(&self.config);
        let done = tokio::task::spawn_blocking(move || {
            let result = state.with_seat(&config, work);
            drop(permit);
            result
        });
        done.await.map_err(|error| stopped(error.to_string()))?
    }
}

impl State {
    fn with_seat<T>(&self, config: &Pkcs11Config, work: impl FnOnce(&Seat) -> Attempt<T>) -> Attempt<T> {
        let module = Module::load(&config.module)?;
        // Not in the condition, which would hold the lock.
        let idle = unpoisoned(&self.idle).pop();
        let seat = match idle {
            Some(seat) => seat,
            None => module.open(config)?,
        };
        let result = match work(&seat) {
            Err(failure) if is_judgement(&failure) && !module.is_alive(&seat, config) => {
                Err(Failure::new(KmsErrorKind::Unavailable, "the token or its key is no longer there"))
            }
            result => result,
        };
        match &result {
            Err(failure) if !is_judgement(failure) => {
                // What spoils one session may have spoilt all, and no caller should run into each of them.
                let spoilt = std::mem::take(&mut *unpoisoned(&self.idle));
                drop((spoilt, seat));
            }
            _ => unpoisoned(&self.idle).push(seat),
        }
        result
    }
}

impl Adapter for Hsm {
    fn label(&self) -> &str {
        &self.label
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        let payload = Secret::with(|copy: &mut [u8; 64]| copy.copy_from_slice(request.payload.expose()));
        let aad = request.context.canonical();
        let wrapping = self.config.wrapping;
        Box::pin(async move {
            let work = move |seat: &Seat| match wrapping {
                Wrapping::AesGcm => {
                    let mut nonce = [0; NONCE_LEN];
                    seat.session.generate_random_slice(&mut nonce).map_err(|error| failure(&error))?;
                    seat.seal(&mut nonce, &aad, &payload)
                }
                Wrapping::AesGcmHsmNonce => seat.seal(&mut [0; NONCE_LEN], &aad, &payload),
                Wrapping::AesKwp => seat.wrap(&payload),
            };
            let bytes = self.run(request.trace, work).await?;
            Ok(WrappedKey { kek_version: self.config.version(wrapping), bytes })
        })
    }

    fn check(&self, wrapped: &WrappedKey) -> Attempt<()> {
        self.wrapping_of(wrapped).map(drop)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        Box::pin(async move {
            let wrapping = self.wrapping_of(request.wrapped)?;
            let (bytes, aad) = (request.wrapped.bytes.clone(), request.context.canonical());
            let work = move |seat: &Seat| match wrapping {
                Wrapping::AesKwp => seat.unwrap(&bytes),
                Wrapping::AesGcm | Wrapping::AesGcmHsmNonce => seat.open(&bytes, &aad),
            };
            self.run(request.trace, work).await
        })
    }

    fn profile(&self) -> Profile {
        examine::profile(&self.config)
    }

    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Attempt<Vec<Finding>>> {
        let config = Arc::clone(&self.config);
        Box::pin(async move {
            match self.run(Some(trace), move |seat| examine::look(&config, seat)).await {
                // A refused login must not hide what the token showed before it.
                Err(failure) if failure.kind == ErrorKind::Kms(KmsErrorKind::Credentials) => {
                    let unknown = Finding::note("key-state", "cannot be told without a login");
                    Ok(examine::pin_count(&self.config)?.into_iter().chain([unknown]).collect())
                }
                result => result,
            }
        })
    }
}

/// What the mechanisms do with one session.
impl Seat {
    /// AES-GCM. `nonce` is what the HSM used, afterwards.
    fn seal(&self, nonce: &mut [u8; NONCE_LEN], aad: &[u8], payload: &Secret<64>) -> Attempt<Vec<u8>> {
        let mechanism = gcm(nonce, aad)?;
        let sealed = self.session.encrypt(&mechanism, self.key, payload.expose()).map_err(|error| failure(&error))?;
        if *nonce == [0; NONCE_LEN] {
            let message = "the HSM did not choose a nonce: use mechanism=aes-gcm";
            return Err(Failure::configuration(message));
        }
        let wrapped = [&nonce[..], &sealed].concat();
        match wrapped.len() {
            GCM_LEN => Ok(wrapped),
            // Some append a nonce of their own, and would not take it back in the parameters.
            _ => Err(Failure::configuration("the AES-GCM of the HSM is not that of PKCS#11: use mechanism=aes-kwp")),
        }
    }

    fn open(&self, wrapped: &[u8], aad: &[u8]) -> Attempt<Secret<64>> {
        let (nonce, sealed) = wrapped.split_at(NONCE_LEN);
        let mut nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| NOT_A_PAYLOAD)?;
        let mechanism = gcm(&mut nonce, aad)?;
        let opened = self.session.decrypt(&mechanism, self.key, sealed).map_err(|error| failure(&error))?;
        payload_of(Zeroizing::new(opened))
    }

    /// AES-KWP: the payload becomes a secret key that lives as long as this call, and that key is wrapped.
    fn wrap(&self, payload: &Secret<64>) -> Attempt<Vec<u8>> {
        let value = Zeroizing::new(payload.expose().to_vec());
        let mut template = SESSION_KEY.to_vec();
        template.extend([Attribute::Sensitive(true), Attribute::Value(value.to_vec())]);
        let made = self.session.create_object(&template);
        for attribute in &mut template {
            if let Attribute::Value(copy) = attribute {
                drop(Zeroizing::new(std::mem::take(copy)));
            }
        }
        let object = made.map_err(|error| failure(&error))?;
        let wrapped = self.session.wrap_key(&Mechanism::AesKeyWrapPad, self.key, object);
        let wrapped = self.and_destroy(object, wrapped)?;
        match wrapped.len() {
            KWP_LEN => Ok(wrapped),
            _ => Err(Failure::configuration("the AES key wrap of the HSM is not that of RFC 5649")),
        }
    }

    fn unwrap(&self, wrapped: &[u8]) -> Attempt<Secret<64>> {
        let mut template = SESSION_KEY.to_vec();
        template.push(Attribute::Sensitive(false));
        let object = self.session.unwrap_key(&Mechanism::AesKeyWrapPad, self.key, wrapped, &template);
        let object = object.map_err(|error| failure(&error))?;
        let value = self.session.get_attributes(object, &[AttributeType::Value]);
        let mut value = self.and_destroy(object, value)?;
        match value.pop() {
            Some(Attribute::Value(value)) => payload_of(Zeroizing::new(value)),
            _ => Err(NOT_A_PAYLOAD),
        }
    }

    /// Destroys a session object, whatever came of its use. A session in which that fails is closed, which destroys it too.
    fn and_destroy<T>(&self, object: ObjectHandle, used: cryptoki::error::Result<T>) -> Attempt<T> {
        let destroyed = self.session.destroy_object(object);
        destroyed.map_err(|error| failure(&error))?;
        used.map_err(|error| failure(&error))
    }
}

/// A key of the session alone, of a type that has any length.
const SESSION_KEY: [Attribute; 4] = [
    Attribute::Class(ObjectClass::SECRET_KEY),
    Attribute::KeyType(KeyType::GENERIC_SECRET),
    Attribute::Token(false),
    Attribute::Extractable(true),
];

const NOT_A_PAYLOAD: Failure = Failure::malformed("the HSM returned something else than was wrapped");

fn gcm<'a>(nonce: &'a mut [u8], aad: &'a [u8]) -> Attempt<Mechanism<'a>> {
    // The length of the tag in bits: TAG_LEN.
    GcmParams::new(nonce, aad, 128.into()).map(Mechanism::AesGcm).map_err(|error| failure(&error))
}

fn payload_of(bytes: Zeroizing<Vec<u8>>) -> Attempt<Secret<64>> {
    let found: &[u8; 64] = bytes.as_slice().try_into().map_err(|_| NOT_A_PAYLOAD)?;
    Ok(Secret::with(|payload| payload.copy_from_slice(found)))
}
