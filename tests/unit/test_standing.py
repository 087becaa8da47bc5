"""permslip.standing: who is admitted, who is suspended, and whose key is the current one."""

from __future__ import annotations

from typing import Any

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import KeyRejectedError, MalformedError
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.standing import MAX_KEY_LIFETIME, Standing, check_key_cert, key_reason
from tests.scenarios.world import DAY, NOW, Party, World

PROVIDER, NODE = pb.PRINCIPAL_KIND_PROVIDER, pb.PRINCIPAL_KIND_NODE


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def club(world: World) -> Party:
    return world.organization("club")


def test_nobody_is_admitted_before_an_admission(club: Party) -> None:
    assert not Standing(club.id).is_admitted(PROVIDER, NOW)


def test_an_admission_holds_for_its_kind_alone(world: World, club: Party) -> None:
    standing = Standing(club.id).admitted(world.admission(club, PROVIDER))

    assert standing.is_admitted(PROVIDER, NOW)
    assert not standing.is_admitted(NODE, NOW)


def test_an_admission_ends_with_its_last_day(world: World, club: Party) -> None:
    standing = Standing(club.id).admitted(world.admission(club, PROVIDER, valid_until=NOW + DAY))

    assert standing.is_admitted(PROVIDER, Millis(NOW + DAY - 1))
    assert not standing.is_admitted(PROVIDER, Millis(NOW + DAY))


def test_a_suspension_ends_what_the_admission_gave(world: World, club: Party) -> None:
    admitted = Standing(club.id).admitted(world.admission(club, PROVIDER))

    suspended = admitted.suspended(world.suspension(club))

    assert not suspended.is_admitted(PROVIDER, NOW)
    assert suspended.admission is admitted.admission


def test_a_later_admission_ends_a_suspension(world: World, club: Party) -> None:
    standing = Standing(club.id).admitted(world.admission(club, PROVIDER)).suspended(world.suspension(club))

    standing = standing.admitted(world.admission(club, PROVIDER))

    assert standing.is_admitted(PROVIDER, NOW)
    assert standing.suspension is None


def test_an_older_admission_does_not_end_a_suspension(world: World, club: Party) -> None:
    first, older = world.admission(club, PROVIDER), world.admission(club, PROVIDER)
    suspended = Standing(club.id).admitted(first).suspended(world.suspension(club))

    for admission in (first, older):
        assert suspended.admitted(admission) is suspended


def test_an_admission_of_the_same_time_is_not_newer(world: World, club: Party) -> None:
    admitted = Standing(club.id).admitted(world.admission(club, PROVIDER, created_at=NOW))

    assert admitted.admitted(world.admission(club, NODE, created_at=NOW)) is admitted
    assert admitted.suspended(world.suspension(club, created_at=NOW)) is admitted
    assert admitted.suspended(world.suspension(club, created_at=NOW + 1)).suspension is not None


def test_an_older_suspension_does_not_undo_a_later_admission(world: World, club: Party) -> None:
    first, suspension = world.admission(club, PROVIDER), world.suspension(club)
    standing = Standing(club.id).admitted(first).suspended(suspension).admitted(world.admission(club, PROVIDER))

    assert standing.suspended(suspension) is standing


def test_only_a_certificate_with_a_higher_number_counts(world: World, club: Party) -> None:
    second = world.key_cert(club.with_online_key(2), 2)
    standing = Standing(club.id).certified(second)

    assert standing.cert is second
    assert standing.certified(world.key_cert(club, 1)) is standing
    assert standing.certified(world.key_cert(club, 2)) is standing
    third = world.key_cert(club, 3)
    assert standing.certified(third).cert is third


# ---------------------------------------------------------------------------------------------- certificates


def cert(world: World, club: Party, **changes: Any) -> pb.KeyCert:
    body = pb.KeyCert()
    body.CopyFrom(world.key_cert(club).payload)
    for name, value in changes.items():
        setattr(body, name, value)
    return body


def test_a_certificate_lives_from_a_millisecond_to_400_days(world: World, club: Party) -> None:
    for end in (NOW + 1, NOW + MAX_KEY_LIFETIME):
        check_key_cert(cert(world, club, created_at=NOW, valid_until=end))


@pytest.mark.parametrize("end", [NOW, NOW - 1, NOW + MAX_KEY_LIFETIME + 1])
def test_a_certificate_that_ends_before_it_begins_or_lives_too_long_is_refused(
    end: int, world: World, club: Party
) -> None:
    with pytest.raises(MalformedError) as caught:
        check_key_cert(cert(world, club, created_at=NOW, valid_until=end))

    assert caught.value.field == "key-cert.valid_until"


def test_the_root_key_is_never_an_online_key(world: World, club: Party) -> None:
    with pytest.raises(KeyRejectedError, match="root key itself"):
        check_key_cert(cert(world, club, signing_key=club.id))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"signing_key": b"\x01" + bytes(31)}, "key-cert.signing_key"),
        ({"signing_key": b"\xff" * 32}, "key-cert.signing_key"),
        ({"sealing_key": bytes(32)}, "key-cert.sealing_key"),
        ({"sealing_key": b"\xff" * 32}, "key-cert.sealing_key"),
    ],
)
def test_keys_that_must_not_be_used_are_refused_when_they_are_certified(
    changes: dict[str, bytes], named: str, world: World, club: Party
) -> None:
    with pytest.raises(KeyRejectedError, match=named):
        check_key_cert(cert(world, club, **changes))


# ---------------------------------------------------------------------------------------------- keys


def test_the_certified_key_is_the_current_one_until_its_certificate_ends(world: World, club: Party) -> None:
    standing = Standing(club.id).certified(world.key_cert(club, 1, valid_until=NOW + DAY))

    assert key_reason(standing, club.signer, Millis(NOW + DAY - 1)) == Reason.ALLOWED
    assert key_reason(standing, club.signer, Millis(NOW + DAY)) == Reason.KEY_EXPIRED


def test_an_earlier_key_is_not_certified_any_more(world: World, club: Party) -> None:
    standing = Standing(club.id).certified(world.key_cert(club)).certified(world.key_cert(club.with_online_key(2), 2))

    assert key_reason(standing, club.signer, NOW) == Reason.KEY_NOT_CERTIFIED
    assert key_reason(standing, club.with_online_key(2).signer, NOW) == Reason.ALLOWED


@pytest.mark.parametrize("case", ["unknown", "without certificate", "another root", "the root itself"])
def test_a_key_without_certificate_under_its_root_is_not_certified(case: str, world: World, club: Party) -> None:
    certified = Standing(club.id).certified(world.key_cert(club))
    other = world.organization("other")
    standing, signer = {
        "unknown": (None, club.signer),
        "without certificate": (Standing(club.id), club.signer),
        "another root": (certified, pb.Signer(root=other.id, key=club.online.public.raw)),
        "the root itself": (certified, pb.Signer(root=club.id, key=club.id)),
    }[case]

    assert key_reason(standing, signer, NOW) == Reason.KEY_NOT_CERTIFIED
