"""``odesteer generate``."""

from pathlib import Path

import pytest
from command import Run, save_model

from odesteer import SteeredModel, load

PROMPT = "Day 3:"


def test_a_steered_text_is_that_of_the_library(run: Run, model: str, steerer: str) -> None:
    words = ["--level", 2, "--max-new-tokens", 12, "--seed", 5, "--json"]
    (result,) = run("generate", model, "--steer", steerer, *words, PROMPT).document["results"]
    lm = SteeredModel.from_pretrained(model, device="cpu")
    options = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0, "seed": 5}
    (expected,) = lm.generate(
        [PROMPT], load(steerer), level=2.0, max_new_tokens=12, receipt=True, **options
    )
    assert result["text"] == expected.text
    (receipt,) = result["receipts"]
    known = [(b, a) for b, a in zip(expected.before, expected.after, strict=True)]
    assert receipt["before"] == pytest.approx(sum(b for b, _ in known) / len(known))
    assert receipt["after"] == pytest.approx(sum(a for _, a in known) / len(known))
    assert receipt["moved"] == len(known)


def test_without_a_steerer_it_only_generates(run: Run, model: str) -> None:
    words = ["generate", model, "--greedy", "--max-new-tokens", 8, "--json", PROMPT]
    (result,) = run(*words).document["results"]
    lm = SteeredModel.from_pretrained(model, device="cpu")
    assert [result["text"]] == lm.generate([PROMPT], max_new_tokens=8, do_sample=False)
    assert result["receipts"] == []


def test_the_level_can_be_told_behind_the_file(run: Run, model: str, steerer: str) -> None:
    words = ["--max-new-tokens", 10, "--json", PROMPT]
    by_option = run("generate", model, "--steer", steerer, "--T", 3, *words).document
    by_word = run("generate", model, "--steer", f"{steerer}@T=3", *words).document
    assert by_option == by_word
    assert by_word["steerers"][0]["T"] == 3
    natural = run("generate", model, "--steer", f"{steerer}@-0.5", *words).document
    assert natural["steerers"][0]["level"] == -0.5


def test_a_bare_number_is_the_natural_quantity_of_the_method(
    run: Run, model: str, caa: str
) -> None:
    words = ["--max-new-tokens", 4, "--json", PROMPT]
    document = run("generate", model, "--steer", f"{caa}@0.3", *words).document
    assert document["steerers"][0]["strength"] == 0.3


def test_a_file_may_have_an_at_sign_in_its_name(run: Run, model: str, steerer: str) -> None:
    name = Path("mine@2.safetensors")
    name.write_bytes(Path(steerer).read_bytes())
    words = ["--max-new-tokens", 4, "--json", PROMPT]
    plain = run("generate", model, "--steer", name, *words).document
    assert plain["steerers"][0]["level"] == 1.5
    more = run("generate", model, "--steer", f"{name}@2", *words).document
    assert more["steerers"][0]["level"] == 2


def test_several_steerers_act_together(run: Run, model: str, steerer: str, caa: str) -> None:
    words = ["--max-new-tokens", 10, "--greedy", "--json", PROMPT]
    both = run(
        "generate", model, "--steer", f"{caa}@T=4", "--steer", f"{steerer}@1", *words
    ).document
    (result,) = both["results"]
    assert [each["site"]["layer"] for each in both["steerers"]] == [1, 2]
    lm = SteeredModel.from_pretrained(model, device="cpu")
    with lm.steering(load(caa), T=4.0), lm.steering(load(steerer), level=1.0):
        expected = lm.generate([PROMPT], max_new_tokens=10, do_sample=False)
    assert [result["text"]] == expected
    assert all(receipt["moved"] == result["tokens"] for receipt in result["receipts"])


def test_accounts_end_with_their_text(run: Run, model: str, steerer: str) -> None:
    """Rows that are done earlier than others are moved on; that is no part of their account."""
    words = ["--max-new-tokens", 60, "--temperature", 2.5, "--top-p", 1, "--json"]
    prompts = [f"{i}" * (i % 4 + 1) for i in range(12)]
    results = run("generate", model, "--steer", steerer, *words, *prompts).document["results"]
    lengths = {result["tokens"] for result in results}
    assert len(lengths) > 1
    for result in results:
        (receipt,) = result["receipts"]
        # One more where the end of the text was chosen, unless it just ran out of tokens.
        assert receipt["moved"] == min(result["tokens"] + 1, 60)


def test_compare_shows_both_and_what_moved(run: Run, model: str, steerer: str) -> None:
    words = ["generate", model, "--steer", steerer, "--compare", "--max-new-tokens", 10, PROMPT]
    shown = run(*words)
    assert shown.code == 0
    for part in (PROMPT, "unsteered", "steered, level=1.5", "mean h", "→", "nats"):
        assert part in shown.out
    (result,) = run(*words, "--json").document["results"]
    plain = run("generate", model, "--max-new-tokens", 10, PROMPT, "--json").document
    assert result["unsteered"]["text"] == plain["results"][0]["text"]
    (looked,) = result["unsteered"]["receipts"]
    assert looked["before"] == looked["after"]
    (moved,) = result["receipts"]
    assert moved["after"] > moved["before"]


def test_a_stream_is_the_same_text(run: Run, model: str, steerer: str) -> None:
    words = ["generate", model, "--steer", steerer, "--max-new-tokens", 20, "Day 3:\\n"]
    whole, streamed = run(*words), run(*words, "--stream")
    assert streamed.code == 0
    assert streamed.out.rstrip("\n") == whole.out.rstrip("\n")
    assert whole.out.startswith("Day 3:\n")
    both = run(*words, "--stream", "--compare").out
    assert both.index("unsteered") < both.index("── steered")


def test_what_was_done_is_told_on_stderr(run: Run, model: str, steerer: str) -> None:
    outcome = run("generate", model, "--steer", f"{steerer}@2", "--max-new-tokens", 5, PROMPT)
    assert "sunny.safetensors at level=2.0: mean h " in outcome.err
    assert "mean h" not in outcome.out


def test_the_position_can_be_changed(run: Run, model: str, steerer: str) -> None:
    words = ["generate", model, "--steer", steerer, "--max-new-tokens", 6, "--json", PROMPT]
    document = run(*words, "--position", "prompt").document
    (result,) = document["results"]
    assert document["steerers"][0]["site"]["position"] == "prompt"
    lm = SteeredModel.from_pretrained(model, device="cpu")
    assert result["receipts"][0]["moved"] == len(lm.encode(PROMPT))


def test_batches_do_not_change_greedy_texts(run: Run, model: str, steerer: str) -> None:
    words = ["generate", model, "--steer", steerer, "--greedy", "--max-new-tokens", 8, "--json"]
    prompts = ["a", "Day 1:", "a longer prompt"]
    at_once = run(*words, *prompts).document["results"]
    one_by_one = run(*words, *prompts, "--batch-size", 1).document["results"]
    assert [r["text"] for r in at_once] == [r["text"] for r in one_by_one]


def test_chats_go_through_the_template(run: Run, model: str) -> None:
    words = ["generate", model, "--greedy", "--max-new-tokens", 8, "--json", "Hello"]
    (chat,) = run(*words, "--chat").document["results"]
    lm = SteeredModel.from_pretrained(model, device="cpu")
    message = [{"role": "user", "content": "Hello"}]
    assert [chat["text"]] == lm.generate([message], max_new_tokens=8, do_sample=False)


def test_the_default_length_is_what_the_context_has_room_for(run: Run, model: str) -> None:
    lm = SteeredModel.from_pretrained(model, device="cpu")
    document = run("generate", model, "--json", PROMPT).document
    assert document["sampling"]["max_new_tokens"] == lm.context - len(lm.encode(PROMPT))


def test_a_steerer_of_another_model_of_the_same_width_is_warned_of(
    run: Run, steerer: str, tmp_path: Path
) -> None:
    other = save_model(tmp_path / "other")
    words = ["generate", other, "--steer", steerer, "--max-new-tokens", 2, PROMPT]
    outcome = run(*words, "--json")
    assert outcome.code == 0
    assert outcome.err.count("warning: ") == 1
    assert "'tiny-llama'" in outcome.err
    assert "'other'" in outcome.err
    assert len(outcome.document["warnings"]) == 1
