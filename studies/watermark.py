"""Does a watermark survive steering? Detection by level, on a language model's own texts.

    python -m studies.watermark MODEL --data PAIRS [--texts 200] [--tokens 40] [--layer 15]

Fits the default method to contrastive data, has the model answer neutral prompts at several levels
without a watermark, with a green list and with SynthID, and prints the distribution of z by level:
the false-positive rate (no watermark) and the detection rate (watermark) at z > 3, and how much
texts repeat themselves.
"""

import argparse
import statistics

import torch

from odesteer.data import load_contrast
from odesteer.methods import ODESteer
from odesteer.models import SteeredModel
from odesteer.models.divergence import as_question, neutral_prompts
from odesteer.models.generation.watermark import WatermarkDetection, watermarking_config

SYNTHID = '{"ngram_len": 5, "keys": [654, 400, 836, 123, 340]}'
WATERMARKS = {"green list": "greenlist", "SynthID": SYNTHID}


def distinct(texts: list[list[int]], n: int = 3) -> float:
    """The share of n-grams within a text that are no repetition, mean over texts."""
    shares = []
    for ids in texts:
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        if grams:
            shares.append(len(set(grams)) / len(grams))
    return statistics.mean(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.0, 1.5, 4.0])
    parser.add_argument("--batch", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lm = SteeredModel.from_pretrained(options.model, dtype="float32", device="cpu")
    steerer = lm.fit(ODESteer(), load_contrast(options.data), options.layer)
    prompts = [as_question(lm, text) for text in neutral_prompts()]
    prompts = (prompts * (options.texts // len(prompts) + 1))[: options.texts]
    detectors = {
        name: WatermarkDetection(watermarking_config(text), lm.model.config)
        for name, text in WATERMARKS.items()
    }
    print("| level | watermark | detector | mean z | z > 3 | tokens | distinct 3-grams |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for level in options.levels:
        for written, text in (("none", None), *WATERMARKS.items()):
            how = {} if text is None else {"watermarking_config": watermarking_config(text)}
            generations = lm.generate(
                prompts,
                steerer if level else None,
                **({"level": level} if level else {}),
                max_new_tokens=options.tokens,
                do_sample=True,
                batch_size=options.batch,
                **how,
            )
            ids = [
                lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in generations
            ]
            ids = [one for one in ids if len(one) >= 15]
            for name, detector in detectors.items():
                if written not in ("none", name):
                    continue
                z = [detector.score(one).z for one in ids]
                hits = statistics.mean(value > 3 for value in z)
                print(
                    f"| {level:g} | {written} | {name} | {statistics.mean(z):.2f} | {hits:.1%} |"
                    f" {statistics.mean(map(len, ids)):.0f} | {distinct(ids):.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
