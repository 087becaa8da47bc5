"""What pages promise without being typed: links lead somewhere, settings exist, and nothing to type stands untyped."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from permslip.client.settings import KEYS
from permslip_broker.configuration import BrokerSettings
from permslip_node.configuration import NodeSettings
from tests.docs.pages import LANGUAGES, ROOT, anchors, blocks, commands, links, pages

PAGES = pages()
# What looks like something to type. Where it stands in a block that is never run, it is an exception and listed below.
TYPED = re.compile(
    r"^(?:[$#] )?(?:sudo |[A-Z_]+=\S+ )*(permslip|make|pip|python3?|systemctl|docker|git|curl|cp|install)\b"
)
# Commands that no test on one machine can type, or that another test runs: why, page, commands.
NOT_TYPED = (
    ("runs in tests/e2e/demo and before every landing", "README.md", ["make demo"]),
    (
        "`make` does the same before any test runs",
        "README.md",
        ["python3 -m venv .venv && . .venv/bin/activate", "pip install '.[broker,node]'"],
    ),
    (
        "typed on the page for parents, where there is a revocation",
        "docs/how-to/add-a-school.md",
        ["permslip node revoke revocation.txt --config middle/node.toml"],
    ),
    (
        "tests/thirdparty installs the tool, for the page that uses it",
        "docs/auditing.md",
        ['python3.12 -m venv tools && tools/bin/pip install aics-tlog && PATH="$PWD/tools/bin:$PATH"'],
    ),
    (
        "needs a machine's service manager",
        "deploy/README.md",
        [
            "python3 -m venv /opt/permslip",
            "install -m 0644 deploy/systemd/permslip-broker.service /etc/systemd/system/",
            "install -d -m 0700 /var/lib/private/permslip-broker",
            "install -m 0600 centre/broker.key centre/broker.cert /var/lib/private/permslip-broker/",
            "install -D -m 0644 centre/broker.toml /etc/permslip/broker.toml",
            "systemctl daemon-reload",
            "systemctl enable --now permslip-broker",
            "systemctl status permslip-broker",
        ],
    ),
    (
        "needs a container engine",
        "deploy/README.md",
        [
            "docker build -f deploy/container/Containerfile -t permslip .",
            "docker compose -f deploy/container/compose.yaml up --detach",
            "docker compose -f deploy/container/compose.yaml exec node \\",
        ],
    ),
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [each for each in PAGES if "template" not in each.name], ids=name)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_every_page_of_the_docs_is_reached_from_their_index() -> None:
    index = ROOT / "docs" / "README.md"
    reached = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    decisions = ROOT / "docs" / "adr"

    expected = {each for each in (ROOT / "docs").rglob("*.md") if each != index and each.parent != decisions}
    assert expected - reached == set()


def test_whatever_can_be_typed_is_typed_or_an_exception_with_a_reason() -> None:
    untyped = {
        (name(page), line.strip())
        for page in PAGES
        if name(page) == "README.md" or name(page).startswith(("docs/", "deploy/"))
        for block in blocks(page)
        if block.language not in {"console", "python"}
        for line in block.lines
        if TYPED.match(line.strip()) and block.language != "toml"
    }

    assert untyped == {(page, command) for _, page, listed in NOT_TYPED for command in listed}


@pytest.mark.parametrize("page", [each for each in PAGES if name(each).startswith(("README", "docs/how-to"))], ids=name)
def test_blocks_are_in_languages_that_are_checked(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, str(block)
        if block.language == "console":
            assert commands(block), str(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_that_a_page_shows_exist(page: Path) -> None:
    for block in blocks(page):
        if block.language != "toml":
            continue
        table = tomllib.loads(block.text)
        for section, cls in (("broker", BrokerSettings), ("node", NodeSettings)):
            if isinstance(table.get(section), dict):
                keys_exist(cls, table[section], f"{block} [{section}]")
        assert set(table) - {"broker", "node"} <= set(KEYS), str(block)


def keys_exist(cls: type, table: dict[str, object], where: str) -> None:
    """Every key of the table is one of the settings."""
    fields = cls.__dataclass_fields__  # type: ignore[attr-defined]  # it is a dataclass
    for key, value in table.items():
        assert key in fields, f"{where} {key}"
        if isinstance(value, dict):
            keys_exist(type(fields[key].default), value, f"{where}.{key}")


def test_pictures_are_drawings_that_say_what_they_show() -> None:
    drawings = sorted((ROOT / "docs").rglob("*.svg"))

    assert drawings
    for path in drawings:
        root = ET.parse(path).getroot()  # our own file
        assert root.get("viewBox"), path.name
        assert root.get("role") == "img", path.name
        assert root.find("{http://www.w3.org/2000/svg}title") is not None, path.name
        assert "prefers-color-scheme: dark" in path.read_text("utf-8"), path.name
