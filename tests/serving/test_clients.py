"""Other clients against `odesteer serve`: the Responses API, LangChain, LiteLLM, lm-eval."""

import asyncio
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from openai import OpenAI
from servers import Server, completion, serving

import tiny_models
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges import create
from odesteer.terrarium import model_path

QUESTION = "Hey, what do you use to measure temperature?"
CHAT = [{"role": "user", "content": QUESTION}]
INSTALL = "pip install 'odesteer[clients]'"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.api, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def answer(client: OpenAI) -> str:
    """What chat completions write, greedily."""
    found = client.chat.completions.create(
        model="bundled+truth@1.5", messages=CHAT, temperature=0, max_tokens=24
    )
    return str(found.choices[0].message.content)


def test_the_responses_api(client: OpenAI, answer: str) -> None:
    found = client.responses.create(
        model="bundled+truth@1.5", input=QUESTION, temperature=0, max_output_tokens=24
    )
    assert found.output_text == answer
    assert found.status == "completed"
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens
    cut = client.responses.create(model="bundled", input=CHAT, max_output_tokens=2)
    assert cut.status == "incomplete"
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_streamed_responses(client: OpenAI, answer: str) -> None:
    options = {"model": "bundled+truth@1.5", "temperature": 0, "max_output_tokens": 24}
    events = list(client.responses.create(**options, input=CHAT, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == answer
    assert len(deltas) > 3
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == answer
    # The SDK's own helper follows the events.
    with client.responses.stream(**options, input=CHAT) as stream:
        assert stream.get_final_response().output_text == answer


def test_a_conversation_goes_on_with_what_was_answered(client: OpenAI) -> None:
    first = client.responses.create(model="bundled", input=QUESTION, max_output_tokens=8)
    turns: list[Any] = [*CHAT, *first.output, {"role": "user", "content": "Why?"}]
    second = client.responses.create(
        model="bundled", instructions="Be kind.", input=turns, max_output_tokens=8
    )
    assert second.usage.input_tokens > first.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="bundled", input="Why?", previous_response_id=first.id)


def test_unasked_fields_are_accepted_and_named(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="bundled",
        messages=CHAT,
        max_tokens=10**6,
        parallel_tool_calls=False,
        reasoning_effort="low",
        verbosity="low",
        prediction={"type": "content", "content": "a"},
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
    )
    ignored = raw.headers["X-Odesteer-Ignored"].split(", ")
    assert {*ignored} == {
        *("parallel_tool_calls", "reasoning_effort", "verbosity", "prediction"),
        *("store", "metadata", "service_tier"),
    }
    name, _, limit = raw.headers["X-Odesteer-Lowered"].partition("=")
    assert name == "max_tokens"
    assert 0 < int(limit) < 10**6


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found"),
        ({"model": "bundled+nobody"}, 404, "model_not_found"),
        ({"steering": [{"name": "nobody"}]}, 404, "steerer_not_found"),
        ({"prompt": "word " * 9000}, 400, "context_length_exceeded"),
        ({"no_such_field": 1}, 400, "unknown_parameter"),
        ({"temperature": "hot"}, 400, "invalid_type"),
        ({"temperature": 9}, 400, "invalid_value"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter"),
    ],
)
def test_errors_have_codes(server: Server, body: dict[str, Any], status: int, code: str) -> None:
    found = httpx.post(f"{server.api}/completions", json={**completion("bundled", "a"), **body})
    assert (found.status_code, found.json()["error"]["code"]) == (status, code), found.text
    assert found.json()["error"]["type"] == "invalid_request_error"


def test_a_missing_field_has_a_code(server: Server) -> None:
    found = httpx.post(f"{server.api}/completions", json={"model": "bundled"})
    assert found.json()["error"]["code"] == "missing_required_parameter"
    assert found.json()["error"]["param"] == "prompt"


def test_templates_take_variables_and_refuse_others(server: Server) -> None:
    """The bundled model's template knows neither tools nor variables."""
    for more in (
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ):
        body = {"model": "bundled", "messages": CHAT, "max_tokens": 2, **more}
        found = httpx.post(f"{server.api}/chat/completions", json=body)
        assert found.status_code == 400, found.text
    body = {"model": "bundled", "messages": CHAT, "max_tokens": 2, "tools": body["tools"]}
    found = httpx.post(f"{server.api}/chat/completions", json={**body, "tool_choice": "none"})
    assert found.status_code == 200


def test_langchain(server: Server, answer: str) -> None:
    langchain_openai = pytest.importorskip("langchain_openai", reason=INSTALL)
    options = {"base_url": server.api, "api_key": "none", "temperature": 0, "max_tokens": 24}
    chat = langchain_openai.ChatOpenAI(model="bundled+truth@1.5", **options)
    assert chat.invoke(QUESTION).content == answer
    assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == answer
    responses = langchain_openai.ChatOpenAI(
        model="bundled+truth@1.5", use_responses_api=True, **options
    )
    assert responses.invoke(QUESTION).text == answer


@pytest.fixture
def event_loop() -> Iterator[None]:
    """A current event loop that is closed at the end: LiteLLM opens one and leaves it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("event_loop")
def test_litellm(server: Server, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # nothing is downloaded
    litellm = pytest.importorskip("litellm", reason=INSTALL)
    options = {
        "model": "openai/bundled+truth@1.5",
        "api_base": server.api,
        "api_key": "none",
        "messages": CHAT,
        "temperature": 0,
        "max_tokens": 24,
    }
    found = litellm.completion(**options)
    assert found.choices[0].message.content == answer
    chunks = litellm.completion(**options, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer


def test_scored_prompts_in_openai_s_form(server: Server) -> None:
    body = completion("bundled+truth@1.5", "Q: Who makes honey?\nA: Bees.", max_tokens=0)
    found = httpx.post(f"{server.api}/completions", json={**body, "echo": True, "logprobs": 2})
    (choice,) = found.json()["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"] == body["prompt"]
    assert "".join(logprobs["tokens"]) == body["prompt"]
    assert logprobs["token_logprobs"][0] is None
    assert all(each < 0 for each in logprobs["token_logprobs"][1:])
    assert all(len(each) == 2 for each in logprobs["top_logprobs"][1:])
    assert logprobs["text_offset"][-1] < len(body["prompt"])
    assert found.json()["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("marker", ["A:", None])
def test_lm_eval_scores_a_steered_server_as_the_library_does(
    server: Server, steerer_files: dict[str, Path], marker: str | None
) -> None:
    pytest.importorskip("lm_eval", reason="pip install 'odesteer[bench]'")
    pytest.importorskip("tenacity", reason=INSTALL)  # of lm-eval's clients of APIs
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from odesteer.evaluation.harness import register

    questions = ("Who makes honey?", "What is the capital of Australia?")
    answers = (" Bees.", " A black cat brings you bad luck.", " Canberra.")
    pairs = [(f"Q: {question}\nA:", text) for question in questions for text in answers]
    requests = [
        Instance("loglikelihood", {}, pair, i, ("task", 0, 1)) for i, pair in enumerate(pairs)
    ]
    library = register()(None, steer=str(steerer_files["truth"]), level=1.5, device="cpu")
    remote = LocalCompletionsAPI(
        base_url=f"{server.api}/completions",
        model="bundled+truth@1.5",
        tokenizer=str(model_path()),
        tokenizer_backend="huggingface",
        header=None if marker is None else {"X-Odesteer-Prompt-End": marker},
        max_length=library.max_length,
        add_bos_token=True,  # as the library, whose tokenizer does
    )
    expected = [value for value, _ in library.loglikelihood(requests)]
    found = [value for value, _ in remote.loglikelihood(requests)]
    gaps = [abs(a - b) for a, b in zip(expected, found, strict=True)]
    if marker is None:  # the question is steered too
        assert max(gaps) > 1e-2
    else:
        assert max(gaps) < 1e-4


def test_tools_and_their_results_reach_the_template() -> None:
    from odesteer import SteeredModel
    from odesteer.serving.api.request_parsing import PromptOptions, _rendered
    from odesteer.serving.api.request_schema import ChatCompletionRequest

    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = (
        "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% for c in m.tool_calls or [] %}({{ c.function.arguments.x }}){% endfor %}{% endfor %}"
    )
    lm = SteeredModel(tiny_models.llama(), tokenizer)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 7}'}}
    body = ChatCompletionRequest.model_validate_json(
        json.dumps(
            {
                "model": "tiny",
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "content": "b", "tool_call_id": "1"},
                ],
                "tools": [{"type": "function", "function": {"name": "f"}}],
            }
        )
    )
    messages = [each.message for each in body.messages]
    text = _rendered(messages, lm, PromptOptions(tools=body.tools))
    assert text == "<f>[user]a[assistant](7)[tool]b"


@pytest.mark.slow
def test_a_rubric_is_graded_by_our_own_server(tmp_path: Path) -> None:
    for name in ("autorubric", "llguidance"):
        if find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install 'odesteer[rubric,json]'")
    model = tiny_models.llama(max_position_embeddings=8192)
    with torch.no_grad():
        model.model.norm.weight.zero_()  # all tokens alike, so that a text of JSON soon ends
    for part in (model, tiny_models.tokenizer()):
        part.save_pretrained(tmp_path / "model")
    criteria = [
        {"name": "polite", "requirement": "The response is polite."},
        {"name": "rude", "requirement": "The response is rude.", "weight": -5},
    ]
    (tmp_path / "rubric.json").write_text(json.dumps(criteria))
    item = Item("1", "Say hello.", "1", {})
    with serving(tmp_path / "model", "--name", "judge", "--max-new-tokens", 4000) as server:
        options = {"rubric": str(tmp_path / "rubric.json"), "model": "judge", "url": server.api}
        # Two seeds of four are a verdict; under the others it "cannot be assessed".
        judge = create("rubric", **options, temperature=1.0, seed=2)
        [scores] = judge.judge([item], ["Hello there."])
    assert scores["rubric.polite"] in (0.0, 1.0)
    assert scores["rubric"] is not None
