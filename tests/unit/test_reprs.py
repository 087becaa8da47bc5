"""What ends up in logs when somebody prints an object of the SDK: short, and nothing about a learner."""

from __future__ import annotations

from permslip._pb.permslip.v1 import record_pb2
from permslip.client.consenting import Consent
from permslip.coverage import Coverage, Held
from permslip.profile import Profile, SliceAnswer

NODE = b"n" * 32


def _profile() -> Profile:
    record = record_pb2.Record(record_id=b"r" * 16, section="transcript.grades", version=1)
    record.value.text = "B minus"
    record.grade.course_title = "Algebra"
    coverage = (Coverage(NODE, "High", "transcript.grades", Held.RETURNED, 1),)
    return Profile("sofia-g", (SliceAnswer(NODE, "High", b"h", b"g", coverage, (record,)),))


def test_a_profile_and_its_parts_show_counts_and_places_only() -> None:
    profile = _profile()

    assert repr(profile) == "<Profile from 'High', records: 1, complete>"
    assert repr(profile.slices[0]) == "<SliceAnswer of 'High', records: 1>"
    assert repr(profile.entries[0]) == f"<Entry transcript.grades {'72' * 16} version 1 of 'High'>"


def test_a_consent_shows_its_id_and_where_it_stands() -> None:
    assert repr(Consent(b"\x0d" * 16, ())) == f"<Consent {'0d' * 16}: >"
