# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Steer your first model
#
# In ten minutes, most of them reading: fit a steerer to 24 pairs of answers, write with it at several levels, and see what it costs.
# The model is SmolLM2-135M-Instruct, a real chat model that is small enough for any laptop.
#
# In a clone of the project `make llms LLMS=smollm2` makes a virtual environment and puts the model into `.llms`; without it the model comes from the hub.
# Then start Python in `docs/tutorials` (`cd docs/tutorials && ../../.venv/bin/python`) and type along, or run the script as a whole.

# %%
from pathlib import Path

import odesteer

local = Path("../../.llms/SmolLM2-135M-Instruct")
lm = odesteer.SteeredModel.from_pretrained(
    local if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
)
print(lm.n_layers, "layers of width", lm.width)

# %% [markdown]
# ## Examples of what you want, and of what you do not want
#
# [cheerful.jsonl](cheerful.jsonl) has 24 questions, each with a cheerful answer (`chosen`) and a gloomy one (`rejected`). A pair should differ
# in what you want to steer and in nothing else.

# %%
pairs = odesteer.load_contrast("cheerful.jsonl")
for side in (pairs.positive, pairs.negative):
    print(side[0].prompt[-1].content, "→", side[0].response)

# %% [markdown]
# ## Fit
#
# `fit` runs the model over all answers, keeps the activations at one layer, and fits a barrier function to them: h(a) > 0 where an
# activation looks cheerful, h(a) < 0 where it looks gloomy. The middle of the network is a good first choice of layer. `position="answer"`
# takes every token of the answers.

# %%
steerer = lm.fit(odesteer.ODESteer(), pairs, layer=15, position="answer")
print(f"held-out AUC {steerer.provenance.held_out['auc']:.2f}")

# %% [markdown]
# The held-out AUC says how well h tells the two kinds apart on pairs that it was not fitted to: .5 is chance, 1 is perfect. Near .5
# there is nothing to steer by: try another layer or position.
#
# ## Write
#
# A `level` says where each token is moved to, in units of the examples: 0 is the boundary between both kinds, 1 is where 90 % of the
# cheerful examples stay below. Negative levels steer the other way.

# %%
questions = [
    "Tell me about your day.",
    "What should I do this weekend?",
    "Write a short story about a boy and his kite.",
]
chats = [(odesteer.Message("user", question),) for question in questions]
for level in (None, 1.5, -2):
    print("unsteered" if level is None else f"level {level}")
    amount = {} if level is None else {"level": level}
    for text in lm.generate(
        chats, None if level is None else steerer, max_new_tokens=40, do_sample=False, **amount
    ):
        print("   ", text.replace("\n", " "))

# %% [markdown]
# ## What it costs
#
# Steering changes every text, also where you did not ask for it. `divergence` measures how much on neutral chats: the Kullback-Leibler
# divergence to the unsteered model, in nats a token. As a rule of thumb, texts stay fluent below .2.

# %%
for level in (0.5, 1, 1.5, 2, 3):
    cost = lm.divergence(steerer, level=level)
    print(f"level {level}: {cost.mean:.3f} ± {cost.standard_error:.3f} nats a token")

# %% [markdown]
# ## Keep it, and use it anywhere
#
# A steerer is one small file. Every forward pass inside `with lm.steering(...)` is steered, so that it works with anything that uses the model.

# %%
steerer.save("cheerful.safetensors")
steerer = odesteer.load("cheerful.safetensors")
inputs = lm.tokenizer("My favourite thing about Mondays is", return_tensors="pt")
with lm.steering(steerer, level=1.5):
    tokens = lm.model.generate(**inputs, max_new_tokens=24, do_sample=False)
print(lm.tokenizer.decode(tokens[0], skip_special_tokens=True))

# %% [markdown]
# The same from the command line, in the same folder (`source ../../.venv/bin/activate` makes the command known):
#
# ```bash
# odesteer fit ../../.llms/SmolLM2-135M-Instruct --data cheerful.jsonl --layer 15 --position answer -o again.safetensors
# odesteer generate ../../.llms/SmolLM2-135M-Instruct --chat --steer again.safetensors@level=1.5 --compare "Tell me about your day."
# ```
#
# Next: [how much to steer](how_much.md), and [choosing level, position, layer](../choosing.md).
