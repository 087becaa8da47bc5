"""protos/SPEC.md: every worked example is recomputed, and the table of limits is what the contract says."""

from __future__ import annotations

from hashlib import sha256

import pytest

from permslip import sealing, statements as st
from permslip.grants import MAX_ENDORSEMENT_LIFETIME, MAX_GRANT_LIFETIME
from permslip.hosting.leaves import MAX_LEAF_BYTES
from permslip.keys import PublicKey
from permslip.slices import MIN_SLICE_BYTES
from permslip.standing import MAX_KEY_LIFETIME
from tests.repository.reference_pages import limits_table
from tests.scenarios.world import DAY, FEDERATION
from tests.vectors import spec_examples

TEXT = spec_examples.SPEC.read_text("utf-8")
BLOCKS = {found[2]: (found[1], found[3]) for found in spec_examples.BLOCK.finditer(TEXT)}
EXAMPLES = spec_examples.examples()


def stated(name: str) -> bytes:
    """The bytes that a block shows."""
    return bytes.fromhex("".join(BLOCKS[name][1].split()))


def test_every_example_stands_on_the_page_once_and_no_other() -> None:
    assert sorted(found[2] for found in spec_examples.BLOCK.finditer(TEXT)) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_the_code_computes(name: str) -> None:
    form, content = BLOCKS[name]

    assert form == ("text" if isinstance(EXAMPLES[name], str) else "hex")
    assert content == spec_examples.shown(EXAMPLES[name]), "run: python -m tests.vectors.spec_examples"


def test_the_first_example_can_be_checked_with_nothing_but_this_page() -> None:
    payload, pae = stated("revocation.payload"), stated("revocation.pae")
    kind = b"application/vnd.permslip.revocation.v1+protobuf"

    assert pae == b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    assert sha256(pae).digest() == stated("revocation.id")
    envelope = st.parse_envelope(stated("revocation.envelope"))
    assert envelope.signatures[0].signature == stated("revocation.signature")
    PublicKey.parse(envelope.signatures[0].key).verify(pae, stated("revocation.signature"))
    assert st.verify(st.REVOCATION, envelope, federation=FEDERATION).id == stated("revocation.id")


def test_the_limits_are_those_of_the_contract() -> None:
    found = spec_examples.LIMITS.search(TEXT)

    assert found is not None
    assert found[2] == f"\n{limits_table()}\n", "run: python -m tests.vectors.spec_examples"


def test_the_limits_in_words_are_those_of_the_code() -> None:
    assert (st.MAX_PAYLOAD, st.MAX_ENVELOPE, MAX_LEAF_BYTES) == (65_536, 67_584, 65_536)
    assert (sealing.MAX_CHUNK_BYTES, MIN_SLICE_BYTES) == (65_536, 4_096)
    assert (MAX_GRANT_LIFETIME, MAX_ENDORSEMENT_LIFETIME, MAX_KEY_LIFETIME) == (400 * DAY, 30 * DAY, 400 * DAY)


def test_every_kind_of_statement_is_named() -> None:
    listed = TEXT.partition("where `<kind>` is one of:")[2].partition("\n\n")[0]

    assert sorted(each.strip(" `\n.") for each in listed.split(",")) == sorted(kind.name for kind in st.KINDS.values())
