"""The directory believes the operator about organizations, and each root about its own online key."""

from __future__ import annotations

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.directory import Directory
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, SignatureError
from permslip.keys import SealingKey, SigningKey
from permslip.quantities import Millis

FEDERATION = "fed.example"
OPERATOR = SigningKey.from_seed(b"o" * 32)
SCHOOL = SigningKey.from_seed(b"s" * 32)
OTHER = SigningKey.from_seed(b"t" * 32)
ONLINE = [SigningKey.from_seed(bytes([number]) * 32) for number in range(4)]
SEALING = [SealingKey.from_seed(bytes([number]) * 32) for number in range(4)]
NODE = pb.PRINCIPAL_KIND_NODE
T = 1_790_000_000_000
YEAR = 365 * 86_400_000


def admission(at: int = T, *, by: SigningKey = OPERATOR, of: SigningKey = SCHOOL, valid_until: int = 0) -> pb.Envelope:
    payload = pb.Admission(
        federation=FEDERATION,
        nonce=bytes(15) + b"1",
        created_at=at,
        signer=pb.Signer(root=by.public.raw, key=by.public.raw),
        root=of.public.raw,
        kind=NODE,
        name="Lincoln Elementary",
        agreement_id="NDPA-1",
        valid_until=valid_until,
    )
    return st.sign(st.ADMISSION, payload, [by]).envelope


def suspension(at: int, *, by: SigningKey = OPERATOR, of: SigningKey = SCHOOL) -> pb.Envelope:
    payload = pb.Suspension(
        federation=FEDERATION,
        nonce=bytes(15) + b"1",
        created_at=at,
        signer=pb.Signer(root=by.public.raw, key=by.public.raw),
        root=of.public.raw,
    )
    return st.sign(st.SUSPENSION, payload, [by]).envelope


def cert(seq: int, *, root: SigningKey = SCHOOL, online: SigningKey | None = None, at: int = T) -> pb.Envelope:
    payload = pb.KeyCert(
        federation=FEDERATION,
        nonce=bytes(15) + b"1",
        created_at=at,
        root=root.public.raw,
        signing_key=(online or ONLINE[seq]).public.raw,
        sealing_key=SEALING[seq].public,
        seq=seq,
        valid_until=at + YEAR,
    )
    return st.sign(st.KEY_CERT, payload, [root]).envelope


def entry(
    admitted: pb.Envelope,
    key_cert: pb.Envelope | None = None,
    suspended: pb.Envelope | None = None,
    *,
    attached: bool = False,
) -> session_pb2.DirectoryEntry:
    return session_pb2.DirectoryEntry(admission=admitted, key_cert=key_cert, suspension=suspended, attached=attached)


def signer(seq: int) -> pb.Signer:
    return pb.Signer(root=SCHOOL.public.raw, key=ONLINE[seq].public.raw)


@pytest.fixture
def directory() -> Directory:
    return Directory(federation=FEDERATION, operator=OPERATOR.public.raw)


def check(directory: Directory, seq: int, at: int = T + 1) -> None:
    directory.check_signer(signer(seq), kind=NODE, at=Millis(at))


def test_an_admitted_and_certified_organization_is_believed(directory: Directory) -> None:
    known = directory.add(entry(admission(), cert(1), attached=True))

    check(directory, 1)
    assert directory.knows(signer(1))
    assert directory.sealing_key(SCHOOL.public.raw, kind=NODE, at=Millis(T)) == SEALING[1].public
    assert (known.name, known.did, known.attached, known.suspended) == (
        "Lincoln Elementary",
        SCHOOL.public.did,
        True,
        False,
    )


def test_an_admission_by_anybody_but_the_operator_is_refused(directory: Directory) -> None:
    with pytest.raises(AuthorityError, match="not signed by the federation's operator"):
        directory.add(entry(admission(by=OTHER), cert(1)))

    assert len(directory) == 0


def test_an_altered_admission_is_refused(directory: Directory) -> None:
    altered = admission()
    altered.payload = altered.payload.replace(b"Lincoln", b"Lincorn")

    with pytest.raises(SignatureError):
        directory.add(entry(altered))


def test_a_certificate_of_another_root_is_refused(directory: Directory) -> None:
    with pytest.raises(AuthorityError, match="another organization's"):
        directory.add(entry(admission(), cert(1, root=OTHER)))


def test_a_suspension_of_another_organization_is_refused(directory: Directory) -> None:
    with pytest.raises(AuthorityError, match="about another organization"):
        directory.add(entry(admission(), None, suspension(T + 1, of=OTHER)))


def test_a_certificate_that_makes_the_root_an_online_key_is_refused(directory: Directory) -> None:
    with pytest.raises(KeyRejectedError, match="root key itself"):
        directory.add(entry(admission(), cert(1, online=SCHOOL)))


def test_a_replaced_certificate_cannot_be_brought_back(directory: Directory) -> None:
    directory.add(entry(admission(), cert(2)))

    directory.add(entry(admission(), cert(1)))

    check(directory, 2)
    with pytest.raises(KeyRejectedError, match="not the organization's current key"):
        check(directory, 1)


def test_a_certificate_that_ended_is_refused(directory: Directory) -> None:
    directory.add(entry(admission(), cert(1)))

    with pytest.raises(KeyRejectedError, match="has ended"):
        check(directory, 1, at=T + YEAR)


def test_a_suspended_organization_is_refused_until_it_is_admitted_anew(directory: Directory) -> None:
    directory.add(entry(admission(T), cert(1), suspension(T + 10)))
    with pytest.raises(KeyRejectedError, match="suspended"):
        check(directory, 1)

    directory.add(entry(admission(T + 20), cert(1)))

    check(directory, 1)


def test_a_suspension_that_is_left_out_later_still_stands(directory: Directory) -> None:
    directory.add(entry(admission(T), cert(1), suspension(T + 10)))

    known = directory.add(entry(admission(T), cert(1)))

    assert known.suspended


def test_a_suspension_older_than_the_admission_changes_nothing(directory: Directory) -> None:
    known = directory.add(entry(admission(T + 20), cert(1), suspension(T + 10)))

    assert not known.suspended


def test_an_organization_admitted_as_something_else_is_refused(directory: Directory) -> None:
    directory.add(entry(admission(), cert(1)))

    with pytest.raises(KeyRejectedError, match="not admitted"):
        directory.check_signer(signer(1), kind=pb.PRINCIPAL_KIND_PROVIDER, at=Millis(T))


def test_an_admission_that_ended_is_refused(directory: Directory) -> None:
    directory.add(entry(admission(valid_until=T + 5), cert(1)))

    with pytest.raises(KeyRejectedError, match="not admitted"):
        check(directory, 1, at=T + 5)


def test_an_organization_without_certificate_has_no_sealing_key(directory: Directory) -> None:
    directory.add(entry(admission()))

    assert not directory.knows(signer(1))
    with pytest.raises(KeyRejectedError, match="has registered no key"):
        directory.sealing_key(SCHOOL.public.raw, kind=NODE, at=Millis(T))


def test_an_unknown_organization_is_named_by_its_key(directory: Directory) -> None:
    assert directory.name(SCHOOL.public.raw) == SCHOOL.public.did
    assert directory.organization(SCHOOL.public.raw) is None


def test_organizations_are_listed_by_name(directory: Directory) -> None:
    directory.add(entry(admission()))

    assert [each.name for each in directory.organizations()] == ["Lincoln Elementary"]


def test_an_entry_without_admission_is_refused(directory: Directory) -> None:
    with pytest.raises(MalformedError, match="payload_type"):
        directory.add(session_pb2.DirectoryEntry(key_cert=cert(1)))
