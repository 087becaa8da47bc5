"""Which grants answer for a learner, and what each of them is asked. Pure.

Rules:

- One learner at a time: grants that carry the same reference are taken for one learner only if one person signed all of
  them, because a reference is only what somebody wrote. Else the caller names the consents. A dead grant beside a live
  one about the same slice does not count: who came of age writes the reference that her mother's grants had.
- For each slice every leaf is asked of one grant: the newest live one that covers it, failing that the newest live one,
  failing that the newest of all, so that the answer says why it is denied. Nothing is asked twice.
- Without sections, everything that is not sensitive is asked for, and the sensitive leaves that the grants name.

Example::

    views = choose(known, "learner-17")
    for ask in plan(views, party=root, sections=None):
        print(ask.view.node_name, ask.leaves)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

from permslip.errors import MalformedError, RefusedError
from permslip.grant_views import GrantView
from permslip.reasons import Reason
from permslip.sections import PATHS, TOP, check_paths, expand

__all__ = ["Ask", "Selector", "choose", "compact", "plan"]

# A reference, a consent's or grant's id as bytes or hexadecimal, one grant, or several.
Selector: TypeAlias = str | bytes | GrantView | Sequence[GrantView]


@dataclass(frozen=True, slots=True)
class Ask:
    """One query to be made.

    Attributes:
        view: the grant that is used.
        delegation_ids: from the grant down to the requester.
        leaves: every leaf section that the answer must cover, ascending.
        sections: the paths that are sent; they expand to ``leaves``.
        records_from, records_until: days, YYYY-MM-DD; empty is unbounded.
        page_size: 0 is no limit.
        page, continues, retry_of: see ``Query``.
    """

    view: GrantView
    delegation_ids: tuple[bytes, ...]
    leaves: tuple[str, ...]
    sections: tuple[str, ...]
    records_from: str = ""
    records_until: str = ""
    page_size: int = 0
    page: bytes = b""
    continues: bytes = b""
    retry_of: bytes = b""

    def next_page(self, page: bytes, first_query: bytes) -> Ask:
        """The same again, where a manifest said that it goes on."""
        return replace(self, page=page, continues=first_query, retry_of=b"")


def choose(known: Iterable[GrantView], selector: Selector) -> tuple[GrantView, ...]:
    """The grants that a selector means.

    Args:
        known: the caller's grants.
        selector: a reference, an id of a consent or grant, one grant, or several.

    Raises:
        RefusedError: there is none (``GRANT_UNKNOWN``).
        MalformedError: the reference stands in consents of different persons.
    """
    if isinstance(selector, GrantView):
        return (selector,)
    if not isinstance(selector, str | bytes):
        if not selector:
            raise _unknown("an empty list of grants")
        return tuple(selector)
    wanted = selector if isinstance(selector, bytes) else _id_in(selector)
    found = tuple(each for each in known if wanted and wanted in (each.consent_id, each.id))
    if found:
        return found
    if isinstance(selector, bytes):
        raise _unknown(selector.hex())
    found = tuple(each for each in known if each.reference == selector)
    if not found or not selector:
        raise _unknown(repr(selector))
    alive = {_place(each) for each in found if each.status.is_live}
    found = tuple(each for each in found if each.status.is_live or _place(each) not in alive)
    if not set.intersection(*(set(each.signed.payload.granted_by) for each in found)):
        raise MalformedError(
            f"{selector!r} stands in consents that different persons signed; it may mean different learners.",
            field="reference",
            remedy="Name the consent's id, or give the list of grants that belong to one learner.",
        )
    return found


def plan(
    views: Iterable[GrantView],
    *,
    party: bytes,
    sections: Iterable[str] | None,
    records_from: str = "",
    records_until: str = "",
) -> tuple[Ask, ...]:
    """What to ask whom; see the module's rules.

    Args:
        views: grants about one learner.
        party: the requester's root.
        sections: paths; None is everything that is not sensitive, and the sensitive leaves that the grants name.
        records_from, records_until: days, YYYY-MM-DD.

    Raises:
        MalformedError: there is no such section.
        AuthorityError: a grant was given to somebody else.
    """
    by_slice: dict[tuple[bytes, bytes], list[GrantView]] = {}
    for view in views:
        by_slice.setdefault(_place(view), []).append(view)
    asks = []
    for grants in by_slice.values():
        newest = sorted(grants, key=lambda view: (view.status.is_live, view.signed.payload.created_at), reverse=True)
        candidates = [view for view in newest if view.status.is_live] or newest[:1]
        asks += [
            Ask(view, view.chain_to(party), leaves, compact(leaves), records_from, records_until)
            for view, leaves in _assigned(candidates, _wanted(candidates, sections))
        ]
    return tuple(asks)


@lru_cache(maxsize=1024)
def compact(leaves: tuple[str, ...]) -> tuple[str, ...]:
    """The fewest paths that expand to exactly these leaves, ascending.

    Example:
        >>> compact(("transcript.assessments.district", "transcript.assessments.state", "transcript.grades"))
        ('transcript.assessments', 'transcript.grades')
    """
    left, paths = set(leaves), set[str]()
    for path in sorted(PATHS, key=lambda path: (path.count("."), path)):
        below = set(expand((path,)))
        if below and below <= left:
            paths.add(path)
            left -= below
    return tuple(sorted(paths | left))


def _wanted(grants: Sequence[GrantView], sections: Iterable[str] | None) -> tuple[str, ...]:
    if sections is not None:
        named = (sections,) if isinstance(sections, str) else tuple(sections)
        check_paths(named, "sections")
        return expand(named)
    sensitive = {leaf for view in grants for leaf in view.sensitive_sections()}
    return tuple(sorted({*expand(TOP), *sensitive}))


def _assigned(candidates: Sequence[GrantView], leaves: Iterable[str]) -> list[tuple[GrantView, tuple[str, ...]]]:
    """Each leaf to the first candidate that covers it, else to the first."""
    share: dict[bytes, list[str]] = {}
    for leaf in leaves:
        holder = next((view for view in candidates if view.covers(leaf)), candidates[0])
        share.setdefault(holder.id, []).append(leaf)
    return [(view, tuple(share[view.id])) for view in candidates if view.id in share]


def _place(view: GrantView) -> tuple[bytes, bytes]:
    return view.slice.node, view.slice.handle


def _id_in(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _unknown(what: str) -> RefusedError:
    reason = Reason.GRANT_UNKNOWN
    return RefusedError(f"no consent of yours is known by {what}.", code=reason.name, remedy=reason.remedy)
