"""The real program on a machine whose default configuration is another file.

`python -m tests.run.without_a_file FILE ARGUMENT...`
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent import __main__ as program
from agent import config


def main() -> int:
    config.DEFAULT_FILE = Path(sys.argv.pop(1))
    os.environ.pop("WATTPUSH_CONFIG", None)
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
