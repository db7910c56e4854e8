"""Make docs/watch.svg: the screen of `wattpush watch --simulate` after three minutes of simulated time.

`python scripts/watch_picture.py [FILE]`
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.segment import Segment, Segments
from rich.terminal_theme import MONOKAI

from agent import chips
from agent.config import parse
from agent.run.assembly import RunOptions, make_watched_sweep
from agent.simulate.clock import HandClock
from agent.watch.glyphs import UNICODE
from agent.watch.history import History
from agent.watch.layout import lines
from agent.watch.live import segments

PICTURE = Path(__file__).parents[1] / "docs" / "watch.svg"
WIDTH, HEIGHT = 104, 12
SWEEPS = 180

CONFIG = """\
hostname = "node-17"

[pushgateway]
url = "https://push.example.org:9091"

[[mux]]
name = "m0"
chip = "tca9548a"
bus = 1
address = 0x70
"""
DEVICE = """
[[device]]
name = "{name}"
chip = "{chip}"
mux = "m0"
channel = {channel}
address = {address}
{more}
"""
DEVICES = (
    ("cpu", "ina260", 0, 0x40, ""),
    ("accelerator", "ina260", 1, 0x40, ""),
    ("disk", "ina260", 2, 0x40, ""),
    ("radio", "ina3221", 3, 0x41, "input = 2\nshunt_ohms = 0.5"),
    ("camera", "ina3221", 3, 0x41, "input = 3\nshunt_ohms = 2.0"),
    ("display", "ina260", 4, 0x40, 'averaging = { count = 1024, voltage = "8.244ms", current = "8.244ms" }'),
)


def make_picture() -> str:
    # A fixed time zone makes the picture the same on every machine.
    os.environ["TZ"] = "UTC"
    time.tzset()
    names = ("name", "chip", "channel", "address", "more")
    text = CONFIG + "".join(DEVICE.format(**dict(zip(names, device, strict=True))) for device in DEVICES)
    settings = parse(text, chips.options(), default_hostname="node-17", environ={"HOME": "/"})
    clock = HandClock()
    console = Console(
        file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, color_system="truecolor", _environ={}
    )
    with ExitStack() as stack:
        sweep = make_watched_sweep(settings, RunOptions(is_simulated=True), clock, stack)
        history = History(settings, clock, is_simulated=True)
        for _ in range(SWEEPS):
            clock.sleep(settings.sample_interval_seconds)
            history.add(sweep.run())
        for line in lines(history.view(), WIDTH, HEIGHT, UNICODE):
            console.print(Segments([*segments(line), Segment.line()]), end="")
    picture = console.export_svg(title="wattpush watch --simulate", theme=MONOKAI, unique_id="watch")
    # No web fonts: viewing the picture must not contact another server.
    picture = re.sub(r"@font-face {.*?}\s*", "", picture, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE).write_text(make_picture(), encoding="utf-8")
