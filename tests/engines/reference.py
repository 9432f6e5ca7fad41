"""Logits and token ids by llama-cpp-python's own class, in a process of its own.

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

    # Rounded as ours are: the same batches, no flash attention.
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
