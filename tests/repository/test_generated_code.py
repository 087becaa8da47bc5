"""protos/generate.py: imports are moved, drift is named, and the committed code is what the contract says."""

from __future__ import annotations

from pathlib import Path

import pytest

from protos import generate

CONTRACT = """
syntax = "proto3";
package permslip.v1;
import "google/protobuf/descriptor.proto";
import "permslip/v1/colour.proto";
extend google.protobuf.FieldOptions { bool bright = 50999; }
message Paint { Colour colour = 1; }
service PaintService { rpc Mix(Paint) returns (Paint); }
"""
COLOUR = """
syntax = "proto3";
package permslip.v1;
enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }
"""


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    folder = tmp_path / "protos" / "permslip" / "v1"
    folder.mkdir(parents=True)
    (folder / "paint.proto").write_text(CONTRACT, "utf-8")
    (folder / "colour.proto").write_text(COLOUR, "utf-8")
    return tmp_path / "protos"


def run(contract: Path, output: Path, *more: str) -> int:
    return generate.main(["--protos", str(contract), "--output", str(output), *more])


def test_imports_of_ours_are_moved_and_others_are_not(contract: Path) -> None:
    files = generate.generate(contract)

    text = files[Path("permslip/v1/paint_pb2.py")]
    assert "from permslip._pb.permslip.v1 import colour_pb2" in text
    assert "from google.protobuf import descriptor" in text


def test_types_are_generated_for_messages_and_services(contract: Path) -> None:
    files = generate.generate(contract)

    assert "class Paint(" in files[Path("permslip/v1/paint_pb2.pyi")]
    assert "class PaintServiceAsyncStub(" in files[Path("permslip/v1/paint_pb2_grpc.pyi")]


def test_file_without_service_gets_no_service_module(contract: Path) -> None:
    assert Path("permslip/v1/colour_pb2_grpc.py") not in generate.generate(contract)


def test_import_in_an_unknown_shape_is_an_error() -> None:
    with pytest.raises(generate.GenerationError, match="import permslip.v1.grant_pb2"):
        generate.move_imports("import permslip.v1.grant_pb2\n", "x_pb2.py")


def test_moving_imports_twice_changes_nothing() -> None:
    once = generate.move_imports("from permslip.v1 import grant_pb2\n", "x_pb2.py")

    assert generate.move_imports(once, "x_pb2.py") == once


def test_check_finds_no_drift_in_what_was_just_written(contract: Path, tmp_path: Path) -> None:
    assert run(contract, tmp_path / "out") == 0
    assert run(contract, tmp_path / "out", "--check") == 0


def test_check_names_what_is_missing_altered_and_superfluous(
    contract: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    run(contract, output)
    (output / "permslip/v1/colour_pb2.py").unlink()
    (output / "permslip/v1/paint_pb2.py").write_text("altered", "utf-8")
    (output / "permslip/v1/old_pb2.py").write_text("left over", "utf-8")

    assert run(contract, output, "--check") == 1

    assert capsys.readouterr().err.splitlines() == [
        "differs: permslip/v1/paint_pb2.py",
        "missing: permslip/v1/colour_pb2.py",
        "not generated: permslip/v1/old_pb2.py",
    ]


def test_writing_removes_what_is_not_generated_any_more(contract: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(contract, output)
    (output / "permslip/v1/old_pb2.py").write_text("left over", "utf-8")

    run(contract, output)

    assert not (output / "permslip/v1/old_pb2.py").exists()


def test_contract_that_does_not_compile_is_reported(
    contract: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (contract / "permslip/v1/paint.proto").write_text("nonsense", "utf-8")

    assert run(contract, tmp_path / "out") == 2

    assert "protoc failed" in capsys.readouterr().err
