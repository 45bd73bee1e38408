"""What is refused: bad requests alone, broken engines at start-up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import Engine, engine, in_another_process, needs_vllm
from references import Case, Request

pytestmark = needs_vllm

PROMPT = (5, 6, 7, 8)


@pytest.fixture(scope="module")
def running(terrarium: Case) -> Iterator[Engine]:
    with engine(terrarium.path) as started:
        yield started


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nobody@1.5", "no steerer 'nobody'"),
        ("terrarium-kernel@high", "'high' is not an amount"),
        ("terrarium-kernel@nan", "finite"),
        ("terrarium-kernel@interpolation=1", "has no 'interpolation'"),
        ("terrarium-kernel@1.5+", "does not ask for steerers"),
        ("", "does not ask for steerers"),
        (1.5, "does not ask for steerers"),
        (["terrarium-kernel", 2], "does not ask for steerers"),
        ("stories-kernel@1.5", "width 64"),
    ],
)
def test_a_bad_request_fails_alone(
    running: Engine, terrarium: Case, steerers: Path, text: object, reason: str
) -> None:
    from vllm import SamplingParams

    if "stories" in str(text) and not (steerers / "stories-kernel.safetensors").exists():
        pytest.skip("no ../shared folder with models beside the project")
    params = SamplingParams(max_tokens=2, extra_args={"odesteer": text})
    with pytest.raises(ValueError, match=reason):
        running.llm.generate({"prompt_token_ids": list(PROMPT)}, params, use_tqdm=False)
    request = Request(PROMPT, "terrarium-kernel@1.5")
    assert running.answer(PROMPT, request.steering)[0].agrees(terrarium.reference.answer(request))


def test_an_engine_whose_operation_does_nothing_does_not_start(
    terrarium: Case, environment: dict[str, str], tmp_path: Path
) -> None:
    """Another plugin removes the effect, in every process."""
    (tmp_path / "breaker.py").write_text(
        "def register():\n"
        "    from odesteer.vllm import custom_op\n"
        "    custom_op.current_step = lambda: None\n"
    )
    info = tmp_path / "breaker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: breaker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\nbreaker = breaker:register\n")
    broken = in_another_process(
        terrarium.path, [PROMPT], {**environment, "PYTHONPATH": str(tmp_path)}
    )
    assert broken.returncode != 0
    assert "steering is not in effect" in broken.stdout + broken.stderr


def test_missing_files_of_steerers_stop_the_start(
    terrarium: Case, environment: dict[str, str], tmp_path: Path
) -> None:
    variables = {**environment, "ODESTEER_STEERERS": f"truth={tmp_path / 'none.safetensors'}"}
    missing = in_another_process(terrarium.path, [PROMPT], variables)
    assert missing.returncode != 0
    assert "none.safetensors" in missing.stderr.splitlines()[-1]
