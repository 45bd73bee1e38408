"""Preference formats of rows, and rows that have none."""

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from odesteer.data import (
    ContrastData,
    DataWarning,
    DuplicateRowsWarning,
    Example,
    IdenticalSidesWarning,
    Message,
    UnusedColumnsWarning,
    load_contrast,
    save_contrast,
)
from odesteer.data.transcripts import shared_opening
from odesteer.errors import DataError, InvalidInputError


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Load rows from a file."""

    def load(*rows: Any, **options: Any) -> ContrastData:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_contrast(path, **options)

    return load


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


QUESTION = (Message("user", "q"),)


def test_pairs_of_texts(read: Any) -> None:
    data = read({"positive": "a", "negative": "b"}, {"positive": "c", "negative": "d"})
    assert data.positive == (Example("", "a"), Example("", "c"))
    assert data.negative == (Example("", "b"), Example("", "d"))
    assert data.groups == (("row 1", "row 2"), ("row 1", "row 2"))


def test_pairs_of_lists(read: Any) -> None:
    data = read(
        {"prompt": "q", "positive": ["a", "b"], "negative": ["c"]},
        {"prompt": "r", "positive": "a", "negative": ["c", "d"]},
    )
    assert [example.response for example in data.positive] == ["a", "b", "a"]
    assert data.groups == (("q", "q", "r"), ("q", "r", "r"))


def test_one_object_of_lists_is_texts_in_no_pairs(read: Any) -> None:
    data = read({"positive": ["a", "b", "c"], "negative": ["d"]})
    assert data == ContrastData.from_texts(["a", "b", "c"], ["d"])
    with pytest.raises(DataError, match=r"positive\[2\] repeats positive\[0\]"):
        read({"positive": ["a", "b", "a"], "negative": ["d"]}, duplicates="error")
    with pytest.raises(DataError, match=r"negative\[0\]: 'b' has the opposite label in positive"):
        read({"positive": ["a", "b"], "negative": ["b"]})


@pytest.mark.parametrize("form", [("chosen", "rejected"), ("positive", "negative")])
def test_preferences_in_strings(read: Any, form: tuple[str, str]) -> None:
    data = read({"prompt": "q", form[0]: "a", form[1]: "b"})
    assert data.positive == (Example("q", "a"),)
    assert data.negative == (Example("q", "b"),)
    assert data.groups_positive == ("q",)


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"prompt": [user("q")], "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {
            "prompt": "q",
            "chosen": [user("q"), assistant("a")],
            "rejected": [user("q"), assistant("b")],
        },
        {
            "prompt": [user("q")],
            "chosen": [user("q"), assistant("a")],
            "rejected": [user("q"), assistant("b")],
        },
        {
            "prompt": [{**user("q"), "name": None}],
            "chosen": [{**assistant("a"), "tool_calls": None}],
            "rejected": [assistant("b")],
        },
    ],
    ids=["implicit", "explicit", "string sides", "string prompt", "both", "both chats", "nulls"],
)
def test_preferences_in_chats(read: Any, row: dict[str, Any]) -> None:
    data = read(row)
    assert data.positive == (Example(QUESTION, "a"),)
    assert data.negative == (Example(QUESTION, "b"),)
    assert data.groups_positive == data.groups_negative == ('[["user", "q"]]',)


def test_chats_that_part_early_share_their_opening_as_group(read: Any) -> None:
    opening = [{"role": "system", "content": ""}, user("q")]
    row = {
        "chosen": [*opening, assistant("a"), user("more"), assistant("b")],
        "rejected": [*opening, assistant("c")],
    }
    data = read(row, {"chosen": [*opening, assistant("d")], "rejected": [*opening, assistant("e")]})
    assert data.positive[0].response == "b"
    assert isinstance(data.positive[0].prompt, tuple)
    assert len(data.positive[0].prompt) == 4
    assert len({*data.groups_positive, *data.groups_negative}) == 1


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        (1, 0),
        (True, False),
        ("1", "0"),
        ("positive", "negative"),
        ("True", "FALSE"),
        (1.0, 0.0),
        ("1.0", "0."),
        (1, -1),
        ("+1", "-1"),
        (1.0, -1.0),
        ("pos", "neg"),
        ("Yes", " no "),
    ],
    ids=str,
)
def test_labels(read: Any, yes: object, no: object) -> None:
    data = read({"text": "a", "label": yes}, {"text": "b", "label": no})
    assert data == ContrastData.from_texts(["a"], ["b"])


def test_labelled_rows_with_prompts_and_chats(read: Any) -> None:
    data = read(
        {"prompt": "q", "text": "a", "label": 1},
        {"prompt": "q", "text": "b", "label": 0},
        {"prompt": None, "text": "c", "label": 0},
    )
    assert data.groups == (("q",), ("q", "c"))
    data = read(
        {"text": [user("q"), assistant("a")], "label": 1},
        {"prompt": [user("q")], "text": "b", "label": 0},
    )
    assert data.negative == (Example(QUESTION, "b"),)
    assert data.groups_positive == data.groups_negative


def test_messages_may_have_other_keys_and_parts(read: Any) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}], "refusal": None}
    result = {"role": "tool", "content": "4", "tool_call_id": "1"}
    parts = [
        {"type": "text", "text": "What is "},
        {"type": "text", "text": "2 + 2?", "image": None},
    ]
    asked = {"role": "user", "content": parts, "name": "Ann"}
    with pytest.warns(UnusedColumnsWarning) as told:
        data = read({"prompt": [asked, call, result], "chosen": "4", "rejected": "5"})
    for key in ("name", "tool_calls", "tool_call_id"):
        assert f"'prompt[].{key}'" in str(told[0].message)
    assert data.positive[0].prompt == (
        Message("user", "What is 2 + 2?"),
        Message("assistant", ""),
        Message("tool", "4"),
    )


HUMAN = "\n\nHuman: May I?\n\nAssistant: What?\n\nHuman: Park here.\n\nAssistant:"


@pytest.mark.parametrize(
    ("opening", "chosen", "rejected"),
    [
        (HUMAN, " Yes.", " No."),
        (HUMAN, " Yes.\n\nHuman: Why?\n\nAssistant: So.", " No.\n\nHuman: Oh.\n\nAssistant: Yes."),
        ("User: May I?\nAssistant:", " Yes, ", " Yes. No"),
        ("Q: May I?\nA:", " Ask\nA: why", " Ask him"),
        ("Do it.\n\n### Instruction:\nSing.\n\n### Response:", "\nLa", "\nNo"),
        ("<|im_start|>user\nMay I?<|im_end|>\n<|im_start|>assistant\n", "Yes", "No"),
        ("[INST] May I? [/INST]", " Yes", " No"),
    ],
)
def test_the_opening_that_transcripts_share_is_the_prompt(
    read: Any, opening: str, chosen: str, rejected: str
) -> None:
    row = {"chosen": opening + chosen, "rejected": opening + rejected}
    for data in (read(row), read({**row, "prompt": opening})):
        assert data.positive == (Example(opening, chosen),)
        assert data.negative == (Example(opening, rejected),)
        assert data.groups == ((opening,), (opening,))


def test_labelled_transcripts_are_cut_at_their_last_turn(read: Any, tmp_path: Path) -> None:
    rows = [{"text": HUMAN + " Yes.", "label": 1}, {"text": HUMAN + " No.", "label": 0}]
    data = read(*rows, {"text": "He said: well", "label": 1}, {**rows[0], "prompt": ""})
    assert data.positive == (
        Example(HUMAN, " Yes."),
        Example("", "He said: well"),
        Example("", HUMAN + " Yes."),
    )
    assert data.negative == (Example(HUMAN, " No."),)
    assert data.groups_positive[0] == data.groups_negative[0] == HUMAN
    save_contrast(data, tmp_path / "saved.jsonl")
    assert load_contrast(tmp_path / "saved.jsonl") == data
    with pytest.warns(DataWarning, match=r"dropped 1 of 3 rows.*\(line 3\)"):
        assert len(read(*rows, {"text": HUMAN, "label": 1})) == 2


def test_transcripts_stay_whole_where_no_turn_is_shared_or_the_prompt_is_empty(read: Any) -> None:
    for a, b in (
        ("Human: q\n\nAssistant: a", "Human: r\n\nAssistant: a"),
        ("Assistant: a", "Assistant: b"),
        ("He said: well", "He said: no"),
        ("Human:\n\nAssistant: a", "Human:\n\nAssistant: b"),
    ):
        data = read({"positive": a, "negative": b})
        assert (data.positive, data.negative) == ((Example("", a),), (Example("", b),))
    row = {"positive": HUMAN + "a", "negative": HUMAN + "b"}
    assert read({**row, "prompt": ""}).positive == (Example("", HUMAN + "a"),)
    assert read({**row, "prompt": "Reply!"}).positive == (Example("Reply!", HUMAN + "a"),)


def test_whole_transcripts_are_saved_as_such(read: Any, tmp_path: Path) -> None:
    whole = read({"prompt": "", "positive": HUMAN + "a", "negative": HUMAN + "b"})
    cut = read({"positive": HUMAN + "a", "negative": HUMAN + "b"})
    for data in (whole, cut):
        save_contrast(data, tmp_path / "saved.jsonl")
        assert load_contrast(tmp_path / "saved.jsonl") == data


def test_transcripts_without_a_response_are_dropped_and_counted(read: Any) -> None:
    rows = [{"chosen": f"{HUMAN} {a}", "rejected": f"{HUMAN} b"} for a in ("a", "", "c")]
    with pytest.warns(DataWarning, match=r"dropped 1 of 3 rows where a side has no .*\(line 2\)"):
        data = read(*rows)
    assert [example.response for example in data.positive] == [" a", " c"]


def test_explicit_groups_win(read: Any) -> None:
    data = read(
        {"prompt": "q", "positive": "a", "negative": "b", "group": "g"},
        {"prompt": "r", "positive": "a", "negative": "b", "group": 7},
    )
    assert data.groups_positive == ("g", "7")


def test_columns_can_be_named(read: Any) -> None:
    rows = [{"statement": "a", "true": 1}, {"statement": "b", "true": 0}]
    names = {"text": "statement", "label": "true"}
    assert read(*rows, columns=names) == ContrastData.from_texts(["a"], ["b"])
    turned = {"positive": "negative", "negative": "positive"}
    assert read({"positive": "a", "negative": "b"}, columns=turned).positive[0].response == "b"
    with pytest.raises(DataError, match=r"no column 'statment'.*Did you mean 'statement'"):
        read(*rows, columns={"text": "statment"})
    with pytest.raises(InvalidInputError, match=r"unknown field 'texts'; fields are positive"):
        read(*rows, columns={"texts": "statement"})
    with pytest.warns(UnusedColumnsWarning, match="'text'"):
        read({"a": "x", "text": "y", "label": 1}, {"a": "z", "label": 0}, columns={"text": "a"})


def test_columns_without_a_meaning_are_named_once(read: Any) -> None:
    rows = [{"text": "a", "label": 1, "id": 3}, {"text": "b", "label": 0, "id": 4, "source": "x"}]
    with pytest.warns(UnusedColumnsWarning, match=r"did not read columns 'id', 'source'\.") as told:
        read(*rows)
    assert len(told) == 1
    assert told[0].filename == __file__


def test_repeated_rows_are_dropped_and_counted(read: Any) -> None:
    rows = [{"positive": "a", "negative": "b"}, {"positive": "c", "negative": "b"}]
    with pytest.warns(
        DuplicateRowsWarning, match=r"dropped 2 of 4 .*line 3 repeats line 1"
    ) as told:
        data = read(*rows, rows[0], rows[0])
    assert len(told) == 1
    assert told[0].filename == __file__
    assert data == read(*rows)
    with pytest.raises(DataError, match="line 3 repeats line 1"):
        read(*rows, rows[0], duplicates="error")
    # The same texts in answer to another prompt are other examples.
    read({**rows[0], "prompt": "q"}, {**rows[0], "prompt": "r"})


def test_pairs_of_one_text_are_refused(read: Any) -> None:
    rows = [{"positive": "a", "negative": "b"}, {"positive": "c", "negative": "c"}]
    with pytest.raises(DataError, match="line 2: 'c' is on both sides"):
        read(*rows)
    with pytest.warns(IdenticalSidesWarning, match="dropped 1 of 2 rows"):
        data = read(*rows, identical="drop")
    assert len(data) == 2


def test_contradictory_labels_are_refused(read: Any) -> None:
    rows = [{"text": text, "label": label} for text, label in (("a", 1), ("b", 0), ("b", 1))]
    with pytest.raises(DataError, match="line 3: 'b' has the opposite label in line 2"):
        read(*rows)
    with pytest.warns(IdenticalSidesWarning, match="dropped 2 of 4 rows"):
        data = read(*rows, {"text": "c", "label": 0}, identical="drop")
    assert data == ContrastData.from_texts(["a"], ["c"])


def test_warnings_share_a_base() -> None:
    for category in (DuplicateRowsWarning, IdenticalSidesWarning, UnusedColumnsWarning):
        assert issubclass(category, DataWarning)
        assert issubclass(category, UserWarning)


@pytest.mark.parametrize("option", ["duplicates", "identical"])
def test_policies_are_checked(read: Any, option: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{option} must be 'drop' or 'error', not 'warn'"):
        read({"positive": "a", "negative": "b"}, **{option: "warn"})


PAIR = {"positive": "a", "negative": "b"}
PAIR_OF_CHATS = {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
WRONG: list[tuple[list[Any], str]] = [
    ([{"text": "a", "label": 1}, {"text": "b", "label": 1}], "none of 2 .* negative example"),
    ([{"text": "a", "label": 0}], "none of 1 usable rows has a positive example"),
    ([{"text": "a", "label": 2}], "line 1, field 'label': found 2; use 1, true or 'positive'"),
    ([{"text": "a", "label": 0.5}], "field 'label': found 0.5"),
    ([{"text": "a", "label": "maybe"}], "field 'label': found 'maybe'.*'yes'.*-1"),
    ([{"text": "a", "label": [1]}], r"field 'label': found \[1\]"),
    (
        [{"text": "a", "label": label} for label in (1, 0, -1.0)],
        "line 3, field 'label': found -1.0, but line 2 has 0",
    ),
    ([{"text": "a", "label": None}], "line 1, field 'label': found null"),
    ([PAIR, {"positive": None, "negative": "b"}], "line 2, field 'positive': found null"),
    ([PAIR, {"positive": "", "negative": "b"}], "line 2, field 'positive': the text is blank"),
    ([{"positive": " \t", "negative": "b"}], "field 'positive': the text is blank"),
    ([{"positive": 3, "negative": "b"}], r"field 'positive': found 3 \(int\); a text is needed"),
    ([{"positive": {"a": 1}, "negative": "b"}], r"field 'positive': found .* \(dict\)"),
    ([{"positive": [], "negative": "b"}], "field 'positive': the list is empty"),
    ([{"positive": ["a", None], "negative": "b"}], r"field 'positive\[1\]': found null"),
    ([{"positive": ["a", ["b"]], "negative": "b"}], r"field 'positive\[1\]': found \['b'\]"),
    ([{**PAIR, "prompt": 3}], "field 'prompt': found 3"),
    ([{**PAIR, "prompt": ["q"]}], r"field 'prompt': found \['q'\]"),
    ([{**PAIR, "group": 1.5}], "field 'group': found 1.5"),
    ([{**PAIR, "group": True}], "field 'group': found True"),
    ([{**PAIR, "group": ""}], "field 'group': the text is blank"),
    ([{**PAIR, "gruop": "g"}], "unknown field 'gruop'. Did you mean 'group'"),
    ([{**PAIR, "Prompt": "g"}], "unknown field 'Prompt'. Did you mean 'prompt'"),
    ([{"positve": "a", "negative": "b"}], "'negative' without 'positive'.*mean it by 'positve'"),
    ([{"chosen": "a"}], r"'chosen' without 'rejected'.*A row is \{positive, negative\}"),
    ([{"Text": "a", "Label": 1}], "Did you mean 'text' by 'Text', 'label' by 'Label'"),
    ([{"question": "a"}], r"found the fields 'question'; a row is .*columns=\{'text'"),
    ([{}], "found the fields none"),
    ([{**PAIR, "text": "a", "label": 1}], r"has \{positive, negative\} and \{text, label\}"),
    ([PAIR, {"chosen": "a", "rejected": "b"}], r"line 2: the row is \{chosen, .*line 1 is \{pos"),
    ([PAIR, {**PAIR, "group": "g"}], "line 2: the row is one with a group, but line 1 is one"),
    (
        [PAIR, {"positive": "a", "negative": "b", "prompt": [user("q")]}],
        "line 2: the row is a chat, but line 1 is plain text",
    ),
    ([{"positive": "a\ud800", "negative": "b"}], "field 'positive': half of a surrogate pair"),
    ([{**PAIR, "prompt": "\udc00"}], "field 'prompt': half of a surrogate pair"),
    ([{"chosen": [assistant("a")], "rejected": [assistant("b")]}], "'chosen': the response has no"),
    ([{"chosen": [user("q"), assistant("a")], "rejected": "b"}], "'rejected': found 'b', while"),
    (
        [{"chosen": [user("q"), assistant("a")], "rejected": [user("r"), assistant("b")]}],
        "answer different prompts",
    ),
    (
        [{"chosen": [user("q"), assistant("a")], "rejected": [user("q"), user("b")]}],
        "'rejected': the last message is the response .* 'assistant', not 'user'",
    ),
    (
        [
            {
                "prompt": "other",
                "chosen": [user("q"), assistant("a")],
                "rejected": [user("q"), assistant("b")],
            }
        ],
        "'chosen': the chat does not contain the prompt 'other'; it begins with 'q'",
    ),
    (
        [{"chosen": [{"from": "gpt", "value": "a"}], "rejected": [{"from": "gpt", "value": "b"}]}],
        r"field 'chosen\[0\]': a message has 'role' and 'content', this one has 'from', 'value'",
    ),
    (
        [{"chosen": [user("q"), assistant("")], "rejected": [user("q"), assistant("b")]}],
        r"field 'chosen\[1\]\.content': the text is blank",
    ),
    (
        [
            {
                "chosen": [user("q"), {"role": "assistant", "content": [{"type": "text"}]}],
                "rejected": "b",
            }
        ],
        "field 'rejected': found 'b', while the other side is a chat",
    ),
    (
        [{"text": [user("q"), {"role": "assistant", "content": [{"type": "text"}]}], "label": 1}],
        r"field 'text\[1\]\.content\[0\]\.text': found null",
    ),
    (
        [{"text": [{"role": "user", "content": [{"type": "image"}]}, assistant("a")], "label": 1}],
        r"field 'text\[0\]\.content\[0\]': found \{'type': 'image'\}; a part is .*only text",
    ),
    (
        [
            PAIR_OF_CHATS,
            {
                "chosen": [
                    user("q"),
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                    {"role": "tool", "content": "4", "tool_call_id": "1"},
                    assistant("a"),
                ],
                "rejected": [user("q"), assistant("b")],
            },
        ],
        r"line 2, field 'chosen\[1\]': the message has tool calls and no content",
    ),
    (
        [{**PAIR, "positive": "Human: q\n\nAssistant:", "negative": "Human: q\n\nAssistant: b"}],
        "no row has a response behind the turns",
    ),
    (
        [{"chosen": [user("q"), "a"], "rejected": [user("q"), assistant("b")]}],
        r"field 'chosen\[1\]': found 'a', which is no message",
    ),
]


@pytest.mark.parametrize(("rows", "told"), WRONG, ids=range(len(WRONG)))
def test_wrong_rows_are_refused_with_the_field(
    read: Any, rows: list[Any], told: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedColumnsWarning)
        with pytest.raises(DataError, match=told) as caught:
            read(*rows)
    assert str(caught.value).startswith(str(tmp_path / "rows.jsonl"))
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_long_values_are_shortened_in_errors(read: Any) -> None:
    with pytest.raises(DataError) as caught:
        read({"text": "x", "label": "y" * 10_000})
    assert len(str(caught.value)) < 400


def test_real_story_sentences(shared: Path) -> None:
    data = load_contrast(shared / "data" / "story-sentiment" / "sentences.json")
    assert (len(data.positive), len(data.negative)) == (1602, 618)


def test_real_counterfactual_reviews(shared: Path) -> None:
    path = shared / "data" / "cad-imdb" / "paired" / "dev_paired.tsv"
    names = {"text": "Text", "label": "Sentiment", "group": "batch_id"}
    data = load_contrast(path, columns=names)
    assert repr(data) == "ContrastData(245 positive, 245 negative, 245 groups)"


def test_real_preferences_in_transcripts(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    packed = (shared / "data" / "hh-rlhf-harmless-test" / "test.jsonl.gz").read_bytes()
    path.write_bytes(gzip.decompress(packed))
    with pytest.warns(DataWarning, match="dropped 4 of 2312 rows where a side has no response"):
        data = load_contrast(path)
    assert repr(data).startswith("ContrastData(2308 positive, 2308 negative")
    for positive, negative in zip(data.positive, data.negative, strict=True):
        assert positive.prompt == negative.prompt
        assert str(positive.prompt).endswith("\n\nAssistant:")
        assert shared_opening([positive.response, negative.response]) is None
