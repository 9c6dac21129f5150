//! What `--context` says.

use super::Direction;
use crate::args::Transform;
use crate::failure::{Exit, Failure};
use keyfold::Context;

/// What values are bound to. Whoever protects gives no empty value: it is a variable that is not set, and binds what is sealed of all tenants to one.
pub(crate) fn context_of(args: &Transform, direction: Direction) -> Result<Context, Failure> {
    if let Direction::Protect { .. } = direction {
        refuse_empty_context(&args.context)?;
    }
    let context = args.context.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value));
    context.map_err(|error| Failure::of_argument("--context", error))
}

/// Refuses a pair without a value where something is sealed that nothing is bound to yet.
pub(crate) fn refuse_empty_context(pairs: &[(String, String)]) -> Result<(), Failure> {
    match pairs.iter().find(|(_, value)| value.is_empty()) {
        Some((key, _)) => {
            Err(Failure::new(Exit::Usage, format!("--context {key}= has an empty value: is a variable unset?")))
        }
        None => Ok(()),
    }
}
