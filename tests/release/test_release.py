"""What `make release` refuses, and the files that it adds to the packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from agent import __version__
from scripts import release

PROJECT = Path(__file__).parents[2]
EPOCH = "1700000000"
PINNED = re.findall(
    r"^([a-z0-9.-]+)==([^ ]+)", (PROJECT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one commit."""
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("/dist/\n", encoding="utf-8")
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "commit", "--quiet", "-m", "one"),
    ):
        release.run("git", *command, folder=tmp_path)
    return tmp_path


def test_a_release_is_built_from_a_clean_commit(checkout: Path) -> None:
    (checkout / "dist").mkdir()
    (checkout / "dist" / "ignored").touch()
    assert list(release.problems_of_the_tree(checkout)) == []


def test_an_uncommitted_file_stops_the_release(checkout: Path) -> None:
    (checkout / "forgotten.py").touch()
    (problem,) = release.problems_of_the_tree(checkout)
    assert problem == "commit or remove these changes first:\n?? forgotten.py"


def test_without_a_checkout_there_is_no_release(tmp_path: Path) -> None:
    assert list(release.problems_of_the_tree(tmp_path)) == [
        "this is not a git checkout: a release is built from a commit"
    ]


RELEASED = "# Changes\n\n## [1.2.0] - 2026-03-01\n\n- New.\n\n## [1.1.0] - 2026-01-01\n\n- Old.\n"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (RELEASED, None),
        (RELEASED.replace("[1.2.0]", "1.2.0"), None),
        (RELEASED.replace("# Changes\n", "# Changes\n\n## [Unreleased]\n"), None),
        (RELEASED.replace("1.2.0", "Unreleased").replace(" - 2026-03-01", ""), 'no section "## [1.2.0] - YYYY-MM-DD"'),
        (RELEASED.replace(" - 2026-03-01", ""), 'no section "## [1.2.0] - YYYY-MM-DD"'),
        (RELEASED.replace("1.2.0", "1.2.01"), 'no section "## [1.2.0] - YYYY-MM-DD"'),
        (RELEASED.replace("- New.\n", ""), "the section 1.2.0 is empty"),
        (
            RELEASED.replace("# Changes\n", "# Changes\n\n## Unreleased\n\n- Newer.\n"),
            "move the entries under Unreleased to 1.2.0",
        ),
    ],
)
def test_a_version_without_a_changelog_section_is_not_released(
    tmp_path: Path, changes: str, problem: str | None
) -> None:
    (tmp_path / "CHANGELOG.md").write_text(changes, encoding="utf-8")
    problems = list(release.problems_of_the_changelog(tmp_path, "1.2.0"))
    if problem is None:
        assert problems == []
    else:
        (found,) = problems
        assert problem in found


def test_the_changelog_of_this_tree_parses() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", text, re.MULTILINE)[0] in ("Unreleased", "[Unreleased]") or not list(
        release.problems_of_the_changelog(PROJECT, __version__)
    )


@pytest.fixture(scope="module")
def sbom() -> str:
    return release.make_sbom(PROJECT, "1.2.0", EPOCH)


def test_the_sbom_is_reproducible(sbom: str) -> None:
    assert release.make_sbom(PROJECT, "1.2.0", EPOCH) == sbom


def test_the_sbom_lists_every_pin_with_its_hashes(sbom: str) -> None:
    bill = json.loads(sbom)
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", "1.2.0")
    assert sorted((part["name"], part["version"]) for part in bill["components"]) == sorted(PINNED)
    assert len(PINNED) > 20
    for part in bill["components"]:
        hashes = [h["content"] for reference in part["externalReferences"] for h in reference["hashes"]]
        assert hashes
        assert all(re.fullmatch(r"[0-9a-f]{64}", content) for content in hashes)


def test_the_sbom_names_the_direct_dependencies(sbom: str) -> None:
    bill = json.loads(sbom)
    names = {part["bom-ref"]: part["name"] for part in bill["components"]}
    root = bill["metadata"]["component"]["bom-ref"]
    (asked,) = (entry["dependsOn"] for entry in bill["dependencies"] if entry["ref"] == root)
    assert {"adafruit-blinka", "prometheus-client", "tomli"} <= {names[reference] for reference in asked}
    assert "certifi" not in {names[reference] for reference in asked}


def test_an_invalid_sbom_stops_the_release(sbom: str) -> None:
    broken = json.loads(sbom)
    broken["components"][0]["type"] = "gadget"
    with pytest.raises(SystemExit, match="not valid CycloneDX"):
        release.refuse_bad_sbom(json.dumps(broken))


PARTS = (
    "wattpush-1.2.0-py3-none-any.whl",
    "wattpush-1.2.0.cdx.json",
    "wattpush-1.2.0.tar.gz",
    "wattpush_1.2.0_all.deb",
)


def test_sha256sum_accepts_the_checksums_of_exactly_the_release(tmp_path: Path) -> None:
    for name in (*PARTS, "notes.txt"):
        (tmp_path / name).write_text(name)
    release.write_checksums(tmp_path)
    release.write_checksums(tmp_path)
    plain = {**os.environ, "LC_ALL": "C"}
    output = release.run("sha256sum", "--check", "--strict", "SHA256SUMS", folder=tmp_path, environ=plain)
    assert output == "".join(f"{name}: OK\n" for name in PARTS)
    (tmp_path / PARTS[0]).write_bytes(b"c")
    with pytest.raises(SystemExit, match=r"any\.whl: FAILED"):
        release.run("sha256sum", "--check", "SHA256SUMS", folder=tmp_path, environ=plain)


def test_a_release_replaces_the_previous_one_and_nothing_else(tmp_path: Path) -> None:
    for name in (*PARTS, "wattpush-1.1.0.tar.gz", "SHA256SUMS", "notes.txt"):
        (tmp_path / name).touch()
    release.remove_release(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    release.remove_release(tmp_path / "nowhere")


def test_a_missing_python_version_is_named_and_fails_the_run(tmp_path: Path) -> None:
    """With only basic tools in PATH and no pyenv, none of the four versions exists."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "dirname"):
        (tools / tool).symlink_to(release.run("bash", "-c", f"command -v {tool}", folder=tmp_path).strip())
    done = subprocess.run(
        [PROJECT / "scripts" / "test-all"],
        env={"PATH": str(tools), "PYENV_ROOT": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "not tested, because not installed: Python 3.10 3.11 3.12 3.13\n"
