"""Frames of a traceback, which some reporters of errors show with their local variables."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Call = TypeVar("Call", bound=Callable[..., Any])


def without_frames(call: Call) -> Call:
    """Return `call` such that what it raises has passed no frame that holds an argument or anything made of it."""

    @wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        handled = sys.exception()
        try:
            return call(*args, **kwargs)
        except BaseException as error:
            _forget_frames(error, handled)
            # Alone, it does not add this frame again.
            raise

    return cast("Call", called)


def _forget_frames(error: BaseException, handled: BaseException | None) -> None:
    """Take the traceback off `error` and what led to it, up to `handled`, which is the caller's own."""
    seen: set[int] = set()
    found: list[BaseException | None] = [error]
    while found:
        each = found.pop()
        if each is None or each is handled or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        found += [each.__cause__, each.__context__]
