"""Helpers that the tests share, by the kind of test.

Pure tests need none of them; tests with fakes use `network` and `engine`; end-to-end tests start
the real process with `process`, and add real proxies (`proxies`) or a hub on loopback (`hub`).
`tiny_model`, `random_model`, `gguf_model` and `families` write models.
"""
