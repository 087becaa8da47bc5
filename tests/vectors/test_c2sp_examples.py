"""The worked examples in the texts of C2SP signed-note, tlog-checkpoint, tlog-cosignature and tlog-witness."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from permslip.checkpoints import Checkpoint, CosignatureSigner
from permslip.keys import SigningKey
from permslip.notes import (
    Ed25519Verifier,
    SignatureType,
    UnverifiedNote,
    VerifierKey,
    open_note,
    parse_note,
    parse_signature_lines,
)

pytestmark = pytest.mark.data

SOFA = "example.com/behind-the-sofa"


@pytest.fixture(scope="module")
def specs(shared_data: Path) -> Path:
    return shared_data / "vectors" / "c2sp-specs"


def notes_in(path: Path) -> list[bytes]:
    """The fenced examples of one text that are whole signed notes."""
    fenced = re.findall(r"^```\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    notes = [body for body in fenced if "\n\n\u2014 " in body]
    # Some are shortened by their authors, or are notes inside another format.
    whole = [body for body in notes if "[...]" not in body and not body.startswith(("c2sp.org/", "subtree "))]
    return [body.encode() for body in whole]


def rebuilt(note: UnverifiedNote) -> bytes:
    return f"{note.untrusted_text}\n{''.join(each.line() for each in note.signatures)}".encode()


def indented(markdown: str, heading: str) -> str:
    """The indented block under a heading line, without its indentation."""
    block = re.search(rf"^{heading}\n\n((?:(?: {{4}}.*)?\n)+)", markdown, re.MULTILINE)
    assert block is not None
    return re.sub(r"^ {4}", "", block[1], flags=re.MULTILINE).strip("\n") + "\n"


def test_every_example_note_parses_and_is_written_the_same(specs: Path) -> None:
    examples = [raw for path in sorted(specs.glob("*.md")) for raw in notes_in(path)]
    assert len(examples) == 4
    assert [rebuilt(parse_note(raw)) for raw in examples] == examples


def test_the_example_note_is_verified_by_its_verifier_key(specs: Path) -> None:
    path = specs / "signed-note.md"
    found = re.search(r"^    (example\.com/foo\+\S+)$", path.read_text(), re.MULTILINE)
    assert found is not None
    key = VerifierKey.parse(found[1])
    assert (str(key), key.name, key.type) == (found[1], "example.com/foo", SignatureType.ED25519)
    note = open_note(notes_in(path)[1], [Ed25519Verifier(key)])
    assert note.text == "This is an example message.\n"
    assert [each.is_by(key) for each in note.signatures] == [True]


def test_the_example_with_an_empty_line_in_its_text_is_split_at_the_last_one(specs: Path) -> None:
    note = parse_note(notes_in(specs / "signed-note.md")[0])
    assert note.untrusted_text.endswith("sole:\n\ned è subito sera.\n")
    assert [(each.name, len(each.signature)) for each in note.signatures] == [("quasimodo.example/salvatore", 64)]


def test_the_example_checkpoint_parses(specs: Path) -> None:
    (raw,) = notes_in(specs / "tlog-checkpoint.md")
    note = parse_note(raw)
    parsed = Checkpoint.parse(note.untrusted_text)
    assert (parsed.origin, parsed.size, parsed.text()) == (SOFA, 20852163, note.untrusted_text)


def test_the_example_cosignature_has_the_time_of_the_example_message_and_ours_signs_that_message(specs: Path) -> None:
    path = specs / "tlog-cosignature.md"
    (raw,) = notes_in(path)
    note = parse_note(raw)
    log_line, witness_line = note.signatures
    assert (log_line.name, len(log_line.signature)) == (SOFA, 64)
    assert (witness_line.name, len(witness_line.signature)) == ("witness.example.com/w1", 72)
    written = re.search(r"^    cosignature/v1\n    time (\d+)\n(?:    .+\n)+", path.read_text(), re.MULTILINE)
    assert written is not None
    timestamp = int(written[1])
    assert int.from_bytes(witness_line.signature[:8], "big") == timestamp
    signer = CosignatureSigner("w", SigningKey.from_seed(bytes(32)), timestamp=timestamp)
    ours = signer.sign(note.untrusted_text)
    assert ours[:8] == witness_line.signature[:8]
    signer.key.public.verify(re.sub(r"^ {4}", "", written[0], flags=re.MULTILINE).encode(), ours[8:])


def test_the_example_request_to_a_witness_carries_a_checkpoint(specs: Path) -> None:
    request = indented((specs / "tlog-witness.md").read_text(), "Example request body:")
    old, _, raw = request.partition("\n\n")
    assert old.startswith("old 20852014\n")
    note = parse_note(raw.encode())
    assert Checkpoint.parse(note.untrusted_text).size == 20852163
    assert [(each.name, len(each.signature)) for each in note.signatures] == [(SOFA, 64), (SOFA, 64)]


def test_the_example_response_of_a_witness_is_cosignature_lines(specs: Path) -> None:
    response = indented((specs / "tlog-witness.md").read_text(), "Example response body:")
    lines = parse_signature_lines(response.encode())
    assert [(each.name, len(each.signature)) for each in lines] == [
        ("witness.example/w1", 72),
        ("witness.example/w1", 72),
        ("witness.example/w2", 72),
    ]
