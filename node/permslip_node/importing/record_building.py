"""Builds records from source rows as the tables of :mod:`permslip_node.importing.mapping` say.

The result is the keyword arguments of ``permslip.v1.Record``, as nested dictionaries: protobuf builds a message from
them in a few microseconds, and the importer can still add what only it knows (the file, the native id).

Rows of one *shape* (the same paths in the same order) share a plan, which is worked out once: a file of 40,000 grades
has one or two shapes.

Example::

    >>> Compiled(attendance).build({"EventDate": "2010-08-31", "AttendanceEventCategory": "Tardy"}, {}, {})
    {'section': 'personal.attendance', 'observed_on': '2010-08-31', 'attendance': {'event': 'Tardy'}}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from permslip.errors import MalformedError
from permslip_node.importing.field_checks import (
    Check,
    Form,
    check_form,
    is_repeated,
    max_elements,
    surely_short,
    text_check,
)
from permslip_node.importing.mapping import Groups, Many, Mapping, Tables, Values

__all__ = ["Compiled"]

_MAX_PLANS: Final = 4096


@dataclass(slots=True)
class _Plan:
    """What to do with every path of rows of one shape."""

    missing: str = ""
    # The paths of the native key; None for those that are absent.
    key: list[str | None] = field(default_factory=list)
    # message → (field, path, length that needs no check, check, form)
    single: dict[str, list[tuple[str, str, int, Check, Form]]] = field(default_factory=dict)
    # (message, field, table, paths of the key)
    finds: list[tuple[str, str, str, list[str | None]]] = field(default_factory=list)
    days: list[tuple[str, str, str, Check]] = field(default_factory=list)
    # Moments of which only the day is taken.
    moments: list[str] = field(default_factory=list)
    # (message, list, path, check)
    lines: list[tuple[str, str, str, Check]] = field(default_factory=list)
    # (message, list, element's name, path, check, form, is a value)
    named: list[tuple[str, str, str, str, Check, Form, bool]] = field(default_factory=list)
    # (path, scale, form, path of the maximum)
    scores: list[tuple[str, str, Form, str]] = field(default_factory=list)
    # (path that won, path that must say the same)
    same: list[tuple[str, str]] = field(default_factory=list)
    further: list[str] = field(default_factory=list)


class Compiled:
    """A mapping made ready to build records."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self._learner = tuple(mapping.learner.split("|"))
        self._key = tuple(tuple(paths.split("|")) for paths in mapping.key)
        self._many = {many.group: _CompiledMany(many) for many in mapping.many}
        self._finds = [
            (*_target(find.to), find.table, tuple(tuple(paths.split("|")) for paths in find.by))
            for find in mapping.finds
        ]
        self._fixed = [(*_target(to), text) for to, text in mapping.fixed.items()]
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def learner_of(self, values: Values) -> str:
        """The learner's native id.

        Raises:
            MalformedError: there is none.
        """
        for path in self._learner:
            learner = values.get(path)
            if learner is not None:
                _LEARNER_CHECK(learner, path)
                return learner
        raise MalformedError("the row names no learner that can be found.", field=self._learner[0])

    def key_of(self, values: Values) -> list[str]:
        """The row's native key: one text, possibly empty, for each path of ``Mapping.key``."""
        return ["" if path is None else values[path] for path in self._plan_for(values).key]

    def parts(self, values: dict[str, str], groups: Groups) -> list[tuple[dict[str, str], Groups]]:
        """The pieces of a row that give one record each: usually the row itself."""
        mapping = self.mapping
        unless_path, unless_text = mapping.unless
        if unless_path and values.get(unless_path) == unless_text:
            return []
        if mapping.each:
            carried = {path: values[path] for path in mapping.carry if path in values}
            return [
                (carried | {f"{mapping.each}/{path}": text for path, text in member.items()}, {})
                for member in groups.get(mapping.each, ())
            ]
        if mapping.when:
            if mapping.when not in values:
                return []
            return [({path: values[path] for path in (*mapping.carry, mapping.when) if path in values}, {})]
        return [(values, groups)]

    def build(self, values: Values, groups: Groups, tables: Tables) -> dict[str, Any]:
        """Arguments for ``Record`` (nested dictionaries), without ``source`` but for its ``further``.

        Raises:
            MalformedError: the row cannot become a record; the field is a path of the row.
        """
        mapping = self.mapping
        plan = self._plan_for(values)
        if plan.missing:
            raise MalformedError("is required.", field=plan.missing)
        section = mapping.section
        record: dict[str, Any] = {"section": section if isinstance(section, str) else section(values, tables)}
        further: list[dict[str, str]] = []
        messages: dict[str, dict[str, Any]] = {"": record, mapping.body: {}}
        for message, takes in plan.single.items():
            fields = messages.setdefault(message, {})
            for name, path, short, check, form in takes:
                text = values[path]
                if len(text) > short or not text.isprintable():
                    check(text, path)
                if form:
                    check_form(form, text, path)
                fields[name] = text
        for message, name, path, check in plan.days:
            text = values[path]
            check(text[:10], path)
            messages.setdefault(message, {})[name] = text[:10]
        further.extend(_further(path, values[path]) for path in plan.moments if values[path][10:] not in _MIDNIGHT)
        for message, name, path, check in plan.lines:
            text = values[path]
            check(text, path)
            messages.setdefault(message, {}).setdefault(name, []).append(text)
        for message, name, label, path, check, form, is_value in plan.named:
            text = values[path]
            check(text, path)
            if form:
                check_form(form, text, path)
            content: Any = {"name": label, "value": {"text": text}} if is_value else {"name": label, "text": text}
            messages.setdefault(message, {}).setdefault(name, []).append(content)
        if plan.scores:
            self._add_scores(plan, values, messages)
        for message, name, text in self._fixed:
            messages.setdefault(message, {})[name] = text
        for message, name, table, by in plan.finds:
            found = tables.get(table, _EMPTY).get(tuple(["" if path is None else values[path] for path in by]))
            if found:
                messages.setdefault(message, {})[name] = found
        for winner, other in plan.same:
            if values[winner] != values[other]:
                further.append(_further(other, values[other]))
        further.extend(_further(path, values[path]) for path in plan.further)
        for group, members in groups.items():
            many = self._many.get(group)
            if many is not None:
                many.add(members, messages, further)
            elif not _is_below(group, mapping.omit):
                for member in members:
                    further.extend(_further(f"{group}/{path}".rstrip("/"), text) for path, text in member.items())
        if further:
            if len(further) > _MAX_FURTHER:
                raise MalformedError(f"more than {_MAX_FURTHER} facts without a field.", field=mapping.entity)
            record["source"] = {"further": further}
        if mapping.finish is not None:
            mapping.finish(messages[mapping.body])
        record.update({name: fields for name, fields in messages.items() if name and (fields or name == mapping.body)})
        return record

    def _plan_for(self, values: Values) -> _Plan:
        shape = tuple(values)
        return self._plans.get(shape) or self._plan(shape)

    def _add_scores(self, plan: _Plan, values: Values, messages: dict[str, dict[str, Any]]) -> None:
        several = []
        for path, scale, form, maximum in plan.scores:
            text = values[path]
            _VALUE_CHECK(text, path)
            if form:
                check_form(form, text, path)
            value: dict[str, Any] = {"text": text, "scale": {"name": scale}}
            if maximum:
                _MAXIMUM_CHECK(values[maximum], maximum)
                value["scale"]["maximum"] = values[maximum]
            several.append({"name": scale, "value": value})
        messages[""]["value"] = several[0]["value"]
        if len(several) > 1:
            message, name = _target(self.mapping.also)
            messages.setdefault(message, {}).setdefault(name, []).extend(several)

    def _plan(self, shape: tuple[str, ...]) -> _Plan:
        mapping = self.mapping
        plan = _Plan()
        left = dict.fromkeys(shape)
        plan.key.extend(_first(paths, shape) for paths in self._key)
        for message, name, table, by in self._finds:
            plan.finds.append((message, name, table, [_first(paths, shape) for paths in by]))
        for path in self._learner:
            left.pop(path, None)
        for path in shape:
            if _is_below(path, mapping.omit):
                left.pop(path, None)
        for score in mapping.scores:
            present = _present(score.paths, shape, left, plan)
            if present:
                if score.maximum:
                    left.pop(score.maximum, None)
                maximum = score.maximum if score.maximum in shape else ""
                plan.scores.append((present, score.scale, score.form, maximum))
        taken: set[str] = set()
        for take in mapping.takes:
            path = _present(take.paths, shape, left, plan)
            taken.add(path)
            if not path:
                if take.required:
                    plan.missing = plan.missing or take.paths.partition("|")[0]
                continue
            message, name = _target(take.to)
            if take.name:
                is_value = take.to not in _NAMED_TEXTS
                check = text_check(*take.to.split("."), *(("value", "text") if is_value else ("text",)))
                plan.named.append((message, name, take.name, path, check, take.form, is_value))
            elif take.day_of:
                plan.days.append((message, name, path, text_check(*take.to.split("."))))
                if path not in plan.moments:
                    plan.moments.append(path)
            elif is_repeated(*take.to.split(".")):
                plan.lines.append((message, name, path, text_check(*take.to.split("."))))
            else:
                to = take.to.split(".")
                check = text_check(*to)
                plan.single.setdefault(message, []).append((name, path, surely_short(*to), check, take.form))
        plan.further.extend(left)
        plan.same = [
            (winner, other)
            for winner, other in dict.fromkeys(plan.same)
            if other not in taken and not _is_below(other, mapping.omit)
        ]
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[shape] = plan
        return plan


class _CompiledMany:
    """A :class:`Many` made ready."""

    def __init__(self, many: Many) -> None:
        self._many = many
        self._message, self._list = _target(many.to)
        path = tuple(many.to.split("."))
        self._most = max_elements(*path)
        inner = {"values": ("value", "text"), "texts": ("text",), "lines": ()}[many.kind]
        self._check = text_check(*path, *inner)
        self._name_check = text_check(*path, "name") if many.kind != "lines" else None
        self._texts: tuple[str, ...] = tuple(many.text.split("|"))
        self._names: tuple[str, ...] = tuple(many.name.split("|")) if many.name else ()

    def add(
        self,
        members: list[dict[str, str]],
        messages: dict[str, dict[str, Any]],
        further: list[dict[str, str]],
    ) -> None:
        """Append every element of the group; what an element says beyond name and text goes to ``further``."""
        many, group = self._many, self._many.group
        built: list[Any] = []
        unless_path, unless_text = many.unless
        for member in members:
            if unless_path and member.get(unless_path) == unless_text:
                continue
            text_path = next((path for path in self._texts if path in member), None)
            name_path = next((path for path in self._names if path in member), None)
            if text_path is None and (many.kind != "texts" or name_path is None):
                if not member:
                    continue  # an empty element is an absent one
                raise MalformedError("is required.", field=f"{group}/{self._texts[0]}".rstrip("/"))
            text = member[text_path] if text_path is not None else ""
            self._check(text, f"{group}/{text_path}")
            if self._name_check is None:
                built.append(text)
            else:
                if name_path is None:
                    raise MalformedError("is required.", field=f"{group}/{self._names[0]}")
                name = member[name_path]
                self._name_check(name, f"{group}/{name_path}")
                built.append(
                    {"name": name, "value": {"text": text}} if many.kind == "values" else {"name": name, "text": text}
                )
            for path, other in member.items():
                if path not in (text_path, name_path):
                    further.append(_further(f"{group}/{path}", other))
        if len(built) > self._most:
            raise MalformedError(f"more than {self._most} elements.", field=group)
        if built:
            messages.setdefault(self._message, {}).setdefault(self._list, []).extend(built)
            if many.headline:
                chosen = next((one for one in built if one["name"] == many.headline), built[0])
                text = chosen["value"]["text"]
                messages[""]["value"] = {"text": text, "scale": {"name": chosen["name"]}}


def _first(alternatives: tuple[str, ...], shape: tuple[str, ...]) -> str | None:
    return next((path for path in alternatives if path in shape), None)


def _present(alternatives: str, shape: tuple[str, ...], left: dict[str, None], plan: _Plan) -> str:
    """The first alternative that is present; all that are present leave ``left``."""
    present = [path for path in alternatives.split("|") if path in shape]
    for path in present:
        left.pop(path, None)
    plan.same.extend((present[0], other) for other in present[1:])
    return present[0] if present else ""


def _target(to: str) -> tuple[str, str]:
    message, _, name = to.rpartition(".")
    return message, name


def _is_below(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or (path.startswith(prefix) and path[len(prefix)] in "/@#") for prefix in prefixes)


def _further(path: str, text: str) -> dict[str, str]:
    _NAME_CHECK(path, path)
    _TEXT_CHECK(text, path)
    return {"name": path, "text": text}


_EMPTY: Final[dict[tuple[str, ...], str]] = {}
_MIDNIGHT: Final = frozenset({"", " 00:00:00", "T00:00:00"})
_NAMED_TEXTS: Final = frozenset({"demographics.further", "discipline.actions", "credit_summary.honors"})
_MAX_FURTHER: Final = max_elements("source", "further")
_LEARNER_CHECK: Final = text_check("source", "file")
_VALUE_CHECK: Final = text_check("value", "text")
_MAXIMUM_CHECK: Final = text_check("value", "scale", "maximum")
_NAME_CHECK: Final = text_check("source", "further", "name")
_TEXT_CHECK: Final = text_check("source", "further", "text")
