"""A log that nobody reads stops nothing."""

import os

from server.logs import PatientStream
from tests.support.waiting import wait_until


def test_lines_come_in_order():
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read) as reader:
        patient = PatientStream(stream)
        for number in range(1000):
            patient.write(f"{number}\n")
        assert [int(reader.readline()) for _ in range(1000)] == list(range(1000))
        patient.drain(10)


def test_unread_log_is_dropped_counted_and_reported_later():
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read) as reader:
        patient = PatientStream(stream, most=100_000)
        line = "x" * 99 + "\n"
        for _ in range(10_000):  # a pipe holds 64 KiB
            patient.write(line)
        patient.drain(0.01)
        lines = []

        def is_reported():
            lines.append(reader.readline())
            return "dropped" in lines[-1]

        wait_until(is_reported, "the report")
        dropped = int(lines[-1].split()[0])
        assert dropped + len(lines) - 1 == 10_000


def test_a_closed_stream_is_no_error():
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    patient = PatientStream(stream)
    patient.write("gone\n")
    patient.drain(10)
    patient.write("again\n")
    patient.drain(10)
