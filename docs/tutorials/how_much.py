# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # How much: levels, distances, cost
#
# The question after the first steerer is how far to push. This tutorial compares the quantities that say it, reads a receipt, and draws
# what is gained against what it costs.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import odesteer
from odesteer.models import neutral_prompts

local = Path("../../.llms/SmolLM2-135M-Instruct")
lm = odesteer.SteeredModel.from_pretrained(
    local if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
)
pairs = odesteer.load_contrast("cheerful.jsonl")
fit_on, held_out = pairs.split(0.67, seed=0)
steerer = lm.fit(odesteer.ODESteer(), fit_on, layer=15, position="answer")
mean_difference = lm.fit(odesteer.CAA(), fit_on, layer=15, position="answer")

# %% [markdown]
# ## A level moves each token as far as it needs
#
# A receipt tells of every token what the barrier was at the activation that it was chosen from, before and after it was moved, in nats. At a
# level all end at the same value: what was far below travels far, and what is above it does not move.

# %%
chat = [(odesteer.Message("user", "Tell me about your day."),)]
written = lm.generate(chat, steerer, level=1.5, max_new_tokens=12, do_sample=False, receipt=True)[0]
for token, before, after in zip(written.tokens, written.before, written.after):
    print(f"{token!r:12} h {before:+6.2f} → {after:+6.2f} nats")

# %% [markdown]
# ## What is gained
#
# On the pairs that were not fitted to: how much more likely steering makes the cheerful answer than the gloomy one. No sampling and no
# judge are needed. Each answer is scored by its log-likelihood given the question.


# %%
def log_likelihood(examples, *steering, **amount):
    """The log-likelihood of each response, nats."""
    values = []
    for example in examples:
        question, answer = lm.encode(example.prompt), lm.encode(example)
        ids = torch.tensor([answer.ids])
        start = len(question.ids)
        with torch.no_grad(), lm.steering(*steering, **amount, prompt_width=start):
            logits = lm.model(ids).logits[0, start - 1 : -1]
        values.append(logits.log_softmax(-1).gather(1, ids[0, start:, None]).sum())
    return torch.stack(values)


def margin(*steering, **amount):
    """The log-odds of the cheerful over the gloomy answer of each held-out pair, nats."""
    chosen = log_likelihood(held_out.positive, *steering, **amount)
    return chosen - log_likelihood(held_out.negative, *steering, **amount)


# %% [markdown]
# ## Gain against cost
#
# Two methods are comparable at equal cost only. `divergence` is the cost: nats a token on neutral chats.

# %%
neutral = neutral_prompts("validation")[:10]
unsteered = margin()
curves = {
    "ODESteer, level": (steerer, "level", (0.5, 1, 2)),
    "CAA, T": (mean_difference, "T", (0.25, 0.5, 1.5)),
}
fig, axes = plt.subplots(figsize=(6, 4))
for name, (method, quantity, amounts) in curves.items():
    gains, costs = [], []
    for value in amounts:
        gain = margin(method, **{quantity: value}) - unsteered
        cost = lm.divergence(method, prompts=neutral, **{quantity: value})
        gains.append(gain.mean())
        costs.append(cost.mean)
        error = gain.std() / len(gain) ** 0.5
        print(
            f"{name} {value}: gain {gain.mean():+.2f} ± {error:.2f} nats at a cost of {cost.mean:.3f} nats a token"
        )
    axes.plot(costs, gains, "o-", label=name)
axes.set(
    xlabel="cost: KL to the unsteered model, nats a token",
    ylabel="gain in log-odds, nats",
    xscale="log",
)
axes.legend()
plt.show()

# %% [markdown]
# Eight held-out pairs are few, so the errors are wide: use a hundred or more before you choose one method over another. `odesteer tune` does
# this for many settings at once, see [tuning](../tuning.md).
