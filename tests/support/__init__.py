"""What the tests share, by world.

Pure tests need none of it; the fake ring uses `network` and `engine`; end-to-end tests start the
real process with `process`, and put real proxies (`proxies`) or a hub on loopback (`hub`) beside
it. `tiny_model` and `random_model` write models.
"""
