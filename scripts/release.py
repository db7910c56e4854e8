"""Build a release in dist/ and try it: wheel, sdist, Debian package, SBOM and SHA256SUMS. See CONTRIBUTING.md.

The build is reproducible: every timestamp is that of the commit, so the same commit always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agent import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]  # installed on Python 3.10 only

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROJECT = Path(__file__).resolve().parents[1]
DIST = PROJECT / "dist"
SUMS = "SHA256SUMS"


def main() -> int:
    problems = [*problems_of_the_tree(PROJECT), *problems_of_the_changelog(PROJECT, __version__)]
    for problem in problems:
        sys.stderr.write(f"release: {problem}\n")
    if problems:
        return 1
    remove_release(DIST)
    epoch = run("git", "log", "-1", "--format=%ct", folder=PROJECT).strip()
    build(PROJECT, DIST, epoch)
    run("scripts/deb", sys.prefix, folder=PROJECT, environ={**os.environ, "SOURCE_DATE_EPOCH": epoch})
    (DIST / f"wattpush-{__version__}.cdx.json").write_text(make_sbom(PROJECT, __version__, epoch), encoding="utf-8")
    write_checksums(DIST)
    try_wheel(DIST / f"wattpush-{__version__}-py3-none-any.whl", PROJECT, __version__)
    sys.stdout.write((DIST / SUMS).read_text(encoding="utf-8"))
    return 0


def remove_release(folder: Path) -> None:
    """Remove the files of any earlier release, and no other files."""
    for old in (*parts_of_a_release(folder), folder / SUMS):
        old.unlink(missing_ok=True)


def parts_of_a_release(folder: Path) -> list[Path]:
    """Return the built files, without the checksums."""
    patterns = ("wattpush-*.whl", "wattpush-*.tar.gz", "wattpush-*.cdx.json", "wattpush_*_all.deb")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def problems_of_the_tree(project: Path) -> Iterator[str]:
    """Check that the tree is exactly a commit, so that everyone can build the same release."""
    if not (project / ".git").exists():
        yield "this is not a git checkout: a release is built from a commit"
        return
    changed = run("git", "status", "--porcelain", folder=project)
    if changed:
        yield f"commit or remove these changes first:\n{changed.rstrip()}"


def problems_of_the_changelog(project: Path, version: str) -> Iterator[str]:
    """Check that CHANGELOG.md describes this version, and nothing is left under Unreleased."""
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = dict(
        re.findall(r"^## \[?([^\]\n ]+)\]?(?: - [0-9-]{10})?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    if not re.search(rf"^## \[?{re.escape(version)}\]? - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE):
        yield f'CHANGELOG.md has no section "## [{version}] - YYYY-MM-DD": rename "Unreleased" to the version and date'
    elif not sections[version].strip():
        yield f"CHANGELOG.md: the section {version} is empty"
    if version in sections and sections.get("Unreleased", "").strip():
        yield f"CHANGELOG.md: move the entries under Unreleased to {version}, or raise the version in agent/__init__.py"


def build(project: Path, output: Path, epoch: str) -> None:
    """Build sdist and wheel with the packages of this environment, without downloads."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    run(sys.executable, "-m", "hatchling", "build", "-d", str(output), folder=project, environ=environment)


def make_sbom(project: Path, version: str, epoch: str) -> str:
    """Return a CycloneDX SBOM of all packages that requirements.txt pins, with their hashes.

    cyclonedx-py finds neither a version outside pyproject.toml nor the dependencies between pinned packages. This adds
    the version, and the direct dependencies of wattpush.
    """
    made = run(
        *(sys.executable, "-W", "ignore::UserWarning", "-m", "cyclonedx_py", "requirements", "requirements.txt"),
        *("--pyproject", "pyproject.toml", "--mc-type", "application", "--output-reproducible", "--no-validate"),
        folder=project,
        environ={**os.environ, "SOURCE_DATE_EPOCH": epoch},
    )
    bill: dict[str, Any] = json.loads(made)
    asked = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {canonicalize_name(Requirement(line).name) for line in asked}
    root = bill["metadata"]["component"]
    root |= {"version": version, "purl": f"pkg:pypi/wattpush@{version}"}
    direct = sorted(part["bom-ref"] for part in bill["components"] if canonicalize_name(part["name"]) in names)
    for entry in bill["dependencies"]:
        if entry["ref"] == root["bom-ref"]:
            entry["dependsOn"] = direct
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    refuse_bad_sbom(text)
    return text


def refuse_bad_sbom(text: str) -> None:
    """Validate against the CycloneDX schema; raise SystemExit if the SBOM is invalid."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    wrong = JsonStrictValidator(version).validate_str(text)
    if wrong is not None:
        raise SystemExit(f"release: the SBOM is not valid CycloneDX: {wrong}")


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS in the format of `sha256sum --check`."""
    files = parts_of_a_release(folder)
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def try_wheel(wheel: Path, project: Path, version: str) -> None:
    """Install the wheel with only the pinned, hash-checked packages into an empty environment, and run it."""
    with tempfile.TemporaryDirectory(prefix="wattpush-release-") as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
        run(*pip, "install", "--require-hashes", "-r", str(project / "requirements.txt"), folder=project)
        run(*pip, "install", "--no-deps", "--no-index", str(wheel), folder=project)
        run(*pip, "check", folder=project)
        wattpush = str(Path(folder, "bin", "wattpush"))
        # Another folder and a minimal environment, so that nothing is imported from this checkout.
        environment = {"PATH": os.environ["PATH"], "HOME": folder}
        printed = run(wattpush, "--version", folder=Path(folder), environ=environment)
        if printed != f"wattpush {version}\n":
            raise SystemExit(f"release: the installed wheel reports the version {printed!r}")
        example = str(project / "config.toml.example")
        options = ("--config", example, "--simulate", "--once", "--dry-run")
        printed = run(wattpush, *options, folder=Path(folder), environ=environment)
        if "wattpush_device_watts " not in printed or "wattpush_agent_simulated 1" not in printed:
            raise SystemExit(f"release: the installed wheel printed no watts:\n{printed}")


def run(*command: str, folder: Path, environ: Mapping[str, str] | None = None) -> str:
    """Return the stdout of a command; raise SystemExit with all of its output if it fails."""
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"release: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
