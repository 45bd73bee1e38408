"""``odesteer pairs`` and ``odesteer fit --concept``."""

from pathlib import Path

from command import Run, save_model


def test_pairs_of_a_model_that_says_nothing_sensible(run: Run, tmp_path: Path) -> None:
    model = save_model(tmp_path / "roomy", max_position_embeddings=512)
    done = run(
        "pairs",
        "polite",
        "rude",
        "--model",
        model,
        "-o",
        "p.jsonl",
        "--limit",
        30,
        "--max-new-tokens",
        6,
        "--json",
    )
    # A random model tells some pairs apart by chance, and says how few.
    if done.code == 0:
        assert done.document["asked"] == 30
        assert done.document["kept"] == len((tmp_path / "p.jsonl").read_text().splitlines())
    else:
        assert "none gave a pair" in done.err
        assert not (tmp_path / "p.jsonl").exists()


def test_bad_input(run: Run, model: str, tmp_path: Path) -> None:
    assert run("pairs", "polite", "polite", "--model", model, "-o", "p.jsonl").code == 2
    assert run("pairs", "polite", "rude", "-o", "p.jsonl").says("--model MODEL, or --endpoint")
    down = "http://127.0.0.1:9/v1"
    words = ["pairs", "polite", "rude", "--endpoint", down, "-o", "p.jsonl", "--limit", 1]
    assert run(*words).says("--endpoint-model")
    done = run(*words, "--endpoint-model", "m")
    assert done.code == 1
    assert done.says("gives no answer")
    assert not (tmp_path / "p.jsonl").exists()
    fit = ["fit", model, "--layer", 1, "-o", "s.safetensors"]
    assert run(*fit, "--concept", "polite").says("polite:rude")
    assert run(*fit).says("--concept")
    assert run(*fit, "--concept", "a:b", "--data", "x.jsonl").says("leave it out")
    assert not (tmp_path / "s.safetensors").exists()
