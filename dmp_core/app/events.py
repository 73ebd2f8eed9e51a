"""Errors of a handler as a notice on the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmp_core.errors import InputError, MissingExtra


def guarded(gr: Any, handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler; what the user can fix becomes Gradio's own error, which the page shows with its text."""

    def answer(*values: Any) -> Any:
        try:
            return handler(*values)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None
        except ImportError as error:
            missing = MissingExtra.of(error)
            if missing is None:
                raise
            raise gr.Error(str(missing), duration=None, print_exception=False) from None

    return answer
