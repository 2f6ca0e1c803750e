"""What a campaign found: how many faults were tried, and which were not withstood."""

from __future__ import annotations

from collections.abc import Sequence


class Report:
    """Counts the tries of a campaign.

    Args:
        title: what was tried.
    """

    def __init__(self, title: str) -> None:
        self.title, self.tries, self.failures = title, 0, list[str]()

    def judge(self, what: str, fault: str | None) -> None:
        """Counts a try; `fault` says what went wrong, None that nothing did."""
        self.tries += 1
        if fault is not None:
            self.failures.append(f"{what}: {fault}")


def table(reports: Sequence[Report]) -> str:
    """The counts as a table in Markdown."""
    lines = ["| fault | tries | withstood |", "|---|---:|---:|"]
    lines += [f"| {r.title} | {r.tries:,} | {r.tries - len(r.failures):,} |" for r in reports]
    return "\n".join(lines)
