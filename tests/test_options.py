"""Options from flags and variables, and the error for a bad one."""

import dataclasses

import pytest

from server.options import Options, parse_options


def test_defaults():
    assert parse_options([], {}) == Options()


def test_flag_wins_over_variable():
    variables = {"SOCRATES_PORT": "1", "SOCRATES_MAX_TOKENS": "7"}
    options = parse_options(["--port", "2"], variables)
    assert (options.port, options.max_tokens) == (2, 7)


def test_every_field_is_a_flag_and_a_variable(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_options(["--help"], {})
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for option in dataclasses.fields(Options):
        assert f"--{option.name.replace('_', '-')} " in text
        with pytest.raises(SystemExit):
            parse_options([], {f"SOCRATES_{option.name.upper()}": ""})


@pytest.mark.parametrize(
    ("arguments", "variables", "line"),
    [
        (["--port", "65536"], {}, "--port must be a whole number from 0 to 65535, not '65536'"),
        (["--port", "-1"], {}, "--port must be a whole number from 0 to 65535, not '-1'"),
        (["--port", "٣"], {}, "--port must be a whole number from 0 to 65535, not '٣'"),
        (["--threads", "many"], {}, "--threads must be auto, or a whole number from 1 to 256, not 'many'"),
        (["--temperature", "nan"], {}, "--temperature must be a number from 0 to 2, not 'nan'"),
        ([], {"SOCRATES_QUEUE": "0"}, "SOCRATES_QUEUE must be a whole number from 1 to 10000, not '0'"),
        (["--wrong"], {}, "unrecognized arguments: --wrong"),
        (["--max"], {}, "unrecognized arguments: --max"),
    ],
)  # fmt: skip
def test_bad_value_is_exit_2_and_one_line(capsys, arguments, variables, line):
    with pytest.raises(SystemExit) as exit_:
        parse_options(arguments, variables)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"error: {line} (see --help)\n"


def test_ping_interval_may_be_off():
    assert parse_options(["--ping-interval", "off"], {}).ping_interval is None
    assert parse_options(["--ping-interval", "2"], {}).ping_interval == 2


def test_threads():
    assert parse_options(["--threads", "auto"], {"SOCRATES_THREADS": "3"}).threads is None
    assert parse_options(["--threads", "3"], {}).threads == 3
