# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Look inside
#
# What does a barrier see, token by token? Which layer tells the classes apart, and at which does steering work? What does a trajectory look like?

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import odesteer
from odesteer.evaluation.metrics import log_likelihoods
from odesteer.methods import Amount
from odesteer.models import neutral_prompts
from odesteer.plot import plot_trajectories
from odesteer.tuning import CostSearch

local = Path("../../.llms/SmolLM2-135M-Instruct")
lm = odesteer.SteeredModel.from_pretrained(
    local if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
)
pairs = odesteer.load_contrast("cheerful.jsonl")
steerer = lm.fit(odesteer.ODESteer(), pairs, layer=15, position="answer")
barrier = steerer.method.barrier

# %% [markdown]
# ## The barrier along a text
#
# `capture` gives the activations of the answer's tokens; `barrier.value` is h, in nats.

# %%
example = odesteer.Example(
    (odesteer.Message("user", "How was the trip?"),),
    "The beach was beautiful and we laughed a lot, but then the car broke down and everyone was angry.",
)
activations = lm.capture([example], 15, position="answer")
tokens = lm.encode(example).ids[-len(activations.states[15]) :]
values = barrier.value(activations.states[15])
for token, value in zip(tokens, values):
    print(f"{lm.tokenizer.decode([token])!r:14} {value:+6.2f} {'█' * int(4 * abs(value))}")

# %% [markdown]
# ## Layers by AUC
#
# One pass captures all layers. A third of the pairs is kept for the next section. The held-out AUC, here by cross-validation over the others, says
# where the classes can be told apart.

# %%
fit_on, held_out = pairs.split(0.33, seed=0)
layers = list(range(0, lm.n_layers, 5))
steerers = lm.fit(odesteer.ODESteer(), fit_on, layer=layers, position="answer").members
aucs = [member.provenance.held_out["auc"] for member in steerers]
for layer, auc in zip(layers, aucs):
    print(f"layer {layer:2}: AUC {auc:.3f}")

# %% [markdown]
# ## Layers by effect
#
# Where can something be *changed*? Give every layer the same budget, .1 nats a token of KL on ten neutral chats, and look at what it buys on the
# pairs that were kept apart: the rise of the log-odds of the cheerful over the gloomy answer. `CostSearch` finds the level that costs so
# much; `odesteer tune --kl 0.1` does all of this from the command line ([tuning](../tuning.md)).

# %%
neutral = neutral_prompts("validation")[:10]


def margin(steerer=None, amount=None):
    """The log-odds of the cheerful over the gloomy answer of each held-out pair, nats."""
    examples = [*held_out.positive, *held_out.negative]
    scores = np.array([one.total for one in log_likelihoods(lm, examples, steerer, amount)])
    return scores[: len(scores) // 2] - scores[len(scores) // 2 :]


def level_at(steerer, kl):
    """The level that costs ``kl`` nats a token; None if the largest costs less."""

    def cost(level):
        return lm.divergence(steerer, prompts=neutral, level=level).mean

    return CostSearch(cost, start=1.0, most=8.0, tolerance=0.1).find(kl)


unsteered = margin()
effects, errors = [], []
for layer, member in zip(layers, steerers):
    level = level_at(member, kl=0.1)
    if level is None:
        gain = np.full(len(unsteered), np.nan)
        print(f"layer {layer:2}: no level costs .1 nats")
    else:
        gain = margin(member, Amount("level", level)) - unsteered
    effects.append(gain.mean())
    errors.append(gain.std(ddof=1) / len(gain) ** 0.5)
    if level is not None:
        print(f"layer {layer:2}: level {level:<5} gains {effects[-1]:+.2f} ± {errors[-1]:.2f} nats")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
left.plot(layers, aucs, "o-")
left.set(xlabel="layer", ylabel="held-out AUC")
right.errorbar(layers, effects, errors, fmt="o-", capsize=3)
right.set(xlabel="layer", ylabel="gain at KL .1, nats")
figure.tight_layout()
plt.show()

# %% [markdown]
# By this measure the effect grows to the last layers. Read it with care: log-odds are of given words, and late layers are close to the words. What the
# model *writes* by itself is another question, which only texts answer ([choosing a layer](../choosing.md#which-layer)).
#
# ## Trajectories over level sets
#
# The flow takes each activation up the gradient of h. The plane shows the main direction of the movement and the spread of the starts; the shades
# are values of h on this plane.

# %%
starts = activations.states[15][:8]
trajectory = steerer.method.trajectory(starts, level=1.5)
figure, axes = plt.subplots(figsize=(6, 4))
plot_trajectories(trajectory, barrier, ax=axes)
plt.show()
