"""Frames of a traceback, which some reporters of errors show with their local variables."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def without_frames(call: Callable[P, T]) -> Callable[P, T]:
    """Return `call` such that what it raises has passed no frame that holds an argument or anything made of it."""

    @wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        handled = sys.exception()
        try:
            return call(*args, **kwargs)
        except BaseException as error:
            _forget_frames(error, handled)
            # Alone, it does not add this frame again.
            raise

    return called


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
