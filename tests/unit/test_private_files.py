"""Files that commands write about a learner are for their owner alone."""

from __future__ import annotations

from pathlib import Path

from permslip.cli.connecting import write_private


def test_a_file_that_others_could_read_is_its_owners_alone_once_learner_data_is_written_to_it(tmp_path: Path) -> None:
    file = tmp_path / "ada.json"
    file.write_text("what was there before", encoding="utf-8")
    file.chmod(0o644)
    write_private(str(file), "a learner's")
    assert (file.read_text(encoding="utf-8"), file.stat().st_mode & 0o777) == ("a learner's", 0o600)
