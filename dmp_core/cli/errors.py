"""Error messages of commands: one line, and an exit code. A defect of this program keeps its traceback."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from pydantic import ValidationError
from rich.text import Text

from dmp_core.cli.console import stderr
from dmp_core.errors import InputError, MissingExtra, RunError
from dmp_core.settings import readable
from dmp_core.store.files import disk_error
from dmp_core.text import one_line, plain

AGAIN = "then run the same command again: it resumes"

_FIXES = {
    errno.ENOSPC: f"make room there, {AGAIN}",
    errno.EDQUOT: f"make room there, {AGAIN}",
    errno.EIO: f"the disk or its connection fails; check it, {AGAIN}",
    errno.EROFS: "it is mounted read-only; name another folder",
    errno.EACCES: "check the permissions of it and of its folder, or name another one",
    errno.EPERM: "check the permissions of it and of its folder, or name another one",
    errno.ENOTDIR: "a file is where a folder should be; name another folder",
    errno.EISDIR: "a folder is where a file should be; name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
}

_REMOTE = {
    "httpx": "Prefect's server does not answer; check PREFECT_API_URL",
    "httpcore": "Prefect's server does not answer; check PREFECT_API_URL",
    "botocore": "the S3 store refuses, or does not answer; check AWS_ENDPOINT_URL, keys and region",
    "aiohttp": "the store does not answer; check its address",
}
"""Packages whose errors come from another machine, by name, so that none of them needs to be installed."""


def guarded(command: Callable[[], Any]) -> int:
    """Run a command line and return its exit code; an error that the user can fix is reported on one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe; without another target to flush to, the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        text, code = explained
        if text:
            print_error(text)
    return code if isinstance(code, int) else 0


def print_error(text: str) -> None:
    """Print an error as one line on standard error."""
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    stderr.print(Text("error:", "bold red"), plain(line), soft_wrap=True)


def explain(error: Exception) -> tuple[str, int] | None:
    """The message for an error, and the exit code: 2 for bad input, else 1; None for a defect of this program."""
    message = str(error) or type(error).__name__
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, InputError):
        return message, 2
    if hasattr(error, "format_message"):  # from the command line's parser; without any arguments, help was printed
        return _of_parser(error), 2
    if isinstance(error, ValidationError):
        return readable(error, error.title), 2
    if isinstance(error, ImportError):
        extra = MissingExtra.of(error)
        return None if extra is None else (str(extra), 2)
    if isinstance(error, RunError | BrokenExecutor):
        return message, 1
    if isinstance(error, OSError):
        return _of_system(error), 1
    if (refusal := disk_error(error)) is not None:
        return f"{_of_system(refusal)} ({one_line(str(error))})", 1
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({message}); lower the stage's batch_size, resolution or runtime.workers", 1
    if package in _REMOTE:
        return f"{_REMOTE[package]} ({type(error).__name__}: {message}), {AGAIN}", 1
    if type(error).__module__.startswith("prefect."):
        return f"Prefect: {message}", 1
    return None


def _of_parser(error: Any) -> str:
    """The parser's message, and where to look unless that says it."""
    message, context = str(error.format_message()), getattr(error, "ctx", None)
    if not message or context is None or "Did you mean" in message:
        return message
    return f"{message.removesuffix('.')}; see `{' '.join(['dmp', *context.command_path.split()[1:]])} --help`"


def _of_system(error: OSError) -> str:
    if error.errno is None or error.strerror is None:
        return str(error) or type(error).__name__
    paths = " → ".join(str(path) for path in (error.filename, error.filename2) if path is not None)
    fix = _FIXES.get(error.errno)
    return ": ".join(filter(None, (paths, error.strerror))) + (f"; {fix}" if fix else "")
