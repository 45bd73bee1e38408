"""What the engine is asked to generate: prompt, sampling parameters, steering."""

from dataclasses import dataclass, field

from odesteer.serving.steerers import SteeringSpec


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen, and when the text ends.

    Attributes:
        max_tokens: the most tokens to generate; 0 only scores the prompt.
        temperature: 0 takes the likeliest token.
        top_p: sample from the likeliest tokens with this share of the probability.
        top_k: sample from this many tokens; 0 from all.
        min_p: sample from tokens with at least this share of the likeliest one's probability.
        repetition_penalty: divides the positive logits of tokens that the prompt or the text has,
            and multiplies the negative ones; 1 for none.
        presence_penalty: is taken from the logit of each token that the text has.
        frequency_penalty: is taken from it for each time that the text has it.
        logit_bias: token ids, and what is added to their logits.
        json_schema: the text must be JSON of this schema (a JSON text); None for any text.
        watermark: a watermarking configuration of transformers as a JSON text; None for none.
        seed: the text depends on it and not on other requests; None draws one.
        stop: strings that end the text; they are not part of it.
        logprobs: how many alternatives to each token are reported with their log-probabilities;
            None reports none, and not the token's own either.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    json_schema: str | None = None
    watermark: str | None = None
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
        echo: whether the tokens of the prompt come first in the output, with log-probabilities if
            ``sampling`` asks for them.
        prompt_end: how many tokens of ``prompt`` are the prompt for steerers; the rest counts as
            generated. None for all of them.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParams
    steering: tuple[SteeringSpec, ...] = field(default=())
    echo: bool = False
    prompt_end: int | None = None

    @property
    def n_prompt(self) -> int:
        """How many tokens are the prompt for steerers."""
        return len(self.prompt) if self.prompt_end is None else self.prompt_end

    @property
    def is_scored(self) -> bool:
        """Whether the tokens of the prompt get log-probabilities."""
        return self.echo and self.sampling.logprobs is not None
