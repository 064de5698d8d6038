"""Runs the course's notebook; as a program, `python -m tests.course` rewrites its outputs."""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "docs" / "course.ipynb"
CELL_S = 60  # seconds that a cell may take


def read() -> Any:
    return nbformat.read(COURSE, as_version=4)


def executed(folder: Path) -> Any:
    """Run the notebook from top to bottom in a folder; return it with the new outputs."""
    book = read()
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=CELL_S, resources=resources, record_timing=False).execute()
    return book


def printed(book: Any) -> list[str]:
    """Return the printed text of each cell."""
    return [
        "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in book.cells
        if cell.cell_type == "code"
    ]


def pictures(book: Any) -> list[str]:
    """Return every picture, as the text in the file."""
    return [
        output.data["image/png"]
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


if __name__ == "__main__":
    book = executed(COURSE.parent)
    book.metadata.language_info = {"name": "python"}  # not the Python version of the machine
    nbformat.write(book, COURSE)
