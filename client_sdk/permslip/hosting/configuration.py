"""A service's configuration: one TOML file, overlaid by the environment, into frozen dataclasses.

A dataclass is the whole description: its fields' names are the keys, their types say what may stand there, nested
dataclasses are sub-tables, and :func:`setting` adds bounds. ``[broker.limits] open_queries = 500`` can be overridden by
``PERMSLIP_BROKER__LIMITS__OPEN_QUERIES=800``.

Rules:

- Everything is checked at start: an unknown key, a wrong type, a value out of range is a
  :class:`~permslip.errors.ConfigurationError` that names the dotted key, where it stood, and what to write instead.
- A secret never stands in the configuration or the environment. A key for one names a *file*: its type is ``Path``.
- Relative paths in a file are relative to that file's folder; those in the environment to where the service runs.
- Types: ``str``, ``int``, ``float``, ``bool``, ``Path``, ``Literal[…]``, ``tuple[T, …]``, a dataclass, ``T | None``.
  A tuple of dataclasses is an array of tables, ``[[node.brokers]]``; it stands in the file alone.

Example::

    >>> @dataclass(frozen=True)
    ... class Limits:
    ...     open_queries: int = setting(1_000, minimum=1, maximum=100_000)
    >>> @dataclass(frozen=True)
    ... class Broker:
    ...     federation: str
    ...     limits: Limits = Limits()
    >>> environ = {"PERMSLIP_BROKER__FEDERATION": "grand-bend", "PERMSLIP_BROKER__LIMITS__OPEN_QUERIES": "800"}
    >>> load(Broker, None, environ, "broker").limits.open_queries         # doctest: +SKIP
    800
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from permslip.errors import ConfigurationError

__all__ = ["environment_name", "load", "setting"]

_T = TypeVar("_T")

_MAX_FILE_BYTES: Final = 1 << 20
_RULE: Final = "permslip.setting"
_SECRETS: Final = ("password", "passphrase", "secret", "token", "credential", "private_key")
_WORDS: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_TRUTHS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class _Rule:
    minimum: float | None
    maximum: float | None
    check: Callable[[Any], str] | None


class _Origin(NamedTuple):
    """Where a value stood: in words, the folder of relative paths, whether it is text to parse, whether in a file."""

    says: str
    folder: Path
    is_text: bool
    is_file: bool = False


def setting(
    default: Any = dataclasses.MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    check: Callable[[Any], str] | None = None,
) -> Any:
    """A field of a configuration dataclass.

    Args:
        default: its value where none is given; without one the key is required.
        minimum: least value of a number, or least number of elements.
        maximum: greatest value of a number, or greatest number of elements.
        check: says what is wrong with a value, or nothing.
    """
    metadata = {_RULE: _Rule(minimum, maximum, check)}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def environment_name(dotted: str) -> str:
    """The environment variable that overrides a dotted key: ``broker.listen`` → ``PERMSLIP_BROKER__LISTEN``."""
    return f"PERMSLIP_{dotted.upper().replace('.', '__')}"


def load(cls: type[_T], path: Path | None, environ: Mapping[str, str], section: str) -> _T:
    """Read the configuration of one service.

    Args:
        cls: a frozen dataclass.
        path: the TOML file; ``None`` takes everything from the environment and the defaults.
        environ: the environment.
        section: the table of the file that belongs to this service; others are left to theirs.

    Raises:
        ConfigurationError: as above.
    """
    table: dict[str, Any] = {}
    file = _Origin("the environment", Path(), is_text=False)
    if path is not None:
        file = _Origin(str(path), path.parent, is_text=False, is_file=True)
        table = _read_section(path, section)
    overlay = _overlay(environ, section)
    values: _T = _build(cls, section, table, file, overlay)
    if overlay:
        name, _ = next(iter(overlay.values()))
        known = [environment_name(key) for key in _keys(cls, section)]
        raise ConfigurationError(
            "there is no such key.", key=name, remedy=_suggest(name, known) or f"It may be one of {', '.join(known)}."
        )
    return values


def _read_section(path: Path, section: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        if len(raw) > _MAX_FILE_BYTES:
            raise ConfigurationError(f"{path} is larger than {_MAX_FILE_BYTES} bytes.", key=section)
        document = tomllib.loads(raw.decode())
    except OSError as error:
        raise ConfigurationError(
            f"the configuration file {path} cannot be read: {error.strerror}.",
            key=section,
            remedy="Name an existing file that this user may read.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 (byte {error.start}).", key=section) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path} is not TOML: {error}.", key=section, remedy="Look at the line it names."
        ) from error
    table = document.get(section)
    if table is None:
        raise ConfigurationError(
            f"expected a table [{section}] in {path}, found none.",
            key=section,
            remedy=_suggest(section, document) or _right_file(section),
        )
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"expected a table [{section}] in {path}, got {_shown(table)}.", key=section, remedy=_right_file(section)
        )
    return table


def _right_file(section: str) -> str:
    return f"Name the file that «permslip {section} init» made; its settings begin with the line [{section}]."


def _overlay(environ: Mapping[str, str], section: str) -> dict[str, tuple[str, str]]:
    """Dotted key → variable's name and value, of all variables of this section; each is taken out when it is used."""
    prefix = environment_name(section) + "__"
    return {
        f"{section}.{name.removeprefix(prefix).lower().replace('__', '.')}": (name, value)
        for name, value in sorted(environ.items())
        if name.startswith(prefix)
    }


def _build(cls: Any, dotted: str, table: Mapping[str, Any], file: _Origin, overlay: dict[str, tuple[str, str]]) -> Any:
    """One dataclass from one table and what the environment puts over it."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise _unknown(f"{dotted}.{key}", key, fields, file)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        key = f"{dotted}.{name}"
        wanted = hints[name]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        nested = _table_of(wanted)
        if nested is not None:
            part = _table(table.get(name, {}), key, file)
            if part or required or any(other.startswith(f"{key}.") for other in overlay):
                values[name] = _build(nested, key, part, file, overlay)
        elif key in overlay:
            variable, text = overlay.pop(key)
            origin = _Origin(f"the environment variable {variable}", Path(), is_text=True)
            values[name] = _checked(field, wanted, text, key, origin)
        elif name in table:
            values[name] = _checked(field, wanted, table[name], key, file)
        elif required:
            raise ConfigurationError(
                f"expected {_described(wanted)} in {file.says}, found nothing.",
                key=key,
                remedy=(
                    f"Write {name} = … into [{dotted}], or set {environment_name(key)}."
                    if file.is_file
                    else f"Name the configuration file with --config, or set {environment_name(key)}."
                ),
            )
    return cls(**values)


def _table_of(wanted: Any) -> Any:
    """The dataclass of a sub-table, required or not; ``None`` where the type is another."""
    candidates = typing.get_args(wanted) if typing.get_origin(wanted) is types.UnionType else (wanted,)
    return next((each for each in candidates if dataclasses.is_dataclass(each)), None)


def _table(value: Any, key: str, file: _Origin) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"expected a table in {file.says}, got {_shown(value)}.", key=key, remedy=f"Write [{key}]."
        )
    return value


def _checked(field: dataclasses.Field[Any], wanted: Any, value: Any, key: str, origin: _Origin) -> Any:
    """The value as the type wants it, after the field's rule."""
    result = _converted(wanted, value, key, origin)
    rule: _Rule | None = field.metadata.get(_RULE)
    if rule is None or result is None:
        return result
    size = len(result) if isinstance(result, (str, tuple)) else result
    what = "as many elements" if isinstance(result, tuple) else "as many characters" if isinstance(result, str) else ""
    if rule.minimum is not None and size < rule.minimum:
        raise _out_of_range(f"at least {rule.minimum:g}", what, value, key, origin)
    if rule.maximum is not None and size > rule.maximum:
        raise _out_of_range(f"at most {rule.maximum:g}", what, value, key, origin)
    if rule.check is not None and (problem := rule.check(result)):
        raise ConfigurationError(f"{problem.rstrip('.')}.", key=key, remedy=f"It stands in {origin.says}.")
    return result


def _converted(wanted: Any, value: Any, key: str, origin: _Origin) -> Any:
    kind = typing.get_origin(wanted)
    if kind in {types.UnionType, typing.Union}:
        [wanted] = [part for part in typing.get_args(wanted) if part is not type(None)]
        return None if origin.is_text and value == "" else _converted(wanted, value, key, origin)
    if kind is Literal:
        choices = typing.get_args(wanted)
        if value not in choices:
            remedy = _suggest(str(value), choices)
            raise ConfigurationError(
                f"expected {_described(wanted)} in {origin.says}, got {_shown(value)}.", key=key, remedy=remedy
            )
        return value
    if kind is tuple:
        element = typing.get_args(wanted)[0]
        parts = _split(value) if origin.is_text else value
        if not isinstance(parts, list):
            raise _wrong_type(wanted, value, key, origin)
        return tuple(_converted(element, part, f"{key}[{index}]", origin) for index, part in enumerate(parts))
    if dataclasses.is_dataclass(wanted) and not origin.is_text:
        return _build(wanted, key, _table(value, key, origin), origin, {})
    if origin.is_text:
        return _parsed(wanted, value, key, origin)
    if wanted is Path and isinstance(value, str) and value:
        return origin.folder / Path(value).expanduser()
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise _wrong_type(wanted, value, key, origin)
    return value


def _parsed(wanted: Any, text: str, key: str, origin: _Origin) -> Any:
    """A value of the environment, which is always text."""
    if wanted is str:
        return text
    try:
        if wanted is Path and text:
            return Path(text).expanduser()
        if wanted is bool:
            return _TRUTHS[text.lower()]
        if wanted in {int, float}:
            return wanted(text)
    except (ValueError, KeyError):
        pass
    raise _wrong_type(wanted, text, key, origin)


def _split(text: str) -> list[str]:
    """A list in the environment: its elements, separated by commas."""
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _unknown(dotted: str, key: str, known: Mapping[str, Any], file: _Origin) -> ConfigurationError:
    if f"{key}_file" in known or any(word in key for word in _SECRETS):
        remedy = f'A secret stands in a file of its own: write {key}_file = "PATH".' if f"{key}_file" in known else ""
        return ConfigurationError(f"{file.says} must not hold a secret.", key=dotted, remedy=remedy)
    remedy = _suggest(key, known) or f"It may be one of {', '.join(known)}."
    return ConfigurationError(f"{file.says} has a key that is not known.", key=dotted, remedy=remedy)


def _wrong_type(wanted: Any, value: Any, key: str, origin: _Origin) -> ConfigurationError:
    return ConfigurationError(
        f"expected {_described(wanted)} in {origin.says}, got {_shown(value)}.", key=key, remedy=_form(wanted, origin)
    )


def _out_of_range(bound: str, what: str, value: Any, key: str, origin: _Origin) -> ConfigurationError:
    expected = f"{bound} ({what})" if what else bound
    return ConfigurationError(f"expected {expected} in {origin.says}, got {_shown(value)}.", key=key)


def _described(wanted: Any) -> str:
    kind = typing.get_origin(wanted)
    if kind in {types.UnionType, typing.Union}:
        return _described(next(part for part in typing.get_args(wanted) if part is not type(None)))
    if kind is Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(wanted))
    if kind is tuple:
        return "a list"
    return _WORDS.get(wanted, "a table")


def _form(wanted: Any, origin: _Origin) -> str:
    if typing.get_origin(wanted) is tuple:
        return "Separate the elements by commas." if origin.is_text else 'Write ["…", "…"].'
    if wanted in {str, Path} and not origin.is_text:
        return "Put it between quotation marks."
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _suggest(given: str, known: Iterable[Any]) -> str:
    close = difflib.get_close_matches(given, [str(word) for word in known], n=1)
    return f"Did you mean {close[0]}?" if close else ""


def _keys(cls: Any, dotted: str) -> list[str]:
    """All dotted keys of a dataclass and those nested in it."""
    keys: list[str] = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{dotted}.{field.name}"
        nested = _table_of(hints[field.name])
        keys += [key] if nested is None else _keys(nested, key)
    return keys
