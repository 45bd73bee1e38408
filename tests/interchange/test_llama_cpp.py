"""llama.cpp itself, on a tiny Llama in float32, with the control vectors that we export.

The data come into llama.cpp as its own reader of GGUF lays them out: ``direction.N`` at offset
(N - 1)·width. With the bits that it quantised SmolLM2 to, its steered logits were as near to ours
as its unsteered ones: 0.0032 and 0.0044 nats (KL, mean over tokens), where steering itself makes
1.3; one layer further up or down it would be 0.43 and 0.77.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gguf_files import save_gguf
from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.interchange import ControlVector, read_gguf, read_steerer, write_gguf
from odesteer.methods import CAA, Amount
from odesteer.models import SteeredModel

bindings = pytest.importorskip(
    "llama_cpp_py_sync", reason="llama.cpp is not installed: pip install 'odesteer[peers]'"
)
IDS = [1, 40, 77, 101, 33, 9, 120]


class LlamaCpp:
    """One model in llama.cpp, for logits of one sequence."""

    def __init__(self, path: Path) -> None:
        try:
            self.llama = bindings.Llama(str(path), n_ctx=64, n_threads=1)
        except RuntimeError as error:  # its binary wants a newer C library
            pytest.skip(f"llama.cpp does not load here: {error}")
        self.lib, self.ffi = self.llama._lib, self.llama._ffi

    def logits(self, ids: list[int]) -> torch.Tensor:
        self.llama._clear_context_state()
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert self.lib.llama_decode(self.llama._ctx, batch) == 0
        size = self.lib.llama_vocab_n_tokens(self.llama._vocab)
        rows = [
            np.frombuffer(
                self.ffi.buffer(self.lib.llama_get_logits_ith(self.llama._ctx, i), 4 * size),
                dtype=np.float32,
            ).copy()
            for i in range(len(ids))
        ]
        self.lib.llama_batch_free(batch)
        return torch.from_numpy(np.stack(rows))

    def steer(self, vector: ControlVector, n_layers: int) -> None:
        data = np.zeros((n_layers - 1, vector.width), np.float32)
        for layer, direction in vector.directions.items():
            data[layer - 1] = direction.numpy()
        pointer: Any = self.ffi.from_buffer("float[]", data)
        done = self.lib.llama_set_adapter_cvec(
            self.llama._ctx, pointer, data.size, vector.width, 1, n_layers
        )
        assert done == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llama-cpp")


def test_its_steered_logits_are_ours(folder: Path) -> None:
    save_gguf(folder / "model.gguf")
    other = LlamaCpp(folder / "model.gguf")
    lm = SteeredModel.from_pretrained(str(folder / "model.gguf"), dtype="float32", device="cpu")
    steerer = SteererSet(
        Steerer(CAA.from_direction(2 * torch.randn(lm.width)), Site(layer, "all"))
        for layer in (1, 3)
    )
    amount = Amount("T", 1.5)
    write_gguf(ControlVector.of(steerer, amount), folder / "vector.gguf")

    def ours(*steerers: Any, **how: Any) -> torch.Tensor:
        with torch.no_grad(), lm.steering(*steerers, prompt_width=len(IDS), **how):
            logits: torch.Tensor = lm.model(torch.tensor([IDS])).logits[0]
            return logits

    with torch.no_grad():
        plain = lm.model(torch.tensor([IDS])).logits[0]
    # llama.cpp keeps keys and values in half precision.
    near = {"rtol": 0, "atol": 0.01 * float(plain.std())}
    torch.testing.assert_close(other.logits(IDS), plain, **near)
    other.steer(read_gguf(folder / "vector.gguf"), lm.n_layers)
    steered = ours(steerer, T=1.5)
    torch.testing.assert_close(other.logits(IDS), steered, **near)
    assert float((steered - plain).abs().max()) > 100 * near["atol"]
    torch.testing.assert_close(ours(read_steerer(folder / "vector.gguf")), steered)
