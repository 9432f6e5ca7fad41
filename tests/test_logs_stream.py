"""A log that nobody reads stops nothing."""

import os

from server.logs import PatientStream


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
        seen = dropped = 0
        while seen + dropped < 10_000:
            found = reader.readline()
            if found == line:
                seen += 1
            else:
                dropped += int(found.split()[0])
                assert found.endswith(" lines of the log were dropped: nobody read it\n")
        assert seen + dropped == 10_000
        assert seen < 3000 < dropped


def test_a_closed_stream_is_no_error():
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    patient = PatientStream(stream)
    patient.write("gone\n")
    patient.drain(10)
    patient.write("again\n")
    patient.drain(10)
