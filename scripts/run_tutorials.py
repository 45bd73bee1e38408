"""Run the tutorials on real models and write what they print into their pages.

    python scripts/run_tutorials.py                # all of them; `make tutorials`
    python scripts/run_tutorials.py how_much       # one
    python scripts/run_tutorials.py --notebooks    # notebooks without outputs, to download

A tutorial is a plain Python file in jupytext's percent format in docs/tutorials. Its page holds its
code, what it printed and its plots. `make docs` writes the notebooks, which are not kept in the
repository.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
from pathlib import Path
from typing import Any

import jupytext

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
LIMIT_S = 1200


def names() -> list[str]:
    """The tutorials, by the names of their files."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def write_notebook(name: str) -> None:
    """Write the notebook of a tutorial, without outputs, beside its script."""
    jupytext.write(_read(name), FOLDER / f"{name}.ipynb")


def write_page(name: str) -> float:
    """Run a tutorial and write its page and plots; the processor time that it took, seconds."""
    from nbclient import NotebookClient
    from nbconvert import MarkdownExporter

    notebook = _read(name)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # the bars of transformers too
    client = NotebookClient(
        notebook,
        timeout=LIMIT_S,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    started = _processor_time()
    client.execute()
    seconds = _processor_time() - started
    for cell in notebook.cells:
        cell.outputs = [one for one in cell.get("outputs", ()) if not _is_of_the_notebook(one)]
    plots = f"{name}_files"
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"output_files_dir": plots, "unique_key": name}
    )
    (FOLDER / f"{name}.md").write_text(_tidied(text, name, seconds))
    for old in (FOLDER / plots).glob("*.png"):
        old.unlink()
    for path, content in resources["outputs"].items():
        target = FOLDER / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    return seconds


def _processor_time() -> float:
    """Of all processes that this one has started and that have ended, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read(name: str) -> Any:
    notebook = jupytext.read(FOLDER / f"{name}.py")
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.metadata["kernelspec"] = kernel
    return notebook


def _is_of_the_notebook(output: Any) -> bool:
    """Whether it is a warning about notebooks alone, which a reader of the page need not see."""
    return output.get("name") == "stderr" and "TqdmWarning" in output["text"]


def _tidied(text: str, name: str, seconds: float) -> str:
    """The page: links to its files below the title, named plots, no runs of blank lines."""
    title, _, rest = text.strip().partition("\n")
    files = (
        f"[Script]({name}.py) · [notebook]({name}.ipynb) · {_minutes(seconds)} of one CPU core when"
        " this page was written"
    )
    heading = title.lstrip("# ")
    lines = []
    for line in rest.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        line = re.sub(r"\x1b\[[\d;]*m", "", line)  # colours, which notebooks force on commands
        lines.append(line.replace("![png]", f"![{heading}]").rstrip())
    parts = re.split(r"(^```.*?^```$)", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", prose) for prose in parts[::2]]
    return "\n".join([title, "", files, "".join(parts).rstrip()]) + "\n"


def _minutes(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("tutorials", nargs="*", metavar="NAME", help="all of them by default")
    parser.add_argument("--notebooks", action="store_true", help="write notebooks, run nothing")
    given = parser.parse_args()
    unknown = [name for name in given.tutorials if name not in names()]
    if unknown:
        raise SystemExit(f"there is no tutorial {unknown[0]!r}; there are {', '.join(names())}.")
    for name in given.tutorials or names():
        if given.notebooks:
            write_notebook(name)
            print(f"wrote docs/tutorials/{name}.ipynb")
        else:
            print(f"{name} …", flush=True)
            print(f"wrote docs/tutorials/{name}.md in {_minutes(write_page(name))}")


if __name__ == "__main__":
    main()
