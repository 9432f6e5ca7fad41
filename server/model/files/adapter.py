"""The adapter file: low-rank corrections to a model's matrices, and how they are merged.

Owns the file format and the arithmetic of merging; needs numpy and gguf, no PyTorch. The file is
a GGUF LoRA adapter as llama.cpp reads it (`general.type` "adapter"; for each matrix NAME of shape
(out, in) the tensors `NAME.lora_a`, (rank, in), and `NAME.lora_b`, (out, rank)), so llama.cpp's
`--lora` can load it, too. The correction is B·A; `adapter.lora.alpha` equals the rank, which makes
llama.cpp's factor 1.

Promises: merging gives the same bytes on every machine. A is stored as Q8_0 and B as F16, so every
element of both is a multiple of 2^-24 and every product a multiple of 2^-48. As long as the sums
stay below 2^5 they fit the 53 bits of a float64: no rounding, hence no dependence on the order in
which a BLAS adds.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, ReaderTensor, quants
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
LowRank = tuple[Matrix, Matrix]  # A (rank, in) and B (out, rank)

_EXACT_BELOW = 2.0**5


class AdapterError(Exception):
    """The adapter is damaged or belongs to another model."""


def write_adapter(path: Path, matrices: Mapping[str, LowRank], description: str) -> None:
    """Write an adapter; `matrices` maps a tensor's name to its A and B.

    Raises:
        ValueError: if there are no matrices.
        OSError: if the file cannot be written.
    """
    if not matrices:
        raise ValueError("an adapter needs at least one matrix")
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    rank = next(iter(matrices.values()))[0].shape[0]
    writer.add_float32("adapter.lora.alpha", float(rank))
    writer.add_description(description)
    for name, (a, b) in matrices.items():
        packed = quants.quantize(a, GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.lora_a", packed, raw_dtype=GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.lora_b", b.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Adapter:
    """An adapter file, opened for merging.

    Raises:
        AdapterError: if the file is not a LoRA adapter.
        OSError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        except ValueError as error:
            raise AdapterError(f"{path} is not a GGUF file: {error}.") from error
        self.names = {n.removesuffix(".lora_a") for n in self._tensors if n.endswith(".lora_a")}
        if not self.names:
            raise AdapterError(f"{path} is not a LoRA adapter.")

    def low_rank(self, name: str) -> LowRank:
        """A and B for the tensor `name`, as stored.

        Raises:
            KeyError: if the adapter has none.
        """
        a, b = (self._tensors[f"{name}.lora_{part}"] for part in "ab")
        return quants.dequantize(a.data, a.tensor_type), b.data.astype(np.float32)

    def correction(self, name: str) -> NDArray[np.float64]:
        """B·A for the tensor `name`, exactly.

        Raises:
            AdapterError: if the numbers are too large to be added without rounding.
        """
        a, b = (part.astype(np.float64) for part in self.low_rank(name))
        if (np.abs(b) @ np.abs(a)).max() >= _EXACT_BELOW:
            raise AdapterError(f"The adapter's numbers for {name} are too large to be exact.")
        correction: NDArray[np.float64] = b @ a
        return correction

    def merge(self, tensor: ReaderTensor) -> NDArray[np.uint8]:
        """The data of `tensor` with its correction, in the tensor's own type.

        Raises:
            AdapterError: if the correction has another shape.
        """
        weights = quants.dequantize(tensor.data, tensor.tensor_type)
        correction = self.correction(tensor.name)
        if weights.shape != correction.shape:
            raise AdapterError(f"The adapter's {tensor.name} does not have this model's shape.")
        merged = (weights + correction).astype(np.float32)
        packed: NDArray[np.uint8] = quants.quantize(merged, tensor.tensor_type)
        return packed
