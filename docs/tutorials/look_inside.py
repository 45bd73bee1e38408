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

import odesteer
from odesteer.plot import plot_trajectories

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
# One pass captures all layers. The held-out AUC rises towards the middle. It says where the classes can be told apart, not where
# steering has the most effect: compare effects at equal cost for that, as in [how much](how_much.md).

# %%
layers = list(range(0, lm.n_layers, 5))
steerers = lm.fit(odesteer.ODESteer(), pairs, layer=layers, position="answer")
aucs = [member.provenance.held_out["auc"] for member in steerers.members]
for layer, auc in zip(layers, aucs):
    print(f"layer {layer:2}: AUC {auc:.3f}")

# %% [markdown]
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
