"""Linking: only the holder of the slip links, only the node on the slip answers, and whoever relays learns nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as hs

from permslip import linking, statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, SealError
from permslip.keyformat import PrincipalKind, StoredKeys
from permslip.keys import SealingKey, SigningKey
from permslip.linking import LearnerCard, check_link_mac, make_link_request, make_link_response, open_link_request
from permslip.quantities import Millis
from permslip.slip import Slip, new_slip, parse_slip, slip_svg, slip_terminal
from permslip.statements import Signed

FED = "fed.example"
NOW = Millis(1_790_000_000_000)
ROOT, ONLINE, SEALING = SigningKey.generate(), SigningKey.generate(), SealingKey.generate()
NODE = ROOT.public.raw
SIGNER = pb.Signer(root=NODE, key=ONLINE.public.raw)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def cert_of(root: SigningKey, sealing: SealingKey, *, by: SigningKey | None = None) -> pb.Envelope:
    payload = pb.KeyCert(
        federation=FED,
        nonce=os.urandom(16),
        created_at=NOW - 1000,
        root=root.public.raw,
        signing_key=ONLINE.public.raw,
        sealing_key=sealing.public,
        seq=1,
        valid_until=NOW + 1_000_000,
    )
    envelope = st.sign(st.KEY_CERT, payload, [root]).envelope
    if by is not None:
        envelope.signatures[0].signature = by.sign(b"something else")
    return envelope


def guardian() -> StoredKeys:
    return StoredKeys(PrincipalKind.GUARDIAN, SigningKey.generate(), SealingKey.generate())


def opened(sealed: bytes) -> Signed[pb.LinkRequest]:
    return open_link_request(sealed, sealing_key=SEALING, federation=FED, node=NODE)


def card(handle: bytes = b"h" * 16) -> LearnerCard:
    return LearnerCard(handle, "Ada Lovelace", "Grand Bend High", "any", "Mother", 1, NOW + 5)


def response_to(slip: Slip, sealed: bytes) -> bytes:
    return make_link_response(opened(sealed), slip.secret, card(), signer=SIGNER, key=ONLINE, now=NOW)


# ------------------------------------------------------------------------------------------------- slips


@given(hs.binary(min_size=32, max_size=32), hs.binary(min_size=8, max_size=8), hs.binary(min_size=10, max_size=10))
def test_slip_is_read_back_as_it_was_printed(node: bytes, selector: bytes, secret: bytes) -> None:
    slip = Slip(node, selector, secret)
    assert parse_slip(slip.text()) == slip


def test_slip_is_read_in_lower_case_without_dashes_and_with_confused_letters() -> None:
    slip = Slip(bytes(32), b"\x01" * 8, bytes(10))
    sloppy = slip.text().lower().replace("-", " ").replace("0", "O").replace("1", "l")
    assert parse_slip("\n " + sloppy + " ") == slip


@given(hs.integers(0, 14 * 7 - 1), hs.integers(1, 31))
def test_every_single_wrong_digit_is_named_by_its_group(place: int, shift: int) -> None:
    slip = Slip(bytes(range(32)), b"selector", b"ten bytes.")
    plain = slip.text().removeprefix("PS1-").replace("-", "")
    wrong = ALPHABET[(ALPHABET.index(plain[place]) + shift) % 32]
    with pytest.raises(MalformedError, match=f"group {place // 7 + 1} of 14") as caught:
        parse_slip("PS1" + plain[:place] + wrong + plain[place + 1 :])
    assert slip.text() not in str(caught.value)


def test_swapped_neighbours_and_groups_in_the_wrong_order_are_found() -> None:
    text = Slip(bytes(range(32)), b"selector", b"ten bytes.").text()
    words = text.split("-")
    with pytest.raises(MalformedError, match="group 2"):
        parse_slip("-".join([*words[:2], words[2][1] + words[2][0] + words[2][2:], *words[3:]]))
    with pytest.raises(MalformedError, match="group 3"):
        parse_slip("-".join([*words[:3], words[4], words[3], *words[5:]]))


@pytest.mark.parametrize("text", ["", "PS1", "PS2-0000000", "PS1-" + "0" * 98, "hello"])
def test_what_is_no_slip_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_slip(text)


def test_a_slip_that_is_too_long_or_too_short_is_refused() -> None:
    text = new_slip(NODE).text()
    with pytest.raises(MalformedError, match="got more"):
        parse_slip(text + "0")
    with pytest.raises(MalformedError, match="group 14 of 14 after PS1 is missing"):
        parse_slip(text[:-1])


def test_secret_is_not_shown_and_slips_are_never_alike() -> None:
    one, other = new_slip(NODE), new_slip(NODE)
    assert one.secret.hex() not in repr(one)
    assert one.selector != other.selector
    assert one.secret != other.secret


def test_qr_codes_are_drawn() -> None:
    slip = new_slip(NODE)
    assert ElementTree.fromstring(slip_svg(slip)).tag.endswith("svg")
    assert len(slip_terminal(slip).splitlines()) > 15


# ---------------------------------------------------------------------------------------------- protocol


def test_guardian_with_the_slip_is_linked_and_learns_her_childs_handle() -> None:
    slip, keys = new_slip(NODE), guardian()
    sealed, pending = make_link_request(parse_slip(slip.text()), FED, keys, cert_of(ROOT, SEALING), NOW)

    request = opened(sealed)
    check_link_mac(request, slip.secret)
    response = pending.open_response(response_to(slip, sealed)).payload

    assert request.payload.signer.key == keys.signing.public.raw
    assert (response.slice.handle, response.learner_name, response.node_name) == (
        b"h" * 16,
        "Ada Lovelace",
        "Grand Bend High",
    )
    assert (response.quorum_rule, response.other_guardians, response.majority_at) == ("any", 1, NOW + 5)


def test_neither_secret_nor_names_travel_in_clear() -> None:
    slip, keys = new_slip(NODE), guardian()
    sealed, _ = make_link_request(slip, FED, keys, cert_of(ROOT, SEALING), NOW)
    answer = response_to(slip, sealed)
    for hidden in (slip.secret, slip.selector, keys.signing.public.raw, b"Ada Lovelace"):
        assert hidden not in sealed + answer
    assert slip.secret not in opened(sealed).raw


def test_key_that_the_broker_supplies_in_place_of_the_nodes_is_refused() -> None:
    slip, keys = new_slip(NODE), guardian()
    brokers_own = SealingKey.generate()
    with pytest.raises(KeyRejectedError, match="another root"):
        make_link_request(slip, FED, keys, cert_of(SigningKey.generate(), brokers_own), NOW)
    with pytest.raises(KeyRejectedError, match="signature does not hold"):
        make_link_request(slip, FED, keys, cert_of(ROOT, brokers_own, by=SigningKey.generate()), NOW)


def test_certificate_that_has_ended_is_refused() -> None:
    with pytest.raises(KeyRejectedError, match="has ended"):
        make_link_request(new_slip(NODE), FED, guardian(), cert_of(ROOT, SEALING), Millis(NOW + 1_000_000))


def test_guardian_without_a_sealing_key_cannot_link() -> None:
    keys = StoredKeys(PrincipalKind.GUARDIAN, SigningKey.generate())
    with pytest.raises(KeyRejectedError, match="sealing key"):
        make_link_request(new_slip(NODE), FED, keys, cert_of(ROOT, SEALING), NOW)


def test_wrong_secret_is_noticed() -> None:
    slip = new_slip(NODE)
    sealed, _ = make_link_request(replace(slip, secret=bytes(10)), FED, guardian(), cert_of(ROOT, SEALING), NOW)
    with pytest.raises(AuthorityError, match="secret"):
        check_link_mac(opened(sealed), slip.secret)


@pytest.mark.parametrize("field", ["selector", "sealing_key", "reply_key", "nonce"])
def test_mac_binds_every_field_of_the_request(field: str) -> None:
    slip, keys = new_slip(NODE), guardian()
    sealed, _ = make_link_request(slip, FED, keys, cert_of(ROOT, SEALING), NOW)
    payload = pb.LinkRequest()
    payload.CopyFrom(opened(sealed).payload)
    given_value = getattr(payload, field)
    setattr(payload, field, bytes([given_value[0] ^ 1]) + given_value[1:])
    resigned = st.sign(st.LINK_REQUEST, payload, [keys.signing])
    with pytest.raises(AuthorityError, match="secret"):
        check_link_mac(resigned, slip.secret)


def test_thief_who_signs_a_seen_request_with_her_own_key_does_not_know_the_secret() -> None:
    slip = new_slip(NODE)
    sealed, _ = make_link_request(slip, FED, guardian(), cert_of(ROOT, SEALING), NOW)
    payload = pb.LinkRequest()
    payload.CopyFrom(opened(sealed).payload)
    thief = SigningKey.generate()
    payload.signer.root = payload.signer.key = thief.public.raw
    with pytest.raises(AuthorityError, match="secret"):
        check_link_mac(st.sign(st.LINK_REQUEST, payload, [thief]), slip.secret)


def test_request_for_another_node_or_purpose_is_not_opened() -> None:
    slip = new_slip(NODE)
    sealed, _ = make_link_request(slip, FED, guardian(), cert_of(ROOT, SEALING), NOW)
    with pytest.raises(SealError):
        open_link_request(sealed, sealing_key=SEALING, federation=FED, node=bytes(32))
    with pytest.raises(SealError):
        open_link_request(sealed[:-1] + b"x", sealing_key=SEALING, federation=FED, node=NODE)
    with pytest.raises(MalformedError, match="at most"):
        open_link_request(bytes(9000), sealing_key=SEALING, federation=FED, node=NODE)
    with pytest.raises(MalformedError, match="federation"):
        open_link_request(sealed, sealing_key=SEALING, federation="other.example", node=NODE)


def test_answer_without_the_secret_is_refused() -> None:
    slip, keys = new_slip(NODE), guardian()
    sealed, pending = make_link_request(slip, FED, keys, cert_of(ROOT, SEALING), NOW)
    forged = make_link_response(opened(sealed), bytes(10), card(), signer=SIGNER, key=ONLINE, now=NOW)
    with pytest.raises(AuthorityError, match="secret"):
        pending.open_response(forged)


def test_answer_by_another_key_than_the_certified_one_is_refused() -> None:
    slip, keys, stranger = new_slip(NODE), guardian(), SigningKey.generate()
    sealed, pending = make_link_request(slip, FED, keys, cert_of(ROOT, SEALING), NOW)
    signer = pb.Signer(root=NODE, key=stranger.public.raw)
    forged = make_link_response(opened(sealed), slip.secret, card(), signer=signer, key=stranger, now=NOW)
    with pytest.raises(AuthorityError, match="not by the node"):
        pending.open_response(forged)


def test_answer_to_another_request_is_refused() -> None:
    slip, keys = new_slip(NODE), guardian()
    first, _ = make_link_request(slip, FED, keys, cert_of(ROOT, SEALING), NOW)
    _, pending = make_link_request(slip, FED, keys, cert_of(ROOT, SEALING), NOW)
    with pytest.raises(SealError):
        pending.open_response(response_to(slip, first))


def test_transcript_is_the_one_of_the_specification() -> None:
    request = pb.LinkRequest(
        federation=FED,
        nonce=b"n" * 16,
        signer=pb.Signer(root=b"g" * 32, key=b"g" * 32),
        node=b"N" * 32,
        selector=b"s" * 8,
        reply_key=b"r" * 32,
        sealing_key=b"S" * 32,
    )
    assert linking.transcript(request) == (
        b"permslip link v1\x00\x0bfed.example" + b"N" * 32 + b"s" * 8 + b"g" * 32 + b"S" * 32 + b"r" * 32 + b"n" * 16
    )
