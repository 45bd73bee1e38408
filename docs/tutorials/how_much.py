# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # How much: levels, strength, cost
#
# The question after the first steerer is how far to push. This tutorial reads a receipt, compares the two quantities that say how far,
# and draws what is gained against what it costs. The model is SmolLM2-135M-Instruct; the data are the 24 pairs of
# [Steer your first model](first_model.md).

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import odesteer
from odesteer.evaluation.metrics import log_likelihoods
from odesteer.methods import Amount
from odesteer.models import neutral_prompts

local = Path("../../.llms/SmolLM2-135M-Instruct")
lm = odesteer.SteeredModel.from_pretrained(
    local if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
)
pairs = odesteer.load_contrast("cheerful.jsonl")
fit_on, held_out = pairs.split(0.33, seed=0)
steerer = lm.fit(odesteer.ODESteer(), fit_on, layer=15, position="answer")
mean_difference = lm.fit(odesteer.CAA(), fit_on, layer=15, position="answer")
print(len(fit_on.positive), "pairs to fit on,", len(held_out.positive), "held out")

# %% [markdown]
# ## Read a receipt
#
# A receipt says of every token what the barrier h was at the activation that the token was chosen from: before it was moved, and after.
# A *level* is a place. All tokens below it end there, so what was far below travels far. A token that is above it already does not move.

# %%
chat = [(odesteer.Message("user", "Tell me about your day."),)]


def receipt(steerer, **amount):
    """Print what steering did to each of twelve tokens."""
    options = {"max_new_tokens": 12, "do_sample": False, "receipt": True}
    written = lm.generate(chat, steerer, **options, **amount)[0]
    for token, before, after in zip(written.tokens, written.before, written.after):
        print(f"{token!r:12} h {before:+6.2f} → {after:+6.2f} nats")
    print(written.capped, "tokens did not reach the level")


receipt(steerer, level=1.5)

# %% [markdown]
# *Nats* are the unit of h: it is a log-density ratio, so that +3 means about 20 times likelier among the cheerful examples. *Capped*
# tokens ran into the largest distance that the method allows (`max_strength`). A few are no concern. If most are capped, the level is out of
# reach at this layer: lower it.
#
# ## A strength moves every token by the same distance
#
# Most published methods add the same vector to every token. `CAA` is one of them; its `strength` counts standard deviations of the examples
# along the difference of the class means. Here h rises by the same amount at every token, wherever it was before.

# %%
receipt(mean_difference, strength=1.5)

# %% [markdown]
# ## What is gained
#
# No sampling and no judge are needed for a first answer. Take the pairs that nothing was fitted to, and measure the log-odds of
# the cheerful over the gloomy answer, with steering and without. `log_likelihoods` scores each answer given its question, steered as it
# would be while the model writes it.


# %%
def margin(steerer=None, amount=None):
    """The log-odds of the cheerful over the gloomy answer of each held-out pair, nats."""
    examples = [*held_out.positive, *held_out.negative]
    scores = np.array([one.total for one in log_likelihoods(lm, examples, steerer, amount)])
    return scores[: len(scores) // 2] - scores[len(scores) // 2 :]


unsteered = margin()
gain = margin(steerer, Amount("level", 1.5)) - unsteered
print(f"unsteered {unsteered.mean():+.2f} nats; at level 1.5 {gain.mean():+.2f} more")

# %% [markdown]
# ## Gain against cost
#
# A gain says nothing without its cost. `divergence` is the cost: the Kullback-Leibler divergence to the unsteered model on neutral chats,
# in nats a token. Here on ten of the forty bundled chats, to save time. Two methods are comparable only where they cost the same: read
# the picture from top to bottom.

# %%
neutral = neutral_prompts("validation")[:10]
amounts = {
    "ODESteer, level": (steerer, "level", (0.5, 1, 2)),
    "CAA, strength": (mean_difference, "strength", (0.5, 1, 2)),
}
fig, axes = plt.subplots(figsize=(6, 4))
for name, (method, quantity, values) in amounts.items():
    gains, errors, costs = [], [], []
    for value in values:
        gain = margin(method, Amount(quantity, value)) - unsteered
        cost = lm.divergence(method, prompts=neutral, **{quantity: value})
        gains.append(gain.mean())
        errors.append(gain.std(ddof=1) / len(gain) ** 0.5)
        costs.append(cost.mean)
        print(
            f"{name} {value:<3}: gain {gains[-1]:+6.2f} ± {errors[-1]:.2f} nats, "
            f"cost {cost.mean:.3f} nats a token"
        )
    axes.errorbar(costs, gains, errors, fmt="o-", capsize=3, label=name)
axes.set(
    xlabel="cost: KL to the unsteered model, nats a token",
    ylabel="gain in log-odds, nats",
    xscale="log",
)
axes.legend()
plt.show()

# %% [markdown]
# - Gain grows with the amount, and cost grows with its square: twice as far costs four times as much.
# - As a rule of thumb texts stay fluent below .2 nats a token. That is where level 1.5 to 2 is here.
# - Eight held-out pairs are few, so that the errors are wide. Use a hundred or more before you choose one method over another.
#
# `odesteer tune --kl 0.1` finds the amount that costs what you allow: [tuning](../tuning.md). Next:
# [several attributes at once](several_attributes.md).
