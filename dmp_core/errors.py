"""The errors that a user can mend."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input: the message names the field or file and the mend. The CLI exits with code 2."""


class MissingExtra(InputError):
    """An optional capability is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'dmp-pipeline[{extra}]'")


class NotFinite(InputError):
    """A model answered one sample of a batch with NaN or infinity.

    index: the sample's place in the batch. Whoever knows the samples' names raises it again with `named`.
    """

    def __init__(self, index: int, reason: str, name: str | None = None) -> None:
        self.index, self.reason, self.name = index, reason, name
        super().__init__(f"{f'sample {index} of the batch' if name is None else name}: {reason}")

    def __reduce__(self) -> tuple[type[NotFinite], tuple[int, str, str | None]]:
        """Errors travel from worker processes."""
        return type(self), (self.index, self.reason, self.name)

    def named(self, names: Sequence[str]) -> NotFinite:
        """The same error, with the sample's key or file."""
        return NotFinite(self.index, self.reason, names[self.index])
