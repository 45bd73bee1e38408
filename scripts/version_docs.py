"""Build the documentation site of this version into a folder that keeps those of all versions.

    python scripts/version_docs.py public     # make docs-version

The folder gets `public/MAJOR.MINOR/`, `versions.json`, which the selector in the header of the site
reads (mike's form, which zensical's theme knows), and an `index.html` that leads to the newest
version. Folders of other versions are left as they are. Serve it over HTTP: the selector fetches
`versions.json`, which browsers refuse for files.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from odesteer import __version__

ROOT = Path(__file__).resolve().parents[1]
Listed = list[dict[str, Any]]

_INDEX = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={newest}/">
<title>odesteer</title>
<a href="{newest}/">The documentation of odesteer {newest}</a>
"""
_BUILT = "build/site-of-a-version"
_SELECTOR = '\n[project.extra.version]\nprovider = "mike"\n'


def with_version(listed: Listed, name: str, title: str) -> Listed:
    """The list of versions with this one, the newest first, which alone is called latest.

    Raises `SystemExit` for a name that is not MAJOR.MINOR.
    """
    if not re.fullmatch(r"\d+\.\d+", name):
        raise SystemExit(f"a version is called MAJOR.MINOR, not {name!r}.")
    others = [one for one in listed if one["version"] != name]
    found = [*others, {"version": name, "title": title}]
    found.sort(key=lambda one: tuple(map(int, one["version"].split("."))), reverse=True)
    return [{**one, "aliases": ["latest"] if one is found[0] else []} for one in found]


def configuration(text: str, site: str) -> str:
    """The configuration of the site, built into another folder, with the selector of versions.

    The folder is relative to the project, since zensical builds nowhere else.
    """
    changed, n = re.subn(r"^site_dir = .*$", f"site_dir = {json.dumps(site)}", text, flags=re.M)
    if n != 1:
        raise SystemExit("zensical.toml has no line site_dir = ….")
    return changed + _SELECTOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="the folder of all versions")
    folder = parser.parse_args().folder.resolve()
    name = ".".join(__version__.split(".")[:2])
    index = folder / "versions.json"
    listed = json.loads(index.read_text()) if index.is_file() else []
    listed = with_version(listed, name, __version__)

    folder.mkdir(parents=True, exist_ok=True)
    own = ROOT / "zensical.version.toml"
    own.write_text(configuration((ROOT / "zensical.toml").read_text(), _BUILT))
    try:
        command = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
        subprocess.run([*command, "--config-file", own], cwd=ROOT, check=True)
    finally:
        own.unlink()
    shutil.rmtree(folder / name, ignore_errors=True)
    shutil.move(ROOT / _BUILT, folder / name)
    index.write_text(json.dumps(listed, indent=2) + "\n")
    (folder / "index.html").write_text(_INDEX.format(newest=listed[0]["version"]))
    print(f"built {folder / name}; versions: {', '.join(one['version'] for one in listed)}")


if __name__ == "__main__":
    main()
