"""The page that the tests marked `reliability` write."""

from __future__ import annotations

from tests.reliability_page import HEAD, SECTION, page

ROWS = {
    "a[1]": (2, "a fault", "it is noticed"),
    "a[2]": (2, "a fault", "it is noticed"),
    "b": (1.5, "noise", "see below"),
    "c": (1, "a cut", "it heals"),
}
PASSED = {"a[1]": "once", "a[2]": "", "b": "", f"b{SECTION}": "## Noise\n\ntext", "c": "", f"gone{SECTION}": "## Old"}


def test_a_row_shows_its_order_and_what_its_cases_measured() -> None:
    rows = page(ROWS, PASSED).removeprefix(HEAD).partition("\n\n")[0]
    assert rows.splitlines() == [
        "| a cut | it heals | 1 case passes |",
        "| noise | see below | 1 case passes |",
        "| a fault | it is noticed | once |",
    ]


def test_sections_of_existing_tests_follow_the_rows() -> None:
    assert page(ROWS, PASSED).endswith("|\n\n## Noise\n\ntext\n")
    assert "Old" not in page(ROWS, PASSED)
