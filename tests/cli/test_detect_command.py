"""``odesteer generate --watermark`` and ``odesteer detect``."""

import json

from command import Run

MARK = json.dumps({"bias": 6.0, "hashing_key": 31})


def test_a_watermark_is_written_and_found(run: Run, model: str, caa: str) -> None:
    words = ["generate", model, "Hello", "--max-new-tokens", 80, "--seed", 3, "--json"]
    for steering in ([], ["--steer", caa]):
        marked = run(*words, *steering, "--watermark", MARK)
        plain = run(*words, *steering)
        assert (marked.code, plain.code) == (0, 0), marked.err + plain.err
        assert marked.document["sampling"]["watermarked"] is True
        texts = [done.document["results"][0]["text"] for done in (marked, plain)]
        found = run("detect", model, *texts, "--watermark", MARK, "--json")
        assert found.code == 0, found.err
        assert [one["watermarked"] for one in found.document["results"]] == [True, False]
        other = run("detect", model, texts[0], "--json")
        assert other.document["results"][0]["watermarked"] is False


def test_what_cannot_be_detected(run: Run, model: str) -> None:
    assert run("detect", model, "x", "--watermark", "green").says("no watermark")
    assert run("detect", model).code == 2
    done = run("detect", model, "x")
    assert done.code == 2
    assert done.says("text 1", "too few")


def test_a_watermark_that_is_none_is_refused_before_the_model(run: Run) -> None:
    done = run("generate", "./no-model", "Hello", "--watermark", '{"bias": "x", "typo": 1}')
    assert done.code == 2
    assert done.says("typo")
