"""permslip.greeting: who calls is shown by a whole signed message, fresh, and meant for this broker."""

from __future__ import annotations

from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.dsse import SignedCache
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, PermslipError, SignatureError
from permslip.greeting import (
    CONTRACT_VERSION,
    HELLO_LIFETIME,
    check_hello,
    check_relayed_hello,
    make_hello,
    make_server_nonce,
)
from permslip.quantities import Millis
from permslip.statements import Signed
from tests.scenarios.world import DAY, FEDERATION, NOW, World, seed

SECRET = bytes(range(32))


class Meeting:
    """A broker, a tutor who greets it, and another broker."""

    def __init__(self) -> None:
        self.world = World()
        self.broker, self.other = self.world.organization("broker"), self.world.organization("other broker")
        self.tutor = self.world.provider("tutor")

    def challenge(self, **changes: Any) -> session_pb2.Challenge:
        fields: dict[str, Any] = {
            "federation": FEDERATION,
            "broker_cert": self.world.key_cert(self.broker).envelope,
            "server_nonce": make_server_nonce(SECRET, now=NOW),
            "versions": [CONTRACT_VERSION],
            "server_time": NOW,
            **changes,
        }
        return session_pb2.Challenge(**fields)

    def greet(self, *, now: int = NOW, **changes: Any) -> Signed[pb.Hello]:
        return make_hello(
            self.challenge(**changes),
            broker=self.broker.id,
            signer=self.tutor.signer,
            kind=pb.PRINCIPAL_KIND_PROVIDER,
            key=self.tutor.online,
            now=Millis(now),
        )

    def altered(self, **changes: Any) -> pb.Envelope:
        """A greeting with other fields, signed by the tutor all the same."""
        body = self.greet().payload
        for name, value in changes.items():
            if name == "versions":
                body.versions[:] = value
            else:
                setattr(body, name, value)
        return st.sign(st.HELLO, body, [self.tutor.online]).envelope

    def check(self, envelope: pb.Envelope, *, now: int = NOW, **changes: Any) -> Signed[pb.Hello]:
        fields: dict[str, Any] = {"secret": SECRET, "broker": self.broker.id, "federation": FEDERATION, **changes}
        return check_hello(envelope, now=Millis(now), **fields)


@pytest.fixture
def meeting() -> Meeting:
    return Meeting()


def test_a_greeting_shows_who_calls_and_as_what(meeting: Meeting) -> None:
    hello = meeting.check(meeting.greet().envelope).payload

    assert hello.signer == meeting.tutor.signer
    assert hello.kind == pb.PRINCIPAL_KIND_PROVIDER
    assert hello.broker == meeting.broker.id
    assert list(hello.versions) == [CONTRACT_VERSION]
    assert hello.expires_at == NOW + HELLO_LIFETIME


def test_no_two_nonces_and_no_two_greetings_are_the_same(meeting: Meeting) -> None:
    assert make_server_nonce(SECRET, now=NOW) != make_server_nonce(SECRET, now=NOW)
    assert meeting.greet().id != meeting.greet().id


def test_a_nonce_is_expiry_and_random_and_their_mac() -> None:
    nonce = make_server_nonce(SECRET, now=NOW)

    assert len(nonce) == 48
    assert int.from_bytes(nonce[:8], "big") == NOW + HELLO_LIFETIME


def test_a_greeting_may_accompany_several_reads_while_it_is_fresh(meeting: Meeting) -> None:
    envelope, cache = meeting.greet().envelope, SignedCache(16)

    for now in (NOW, NOW + 1000, NOW + HELLO_LIFETIME - 1):
        meeting.check(envelope, now=now, cache=cache)

    assert len(cache) == 1


def test_a_greeting_is_stale_after_a_minute_by_the_servers_clock(meeting: Meeting) -> None:
    # the caller's clock does not prolong it
    envelope = meeting.greet(now=NOW + DAY).envelope
    meeting.check(envelope, now=NOW + HELLO_LIFETIME - 1)

    with pytest.raises(MalformedError) as caught:
        meeting.check(envelope, now=NOW + HELLO_LIFETIME)

    assert caught.value.field == "hello.server_nonce"


@pytest.mark.parametrize("clock", [NOW - DAY, NOW + DAY])
def test_a_callers_clock_may_be_off(clock: int, meeting: Meeting) -> None:
    meeting.check(meeting.greet(now=clock).envelope)


@pytest.mark.parametrize(
    ("expires_at", "passes"), [(NOW + 1, True), (NOW + HELLO_LIFETIME, True), (NOW, False), (NOW + 60_001, False)]
)
def test_a_greeting_ends_at_most_a_minute_after_it_was_made(expires_at: int, passes: bool, meeting: Meeting) -> None:
    envelope = meeting.altered(created_at=NOW, expires_at=expires_at)
    if passes:
        meeting.check(envelope)
        return
    with pytest.raises(MalformedError) as caught:
        meeting.check(envelope)

    assert caught.value.field == "hello.expires_at"


def test_a_greeting_for_another_broker_is_refused(meeting: Meeting) -> None:
    with pytest.raises(AuthorityError, match="another broker"):
        meeting.check(meeting.greet().envelope, broker=meeting.other.id)


def test_a_greeting_for_another_federation_is_refused(meeting: Meeting) -> None:
    with pytest.raises(MalformedError) as caught:
        meeting.check(meeting.greet().envelope, federation="other.example")

    assert caught.value.field == "hello.federation"


@pytest.mark.parametrize("place", [0, 8, 15, 16, 47])
def test_a_nonce_that_this_broker_did_not_give_is_refused(place: int, meeting: Meeting) -> None:
    nonce = bytearray(make_server_nonce(SECRET, now=NOW))
    nonce[place] ^= 1

    with pytest.raises(AuthorityError, match="not given by this broker"):
        meeting.check(meeting.altered(server_nonce=bytes(nonce)))


def test_a_nonce_under_another_secret_is_refused(meeting: Meeting) -> None:
    with pytest.raises(AuthorityError):
        meeting.check(meeting.greet().envelope, secret=bytes(32))


def test_a_greeting_that_somebody_else_signed_is_refused(meeting: Meeting) -> None:
    envelope = meeting.greet().envelope
    envelope.signatures[0].signature = bytes(64)

    with pytest.raises(SignatureError):
        meeting.check(envelope)


def test_another_statement_is_no_greeting(meeting: Meeting) -> None:
    with pytest.raises(MalformedError):
        meeting.check(meeting.world.key_cert(meeting.tutor).envelope)


@pytest.mark.parametrize(("versions", "passes"), [([1], True), ([1, 2], True), ([2], False)])
def test_a_caller_that_does_not_speak_our_version_is_refused(
    versions: list[int], passes: bool, meeting: Meeting
) -> None:
    envelope = meeting.altered(versions=versions)
    if passes:
        meeting.check(envelope)
        return
    with pytest.raises(MalformedError) as caught:
        meeting.check(envelope)

    assert caught.value.field == "hello.versions"


# ---------------------------------------------------------------------------------------------- the caller's side


def test_a_caller_does_not_greet_another_broker_than_it_meant(meeting: Meeting) -> None:
    with pytest.raises(KeyRejectedError, match="another broker"):
        meeting.greet(broker_cert=meeting.world.key_cert(meeting.other).envelope)


@pytest.mark.parametrize(("end", "passes"), [(NOW + 1, True), (NOW, False)])
def test_a_caller_does_not_greet_a_broker_whose_certificate_has_ended(end: int, passes: bool, meeting: Meeting) -> None:
    cert = meeting.world.key_cert(meeting.broker, 1, created_at=NOW - DAY, valid_until=end)
    if passes:
        meeting.greet(broker_cert=cert.envelope)
        return
    with pytest.raises(KeyRejectedError, match="has ended"):
        meeting.greet(broker_cert=cert.envelope)


@pytest.mark.parametrize(
    "changes",
    [
        {"federation": "other.example"},
        {"broker_cert": None},
        {"server_nonce": bytes(47)},
        {"server_nonce": b""},
    ],
)
def test_a_challenge_that_is_not_well_formed_is_refused(changes: dict[str, Any], meeting: Meeting) -> None:
    with pytest.raises(PermslipError):
        meeting.greet(**changes)


def test_a_certificate_that_the_root_did_not_sign_is_refused(meeting: Meeting) -> None:
    envelope = meeting.world.key_cert(meeting.broker).envelope
    envelope.signatures[0].signature = seed("x") * 2

    with pytest.raises(SignatureError):
        meeting.greet(broker_cert=envelope)


# ---------------------------------------------------------------------------------------------- a node's side


class TestRelayed:
    """Greetings that a broker passes on to a node."""

    @staticmethod
    def greet(meeting: Meeting, *, now: int = NOW) -> Signed[pb.Hello]:
        return make_hello(
            meeting.challenge(),
            broker=meeting.broker.id,
            signer=meeting.tutor.signer,
            kind=pb.PRINCIPAL_KIND_AUDITOR,
            key=meeting.tutor.online,
            now=Millis(now),
            node=meeting.other.id,
            reply_key=meeting.tutor.sealing.public,
        )

    @staticmethod
    def check(meeting: Meeting, envelope: pb.Envelope, *, now: int = NOW, node: bytes = b"") -> Signed[pb.Hello]:
        node = node or meeting.other.id
        return check_relayed_hello(envelope, node=node, federation=FEDERATION, now=Millis(now))

    def test_a_greeting_for_a_node_names_it_and_the_key_to_seal_to(self, meeting: Meeting) -> None:
        hello = self.check(meeting, self.greet(meeting).envelope).payload

        assert hello.broker == meeting.other.id
        assert hello.reply_key == meeting.tutor.sealing.public

    def test_the_broker_sees_by_its_own_nonce_that_it_is_fresh(self, meeting: Meeting) -> None:
        meeting.check(self.greet(meeting).envelope, broker=meeting.other.id)

        with pytest.raises(AuthorityError):
            meeting.check(self.greet(meeting).envelope)

    def test_a_greeting_for_the_broker_or_another_node_is_refused(self, meeting: Meeting) -> None:
        with pytest.raises(AuthorityError, match="not meant for this node"):
            self.check(meeting, meeting.greet().envelope)
        with pytest.raises(AuthorityError, match="not meant for this node"):
            self.check(meeting, self.greet(meeting).envelope, node=bytes(32))

    @pytest.mark.parametrize(
        ("now", "passes"),
        [(NOW - HELLO_LIFETIME, True), (NOW - HELLO_LIFETIME - 1, False), (NOW + 59_999, True), (NOW + 60_000, False)],
    )
    def test_it_lives_for_a_minute_by_the_nodes_clock(self, now: int, passes: bool, meeting: Meeting) -> None:
        envelope = self.greet(meeting).envelope
        if passes:
            self.check(meeting, envelope, now=now)
            return
        with pytest.raises(MalformedError) as caught:
            self.check(meeting, envelope, now=now)

        assert caught.value.field == "hello.expires_at"

    def test_one_that_somebody_else_signed_is_refused(self, meeting: Meeting) -> None:
        envelope = self.greet(meeting).envelope
        envelope.signatures[0].signature = bytes(64)

        with pytest.raises(SignatureError):
            self.check(meeting, envelope)
