"""Every block of Python on the pages runs: those of one page in a row, as a reader would type them.

Models of the hub are stood in for by a tiny model. A block that needs what a test cannot have is
marked on the page with a comment in front of it: ``<!-- not run: the reason -->``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import odesteer
import tiny_models

ROOT = Path(__file__).resolve().parents[2]
# Tutorials run as a whole, on a real model: make tutorials.
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "tutorials"),
]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n+)?^```python[^\n]*\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """The blocks of a page that are run: line of the page, code."""
    text = page.read_text()
    return [
        (text[: found.start("code")].count("\n"), found["code"])
        for found in FENCE.finditer(text)
        if not found["reason"]
    ]


WITH_CODE = [page for page in PAGES if python_blocks(page)]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader has at hand: a model, data, and names that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    small = odesteer.SteeredModel(
        tiny_models.llama(num_hidden_layers=17, max_position_embeddings=512),
        tiny_models.tokenizer(),
    )
    opened = odesteer.SteeredModel.from_pretrained
    monkeypatch.setattr(
        odesteer.SteeredModel,
        "from_pretrained",
        lambda name, *a, **k: opened(name, *a, **k) if Path(name).is_dir() else small,
    )
    rows = [
        {"prompt": f"Is {n} even?", "chosen": f"Yes, {n} is.", "rejected": f"No, never {n}!"}
        for n in range(16)
    ]
    Path("pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pairs = odesteer.load_contrast("pairs.jsonl")
    torch.manual_seed(0)
    positive, negative = torch.randn(2, 60, 32) + torch.tensor([0.5, -0.5])[:, None, None]
    steerer = small.fit(odesteer.ODESteer(), pairs, layer=12)
    steerer.save("truthful.safetensors")
    v = torch.randn(32)
    save_file({"v": v}, "v.safetensors")
    save_file({"W_dec": v.expand(1300, 32).contiguous()}, "sae.safetensors")
    return {
        "odesteer": odesteer,
        "lm": small,
        "pairs": pairs,
        "examples": [*pairs.positive, *pairs.negative],
        "prompts": ["Is 3 even?", "Is 4 even?", "Is 5 even?"],
        "prompt": "Is 3 even?",
        "prompts_by_kind": odesteer.ContrastData(
            tuple(odesteer.Example(f"Bake cake {n}", "Sure.") for n in range(12)),
            tuple(odesteer.Example(f"Rob bank {n}{n}", "Sure.") for n in range(12)),
            *[tuple(map(str, range(12)))] * 2,
        ),
        "refusals": pairs,
        "steerer": steerer,
        "judge": lambda prompts, texts: [float(len(text)) for text in texts],
        "positive": positive,
        "negative": negative,
        "v": v,
        "a": torch.randn(5, 32),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=[str(p.relative_to(ROOT)) for p in WITH_CODE])
def test_code_on_pages_runs(page: Path, reader: dict[str, Any]) -> None:
    for line, code in python_blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), reader)
