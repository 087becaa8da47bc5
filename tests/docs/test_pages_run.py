"""Every command and every Python example of the pages is run, in order, against real servers on loopback.

The README is read first, in an empty folder. What stands there afterwards is kept; each how-to page begins with it, and
with the README's three servers running, as the same jobs of the shell.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
import trustme

from permslip.demo.children import free_port
from tests.docs.pages import ROOT, blocks, pages
from tests.docs.reader import Reader
from tests.docs.sketches import SKETCHES
from tests.thirdparty.programs import install_aics

# A page is dozens of commands, each a process of its own.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

README = ROOT / "README.md"
_SERVERS = (
    "permslip broker run --config centre/broker.toml 2> broker.log &",
    "permslip node run --config high/node.toml 2> high.log &",
    "permslip node run --config platform/node.toml 2> platform.log &",
)


class Start(Enum):
    """What stands in the folder where a page is read."""

    EMPTY = "nothing"
    CERTIFICATES = "a TLS certificate for localhost, and its authority"
    RUNNING = "what the README left; its servers run"


# Each page with something to type, and where it begins.
PAGES: dict[str, Start] = {
    "docs/auditing.md": Start.RUNNING,
    "docs/how-to/run-a-federation.md": Start.CERTIFICATES,
    "docs/how-to/name-witnesses.md": Start.RUNNING,
    "docs/how-to/add-a-school.md": Start.RUNNING,
    "docs/how-to/be-a-provider.md": Start.RUNNING,
    "docs/how-to/for-parents.md": Start.RUNNING,
    "docs/how-to/rotate-keys.md": Start.RUNNING,
    "docs/how-to/back-up-and-restore.md": Start.RUNNING,
    "docs/how-to/metrics-and-logs.md": Start.RUNNING,
    "docs/reference/sdk.md": Start.RUNNING,
}


# Tools of others that a page uses; each is installed for it.
TOOLS: dict[str, Callable[[Path], Path]] = {"docs/auditing.md": lambda folder: install_aics(folder).program}

# Typed by a test of its own.
ELSEWHERE = {"docs/tutorial.md": "tests/e2e/demo/test_tutorial.py"}


@dataclass(frozen=True)
class AfterReadme:
    """What the README left: a copy, the folder where it was typed, and the ports that were used."""

    copy: Path
    folder: Path
    ports: dict[str, int]

    def lay_out(self, folder: Path) -> dict[str, int]:
        """Lay the copy out in another folder, for other ports, which are returned."""
        shutil.copytree(self.copy, folder)
        ports = {each: free_port() for each in self.ports}
        moved = {str(self.folder): str(folder)} | {f":{self.ports[each]}": f":{ports[each]}" for each in ports}
        for path in (*folder.glob("*.toml"), *folder.glob("*/*.toml")):
            text = path.read_text("utf-8")
            for before, after in moved.items():
                text = text.replace(before, after)
            path.write_text(text, "utf-8")
        return ports


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory: pytest.TempPathFactory) -> AfterReadme:
    """Read the README, once."""
    top, ports = tmp_path_factory.mktemp("readme"), dict[str, int]()
    folder, copy = top / "session", top / "copy"
    folder.mkdir()
    with Reader(folder, ports) as reader:
        reader.read(README)
    shutil.copytree(folder, copy)
    return AfterReadme(copy, folder, ports)


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[[], Path]:
    """Makes a folder with a TLS certificate for localhost."""

    def made() -> Path:
        folder = tmp_path / "page"
        tls = folder / "tls"
        tls.mkdir(parents=True)
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(tls / "ca.pem")
        server.private_key_pem.write_to_path(tls / "privkey.pem")
        (tls / "privkey.pem").chmod(0o600)
        for each in server.cert_chain_pems:
            each.write_to_path(tls / "fullchain.pem", append=True)
        return folder

    return made


def test_the_readme_can_be_typed_as_it_stands(after_readme: AfterReadme) -> None:
    assert (after_readme.copy / "sofia.svg").read_text("utf-8").startswith("<svg")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_typed_as_it_stands(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, certificates: Callable[[], Path]
) -> None:
    start = PAGES[name]
    if start is Start.RUNNING:
        left: AfterReadme = request.getfixturevalue("after_readme")
        folder = tmp_path / "page"
        ports = left.lay_out(folder)
    elif start is Start.CERTIFICATES:
        folder, ports = certificates(), {}
    else:
        folder, ports = tmp_path / "page", {}
        folder.mkdir()

    program = TOOLS[name](tmp_path) if name in TOOLS else None
    with Reader(folder, ports, program=program) as reader:
        for each in _SERVERS if start is Start.RUNNING else ():
            reader.type(each)
        reader.read(ROOT / name, SKETCHES.get(name))


def test_every_page_with_something_to_type_is_typed() -> None:
    typed = {
        str(page.relative_to(ROOT))
        for page in pages()
        if any(block.language in {"console", "python"} for block in blocks(page))
    }

    assert typed == {"README.md", *PAGES, *ELSEWHERE}
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text("utf-8")


def test_what_stands_for_something_else_is_on_its_page() -> None:
    for name, sketch in SKETCHES.items():
        text = "".join(block.text for block in blocks(ROOT / name) if block.language == "python")

        assert [shown for shown in sketch.stands_for if shown not in text] == []
