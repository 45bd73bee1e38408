"""What the engine is asked to generate: prompt, sampling parameters, steering."""

from dataclasses import dataclass, field

from odesteer.serving.steerers import SteeringSpec


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen, and when the text ends.

    Attributes:
        max_tokens: the most tokens to generate.
        temperature: 0 takes the likeliest token.
        top_p: sample from the likeliest tokens with this share of the probability.
        top_k: sample from this many tokens; 0 from all.
        seed: the text depends on it and not on other requests; None draws one.
        stop: strings that end the text; they are not part of it.
        logprobs: how many alternatives to each token are reported with their log-probabilities;
            None reports none, and not the token's own either.
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
    """One text to generate.

    Attributes:
        prompt: token ids.
        sampling: how tokens are chosen.
        steering: the steerers, applied one after another.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParams
    steering: tuple[SteeringSpec, ...] = field(default=())
