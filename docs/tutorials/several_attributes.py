# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Several attributes: sums, sets, gates
#
# Two steerers, one for a cheerful and one for a formal tone, used one after another, at several layers, and only where a condition holds.

# %%
from pathlib import Path

import odesteer

local = Path("../../.llms/SmolLM2-135M-Instruct")
lm = odesteer.SteeredModel.from_pretrained(
    local if local.is_dir() else "HuggingFaceTB/SmolLM2-135M-Instruct"
)
cheerful = lm.fit(
    odesteer.ODESteer(), odesteer.load_contrast("cheerful.jsonl"), layer=15, position="answer"
)
formal = lm.fit(
    odesteer.ODESteer(), odesteer.load_contrast("formal.jsonl"), layer=12, position="answer"
)


def show(title, texts):
    print(title)
    for text in texts:
        print("   ", text.replace("\n", " "))


chats = [
    (odesteer.Message("user", "Tell me about your day."),),
    (odesteer.Message("user", "My grandmother is in hospital."),),
]
options = {"max_new_tokens": 40, "do_sample": False}
show("unsteered", lm.generate(chats, **options))

# %% [markdown]
# ## One after another
#
# Steerers at different layers act independently. In `steering` any number of them can be given, each with its own amount where it was fitted with
# one (`with_params`).

# %%
show("cheerful", lm.generate(chats, cheerful, level=1.5, **options))
show("formal", lm.generate(chats, formal, level=1.5, **options))
both = odesteer.SteererSet([cheerful, formal])
show("both", lm.generate(chats, both, level=1.5, **options))

# %% [markdown]
# ## Another steerer for each prompt of a batch

# %%
show("one each", lm.generate(chats, [cheerful, formal], level=1.5, **options))

# %% [markdown]
# ## Only where a condition holds
#
# Cheerfulness is out of place in answer to bad news. A gate is itself a steerer that is never applied: its barrier is read at the last token of
# the prompt. Here it is fitted to prompts with good and with bad news.

# %%
news = odesteer.ContrastData(
    *(
        tuple(odesteer.Example((odesteer.Message("user", text),), "I see.") for text in side)
        for side in (
            (
                "I won a prize today.",
                "My sister is getting married.",
                "The sun is out.",
                "I got the job!",
                "We had a lovely dinner.",
                "I learned to swim.",
            ),
            (
                "My father is very ill.",
                "I lost my job.",
                "The house burned down.",
                "My cat has died.",
                "I failed the exam.",
                "He left me.",
            ),
        )
    ),
    *[tuple(map(str, range(6)))] * 2,
)
good_news = lm.fit(odesteer.ODESteer(), news, layer=12, position="prompt")
careful = cheerful.when(good_news, above=-0.5)
for generation in lm.generate(chats, careful, level=1.5, receipt=True, **options):
    print(generation.conditions, generation.gates, generation.text.replace("\n", " "))
