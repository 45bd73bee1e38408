# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Truthfulness: fit, tune, score with intervals
#
# A model repeats popular errors. This tutorial steers it towards true answers, chooses layer and level on questions that nothing was fitted to,
# and reports on questions that nothing was chosen on, with intervals. The model is SmolLM2-135M-Instruct.
#
# The measure is MC2 of TruthfulQA (Lin et al., ACL 2022): of the probability that the model gives to all listed answers of a question, the share
# that is on the true ones. It needs no judge.

# %%
import json
import os
import random
from pathlib import Path

import matplotlib.pyplot as plt

import odesteer
from odesteer.evaluation.metrics import Observation, PairedBootstrap, log_likelihoods, mc2
from odesteer.tuning import Candidate, Halving, LikelihoodMargin, tune

local = Path("../../.llms/SmolLM2-135M-Instruct")
lm = odesteer.SteeredModel.from_pretrained(
    local if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
)

# %% [markdown]
# ## Data
#
# [myths.jsonl](myths.jsonl) has 60 questions about popular errors, each with two true and two false answers. To use TruthfulQA itself, download
# `mc_task.json` of <https://github.com/sylinrl/TruthfulQA> and name its folder: `TRUTHFULQA=FOLDER python truthfulness.py`. Then 200 of its
# questions are used.
#
# Look at the answers of our file: none begins with *Yes* or *No*. Most popular errors are worded so that the truth is *No*, and a
# steerer would learn that word instead.

# %%
folder = os.environ.get("TRUTHFULQA")
if folder:
    rows = json.loads((Path(folder) / "mc_task.json").read_text())
    questions = [
        (row["question"], {text: int(label) for text, label in row["mc2_targets"].items()})
        for row in rows
    ]
else:
    rows = [json.loads(line) for line in Path("myths.jsonl").read_text().splitlines()]
    questions = [
        (row["question"], {**dict.fromkeys(row["true"], 1), **dict.fromkeys(row["false"], 0)})
        for row in rows
    ]
random.Random(0).shuffle(questions)
questions = questions[:200]
n = len(questions)
to_fit, to_tune = questions[: n // 2], questions[n // 2 : 2 * n // 3]
to_test = questions[2 * n // 3 :]
print(len(to_fit), "questions to fit on,", len(to_tune), "to tune on,", len(to_test), "to report on")
for text, label in to_fit[0][1].items():
    print("true " if label else "false", to_fit[0][0], "→", text)

# %% [markdown]
# Questions are split, never answers: two answers to one question share most of what the model computes, and a split between them would
# flatter the result. `ContrastData` takes the two sides and says which rows belong together.


# %%
def examples(questions, label):
    return [
        (odesteer.Example((odesteer.Message("user", question),), answer), question)
        for question, answers in questions
        for answer, own in answers.items()
        if own == label
    ]


def contrast(questions):
    positive, groups_positive = zip(*examples(questions, 1))
    negative, groups_negative = zip(*examples(questions, 0))
    return odesteer.ContrastData(positive, negative, groups_positive, groups_negative)


# %% [markdown]
# ## Tune
#
# `tune` fits at each layer, measures every level on questions that were kept apart, and takes the best within a budget. The objective is the
# likelihood of true over false answers, in nats a token; the budget is on what steering costs. `Halving(rungs=1)` measures every setting on every
# question; with more settings leave it out, and hopeless ones are dropped early.

# %%
found = tune(
    lm,
    contrast(to_fit),
    [Candidate.of(odesteer.ODESteer(), values=(1, 1.5, 2.5))],
    LikelihoodMargin(lm, contrast(to_tune), max_new_tokens=24),
    layers=(10, 14, 18),
    budget=0.2,
    halving=Halving(rungs=1),
    refinements=0,
)
for row in found.surface.rows:
    score = row.score
    print(
        f"{str(row.setting):20} value {score.value:+.3f} ± {score.value_error:.3f}, "
        f"cost {score.fluency:.3f} nats a token"
    )
chosen = found.surface.choice
steerer, amount = found.steerer, chosen.setting.amount
print("chosen:", chosen.setting)

# %% [markdown]
# ## Score
#
# On the questions of the third part, which nothing was fitted to and nothing was chosen on.


# %%
def scores(steerer=None, amount=None):
    """MC2 of each test question."""
    rows = [(question, *pair) for question, answers in to_test for pair in answers.items()]
    examples = [
        odesteer.Example((odesteer.Message("user", question),), answer)
        for question, answer, _ in rows
    ]
    totals = [one.total for one in log_likelihoods(lm, examples, steerer, amount)]
    found = []
    for question, _ in to_test:
        own = [(t, row[2]) for t, row in zip(totals, rows) if row[0] == question]
        found.append(Observation(question, 0, mc2(*zip(*own))))
    return found


both = {"steered": scores(steerer, amount), "unsteered": scores()}
bootstrap = PairedBootstrap()
for name, estimate in bootstrap.estimates(both).items():
    print(f"{name:10} MC2 {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")
gain = bootstrap.differences(both)["steered", "unsteered"]
print(f"difference     {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], {gain.n} questions")
cost = lm.divergence(steerer, **{amount.quantity: amount.value})
print(f"cost           {cost.mean:.3f} ± {cost.standard_error:.3f} nats a token")

# %% [markdown]
# The intervals of both models overlap, since questions differ much from one another. The interval of the *difference* is the one to look at: it is
# paired, question by question. If it holds 0, nothing has been shown.

# %%
figure, axes = plt.subplots(figsize=(4.5, 4.5))
axes.scatter(*[[one.value for one in both[name]] for name in ("unsteered", "steered")])
axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
axes.set(xlabel="MC2 of a question, unsteered", ylabel="steered", xlim=(0, 1), ylim=(0, 1))
plt.show()

# %% [markdown]
# ## What to make of it
#
# - **Nothing has been shown here.** The objective rose on the questions to tune on (.210 ± .105 nats a token), and MC2 did not on those to report on:
#   the interval of the difference holds 0. In most of our questions one answer is much likelier than all others, so that MC2 is near 0 or 1 and
#   hardly moves. A choice looks better on the data that made it than on others; that is why the third part is kept apart.
# - Ten questions to tune on and twenty to report on are few. With TruthfulQA's 200 there are 33 and 67.
# - A model of 135 million parameters does not know more after steering. It gives more probability to cautious and negating answers, which
#   true answers to such questions often are. Read what it writes, too.
# - Steering is learned here from what the activations show. A field that is *trained* for the outputs gains more on this model, at the same
#   cost: [end to end](../end-to-end.md).
# - `odesteer bench truthfulqa --model MODEL --data FOLDER` runs the published protocol, with all methods:
#   [benchmarks](../benchmarks.md).

# %%
for question, _ in to_test[:2]:
    chat = [(odesteer.Message("user", question),)]
    quantity = {amount.quantity: amount.value}
    print(question)
    print("   unsteered:", lm.generate(chat, max_new_tokens=30, do_sample=False)[0])
    print("   steered:  ", lm.generate(chat, steerer, max_new_tokens=30, do_sample=False, **quantity)[0])
