# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Several attributes: sets, sums, gates
#
# Two steerers, one for a cheerful and one for a formal tone: used together, one for each prompt, added up, and only where a condition holds.
# The model is SmolLM2-135M-Instruct; the data are [cheerful.jsonl](cheerful.jsonl) and [formal.jsonl](formal.jsonl), 24 and 16 pairs of answers.

# %%
from pathlib import Path

import numpy as np

import odesteer
from odesteer.evaluation.metrics import log_likelihoods

local = Path("../../.llms/SmolLM2-135M-Instruct")
lm = odesteer.SteeredModel.from_pretrained(
    local if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
)
data = {
    name: odesteer.load_contrast(f"{name}.jsonl").split(0.33, seed=0)
    for name in ("cheerful", "formal")
}
cheerful = lm.fit(odesteer.ODESteer(), data["cheerful"][0], layer=15, position="answer")
formal = lm.fit(odesteer.ODESteer(), data["formal"][0], layer=12, position="answer")


def show(title, texts):
    print(title)
    for text in texts:
        print("   ", text.replace("\n", " "))


chats = [
    (odesteer.Message("user", "Tell me about your day."),),
    (odesteer.Message("user", "My grandmother is in hospital."),),
]
options = {"max_new_tokens": 30, "do_sample": False}
show("unsteered", lm.generate(chats, **options))
show("cheerful", lm.generate(chats, cheerful, level=1.5, **options))
show("formal", lm.generate(chats, formal, level=1.5, **options))

# %% [markdown]
# ## A set: one after another
#
# A `SteererSet` holds steerers at one or several layers. They act one after another, each with its own fit. It is saved as one file and used
# like one steerer. An amount goes to every member, so use a little less than for a single one.

# %%
both = odesteer.SteererSet([cheerful, formal])
both.save("both.safetensors")
show("both", lm.generate(chats, odesteer.load("both.safetensors"), level=1, **options))

# %% [markdown]
# ## Did each attribute get its share?
#
# Texts look good quickly. So measure each attribute on pairs that were held out: how much the log-odds of the desired answer rise. A steerer for
# one attribute can help or hurt the other, and a set should keep most of both.


# %%
def margins(name, steerer=None):
    """The log-odds of the desired answer of each held-out pair, nats."""
    held_out = data[name][1]
    examples = [*held_out.positive, *held_out.negative]
    scores = np.array([one.total for one in log_likelihoods(lm, examples, steerer)])
    return scores[: len(scores) // 2] - scores[len(scores) // 2 :]


def report(title, steerer):
    gains = []
    for name in data:
        gain = margins(name, steerer) - margins(name)
        gains.append(f"{name} {gain.mean():+5.2f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.2f}")
    print(f"{title:18} {'   '.join(gains)}   (nats; each at its default, level 1.5)")


report("cheerful", cheerful)
report("formal", formal)
report("both, as a set", both)

# %% [markdown]
# ## A sum: both directions in one step, at one layer
#
# `Sum.of` adds the displacements of methods that were fitted on different data at the same layer. The weights say how much of each. A sum ends at
# no particular level, so check it as above.

# %%
here = [
    lm.fit(odesteer.ODESteer(), data[name][0], layer=15, position="answer").method for name in data
]
added = odesteer.Steerer(odesteer.Sum.of(*here, weights=(0.7, 0.7)), cheerful.site)
report("sum, .7 of each", added)

# %% [markdown]
# ## Another steerer for each prompt of a batch

# %%
show("one each", lm.generate(chats, [cheerful, formal], level=1.5, **options))

# %% [markdown]
# ## Only where a condition holds
#
# Cheerfulness is out of place in answer to bad news. A gate is a steerer that is never applied: its barrier is read at the last token of
# the prompt, and `when` compares it with a level. Here the gate is fitted to prompts with good and with bad news.

# %%
good = [
    "I won a prize today.",
    "My sister is getting married.",
    "The sun is out.",
    "I got the job.",
    "We had a lovely dinner.",
    "I learned to swim.",
    "My exam went well.",
    "Our team won the match.",
    "My brother is back from his trip.",
    "The garden is in flower.",
    "I found my keys.",
    "The baby sleeps well.",
]
bad = [
    "My father is very ill.",
    "I lost my job.",
    "The house burned down.",
    "My cat has died.",
    "I failed the exam.",
    "He left me.",
    "My aunt had an accident.",
    "We were robbed at night.",
    "My brother is in prison.",
    "The garden is flooded.",
    "I lost my keys.",
    "The baby has a high fever.",
]


def prompts(sentences):
    return tuple(
        odesteer.Example((odesteer.Message("user", sentence),), "I see.") for sentence in sentences
    )


groups = tuple(map(str, range(len(good))))
news = odesteer.ContrastData(prompts(good), prompts(bad), groups, groups)
good_news = lm.fit(odesteer.ODESteer(), news, layer=15, position="prompt")
print(f"held-out AUC of the gate {good_news.provenance.held_out['auc']:.2f}")

careful = cheerful.when(good_news, above=0)
for generation in lm.generate(chats, careful, level=1.5, receipt=True, **options):
    state = "open  " if generation.gates[0] else "closed"
    print(f"{generation.conditions[0]:+.2f} nats, {state}", generation.text.replace("\n", " "))

# %% [markdown]
# The second answer is the unsteered one, to the token. *Tell me about your day* is no news at all, and the gate had to call it something: a gate
# is a classifier, and wants examples of everything that it will see.
#
# More ways to combine, such as a barrier that is the smallest of several: [methods](../methods.md). Next: [look inside](look_inside.md).
