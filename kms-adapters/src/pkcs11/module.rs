//! The libraries of HSMs in this process. Each is loaded and initialised once per process, whatever number of KEKs use it,
//! and never finalised: other parts of the program may use it too. A forked child initialises it anew.

use super::config::{Pkcs11Config, escaped};
use super::refused;
use super::table::failure;
use crate::layer::{Again, Attempt, Failure};
use crate::per_process::PerProcess;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use keyfold::KmsErrorKind;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static MODULES: PerProcess<Mutex<BTreeMap<PathBuf, Arc<Module>>>> = PerProcess::new();

/// A library.
pub(super) struct Module {
    context: Pkcs11,
    path: PathBuf,
    /// Whether wrong PINs had been tried on a token before this process logged in, which ends the count or adds to it; by label.
    /// Held during a login, so that however many threads begin, a PIN is tried once.
    count_was_low: Mutex<BTreeMap<String, bool>>,
}

/// A session that is logged in, with the key.
pub(super) struct Seat {
    pub(super) session: Session,
    pub(super) key: ObjectHandle,
    slot: Slot,
}

impl Module {
    /// The library at `path`. Blocks: loading may reach the HSM.
    pub(super) fn load(path: &Path) -> Attempt<Arc<Self>> {
        let path = path.canonicalize().map_err(|error| {
            Failure::configuration("the PKCS#11 module cannot be loaded").detail(format!("{}: {error}", path.display()))
        })?;
        let Ok(modules) = MODULES.get(|| Ok::<_, Infallible>(Mutex::default()));
        let mut modules = unpoisoned(&modules);
        if let Some(module) = modules.get(&path) {
            return Ok(Arc::clone(module));
        }
        let context = Pkcs11::new(&path).map_err(|error| failure(&error))?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Somebody else in this process uses it as well.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(failure(&error)),
        }
        let module = Arc::new(Self { context, path: path.clone(), count_was_low: Mutex::default() });
        modules.insert(path, Arc::clone(&module));
        Ok(module)
    }

    /// Opens a session, logs in and finds the key.
    pub(super) fn open(&self, config: &Pkcs11Config) -> Attempt<Seat> {
        let slot = self.slot(config)?;
        let session = self.context.open_ro_session(slot).map_err(|error| failure(&error))?;
        self.log_in(&session, slot, config)?;
        let key = find(&session, config)?;
        Ok(Seat { session, key, slot })
    }

    /// Whether token and key are still there: a library may say that bytes are wrong, or that anything is, in one word.
    pub(super) fn is_alive(&self, seat: &Seat, config: &Pkcs11Config) -> bool {
        let is_there = self.context.get_token_info(seat.slot).is_ok_and(|token| token.label() == config.token);
        let class = seat.session.get_attributes(seat.key, &[AttributeType::Class]);
        is_there && class.is_ok_and(|found| found == [Attribute::Class(ObjectClass::SECRET_KEY)])
    }

    /// What the token of a session says of itself.
    pub(super) fn token(&self, seat: &Seat) -> Attempt<TokenInfo> {
        self.context.get_token_info(seat.slot).map_err(|error| failure(&error))
    }

    /// Whether wrong PINs had been tried on the token before this process logged in.
    pub(super) fn pin_count_was_low(&self, config: &Pkcs11Config) -> bool {
        unpoisoned(&self.count_was_low).get(&config.token).copied().unwrap_or_default()
    }

    fn slot(&self, config: &Pkcs11Config) -> Attempt<Slot> {
        let (mut found, mut labels) = (Vec::new(), Vec::new());
        for slot in self.context.get_slots_with_token().map_err(|error| failure(&error))? {
            // A token may be pulled out meanwhile, and one in another slot may be out of order.
            let Ok(token) = self.context.get_token_info(slot) else { continue };
            let is_serial = config.serial.as_deref().is_none_or(|serial| token.serial_number() == serial);
            if token.label() == config.token && is_serial {
                found.push(slot);
            }
            labels.push(escaped(token.label()));
        }
        match found[..] {
            [slot] => Ok(slot),
            [] => {
                labels.retain(|label| !label.is_empty());
                let there = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
                let message = "no slot of the HSM has a token of that label (and serial)";
                // Most likely a name that is not right, which no repetition sets right.
                Err(Failure::new(KmsErrorKind::Unavailable, message)
                    .again(Again::No)
                    .detail(format!("there are: {there}")))
            }
            _ => Err(Failure::configuration("several tokens have that label: add serial= to the URI of the KEK")),
        }
    }

    fn log_in(&self, session: &Session, slot: Slot, config: &Pkcs11Config) -> Attempt<()> {
        let mut count_was_low = unpoisoned(&self.count_was_low);
        // A login counts for the whole process.
        if is_logged_in(session)? {
            return Ok(());
        }
        let token = self.context.get_token_info(slot).map_err(|error| failure(&error))?;
        count_was_low.entry(config.token.clone()).or_insert(token.user_pin_count_low());
        let pin = config.pin.read()?;
        if let Some(cause) = refused::cause(&self.path, &config.token, &pin) {
            let message = "the token has refused this PIN before, and each trial may lock it: it is not asked again";
            let detail = format!("{cause:?} from C_Login; PIN from {}", config.pin);
            return Err(Failure::new(KmsErrorKind::Credentials, message).detail(detail));
        }
        if token.user_pin_final_try() && !token.user_pin_locked() {
            let message = "one more wrong PIN locks the token: log in by hand once, so that the count begins anew";
            return Err(Failure::new(KmsErrorKind::Credentials, message));
        }
        // Erased on drop.
        let given = AuthPin::new(pin.expose().into());
        match session.login(UserType::User, Some(&given)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                refused::forget(&self.path, &config.token);
                Ok(())
            }
            Err(error) => {
                let failure = failure(&error);
                if let Error::Pkcs11(cause @ (RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange), _) =
                    error
                {
                    refused::add(&self.path, &config.token, &pin, cause)?;
                }
                Err(failure)
            }
        }
    }
}

fn is_logged_in(session: &Session) -> Attempt<bool> {
    let state = session.get_session_info().map_err(|error| failure(&error))?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}

fn find(session: &Session, config: &Pkcs11Config) -> Attempt<ObjectHandle> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Label(config.object.clone().into_bytes()),
    ];
    template.extend(config.id.clone().map(Attribute::Id));
    let found = session.find_objects(&template).map_err(|error| failure(&error))?;
    let [key] = found[..] else {
        return Err(match found.is_empty() {
            // A session that was logged out meanwhile sees no private key, which must not look as if that were gone.
            true if !is_logged_in(session)? => failure(&Error::Pkcs11(RvError::UserNotLoggedIn, Function::FindObjects)),
            true => {
                let failure = Failure::new(KmsErrorKind::KeyNotFound, "the token has no AES key of that label and ID");
                match &config.id {
                    Some(id) => failure.detail(format!("ID 0x{}; the ID 0x01 is written id=%01", hex(id))),
                    None => failure,
                }
            }
            false => Failure::configuration("several keys of the token have that label: add id= to the URI of the KEK"),
        });
    };
    let exposed = session.get_attributes(key, &[AttributeType::Extractable, AttributeType::Sensitive]);
    let exposed = exposed.map_err(|error| failure(&error))?;
    if exposed.contains(&Attribute::Extractable(true)) || exposed.contains(&Attribute::Sensitive(false)) {
        tracing::warn!(kek = %config, "the key can be taken out of the HSM: it is not sensitive, or extractable");
    }
    Ok(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Work that failed half way leaves no lock behind.
pub(super) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
