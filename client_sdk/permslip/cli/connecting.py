"""What the guardian's and the provider's commands share: options, settings, event loop, files.

Options stand before the command (``permslip provider --config p.toml grants``). What is not given comes from
``PERMSLIP_<NAME>`` in the environment, then from a ``permslip.toml`` (:mod:`permslip.client.settings`).
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from permslip.cli.output import EXIT_PART, passphrase
from permslip.errors import ConfigurationError, MalformedError

if TYPE_CHECKING:
    from permslip.client.guarding import AsyncGuardianClient
    from permslip.client.settings import Settings
    from permslip.client.timeouts import Timeout
    from permslip.profile import Profile
    from permslip.wallet import Wallet

__all__ = [
    "connected",
    "emit_profile",
    "guardian_client",
    "last_day",
    "open_wallet",
    "read_secret",
    "run",
    "server_arguments",
    "settings_of",
    "write_private",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_HELP: Final = {
    "broker": "HOST:PORT of the broker; several, with commas, are replicas. Also PERMSLIP_BROKER.",
    "broker_root": "did:key of the broker's root; also PERMSLIP_BROKER_ROOT.",
    "federation": "The federation's name; also PERMSLIP_FEDERATION.",
    "operator": "did:key of the federation's operator; also PERMSLIP_OPERATOR.",
    "key": "The private key file; also PERMSLIP_KEY.",
    "cert": "The certificate of that key; also PERMSLIP_CERT.",
    "wallet": "The folder with your key, children and consents; also PERMSLIP_WALLET.",
    "witnesses": "File of the federation's witness sets; also PERMSLIP_WITNESSES.",
    "tls_ca": "PEM file of the certificates to trust; also PERMSLIP_TLS_CA.",
}
_MAX_SECRET: Final = 4_096


def connected(*more: str) -> Callable[[F], F]:
    """The options of a group whose commands call a broker.

    Args:
        more: which of ``key``, ``cert``, ``wallet``, ``witnesses`` it takes beside what tells the broker.
    """

    def decorate(function: F) -> F:
        decorated = function
        for name in reversed(("broker", "broker_root", "federation", "operator", *more, "tls_ca")):
            decorated = click.option(f"--{name.replace('_', '-')}", name, help=_HELP[name])(decorated)
        return click.option("--config", metavar="FILE", help="A permslip.toml; also PERMSLIP_CONFIG.")(decorated)

    return decorate


def settings_of(given: dict[str, str | None]) -> Settings:
    """The settings of a command's group: options, environment, file."""
    from permslip.client.settings import load_settings

    rest = dict(given)
    return load_settings(file=rest.pop("config", None), given=rest)


def server_arguments(settings: Settings) -> dict[str, Any]:
    """What a client is told of the broker, as its arguments."""
    told = {name: settings.need(name) for name in ("broker", "broker_root", "federation", "operator")}
    return {**told, "tls_ca": settings.get("tls_ca")}


def open_wallet(given: dict[str, str | None]) -> Wallet:
    """The guardian's wallet that the settings name.

    Raises:
        ConfigurationError: they name none, or there is none.
    """
    from permslip.wallet import Wallet

    return Wallet.open(settings_of(given).need("wallet"), passphrase=lambda: passphrase("Passphrase of your wallet"))


def guardian_client(
    given: dict[str, str | None], wallet: Wallet | None = None, timeout: Timeout | None = None
) -> AsyncGuardianClient:
    """A guardian's client, as the settings say.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    from permslip.client.guarding import AsyncGuardianClient

    settings = settings_of(given)
    wallet = wallet or open_wallet(given)
    return AsyncGuardianClient(
        **server_arguments(settings), wallet=wallet, witnesses=settings.get("witnesses"), timeout=timeout
    )


def read_secret(file: str | None, prompt: str, *, field: str) -> str:
    """Text that must not stand in an argument: from a file, from standard input (``-``), or from a prompt.

    Args:
        file: the file's name, ``-``, or None: then a person is asked, or standard input is read.
        prompt: what a person is asked.
        field: what it is called in errors.

    Raises:
        MalformedError: the file cannot be read.
    """
    if file is None and sys.stdin.isatty():
        typed: str = click.prompt(prompt, err=True)
        return typed
    if file in (None, "-"):
        return sys.stdin.read(_MAX_SECRET)
    try:
        return Path(str(file)).read_text(encoding="utf-8")[:_MAX_SECRET]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise MalformedError(
            f"{file} cannot be read: {why}.", field=field, remedy="Name the file that holds the text, or - to type it."
        ) from error


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine to its end."""
    # gRPC tells standard error what the raised error says better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return asyncio.run(main())


def last_day(expires_at: str) -> str:
    """The last day, UTC, on which a consent counts: what ends at midnight is over with the day before."""
    return (datetime.fromisoformat(expires_at) - timedelta(seconds=1)).date().isoformat()


def emit_profile(profile: Profile, *, as_json: bool, out: str | None, svg: str | None) -> int:
    """Print a profile or write it, and draw it if asked to; returns the exit code: 3 where a node gave no answer.

    Args:
        profile: what was assembled.
        as_json: what ``--json`` said.
        out: file for the JSON.
        svg: file for the jagged drawing.
    """
    from permslip.cli.profile_text import profile_text
    from permslip.coverage import Held

    if out is not None:
        write_private(out, profile.to_json(indent=2))
    if svg is not None:
        write_private(svg, profile.jagged().to_svg())
    if as_json:
        click.echo(profile.to_json(indent=2))
    else:
        click.echo(profile_text(profile))
    unanswered = any(each.state == Held.UNREACHABLE for each in profile.coverage)
    return EXIT_PART if unanswered or profile.faults else 0


def write_private(path: str, text: str) -> None:
    """Write learner data to a file for its owner alone (mode 0600).

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                os.fchmod(stream.fileno(), 0o600)  # one that was there before may have been open to others
            stream.write(text)
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}.", key=path) from error
