import io
import json
import logging

from node.logs import make_logger

NOW_MS = 1_700_000_000_123


def logged(format: str, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    return make_logger(level=level, format=format, stream=stream, clock_ms=lambda: NOW_MS), stream


def test_json_has_the_form_of_the_seed() -> None:
    log, stream = logged("json")
    log.warning("peer lost", extra={"data": {"peer": "a", "after_ms": 5}})
    assert json.loads(stream.getvalue()) == {
        "timestamp": "2023-11-14T22:13:20.123Z",
        "level": "warn",
        "event": "peer lost",
        "data": {"component": "civicnode", "details": {"peer": "a", "after_ms": 5}},
    }


def test_text_is_one_line_for_people() -> None:
    log, stream = logged("text")
    log.info("started", extra={"data": {"api": "127.0.0.1:1", "name": "my box", "n": 3}})
    assert stream.getvalue() == ('2023-11-14T22:13:20.123Z info  started api=127.0.0.1:1 name="my box" n=3\n')


def test_nothing_logged_can_start_a_new_line_or_steer_a_terminal() -> None:
    log, stream = logged("text")
    log.info("a\nb\x1b[2J", extra={"data": {"x": "c\r\nd\x1b[0m"}})
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    log, stream = logged("json")
    log.info("a\nb", extra={"data": {"x": "c\nd"}})
    assert len(stream.getvalue().splitlines()) == 1


def test_what_is_called_like_a_secret_is_hidden_at_any_depth() -> None:
    for format in ("json", "text"):
        log, stream = logged(format)
        log.info(
            "x", extra={"data": {"password": "hunter2", "a": {"refresh_token": "hunter2"}, "user": "ada"}}
        )
        assert "hunter2" not in stream.getvalue()
        assert "ada" in stream.getvalue()


def test_a_trace_goes_along_in_both_forms() -> None:
    for format in ("json", "text"):
        log, stream = logged(format)
        try:
            raise ValueError("broken\npart")
        except ValueError as error:
            log.error("failed", exc_info=error)
        assert "Traceback" in stream.getvalue()
        assert "broken" in stream.getvalue()


def test_levels_are_kept_and_loggers_stay_apart() -> None:
    quiet, quiet_stream = logged("text", "error")
    loud, loud_stream = logged("text", "debug")
    for log in (quiet, loud):
        log.debug("x")
    assert quiet_stream.getvalue() == ""
    assert loud_stream.getvalue() != ""
    assert quiet is not loud
    assert quiet.name not in logging.Logger.manager.loggerDict


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    log, stream = logged("json")
    log.info("x", extra={"data": {"path": ValueError("y")}})
    assert json.loads(stream.getvalue())["data"]["details"]["path"] == "y"
