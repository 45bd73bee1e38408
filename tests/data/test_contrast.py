"""ContrastData: validation, splits, folds and digests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import DataError, InvalidInputError


def pairs(n: int) -> ContrastData:
    """n questions with a good and a bad answer each."""
    groups = tuple(f"question {i}" for i in range(n))
    return ContrastData(
        tuple(Example(group, f"good {i}") for i, group in enumerate(groups)),
        tuple(Example(group, f"bad {i}") for i, group in enumerate(groups)),
        groups,
        groups,
    )


def labels(data: ContrastData) -> set[str]:
    return {*data.groups_positive, *data.groups_negative}


@given(n=st.integers(2, 40), share=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_splits_divide_the_groups(n: int, share: float, seed: int) -> None:
    data = pairs(n)
    train, held_out = data.split(share, seed=seed)
    assert labels(train) | labels(held_out) == labels(data)
    assert not labels(train) & labels(held_out)
    assert len(train) + len(held_out) == len(data)
    assert train.groups_positive == train.groups_negative
    assert len(labels(held_out)) == min(max(round(share * n), 1), n - 1)


@given(n=st.integers(2, 30), n_folds=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_hold_out_every_group_once(n: int, n_folds: int, seed: int) -> None:
    data = pairs(n)
    if n < n_folds:
        with pytest.raises(DataError, match="more groups"):
            data.folds(n_folds, seed=seed)
        return
    seen: list[str] = []
    for train, held_out in data.folds(n_folds, seed=seed):
        assert labels(train) | labels(held_out) == labels(data)
        assert not labels(train) & labels(held_out)
        seen += labels(held_out)
    assert sorted(seen) == sorted(labels(data))


def test_splits_keep_the_order_and_depend_on_the_seed() -> None:
    data = pairs(30)
    train, _ = data.split(0.5, seed=1)
    order = [data.positive.index(example) for example in train.positive]
    assert order == sorted(order)
    assert data.split(0.5, seed=1) == data.split(0.5, seed=1)
    assert data.split(0.5, seed=1) != data.split(0.5, seed=2)


def test_splits_do_not_depend_on_the_order_of_rows() -> None:
    data = pairs(20)
    turned = ContrastData(
        data.positive[::-1], data.negative[::-1], data.groups_positive[::-1], data.groups[1][::-1]
    )
    assert labels(data.split()[1]) == labels(turned.split()[1])


def test_unpaired_sides_are_split_alike() -> None:
    data = ContrastData.from_texts(map(str, range(100)), map(str, range(100, 140)))
    train, held_out = data.split(0.25)
    assert (len(held_out.positive), len(held_out.negative)) == (25, 10)
    assert (len(train.positive), len(train.negative)) == (75, 30)


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"1 positive, 1 negative, 1 groups\) cannot be split"):
        pairs(1).split()


@pytest.mark.parametrize("share", [0, 1, -0.1, 2, float("nan")])
def test_shares_are_between_0_and_1(share: float) -> None:
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        pairs(4).split(share)


@pytest.mark.parametrize("n_folds", [1, 0, 2.0, True])
def test_folds_are_at_least_two(n_folds: int) -> None:
    with pytest.raises(InvalidInputError, match="at least 2"):
        pairs(4).folds(n_folds)


def test_the_digest_sees_every_part() -> None:
    def data(
        prompt: str | tuple[Message, ...] = "p", response: str = "r", group: str = "g"
    ) -> ContrastData:
        one, other = Example(prompt, response), Example("", "no")
        return ContrastData((one,), (other,), (group,), ("h",))

    digests = [
        data(),
        data(prompt="q"),
        data(prompt=""),
        data(prompt=(Message("user", "p"),)),
        data(prompt=(Message("system", "p"),)),
        data(response="R"),
        data(group="G"),
        ContrastData((Example("", "no"),), (Example("p", "r"),), ("h",), ("g",)),
    ]
    assert len({d.digest() for d in digests}) == len(digests)
    assert data().digest() == data().digest()
    # Recorded once; a change would make saved provenance unverifiable.
    assert data().digest().startswith("660e6a342d7758ca")


def test_shape_and_representation() -> None:
    data = ContrastData.from_texts(["a", "b"], ["c"])
    assert len(data) == 3
    assert repr(data) == "ContrastData(2 positive, 1 negative, 3 groups)"
    assert data.groups == (("a", "b"), ("c",))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Example("", ""), "a response must not be blank"),
        (lambda: Example("", " \n"), "a response must not be blank"),
        (lambda: Example("", None), "a response must be a string, not None"),
        (lambda: Example(3, "a"), "a prompt must be a string, not 3"),
        (lambda: Example((), "a"), "a chat prompt needs a message"),
        (lambda: Example(("hi",), "a"), "holds Message objects"),
        (lambda: Example("\ud800", "a"), "half of a surrogate pair"),
        (lambda: Message("", "a"), "role of a message must not be blank"),
        (lambda: Message("user", 1), "content of a message must be a string"),
        (lambda: ContrastData.from_texts([], ["a"]), "no positive example"),
        (lambda: ContrastData.from_texts(["a"], []), "no negative example"),
        (lambda: ContrastData(["a"], ["b"], ["c"], ["d"]), "must be tuples"),
        (lambda: ContrastData(("a",), ("b",), ("c",), ("d",)), "must be Example"),
        (lambda: ContrastData((EXAMPLE,), (EXAMPLE,), (), ("d",)), "1 positive examples have 0"),
        (lambda: ContrastData((EXAMPLE,), (EXAMPLE,), ("",), ("d",)), "a group must not be blank"),
    ],
)
def test_what_is_no_data_is_refused(build: "object", told: str) -> None:
    with pytest.raises(DataError, match=told):
        build()  # type: ignore[operator]


EXAMPLE = Example("", "text")


def test_a_message_may_be_empty() -> None:
    assert Example((Message("system", ""), Message("user", "hi")), "ok").is_chat
