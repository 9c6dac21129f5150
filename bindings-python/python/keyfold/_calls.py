"""Where functions of the program run that keyfold calls: on a thread of their own, with nothing below them but this."""

from collections.abc import Callable
from typing import Any

from . import _native


def run(function: Callable[..., Any], arguments: tuple[Any, ...], answer: Callable[[Any, BaseException | None], None]) -> None:
    """Call `function` and tell `answer` what it returned or raised."""
    _native._begin_call()
    try:
        result = function(*arguments)
    except BaseException as error:
        answer(None, error)
    else:
        answer(result, None)
