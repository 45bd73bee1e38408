"""What is asked of the engine: one text to write."""

from dataclasses import dataclass, field

from odesteer.methods import Amount


@dataclass(frozen=True)
class Applied:
    """One steerer of a job, by name.

    Attributes:
        name: of a steerer on the shelf.
        amount: how much; None for the default of its method.
        observe: move nothing, and only measure its barrier along the text.
    """

    name: str
    amount: Amount | None = None
    observe: bool = False


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and when the text ends.

    Attributes:
        max_tokens: the most tokens to write.
        temperature: 0 takes the likeliest token.
        top_p: sample from this share of the mass.
        top_k: sample from this many tokens; 0 from all.
        seed: the text depends on it and on nothing else that runs; None draws one.
        stop: texts that end it; they are not part of it.
        logprobs: how many alternatives to each token are told, with the logarithms of their
            probabilities; None for none of these figures.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True)
class Job:
    """One text to write: prompt, sampling, and the steerers that act, one after another."""

    prompt: tuple[int, ...]
    sampling: Sampling
    steering: tuple[Applied, ...] = field(default=())
