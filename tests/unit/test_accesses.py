"""Accesses are shown only when they are proved to be in the broker's ledger, with none left out."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from permslip._pb.permslip.v1 import guardian_pb2, ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.client.accesses import Access, AccessChecker
from permslip.directory import Directory
from permslip.errors import MalformedError, PermslipError, ProofError, SignatureError
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, inclusion_proof, leaf_hash, root_at
from permslip.notes import Ed25519Signer
from permslip.reasons import Reason

FED = "fed.example"
BROKER, ONLINE, OTHER = (SigningKey.from_seed(each * 32) for each in (b"b", b"o", b"x"))
PLACE = pb.Slice(node=b"n" * 32, handle=b"h" * 16)
ELSEWHERE = pb.Slice(node=b"n" * 32, handle=b"i" * 16)
TUTOR = SigningKey.from_seed(b"t" * 32).public.raw


def entry(place: pb.Slice, seq: int, previous: bytes, **event: object) -> ledger_pb2.LogEntry:
    return ledger_pb2.LogEntry(
        version=1,
        federation=FED,
        ledger=BROKER.public.raw,
        nonce=os.urandom(16),
        recorded_at=1_790_000_000_000 + seq,
        slice=place,
        slice_seq=seq,
        slice_prev=previous,
        **event,  # type: ignore[arg-type]  # one of the events
    )


def decided(reason: pb.Reason.ValueType = pb.REASON_ALLOWED) -> ledger_pb2.AccessDecided:
    return ledger_pb2.AccessDecided(
        query_id=b"q" * 32,
        envelope_sha256=b"e" * 32,
        requester=pb.Signer(root=TUTOR, key=TUTOR),
        grant_id=b"g" * 32,
        action=pb.ACTION_READ,
        purpose=pb.PURPOSE_TUTORING,
        reason=reason,
        sections=[ledger_pb2.SectionVerdict(section="transcript.grades", reason=reason)],
        decided_at=1_790_000_000_000,
    )


class Ledger:
    """Four entries about one slice, one about another between them; the third is another person's business."""

    def __init__(self) -> None:
        answered = ledger_pb2.AccessAnswered(query_id=b"q" * 32, reason=pb.REASON_ALLOWED, sealed_bytes=4113)
        recorded = ledger_pb2.StatementRecorded(
            statement_id=b"s" * 32, payload_type="application/x", envelope_sha256=b"e" * 32, subject=b"g" * 32
        )
        events: list[tuple[pb.Slice, dict[str, object]]] = [
            (PLACE, {"statement_recorded": recorded}),
            (PLACE, {"access_decided": decided()}),
            (ELSEWHERE, {"access_decided": decided()}),
            (PLACE, {"access_decided": decided(pb.REASON_SECTION_NOT_GRANTED)}),
            (PLACE, {"access_answered": answered}),
        ]
        self.leaves: list[bytes] = []
        self.positions: list[int] = []
        ends: dict[bytes, tuple[int, bytes]] = {}
        for position, (place, event) in enumerate(events):
            seq, previous = ends.get(place.handle, (0, b""))
            leaf = entry(place, seq + 1, previous, **event).SerializeToString(deterministic=True)
            ends[place.handle] = (seq + 1, leaf_hash(leaf))
            self.leaves.append(leaf)
            if place == PLACE:
                self.positions.append(position)
        self.hashes = [leaf_hash(each) for each in self.leaves]
        self.tree = MemoryHashes.of_leaves(self.hashes)

    @property
    def head(self) -> ledger_pb2.SliceHead:
        return ledger_pb2.SliceHead(slice=PLACE, slice_seq=4, leaf_hash=self.hashes[self.positions[-1]])

    def page(self, *positions: int, key: SigningKey = ONLINE) -> guardian_pb2.ListAccessesResponse:
        size = len(self.leaves)
        checkpoint = Checkpoint("broker.example/log", size, root_at(self.tree, size))
        page = guardian_pb2.ListAccessesResponse(
            checkpoint=ledger_pb2.SignedCheckpoint(
                note=sign_checkpoint(checkpoint, [Ed25519Signer(checkpoint.origin, key)])
            )
        )
        for position in positions:
            page.entries.add(position=position, leaf_hash=self.hashes[position], leaf=self.leaves[position])
            page.proofs.add(position=position, size=size, hashes=inclusion_proof(self.tree, position, size))
        return page


LEDGER = Ledger()


def checker() -> AccessChecker:
    directory = Directory(federation=FED, operator=OTHER.public.raw)
    return AccessChecker(
        PLACE, federation=FED, broker_root=BROKER.public.raw, broker_key=ONLINE.public.raw, directory=directory
    )


def check(*pages: guardian_pb2.ListAccessesResponse) -> list[Access]:
    checking = checker()
    found = [access for page in pages for access in checking.check(page)]
    checking.finish(LEDGER.head)
    return found


def test_a_whole_chain_is_told_entry_by_entry() -> None:
    found = check(LEDGER.page(0, 1), LEDGER.page(3, 4))

    assert [(each.event, each.slice_seq, each.reason) for each in found] == [
        ("statement_recorded", 1, Reason.ALLOWED),
        ("access_decided", 2, Reason.ALLOWED),
        ("access_decided", 3, Reason.SECTION_NOT_GRANTED),
        ("access_answered", 4, Reason.ALLOWED),
    ]
    assert (found[1].purpose, found[1].requester, found[1].sections) == (
        "tutoring",
        TUTOR,
        (("transcript.grades", Reason.ALLOWED),),
    )
    assert found[3].sealed_bytes == 4113
    assert found[0].grant_id == b"g" * 32
    assert found[1].to_dict()["sections"] == {"transcript.grades": "ALLOWED"}


def test_an_entry_that_is_another_persons_business_keeps_its_place() -> None:
    page = LEDGER.page(0, 1, 3, 4)
    page.entries[1].leaf = b""

    found = check(page)

    assert [(each.event, each.slice_seq) for each in found][1] == ("", 2)
    assert found[1].to_dict()["requester"] == ""


def test_a_page_without_entries_says_nothing() -> None:
    assert checker().check(guardian_pb2.ListAccessesResponse()) == []


def test_without_a_name_the_requester_stands_by_its_key() -> None:
    checking = checker()
    (first, second) = checking.check(LEDGER.page(0, 1))

    assert checking.named(first) == first
    assert checking.named(second).requester_name.startswith("did:key:")


def first_left_out() -> list[guardian_pb2.ListAccessesResponse]:
    return [LEDGER.page(1, 3, 4)]


def one_left_out() -> list[guardian_pb2.ListAccessesResponse]:
    return [LEDGER.page(0, 3, 4)]


def last_left_out() -> list[guardian_pb2.ListAccessesResponse]:
    return [LEDGER.page(0, 1, 3)]


def hidden_one_left_out() -> list[guardian_pb2.ListAccessesResponse]:
    page = LEDGER.page(0, 1, 4)
    page.entries[1].leaf = b""
    return [page]


def reordered() -> list[guardian_pb2.ListAccessesResponse]:
    return [LEDGER.page(1, 0, 3, 4)]


def of_another_slice() -> list[guardian_pb2.ListAccessesResponse]:
    return [LEDGER.page(0, 1, 2, 3, 4)]


def altered() -> list[guardian_pb2.ListAccessesResponse]:
    page = LEDGER.page(0, 1, 3, 4)
    page.entries[1].leaf = page.entries[1].leaf.replace(b"transcript.grades", b"personal.servicez")
    return [page]


def altered_with_its_hash() -> list[guardian_pb2.ListAccessesResponse]:
    (page,) = altered()
    page.entries[1].leaf_hash = leaf_hash(page.entries[1].leaf)
    return [page]


def with_another_entrys_proof() -> list[guardian_pb2.ListAccessesResponse]:
    page = LEDGER.page(0, 1, 3, 4)
    page.proofs[1].CopyFrom(page.proofs[2])
    return [page]


def without_proof() -> list[guardian_pb2.ListAccessesResponse]:
    page = LEDGER.page(0, 1, 3, 4)
    del page.proofs[-1]
    return [page]


def signed_by_somebody_else() -> list[guardian_pb2.ListAccessesResponse]:
    return [LEDGER.page(0, 1, 3, 4, key=OTHER)]


def without_checkpoint() -> list[guardian_pb2.ListAccessesResponse]:
    page = LEDGER.page(0, 1, 3, 4)
    page.checkpoint.note = b"\xff"
    return [page]


def not_an_entry() -> list[guardian_pb2.ListAccessesResponse]:
    other = Ledger()
    other.leaves[0] = b"\x00"
    other.hashes[0] = leaf_hash(b"\x00")
    other.tree = MemoryHashes.of_leaves(other.hashes)
    return [other.page(0, 1, 3, 4)]


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (first_left_out, ProofError),
        (one_left_out, ProofError),
        (last_left_out, ProofError),
        (hidden_one_left_out, ProofError),
        (reordered, ProofError),
        (of_another_slice, ProofError),
        (altered, ProofError),
        (altered_with_its_hash, ProofError),
        (with_another_entrys_proof, ProofError),
        (without_proof, ProofError),
        (signed_by_somebody_else, SignatureError),
        (without_checkpoint, MalformedError),
        (not_an_entry, MalformedError),
    ],
)
def test_a_listing_that_is_not_the_ledgers_is_refused(
    lie: Callable[[], list[guardian_pb2.ListAccessesResponse]], error: type[PermslipError]
) -> None:
    with pytest.raises(error):
        check(*lie())
