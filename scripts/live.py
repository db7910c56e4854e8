"""Live: the agent on simulated chips with its page, a Pushgateway and a Prometheus, until Ctrl-C."""

from __future__ import annotations

import signal
import sys

from scripts.blocks import PROJECT
from scripts.stack import Stack, fetch, find_program, free_address, run

RULES = PROJECT / "deploy" / "prometheus" / "rules"

TOP = """\
interval = "5s"
"""

TABLES = """\
[pushgateway]
url = "http://{gateway}"

[serve]
listen = "{page}"
"""

PROMETHEUS = """\
global:
  scrape_interval: 5s
  evaluation_interval: 5s
rule_files:
  - {rules}/*.yml
scrape_configs:
  - job_name: pushgateway
    honor_labels: true
    static_configs:
      - targets: ["{gateway}"]
"""

GRAPH = "g0.expr=wattpush_device_watts&g0.tab=0"
QUERY = "api/v1/query?query=wattpush_device_watts"


def first_that_answers(*urls: str) -> str:
    """The web pages of Debian's servers are only there if the package is installed, not if it is only unpacked."""
    return next((url for url in urls if fetch(url) is not None), urls[-1])


def main() -> int:
    gateway_program = find_program("prometheus-pushgateway", "pushgateway")
    prometheus_program = find_program("prometheus")
    # The usual ports, if they are free.
    gateway, prometheus, page = free_address(9091), free_address(9090), free_address(9812)
    with Stack() as stack:
        config = stack.folder / "prometheus.yml"
        config.write_text(PROMETHEUS.format(rules=RULES, gateway=gateway), encoding="utf-8")
        flags = (f"--web.listen-address={gateway}", "--persistence.file=")
        servers = {
            f"http://{gateway}/-/ready": stack.start("gateway", gateway_program, *flags),
            f"http://{prometheus}/-/ready": stack.start(
                "prometheus",
                prometheus_program,
                f"--config.file={config}",
                f"--storage.tsdb.path={stack.folder / 'prometheus'}",
                f"--web.listen-address={prometheus}",
            ),
            f"http://{page}/-/healthy": stack.start_agent(TOP, TABLES.format(gateway=gateway, page=page)),
        }
        for url, server in servers.items():
            server.wait_for_answer(url)
        sys.stdout.write(
            f"""\
The agent runs on simulated chips, and pushes every 5 s.

  its page      http://{page}/
  Pushgateway   {first_that_answers(f"http://{gateway}/", f"http://{gateway}/metrics")}
  Prometheus    {first_that_answers(f"http://{prometheus}/graph/?{GRAPH}", f"http://{prometheus}/{QUERY}")}

Ctrl-C stops everything, and nothing stays.
"""
        )
        sys.stdout.flush()
        signal.pause()
    return 0


def say_stopped() -> int:
    sys.stdout.write("\nEverything is stopped.\n")
    return 0


if __name__ == "__main__":
    run(main, on_interrupt=say_stopped)
