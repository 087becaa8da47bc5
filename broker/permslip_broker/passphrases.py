"""Where the passphrase of a broker's protected key file comes from.

Example::

    read_key_file(settings.key_file, passphrase=passphrase_of(settings))
"""

from __future__ import annotations

from permslip.cli.output import passphrase
from permslip.errors import ConfigurationError
from permslip.keyfile import Passphrase
from permslip_broker.configuration import BrokerSettings

__all__ = ["passphrase_of"]


def passphrase_of(settings: BrokerSettings) -> Passphrase:
    """The content of the file that is configured, or what is typed when it is asked for.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    if settings.passphrase_file is None:
        return lambda: passphrase("Passphrase of the broker's key")
    try:
        return settings.passphrase_file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}.", key="broker.passphrase_file", remedy="Name a file of this user's."
        ) from error
