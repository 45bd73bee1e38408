#!/bin/sh
# Effect of every method at equal KL on SmolLM2 and Gemma 3: scripts/bench_llms.sh DATA [OPTION…]
#
# Four tasks by likelihood on two models, one layer each, in folders bench-MODEL-SUITE. About two
# hours of one core. The same command goes on after an interrupt; OPTIONs are added to each
# `odesteer bench`, as in: scripts/bench_llms.sh data --methods caa,odesteer --limit 40
set -eu
data=$1
shift
folder=${ODESTEER_LLMS:-.llms}
odesteer="${BIN:-.venv/bin}/odesteer"
for model in "SmolLM2-135M-Instruct 15" "gemma-3-270m 9"; do
    name=${model% *}
    layer=${model#* }
    for task in \
        "persona --task persona-agreeableness --fit-limit 60 --limit 40" \
        "detox --task detox-odds --fit-limit 80 --limit 40" \
        "sentiment --task sentiment-odds --fit-limit 40 --limit 32" \
        "truthfulqa --task truthfulqa-mc --folds 1 --fit-limit 30 --limit 20"; do
        # shellcheck disable=SC2086
        "$odesteer" bench $task --model "$folder/$name" --data "$data" --layers "$layer" \
            --seeds 1 --cost-texts 8 --no-best --dtype float32 --device cpu \
            --output "bench-$name-${task%% *}" "$@"
    done
done
