# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Serve it
#
# A server for many clients, in which each request says how it is steered. This tutorial starts one on SmolLM2-135M-Instruct, talks to it with
# OpenAI's client, reads receipts, and shows where the playground and vLLM come in. It needs `pip install 'odesteer[serve]' openai`.

# %%
import atexit
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import NotFoundError, OpenAI

import odesteer

local = Path("../../.llms/SmolLM2-135M-Instruct")
name = str(local) if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
lm = odesteer.SteeredModel.from_pretrained(name)
pairs = odesteer.load_contrast("cheerful.jsonl")
lm.fit(odesteer.ODESteer(), pairs, layer=15, position="answer").save("cheerful.safetensors")
del lm

# %% [markdown]
# ## Start
#
# In a terminal, in the folder of this tutorial, this is one line; `--name` is what clients call the model.
#
# ```bash
# odesteer serve ../../.llms/SmolLM2-135M-Instruct --name smollm2 --steer cheerful=cheerful.safetensors --port 8017
# ```

# %%
words = ["serve", name, "--name", "smollm2", "--steer", "cheerful=cheerful.safetensors"]
log = open("server.log", "w")
server = subprocess.Popen(
    [sys.executable, "-m", "odesteer", *words, "--port", "8017"], stdout=log, stderr=log
)
atexit.register(server.kill)  # also where this script fails
address = "http://127.0.0.1:8017"
for _ in range(600):
    try:
        urllib.request.urlopen(f"{address}/health").close()
        break
    except OSError:
        assert server.poll() is None, Path("server.log").read_text()
        time.sleep(0.2)

client = OpenAI(base_url=f"{address}/v1", api_key="none")
print([model.id for model in client.models.list()])

# %% [markdown]
# ## Steering in the name of the model
#
# Works with every client, also with those that cannot add fields: `MODEL+STEERER@AMOUNT`.

# %%
question = [{"role": "user", "content": "Tell me about your day."}]
options = {"messages": question, "max_tokens": 30, "temperature": 0}
for model in ("smollm2", "smollm2+cheerful@1.5", "smollm2+cheerful@-2"):
    answer = client.chat.completions.create(model=model, **options)
    print(f"{model:22} {answer.choices[0].message.content!r}")

# %% [markdown]
# ## Steering in a field, and the receipt
#
# Every answer says what steering did: at which layer, how much, on how many tokens, and what the barrier was before and after. Keep it beside the text,
# if you have to say later how it came about. A name or an amount that does not exist is an error, never ignored.

# %%
answer = client.chat.completions.create(
    model="smollm2",
    extra_body={"steering": [{"name": "cheerful", "level": 1.0}]},
    **options,
)
for field, value in answer.steering_receipt["applied"][0].items():
    print(f"{field}: {value}")
try:
    client.chat.completions.create(model="smollm2+cheerfull", **options)
except NotFoundError as error:
    print("error:", error.body["message"])

# %% [markdown]
# ## Streams and tokens
#
# With `token_details` each chunk has its tokens, with h in nats before and after steering.

# %%
stream = client.chat.completions.create(
    model="smollm2+cheerful@1.5",
    stream=True,
    extra_body={"token_details": True},
    **{**options, "max_tokens": 8},
)
for chunk in stream:
    for choice in chunk.choices:
        for token in (getattr(choice, "odesteer", None) or {}).get("tokens", ()):
            print(token)

# %% [markdown]
# ## Many at once
#
# Requests share batches, each with its own steering, and the text of a request does not depend on the others.


# %%
def ask(level):
    model = "smollm2" if level is None else f"smollm2+cheerful@{level}"
    return client.chat.completions.create(model=model, **options).choices[0].message.content


levels = [None, 0.5, 1.0, 1.5] * 4
started = time.perf_counter()
with ThreadPoolExecutor(16) as pool:
    together = list(pool.map(ask, levels))
print(f"16 requests in {time.perf_counter() - started:.1f} s; equal prompts and levels agree:")
print(all(text == together[i % 4] for i, text in enumerate(together)))

# %% [markdown]
# ## The playground
#
# Open `http://127.0.0.1:8017/` in a browser: unsteered and steered text side by side, each token coloured by the barrier, a slider for the level.
# It works without a network.
#
# ![The playground: a prompt, sliders for steerers, two texts side by side](../images/playground.png)

# %%
server.terminate()
print("the server ended with status", server.wait(timeout=30))
log.close()

# %% [markdown]
# ## vLLM
#
# For large models and many GPUs a plugin for stock vLLM reads the same files and the same model names. It needs an environment of its own:
#
# ```bash
# pip install 'odesteer[vllm]'
# odesteer serve meta-llama/Llama-3.1-8B-Instruct --engine vllm --steer cheerful=cheerful.safetensors
# ```
#
# The plugin was tested on vLLM's CPU build; on a GPU it has not been measured. [Scaling](../scaling.md) says what is tested, and
# [serving](../serving.md) has every field, limit and endpoint.
