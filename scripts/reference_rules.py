"""Renders what the rules of deploy/prometheus say, for docs/alerts.md and docs/prometheus.md."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import yaml

from scripts.blocks import PROJECT, with_blocks

RULES = PROJECT / "deploy" / "prometheus" / "rules"


def alerts() -> str:
    """The whole docs/alerts.md, with the descriptions of the alerts."""
    text = (RULES / "alerts.yml").read_text(encoding="utf-8")
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    return with_blocks("docs/alerts.md", {rule["alert"]: partial(_meaning, rule) for rule in rules})


def series() -> str:
    """The whole docs/prometheus.md: the comment about each limit, and the first sentence about each other series."""
    return with_blocks("docs/prometheus.md", {"limits": _limits, "recordings": _recordings})


def _limits() -> str:
    return _table(_comments("limits.yml"))


def _recordings() -> str:
    return _table(
        {name: f"{text.removesuffix('.').split('. ')[0]}." for name, text in _comments("recordings.yml").items()}
    )


def _comments(name: str) -> dict[str, str]:
    """What a file of rules says above each recorded series; a row that is a comment itself counts as well."""
    text = (RULES / name).read_text(encoding="utf-8")
    found = re.findall(r"((?:^ {6}# \S.*\n)+)^ {6}#?- record: (\S+)", text, re.MULTILINE)
    return {series: " ".join(re.sub(r"^ *# ", "", comment, flags=re.MULTILINE).split()) for comment, series in found}


def _table(meanings: dict[str, str]) -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in meanings.items()]
    return "\n".join(["| series | meaning |", "|---|---|", *rows])


def _meaning(rule: dict[str, Any]) -> str:
    severity = rule["labels"]["severity"]
    since = f", after {rule['for']}" if "for" in rule else ""
    return f"**Meaning.** {_without_templates(rule['annotations']['description'])} ({severity}{since})"


def _without_templates(description: str) -> str:
    """The text with labels by their name in italics, and the value as N."""
    text = re.sub(r"{{ with \$labels\.(\w+) }}(.*?){{ \. }}{{ end }}", r"\2*\1*", description.strip())
    text = re.sub(r"{{ \$labels\.(\w+) }}", r"*\1*", text)
    text = re.sub(r"{{ \$value \| humanizePercentage }}", "N %", text)
    return re.sub(r"{{ \$value.*?}}", "N", text)
