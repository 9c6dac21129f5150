//! What a token says about itself and its key.

use super::module::{Module, Seat};
use super::table::failure;
use super::{Pkcs11Config, Wrapping};
use crate::examine::{Binding, Finding, Profile};
use crate::layer::Attempt;
use cryptoki::object::{Attribute, AttributeType};
use cryptoki::slot::{Limit, TokenInfo};

pub(super) fn profile(config: &Pkcs11Config) -> Profile {
    let (wraps, unwraps, binding) = match config.wrapping {
        Wrapping::AesGcm | Wrapping::AesGcmHsmNonce => ("CKA_ENCRYPT", "CKA_DECRYPT", Binding::ByService),
        Wrapping::AesKwp => ("CKA_WRAP", "CKA_UNWRAP", Binding::ByKeyfold),
    };
    Profile {
        login: format!("a PIN from {}", config.pin),
        binding,
        wrap_permission: format!("{wraps} on the key"),
        unwrap_permission: format!("{unwraps} on the key"),
        page: "docs/kms/pkcs11.md",
        ..Profile::default()
    }
}

pub(super) fn look(config: &Pkcs11Config, seat: &Seat) -> Attempt<Vec<Finding>> {
    let token = Module::load(&config.module)?.token(seat)?;
    let mut found = vec![Finding::note("key-state", of_token(&token))];
    found.extend(pin_count(config)?);
    if token.user_pin_to_be_changed() {
        found.push(Finding::warning("pin-count", "the PIN of the token is to be changed", "set another one"));
    }
    let asked = [AttributeType::Extractable, AttributeType::Sensitive];
    let attributes = seat.session.get_attributes(seat.key, &asked).map_err(|error| failure(&error))?;
    if attributes.contains(&Attribute::Extractable(true)) || attributes.contains(&Attribute::Sensitive(false)) {
        found.push(Finding::warning(
            "key-attributes",
            "the key can be taken out of the HSM: it is extractable, or not sensitive",
            "make one with CKA_SENSITIVE and without CKA_EXTRACTABLE, and change to it (docs/RECOVERY.md)",
        ));
    }
    found.push(Finding::note(
        "key-rotation",
        "keys of an HSM have no versions: rotation is another key under another alias",
    ));
    Ok(found)
}

/// What the token showed before the login: a right PIN begins the count anew.
pub(super) fn pin_count(config: &Pkcs11Config) -> Attempt<Option<Finding>> {
    let was_low = Module::load(&config.module)?.pin_count_was_low(config);
    Ok(was_low.then(|| {
        Finding::warning(
            "pin-count",
            "somebody has tried wrong PINs on the token, and some more lock it",
            "find out who; a login with the right PIN, as each of keyfold is, begins the count anew",
        )
    }))
}

fn of_token(token: &TokenInfo) -> String {
    let sessions = match (token.session_count(), token.max_session_count()) {
        (Some(open), Limit::Max(most)) => format!("{open} of {most} sessions are open"),
        (Some(open), _) => format!("{open} sessions are open"),
        (None, _) => "it does not say how many sessions are open".to_owned(),
    };
    format!("the token has firmware {}; {sessions}", token.firmware_version())
}
