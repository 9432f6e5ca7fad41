"""Training: how the default model learns to be Socrates.

`python -m server.model.tuning` (`make train`) reads the base weights from the published GGUF file,
trains low-rank adapters on the conversations in `talks/`, and writes one GGUF adapter.
`files/adapter.py` merges it when the model is fetched and needs numpy alone; everything here
needs PyTorch (`pip install .[train]`) and is never imported by the server or by `fetch`.
"""
