"""Logits and token ids from llama-cpp-python's own `Llama` class, in a separate process.

python -m tests.engines.reference MODEL OUTPUT TOKEN...   logits after these tokens, as .npy
python -m tests.engines.reference MODEL OUTPUT            token ids of the text on stdin
"""

import subprocess
import sys

import numpy as np

from tests.support.process import ROOT


def call(model, output, tokens=(), text=""):
    command = [sys.executable, "-m", "tests.engines.reference", str(model), str(output)]
    command += map(str, tokens)
    subprocess.run(command, cwd=ROOT, input=text.encode(), check=True, capture_output=True)
    return np.load(output)


def main(model, output, *tokens):
    from llama_cpp import Llama, llama_get_logits_ith

    # With the same batches and no flash attention, so that it rounds as ours does.
    llm = Llama(
        model, n_ctx=1024, n_ubatch=16, n_threads=1, n_threads_batch=1, flash_attn=False,
        swa_full=True, verbose=False,
    )  # fmt: skip
    if tokens:
        llm.eval([int(token) for token in tokens])
        found = np.ctypeslib.as_array(llama_get_logits_ith(llm.ctx, -1), shape=(llm.n_vocab(),))
    else:
        found = llm.tokenize(sys.stdin.buffer.read(), add_bos=False, special=True)
    np.save(output, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
