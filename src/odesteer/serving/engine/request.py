"""What is asked of the engine: one text to write."""

from dataclasses import dataclass, field

from odesteer.serving.steerers import SteeringSpec


@dataclass(frozen=True)
class SamplingParams:
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
class GenerationRequest:
    """One text to write: prompt, sampling, and the steerers that act, one after another."""

    prompt: tuple[int, ...]
    sampling: SamplingParams
    steering: tuple[SteeringSpec, ...] = field(default=())
