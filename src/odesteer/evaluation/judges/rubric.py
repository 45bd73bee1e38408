"""Judge by a rubric: language models behind an endpoint grade responses, by autorubric."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.judges.chat_endpoint import Endpoint
from odesteer.evaluation.judges.rubric_file import read_rubric


class Rubric(Judge):
    """``rubric``, autorubric's score from 0 to 1, and ``rubric.NAME`` for each criterion.

    ``rubric`` is a file, see `read_rubric`. ``url`` is any OpenAI-compatible endpoint whose
    answers can be held to a JSON schema, and ``model`` a model there, or several with commas
    between: they vote, and ``rubric.agreement`` is the share of their votes, mean over criteria,
    that agree with the verdict. ``key_variable`` names the environment variable with the key,
    which servers on this machine may not need. ``seed`` is of the requests and of the
    order in which options are shown.

    A request that fails temporarily is made ``attempts`` times in all. A criterion on which every
    judge failed is missing, and the score with it; one that the judges cannot assess is missing
    and left out of the score. A refused key, a wrong address or model is a `ModelError`.
    """

    name: ClassVar[str] = "rubric"
    version: ClassVar[int] = 2

    def __init__(
        self,
        *,
        rubric: str | None = None,
        model: str | None = None,
        url: str = "https://api.openai.com/v1",
        key_variable: str = "OPENAI_API_KEY",
        temperature: float | None = 0.0,
        attempts: int = 5,
        timeout: float = 60.0,
        workers: int = 4,
        seed: int = 0,
    ) -> None:
        self.rubric = rubric
        self.model = model
        self.url = url
        self.key_variable = key_variable
        self.temperature = temperature
        self.attempts = attempts
        self.timeout = timeout
        self.workers = workers
        self.seed = seed

    @property
    def models(self) -> tuple[str, ...]:
        """The models that judge."""
        return tuple(name.strip() for name in (self.model or "").split(",") if name.strip())

    @property
    def metrics(self) -> tuple[str, ...]:
        """``rubric`` and one for each criterion. Raises `DataError` without a usable rubric."""
        several = ("rubric.agreement",) if len(self.models) > 1 else ()
        return ("rubric", *several, *(_metric(each) for each in self.parsed.rubric))

    @cached_property
    def parsed(self) -> Any:
        """The `autorubric.Rubric`. Raises `DataError` without a usable rubric."""
        if self.rubric is None:
            raise DataError("no rubric is given; name its file with rubric=FILE.json.")
        _check_installed()
        parsed = read_rubric(Path(self.rubric))
        names = [each.name for each in parsed.rubric]
        if "agreement" in names and len(self.models) > 1:
            raise DataError("a criterion is called 'agreement', as that of the judges; rename it.")
        return parsed

    def unavailable(self) -> str | None:
        try:
            _ = self.parsed
        except DataError as error:
            return str(error)
        if not self.models:
            return f"no model is given; name one that {self.url} has with model=."
        if len({*self.models}) < len(self.models):
            return f"the models are {self.model!r}; name each once."
        for name in ("attempts", "workers"):
            if getattr(self, name) < 1:
                return f"{name} is {getattr(self, name)}; it must be 1 or more."
        endpoint = self._endpoint(self.models[0])
        if not endpoint.url.startswith(("http://", "https://")):
            return f"the address is {self.url!r}; it must begin with http:// or https://."
        if not endpoint.is_local and not endpoint.key:
            return (
                f"{self.url} needs a key; set the environment variable {self.key_variable} to it,"
                " or name another variable with key_variable=."
            )
        return None

    def about(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "kind": "endpoint",
            "what": "the verdicts of language models by a rubric, weighted (autorubric)",
            "model": self.model,
            "url": self.url,
            "temperature": self.temperature,
        }
        if self.rubric is not None and Path(self.rubric).is_file():
            facts["guidelines"] = self.parsed.guidelines
            facts["criteria"] = [each.model_dump(exclude_none=True) for each in self.parsed.rubric]
        return facts

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        for model in self.models:
            self._endpoint(model).check()
        # In a thread of its own: a notebook runs an event loop in this one.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._all(items, texts)).result()

    async def _all(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        import litellm
        from autorubric.graders import CriterionGrader, JudgeSpec

        litellm.suppress_debug_info = True  # it prints to stdout, where results go
        grader = CriterionGrader(
            judges=[JudgeSpec(self._config(model), model) for model in self.models],
            seed=self.seed,
        )
        running = asyncio.Semaphore(self.workers)

        async def one(item: Item, text: str) -> Scores:
            async with running:
                report = await self.parsed.grade(text, grader, query=item.text)
            return self._scores(report)

        return list(await asyncio.gather(*map(one, items, texts)))

    def _config(self, model: str) -> Any:
        from autorubric import LLMConfig

        endpoint = self._endpoint(model)
        return LLMConfig(
            model=f"openai/{model}",
            temperature=self.temperature,
            timeout=self.timeout,
            seed=self.seed,
            # The client repeats what may pass, errors of the server too; autorubric not all of it.
            max_retries=1,
            extra_params={"max_retries": self.attempts - 1},
            api_base=self.url,
            # Servers without a key take any, and the client demands one.
            api_key=endpoint.key or "none",
        )

    def _endpoint(self, model: str) -> Endpoint:
        return Endpoint(
            url=self.url,
            model=model,
            key_variable=self.key_variable,
            attempts=self.attempts,
            timeout=self.timeout,
        )

    def _scores(self, report: Any) -> Scores:
        scores = self._missing()
        for each in report.report or ():
            if not each.is_error and not each.is_na:
                scores[_metric(each.criterion)] = each.score_value
        # Without a criterion that failed, the rest would be a score of another rubric.
        if report.report and not any(each.is_error for each in report.report):
            scores["rubric"] = report.score
            if len(self.models) > 1:
                scores["rubric.agreement"] = report.mean_agreement
        return scores


def _metric(criterion: Any) -> str:
    return f"rubric.{criterion.name}"


def _check_installed() -> None:
    """Raises `DataError` without autorubric; keeps its client from asking the net for prices."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    if find_spec("autorubric") is None:
        raise DataError("it needs autorubric; install it with: pip install 'odesteer[rubric]'")
