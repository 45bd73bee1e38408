"""Commands of odesteer on the pages run, and blocks of JSON and TOML can be read.

The commands of one page run in a row, in a folder with what the page speaks of: a tiny model in the
place of each model, pairs, steerers. What a test cannot run is listed with the reason; of those
commands `tests/test_public_names.py` checks the names and options.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import odesteer
import tiny_models
from odesteer.cli import main

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "docs" / "reference" / "commands.md"  # usage lines of every command
PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {GENERATED})]
MODELS = ("my-model", "MODEL", "Qwen/Qwen2.5-0.5B-Instruct", "../../.llms/SmolLM2-135M-Instruct")
NOT_RUN = {
    r"^serve\b": "does not end; tests/serving starts it",
    r"^(bench|demo)\b": "takes minutes; tests/cli runs them with less",
    r"^tune\b": "searches for minutes; tests/cli runs it with less",
    r"^fit .*(end-to-end|--distil)": "trains for minutes; tests/end_to_end trains less",
    r"^sae\b|sae\.safetensors|my-sae": "trains an autoencoder; tests/cli trains a small one",
    r"^pairs\b|polite": "needs an instruction-tuned model; tests/cli answers in its place",
    r"\bowner/": "needs the hub",
    r"--engine ray": "starts workers; tests/cluster does",
    r"\.gguf\b": "needs a file or the package of GGUF; tests/cli writes and reads them",
    r"barrier=distance": "needs the entry points that the page describes",
    r"^transfer\b": "needs two models and texts; tests/cli does it",
    r"models/stories260K": "needs a model of another project",
    r"…": "a part of a command",
}


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    found = re.findall(r"^ *```(\w+)[^\n]*\n(.*?)^ *```", page.read_text(), re.M | re.S)
    return [text for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """What follows `odesteer` in each command line of a page."""
    text = re.sub(r"\\\n\s*", "", "\n".join(blocks(page, "bash", "console")))
    return re.findall(r"^\s*(?:\$ )?odesteer ([^\n]+)", text, re.MULTILINE)


def reason_against(command: str) -> str | None:
    return next((why for what, why in NOT_RUN.items() if re.search(what, command)), None)


TO_RUN = {
    page: [command for command in commands(page) if not reason_against(command)] for page in PAGES
}
WITH_COMMANDS = [page for page, found in TO_RUN.items() if found]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, pairs and steerers, under the names that the pages give them."""
    folder = tmp_path_factory.mktemp("project") / "docs" / "tutorials"
    model = tiny_models.llama(num_hidden_layers=17, max_position_embeddings=512)
    for name in MODELS:
        model.save_pretrained(folder / name)
        tiny_models.tokenizer().save_pretrained(folder / name)
    rows = [
        {"prompt": f"Is {n} even?", "chosen": f"Yes, {n} is.", "rejected": f"No, never {n}!"}
        for n in range(16)
    ]
    for name in ("pairs.jsonl", "cheerful.jsonl"):
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    lm = odesteer.SteeredModel.from_pretrained(str(folder / "my-model"))
    pairs = odesteer.load_contrast(str(folder / "pairs.jsonl"))
    lm.fit(odesteer.ODESteer(), pairs, layer=13).save(folder / "steerer.safetensors")
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_run(
    page: Path,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    for command in TO_RUN[page]:
        words = shlex.split(command, comments=True)
        if "-o" in words:  # commands refuse to replace files
            Path(words[words.index("-o") + 1]).unlink(missing_ok=True)
        code = main(words)
        assert code == 0, f"odesteer {command}\n{capsys.readouterr().err[-2000:]}"


def test_every_reason_is_needed() -> None:
    every = [command for page in PAGES for command in commands(page)]
    assert not [what for what in NOT_RUN if not any(re.search(what, one) for one in every)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_data_can_be_read(page: Path) -> None:
    for text in blocks(page, "json"):
        try:
            json.loads(text)
        except ValueError:  # JSON lines
            for line in text.splitlines():
                json.loads(line)
    for text in blocks(page, "toml"):
        tomllib = pytest.importorskip("tomllib", reason="tomllib is of Python 3.11")
        tomllib.loads(text)
