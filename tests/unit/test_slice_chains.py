"""A slice's chain is told only when its entries are proved to be in the ledger, with none left out."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.errors import AuthorityError, MalformedError, PermslipError, ProofError, SignatureError
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, inclusion_proof, leaf_hash, root_at
from permslip.notes import Ed25519Signer, NoteSignature, append_signatures
from permslip.slice_chains import ChainChecker, ChainEntry, check_chain_end, ledger_verifier
from permslip.statements import Signed
from permslip.tlog_proof import TlogProof, verify_proof
from permslip.witnesses import WitnessPolicy

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


def checker(policy: WitnessPolicy | None = None) -> ChainChecker:
    return ChainChecker(PLACE, federation=FED, ledger=BROKER.public.raw, key=ONLINE.public.raw, policy=policy)


def check_page(checking: ChainChecker, page: guardian_pb2.ListAccessesResponse) -> list[ChainEntry]:
    return checking.check(page.entries, page.proofs, page.checkpoint.note)


def check(*pages: guardian_pb2.ListAccessesResponse) -> list[ChainEntry]:
    checking = checker()
    found = [entry for page in pages for entry in check_page(checking, page)]
    checking.finish(LEDGER.head.slice_seq, LEDGER.head.leaf_hash)
    return found


def test_a_whole_chain_is_told_entry_by_entry() -> None:
    found = check(LEDGER.page(0, 1), LEDGER.page(3, 4))

    assert [(each.event, each.seq, each.position) for each in found] == [
        ("statement_recorded", 1, 0),
        ("access_decided", 2, 1),
        ("access_decided", 3, 3),
        ("access_answered", 4, 4),
    ]
    assert [each.recorded_at for each in found] == [1_790_000_000_000 + seq for seq in (1, 2, 3, 4)]
    assert {(each.ledger, each.cosignatures) for each in found} == {(BROKER.public.raw, 0)}


def test_every_entry_has_a_proof_that_anybody_can_check() -> None:
    for each in check(LEDGER.page(0, 1, 3, 4)):
        proof = TlogProof.parse(each.proof.raw())
        verify_proof(proof, ledger_verifier(proof.checkpoint, ONLINE.public.raw))
        assert each.entry is not None
        assert proof.extra == each.entry.SerializeToString(deterministic=True)


def test_an_entry_that_is_another_persons_business_keeps_its_place() -> None:
    page = LEDGER.page(0, 1, 3, 4)
    page.entries[1].leaf = b""

    found = check(page)

    assert [(each.event, each.seq, each.recorded_at) for each in found][1] == ("", 2, 0)
    assert (found[1].entry, found[1].proof.extra, found[1].leaf_hash) == (None, None, LEDGER.hashes[1])


def test_a_page_without_entries_says_nothing() -> None:
    assert check_page(checker(), guardian_pb2.ListAccessesResponse()) == []


def test_a_chain_without_an_entry_ends_at_none() -> None:
    checker().finish(0, b"")
    with pytest.raises(ProofError):
        checker().finish(1, bytes(32))


def test_a_chain_that_has_grown_meanwhile_is_no_fault() -> None:
    checking = checker()
    check_page(checking, LEDGER.page(0, 1, 3, 4))

    checking.finish(3, LEDGER.hashes[3])


def test_a_chain_that_ends_elsewhere_than_its_keeper_says_is_one() -> None:
    checking = checker()
    check_page(checking, LEDGER.page(0, 1, 3, 4))

    with pytest.raises(ProofError):
        checking.finish(4, LEDGER.hashes[3])


WITNESSES = [CosignatureSigner(f"w{n}.example", SigningKey.from_seed(bytes([n] * 32)), timestamp=1) for n in (1, 2, 3)]
POLICY = WitnessPolicy(tuple(each.verifier for each in WITNESSES), 2)


def cosigned(*witnesses: CosignatureSigner) -> guardian_pb2.ListAccessesResponse:
    page = LEDGER.page(0, 1, 3, 4)
    note = page.checkpoint.note
    opened = open_checkpoint(note, ledger_verifier(note, ONLINE.public.raw))
    page.checkpoint.note = append_signatures(note, [cosign(opened, each) for each in witnesses])
    return page


def test_cosignatures_that_are_demanded_are_counted() -> None:
    checking = checker(POLICY)

    found = check_page(checking, cosigned(*WITNESSES[:2]))

    assert {each.cosignatures for each in found} == {2}
    assert checking.unwitnessed is None


def test_a_chain_that_too_few_have_witnessed_is_whole_and_said_to_be_so() -> None:
    checking = checker(POLICY)

    found = check_page(checking, cosigned(WITNESSES[0]))

    assert len(found) == 4
    assert checking.unwitnessed is not None


def test_a_forged_cosignature_is_refused() -> None:
    page = cosigned(*WITNESSES[:2])
    forged = WITNESSES[2]
    other = CosignatureSigner(forged.key.name, SigningKey.from_seed(bytes([9] * 32)), timestamp=1)
    note = page.checkpoint.note
    opened = open_checkpoint(note, ledger_verifier(note, ONLINE.public.raw))
    line = cosign(opened, other)
    page.checkpoint.note = append_signatures(note, [NoteSignature(line.name, forged.key.key_id, line.signature)])

    with pytest.raises(SignatureError):
        check_page(checker(POLICY), page)


# ---------------------------------------------------------------------------------------------- a node's own word

NODE = SigningKey.from_seed(b"N" * 32)


def chain_end(**changes: object) -> Signed[pb.ChainEnd]:
    fields: dict[str, object] = {
        "federation": FED,
        "nonce": bytes(16),
        "created_at": 1_790_000_000_000,
        "signer": pb.Signer(root=PLACE.node, key=NODE.public.raw),
        "hello_id": b"H" * 32,
        "slice": PLACE,
        "slice_seq": 4,
        "leaf_hash": b"l" * 32,
        "ledger_size": 5,
        **changes,
    }
    return st.sign(st.CHAIN_END, pb.ChainEnd(**fields), [NODE])  # type: ignore[arg-type]  # its fields


def believe(signed: Signed[pb.ChainEnd]) -> Signed[pb.ChainEnd]:
    return check_chain_end(
        signed.envelope, federation=FED, node=PLACE.node, key=NODE.public.raw, hello_id=b"H" * 32, place=PLACE
    )


def test_a_nodes_word_on_the_end_of_a_chain_is_believed() -> None:
    assert believe(chain_end()).payload.slice_seq == 4
    assert believe(chain_end(slice_seq=0, leaf_hash=b"", ledger_size=1)).payload.leaf_hash == b""


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"hello_id": b"O" * 32}, AuthorityError),
        ({"slice": ELSEWHERE}, AuthorityError),
        ({"signer": pb.Signer(root=BROKER.public.raw, key=NODE.public.raw)}, AuthorityError),
        ({"leaf_hash": b""}, MalformedError),
        ({"slice_seq": 0}, MalformedError),
        ({"slice_seq": 6}, MalformedError),
        ({"federation": "other.example"}, MalformedError),
    ],
)
def test_a_word_about_something_else_or_by_somebody_else_is_refused(
    changes: dict[str, object], error: type[PermslipError]
) -> None:
    with pytest.raises(error):
        believe(chain_end(**changes))


def test_a_word_signed_by_a_key_that_is_not_the_nodes_is_refused() -> None:
    payload = pb.ChainEnd()
    payload.CopyFrom(chain_end().payload)
    payload.signer.key = OTHER.public.raw

    with pytest.raises(AuthorityError):
        believe(st.sign(st.CHAIN_END, payload, [OTHER]))


# ---------------------------------------------------------------------------------------------- lies


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
