"""Run all benchmarks in one run, both variants taking turns: python -m bench [--quick] [ROW ...]."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

# Set before any driver is imported, so that Blinka needs no GPIO library and looks for no board.
os.environ["BLINKA_FORCEBOARD"] = "GENERIC_LINUX_PC"
os.environ["BLINKA_FORCECHIP"] = "GENERIC_X86"

from bench.measure import Effort, Findings
from bench.page import machine, table, write_page
from bench.processes import MissingToolError
from bench.rows import ALL


def main() -> int:
    """Run the benchmarks and print the results; a full run of all of them also writes the page."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"run only these and write no page: {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="a rough run that writes no page")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in ALL]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are: {', '.join(ALL)}")
    effort = Effort(options.quick)
    findings: list[Findings] = []
    began = time.monotonic()
    for name in options.rows or ALL:
        _say(f"{time.monotonic() - began:4.0f} s  {name} ...")
        with tempfile.TemporaryDirectory(prefix="wattpush-bench-") as folder:
            try:
                findings.append(ALL[name](effort, Path(folder)))
            except MissingToolError as error:
                _say(str(error))
                return 1
    seconds = time.monotonic() - began
    rows = [row for one in findings for row in one.rows]
    sys.stdout.write("\n\n".join([table(rows), *(one.text for one in findings if one.text), machine(seconds)]) + "\n")
    if not (options.rows or options.quick):
        write_page(findings, seconds)
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
