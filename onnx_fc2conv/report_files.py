"""Writes reports to files; the ending of a file's name chooses the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from onnx_fc2conv.errors import ArgumentError

__all__ = ["Report", "check_report_paths", "write_reports"]


class Report(Protocol):
    """A report that has all formats."""

    def to_json(self) -> str: ...  # noqa: D102 - the reports say it
    def to_markdown(self) -> str: ...  # noqa: D102
    def to_junit(self) -> str: ...  # noqa: D102


_FORMATS: Mapping[str, Callable[[Report], str]] = {
    ".json": lambda report: report.to_json(),
    ".md": lambda report: report.to_markdown(),
    ".xml": lambda report: report.to_junit(),
}


def check_report_paths(paths: Iterable[Path] | None) -> list[Path]:
    """Return the report files, after checking that they can be written.

    Raises:
        ArgumentError: If the ending of one is unknown, or its folder does not exist.
    """
    for path in paths or ():
        if path.suffix not in _FORMATS:
            *most, last = _FORMATS
            known = f"{', '.join(most)} or {last}"
            raise ArgumentError(f"--report {path}: the name must end in {known}")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ArgumentError(f"--report {path}: cannot be written there")
    return list(paths or ())


def write_reports(report: Report, paths: Iterable[Path]) -> None:
    """Write a report to each of the files.

    Raises:
        ArgumentError: If one cannot be written.
    """
    for path in paths:
        text = _FORMATS[path.suffix](report)
        try:
            # A file's name may hold bytes that are no text; they are written as escapes.
            path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        except OSError as error:
            reason = error.strerror or error
            raise ArgumentError(f"cannot write the report {path}: {reason}") from error
