# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Reproduce the paper on a GPU
#
# `odesteer bench --paper` repeats the experiments of ODESteer ([arXiv 2602.17560](https://arxiv.org/abs/2602.17560), ICLR 2026) on the paper's own
# models, and prints the published figure beside each measured one. That takes a GPU with 80 GB, and the hub. This page shows the plan, which takes
# seconds on any machine, and the commands for the rest. **No run on the models of 7 to 8 billion parameters has been made for these pages.**

# %%
import os
import subprocess
import sys


def odesteer(*words):
    """Run a command of odesteer and print what it prints."""
    print("$ odesteer", *("FOLDER" if word == folder else word for word in words))
    done = subprocess.run([sys.executable, "-m", "odesteer", *words], capture_output=True, text=True)
    print(done.stdout, end="")
    if done.returncode:
        print(done.stderr.splitlines()[-1])


# %% [markdown]
# ## The plan
#
# `--dry-run` says what would be run, how long it takes on one A100, and whether it fits. TruthfulQA comes from the hub, or from a folder with
# `TruthfulQA.csv` and `mc_task.json` that `--data` names. Here `ODESTEER_DATA` names it.

# %%
folder = os.environ.get("ODESTEER_DATA", "")
data = ("--data", folder) if folder else ()
odesteer("bench", "--paper", "llama-3.1-8b", "--task", "truthfulqa", *data, "--dry-run")

# %% [markdown]
# The estimate is good to a factor of about two. It counts completions and fits from the protocol, and time from the model's size and 40 % of
# the peak of the GPU. The layer and the values of T are those of the paper.

# %%
for model in ("falcon-7b", "qwen2.5-7b"):
    odesteer("bench", "--paper", model, "--task", "truthfulqa", *data, "--dry-run")

# %% [markdown]
# ## The run
#
# On the machine with the GPU, with access to the models on the hub:
#
# ```bash
# pip install 'odesteer[bench]'
# odesteer bench --paper llama-3.1-8b --task truthfulqa -o runs/llama-truthfulqa      # one column of table 2
# odesteer bench --paper llama-3.1-8b -o runs/llama                                   # all three tasks
# odesteer bench --paper llama-3.1-8b --table 9 -o runs/table9                        # solvers
# odesteer bench --paper llama-3.1-8b --figure 4 -o runs/figure4                      # number of steps
# ```
#
# - Completions come first, then the model is released and the judges score them. Each completion is a line in `generations.jsonl`, so that a run that
#   was stopped goes on with the same command.
# - `paper.md` in the output folder has the table: measured, published, and every deviation from the protocol. `paper.json` has it for machines.
# - For a machine with several GPUs or many workers: `--engine ray --workers 8` ([scaling](../scaling.md)).
# - Without the hub name folders: `--model FOLDER`, `--data FOLDER`, `--judge-option` for the folders of judges.
#
# ## A rehearsal on a small model
#
# Before you pay for a GPU, let the same code run on a model that fits a laptop. The figures mean nothing; errors in paths and disk space
# show here:
#
# ```bash
# odesteer bench --paper llama-3.1-8b --task truthfulqa --model .llms/SmolLM2-135M-Instruct --data FOLDER \
#     --judge small-truth --judge small-info --perplexity-model .llms/SmolLM2-135M-Instruct --limit 4 --fit-limit 20 -o runs/rehearsal
# ```
#
# ## What to expect
#
# Published figures are means over three seeds, with their standard deviation. Judges of 7 billion parameters give them; the small classifiers of
# this package do not replace them. The published protocol differs from its own scripts in places; [benchmarks](../benchmarks.md) lists
# where, and what was followed.
