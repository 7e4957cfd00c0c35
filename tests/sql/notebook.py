"""Executes a notebook anew, from its first cell to its last.

notebook.py FILE              what it prints must be what is kept in it, plots aside
notebook.py FILE --write      keeps what it prints now
"""

import difflib
import pathlib
import sys

import nbclient
import nbformat
import traitlets.config


def said(notebook):
    """The text that the cells print; a plot says its size."""
    lines = []
    for at, cell in enumerate(notebook.cells):
        text = ""
        for output in cell.get("outputs", []):
            assert output.output_type != "error", output
            assert output.get("name") != "stderr", f"cell {at} warns: {output.get('text')}"
            # What is printed comes in pieces, cut anywhere.
            text += output.text if "text" in output else output.data["text/plain"] + "\n"
        lines += [f"cell {at}: {line}" for line in text.splitlines()]
    return lines


def main(file, *options):
    root = pathlib.Path(__file__).parents[2]
    notebook = nbformat.read(file, as_version=4)
    kept = said(notebook)
    config = traitlets.config.Config({"KernelManager": {"transport": "ipc"}})
    place = {"metadata": {"path": str(root)}}
    nbclient.NotebookClient(
        notebook, timeout=300, resources=place, record_timing=False, coalesce_streams=True, config=config
    ).execute()
    if "--write" in options:
        # Of the machine that it ran on nothing is kept.
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, file)
        return
    told = said(notebook)
    differences = "\n".join(difflib.unified_diff(kept, told, "kept", "told now", lineterm="", n=0))
    assert told and not differences, differences


main(*sys.argv[1:])
