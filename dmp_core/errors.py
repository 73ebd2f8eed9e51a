"""The errors that a user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message names the field or file and the mend. The CLI exits with code 2."""


class MissingExtra(InputError):
    """An optional capability is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'dmp-pipeline[{extra}]'")
