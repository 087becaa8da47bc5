"""The golden vectors of format version 1: made again they are the same, and the product reads them as they say."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from typing import Any

import pytest

from permslip import dsse, errors, statements as st
from permslip._pb.permslip.v1 import ledger_pb2, record_pb2, statement_pb2 as pb
from permslip.checkpoints import CosignatureVerifier, verify_cosigned
from permslip.grants import Terms, narrow, revoker_hash
from permslip.greeting import make_server_nonce
from permslip.keyformat import parse_keys
from permslip.keys import PublicKey, SealingKey, SigningKey, parse_sealing_key
from permslip.linking import check_link_mac, transcript
from permslip.merkle import MemoryHashes, leaf_hash, root_at, verify_consistency, verify_inclusion
from permslip.notes import Ed25519Verifier, VerifierKey
from permslip.quantities import Millis
from permslip.sealing import open_sealed, padme, salted_digest
from permslip.sections import LEAVES, PATHS, SENSITIVE, covers, expand, is_narrower
from permslip.slices import SliceReader
from permslip.slip import parse_slip
from permslip.statements import Signed
from tests.scenarios.world import FEDERATION
from tests.vectors import generate

KINDS = {kind.name: kind for kind in st.KINDS.values()}


def read(name: str) -> Any:
    return json.loads((generate.FOLDER / name).read_text("utf-8"))


def named(cases: list[Any]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: str(case.get("name", "")))


def hexed(case: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(case[name])


STATEMENTS, SLICES, KEYS, SEALS = (read(f"{each}.json") for each in ("statements", "slices", "keys", "seals"))
DIGESTS, SECTIONS, LEDGER = (read(f"{each}.json") for each in ("digests", "sections", "ledger"))


# ---------------------------------------------------------------------------------------------- the files


def test_the_vectors_are_what_the_generator_makes() -> None:
    made = generate.vectors()

    assert {path.name for path in generate.FOLDER.glob("*.json")} == set(made)
    for name, content in made.items():
        assert (generate.FOLDER / name).read_text("utf-8") == content, name


def test_the_format_is_pinned_by_the_digest_of_its_vectors() -> None:
    assert generate.DIGEST.read_text("utf-8") == generate.digest() + "\n"


def test_every_kind_of_statement_has_a_good_vector_and_names_are_unique() -> None:
    assert [case["name"] for case in STATEMENTS["good"]] == list(KINDS)
    for cases in (STATEMENTS["bad"], SLICES["good"], SLICES["bad"]):
        assert len({case["name"] for case in cases}) == len(cases)


# ---------------------------------------------------------------------------------------------- statements


@named(STATEMENTS["good"])
def test_a_good_statement_is_believed(case: dict[str, Any]) -> None:
    kind = KINDS[case["name"]]
    payload, envelope = hexed(case, "payload"), hexed(case, "envelope")

    signed = st.verify(kind, st.parse_envelope(envelope), federation=FEDERATION)

    assert kind.payload_type == case["payload_type"]
    assert dsse.pae(kind.payload_type, payload) == hexed(case, "pae")
    assert signed.id == hexed(case, "id") == sha256(hexed(case, "pae")).digest()
    assert (signed.raw, signed.sha256) == (envelope, hexed(case, "envelope_sha256"))
    for each in case["signatures"]:
        key = SigningKey.from_seed(hexed(each, "seed"))
        assert key.public.raw == hexed(each, "key")
        assert key.sign(hexed(case, "pae")) == hexed(each, "signature")


@named(STATEMENTS["bad"])
def test_a_bad_statement_is_refused_as_it_says(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])) as caught:
        st.verify(KINDS[case["kind"]], st.parse_envelope(hexed(case, "envelope")), federation=case["federation"])

    assert type(caught.value).__name__ == case["error"]
    assert getattr(caught.value, "field", "") == case["field"]


# ---------------------------------------------------------------------------------------------- slices


class Requester:
    """Opens the answer of one vector."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        envelope = st.parse_envelope(hexed(case, "query"))
        self.query: Signed[pb.Query] = st.verify(st.QUERY, envelope, federation=case["federation"])
        self.reply = SealingKey.from_seed(hexed(case, "reply_seed"))
        self.reader = SliceReader(self.query, self.reply, node=hexed(case, "node"), check_signer=self.check)

    def check(self, signer: pb.Signer) -> None:
        if signer.key != hexed(self.case, "node_key"):
            raise errors.KeyRejectedError("not the node's current key.")

    def read(self) -> tuple[list[record_pb2.Record], Signed[pb.Manifest]]:
        self.reader.open_with(st.parse_envelope(hexed(self.case, "opening")))
        records = [each for chunk in self.case["chunks"] for each in self.reader.read(bytes.fromhex(chunk))]
        return records, self.reader.finish()


@named(SLICES["good"])
def test_a_good_answer_opens(case: dict[str, Any]) -> None:
    requester = Requester(case)

    records, manifest = requester.read()

    assert [each.SerializeToString(deterministic=True).hex() for each in records] == case["records"]
    assert manifest.raw == hexed(case, "manifest")
    assert manifest.payload.records_sha256 == hexed(case, "records_sha256")
    opening = st.verify(st.OPENING, st.parse_envelope(hexed(case, "opening")), federation=case["federation"]).payload
    assert requester.reply.unseal(opening.sealed_key) == hexed(case, "content_key")
    assert opening.header == hexed(case, "header")
    lengths = [len(bytes.fromhex(plaintext)) for plaintext in case["plaintexts"]]
    assert sum(lengths) == padme(sum(lengths)) >= 4096


@named(SLICES["bad"])
def test_a_bad_answer_is_refused_as_it_says(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])) as caught:
        Requester(case).read()

    assert type(caught.value).__name__ == case["error"]


# ---------------------------------------------------------------------------------------------- keys and seals


def test_keys_have_the_names_that_the_vectors_give() -> None:
    for case in KEYS["signing"]:
        key = SigningKey.from_seed(hexed(case, "seed"))
        assert (key.public.raw, key.public.did) == (hexed(case, "public"), case["did"])
        assert PublicKey.from_did(case["did"]) == key.public
    for case in KEYS["sealing"]:
        assert SealingKey.from_seed(hexed(case, "seed")).public == hexed(case, "public")


@pytest.mark.parametrize("name", KEYS["refused_signing"])
def test_a_signing_key_that_must_not_be_used_is_refused(name: str) -> None:
    with pytest.raises(errors.KeyRejectedError):
        PublicKey.parse(hexed(KEYS["refused_signing"], name))


@pytest.mark.parametrize("name", KEYS["refused_sealing"])
def test_a_sealing_key_that_must_not_be_used_is_refused(name: str) -> None:
    with pytest.raises(errors.KeyRejectedError):
        parse_sealing_key(hexed(KEYS["refused_sealing"], name), "key")


@pytest.mark.parametrize("text", KEYS["refused_did"])
def test_a_name_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(errors.PermslipError):
        PublicKey.from_did(text)


@named(KEYS["files"])
def test_a_key_file_reads_as_it_says(case: dict[str, Any]) -> None:
    passphrase = case["passphrase"].encode() if "passphrase" in case else None
    if "error" in case:
        with pytest.raises(errors.KeyFileError):
            parse_keys(case["text"].encode(), "file", passphrase)
        return

    keys = parse_keys(case["text"].encode(), "file", passphrase)

    assert keys.signing.secret_seed() == hexed(case, "signing_seed")
    sealing = keys.sealing.secret_seed().hex() if keys.sealing else None
    assert sealing == case.get("sealing_seed")


@named(SEALS["messages"])
def test_a_sealed_message_opens(case: dict[str, Any]) -> None:
    key = SealingKey.from_seed(hexed(case, "seed"))

    assert open_sealed(key, hexed(case, "sealed"), context=hexed(case, "context")) == hexed(case, "plaintext")


@named(SEALS["refused"])
def test_a_sealed_message_for_something_else_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(errors.SealError):
        open_sealed(SealingKey.from_seed(hexed(case, "seed")), hexed(case, "sealed"), context=hexed(case, "context"))


def test_the_private_part_of_a_grant_opens_and_is_bound_by_its_digest() -> None:
    case = SEALS["grant_private"]
    context = b"grant-private" + hexed(case, "node") + hexed(case, "handle") + hexed(case, "grantee")
    assert context == hexed(case, "context")

    opened = open_sealed(SealingKey.from_seed(hexed(case, "recipient_seed")), hexed(case, "sealed"), context=context)

    assert opened == hexed(case, "plaintext")
    private = st.decode_strictly(pb.GrantPrivate, opened, "private")
    assert (private.salt, private.notice_salt) == (hexed(case, "salt"), hexed(case, "notice_salt"))
    assert {name: getattr(private, name) for name in case["fields"]} == case["fields"]
    assert salted_digest(private.salt, opened) == hexed(case, "salted_sha256")


# ---------------------------------------------------------------------------------------------- small formats


def test_digests_and_lengths_are_what_the_vectors_say() -> None:
    for case in DIGESTS["revoker"]:
        assert revoker_hash(hexed(case, "grant_id"), hexed(case, "key")) == hexed(case, "hash")
    for case in DIGESTS["salted"]:
        assert salted_digest(hexed(case, "salt"), hexed(case, "data")) == hexed(case, "digest")
    for length, padded in DIGESTS["padme"]:
        assert padme(length) == padded


def test_a_servers_nonce_is_made_as_the_vector_says(monkeypatch: pytest.MonkeyPatch) -> None:
    case = read("greeting.json")
    monkeypatch.setattr("permslip.greeting.os.urandom", lambda count: hexed(case, "random")[:count])

    assert make_server_nonce(hexed(case, "secret"), now=Millis(case["now"])) == hexed(case, "nonce")


def test_the_tree_of_sections_is_the_one_of_the_vectors() -> None:
    assert (list(LEAVES), sorted(SENSITIVE), sorted(PATHS)) == (
        SECTIONS["leaves"],
        SECTIONS["sensitive"],
        list(SECTIONS["paths"]),
    )
    for path, leaves in SECTIONS["paths"].items():
        assert [leaf for leaf in LEAVES if covers([path], leaf)] == leaves
    for case in SECTIONS["expand"]:
        assert list(expand(case["asked"])) == case["leaves"]
    for case in SECTIONS["narrower"]:
        assert is_narrower(case["parent"], case["child"]) is case["narrower"]


@pytest.mark.parametrize("case", read("attenuation.json"), ids=lambda case: f"{case['dimension']}")
def test_a_child_is_accepted_or_refused_by_its_dimension(case: dict[str, Any]) -> None:
    parent, child = terms(case["parent"]), terms(case["child"])
    if case["dimension"] is None:
        assert narrow(parent, child) is child
        return

    with pytest.raises(errors.AttenuationError) as caught:
        narrow(parent, child)

    assert caught.value.dimension == case["dimension"]


def terms(fields: dict[str, Any]) -> Terms:
    return Terms(
        **fields
        | {
            "actions": frozenset(fields["actions"]),
            "sections": tuple(fields["sections"]),
            "onward": frozenset(bytes.fromhex(each) for each in fields["onward"]),
            "party": bytes.fromhex(fields["party"]),
        }
    )


def test_a_link_is_proved_as_the_vector_says() -> None:
    case = read("linking.json")
    slip = parse_slip(case["slip"]["text"])
    assert (slip.node, slip.selector, slip.secret) == tuple(
        hexed(case["slip"], name) for name in ("node", "selector", "secret")
    )
    body = pb.LinkRequest.FromString(hexed(case, "request"))
    assert transcript(body) == hexed(case, "transcript")
    assert hmac.digest(slip.secret, b"request" + transcript(body), "sha256") == hexed(case, "request_mac")
    body.mac = hexed(case, "request_mac")
    key = next(each for each in STATEMENTS["good"] if each["name"] == "link-request")["signatures"][0]["seed"]

    check_link_mac(st.sign(st.LINK_REQUEST, body, [SigningKey.from_seed(bytes.fromhex(key))]), slip.secret)
    with pytest.raises(errors.AuthorityError):
        check_link_mac(st.sign(st.LINK_REQUEST, body, [SigningKey.from_seed(bytes.fromhex(key))]), bytes(10))


# ---------------------------------------------------------------------------------------------- the ledger


def test_leaves_hash_and_chain_as_the_vectors_say() -> None:
    chain: list[bytes] = []
    for case in LEDGER["leaves"]:
        leaf = hexed(case, "leaf")
        entry = st.decode_strictly(ledger_pb2.LogEntry, leaf, "leaf")
        assert leaf_hash(leaf) == hexed(case, "leaf_hash")
        if entry.slice_seq:
            assert entry.slice_seq == len(chain) + 1
            assert entry.slice_prev == (chain[-1] if chain else b"")
            chain.append(leaf_hash(leaf))
    assert len(chain) == 3


def test_roots_and_proofs_are_what_the_vectors_say() -> None:
    hashes = [hexed(case, "leaf_hash") for case in LEDGER["leaves"]]
    reader, roots = MemoryHashes.of_leaves(hashes), [bytes.fromhex(each) for each in LEDGER["roots"]]
    assert [root_at(reader, size) for size in range(len(hashes) + 1)] == roots
    for case in LEDGER["inclusion"]:
        proof = [bytes.fromhex(each) for each in case["hashes"]]
        verify_inclusion(hashes[case["position"]], case["position"], case["size"], proof, roots[case["size"]])
    for case in LEDGER["consistency"]:
        proof = [bytes.fromhex(each) for each in case["hashes"]]
        old, new = case["old_size"], case["new_size"]
        verify_consistency(old, new, roots[old], roots[new], proof)


def test_the_checkpoint_is_believed_with_its_cosignature() -> None:
    case = LEDGER["checkpoint"]
    log = Ed25519Verifier(VerifierKey.parse(case["log_vkey"]))
    witness = CosignatureVerifier(VerifierKey.parse(case["witness_vkey"]))

    verified = verify_cosigned(case["cosigned_note"].encode(), log, [witness], 1)

    assert verified.checkpoint.origin == case["origin"]
    assert verified.checkpoint.root == bytes.fromhex(LEDGER["roots"][-1])
    assert [each.timestamp for each in verified.cosignatures] == [case["timestamp"]]
    with pytest.raises(errors.ProofError):
        verify_cosigned(case["note"].encode(), log, [witness], 1)
