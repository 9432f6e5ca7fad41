"""Helpers that the tests share, by the kind of test.

Pure tests need none of them; tests with fakes use `network` and `engine`; end-to-end tests start
the real process with `process`, and add real proxies (`proxies`) or a hub on loopback (`hub`).
`tiny_model` and `random_model` write models.
"""
