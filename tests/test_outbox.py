"""Pieces cross from one thread to another: none is lost, and one wake-up delivers them all."""

import threading

from server.model.outbox import Outbox


def test_one_wake_up_serves_every_piece_that_waits():
    outbox = Outbox()
    assert [outbox.put(piece) for piece in ("a", "b", "c")] == [True, False, False]
    assert outbox.take() == "abc"


def test_a_piece_after_a_take_asks_for_a_new_wake_up():
    outbox = Outbox()
    outbox.put("a")
    outbox.take()
    assert outbox.put("b")
    assert outbox.take() == "b"


def test_a_wake_up_that_comes_late_finds_nothing():
    assert Outbox().take() == ""


def test_no_piece_is_lost_between_two_threads():
    outbox, wake_ups, taken = Outbox(), threading.Semaphore(0), []

    def put_all():
        for number in range(20_000):
            if outbox.put(f"{number} "):
                wake_ups.release()
        outbox.put("end")
        wake_ups.release()

    thread = threading.Thread(target=put_all)
    thread.start()
    while not (taken and taken[-1].endswith("end")):
        wake_ups.acquire()
        taken.append(outbox.take())
    thread.join()
    assert "".join(taken).split() == [*map(str, range(20_000)), "end"]
