"""The files, links and versions that the documents name."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# They name files of earlier versions and of other projects.
HISTORICAL = (ROOT / "docs" / "experiments_log.md", ROOT / "examples" / "CREDITS.md")
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "models/*.md", "examples/*.md")
    for path in sorted(ROOT.glob(pattern))
]
FOLDERS = "captioning|benchmarks|docs|examples|tests|tools"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path not in HISTORICAL], ids=name
)
def test_files_named_in_a_document_exist(document):
    text = document.read_text(encoding="utf-8")
    paths = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_of_a_document_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    local = [target for target in targets if not re.match(r"https?://", target)]
    assert [target for target in local if not _leads_somewhere(document, target)] == []


def _leads_somewhere(document: Path, target: str) -> bool:
    file, _, anchor = target.partition("#")
    path = document.parent / file if file else document
    return path.exists() and (not anchor or anchor in _anchors(path))


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_document_holds_no_marks_of_an_unfinished_merge(document):
    text = document.read_text(encoding="utf-8")
    assert re.findall(r"(?m)^(?:<{7}|={7}|>{7})(?: .*)?$", text) == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 220


def test_architecture_shows_every_folder_of_the_package():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "captioning").glob("*/__init__.py")}
    assert len(folders) == 8
    diagram, plain = re.findall(r"(?s)```(.*?)```", text)[:2]
    for folder in folders:
        assert f"<b>{folder}</b>" in diagram
        assert re.search(rf"\b{folder}  ", plain)


def test_citation_and_changelog_state_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (latest, date) = re.findall(r"(?m)^## \[(\S+)\] - (\S+)$", changelog)[0]
    assert latest == project["version"]
    assert f"\nversion: {latest}\ndate-released: {date}\n" in citation
