"""The process in which chat templates are rendered: started by template_process.py, one request after the other.

It reads frames (4 bytes of length, big-endian, then JSON) from its standard input and writes one to its standard
output for each; the first one, empty, says that it is ready. It imports jinja2 and nothing of ours, gives itself its
limits, and ends when its input ends. A template that loops is stopped by the kernel's timer of the processor's time,
one that takes memory by the kernel's limit; the sandbox only keeps it from reaching out of Jinja.
"""

import ctypes
import functools
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MAX_CACHED_TEMPLATES = 64
_MAX_ERROR_CHARACTERS = 500
_FRAME_HEADER = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1


class _RefusedError(Exception):
    """The template called `raise_exception`."""


class _TooLargeError(Exception):
    """The template rendered to more than its limit."""


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`, which marks the assistant's text for training; here only its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: object) -> None:
    raise _RefusedError(str(message))


def _strftime_now(layout: str) -> str:
    return datetime.now(UTC).strftime(layout)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as Hugging Face sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _answer(compile_template: Callable[[str], jinja2.Template], request: dict[str, Any], output_bytes: int) -> Any:
    try:
        return {"text": _render(compile_template(request["source"]), request["variables"], output_bytes)}
    except MemoryError:
        raise
    except jinja2.TemplateSyntaxError as error:
        return _error("syntax", f"line {error.lineno}: {error.message}")
    except _RefusedError as error:
        return _error("refused", str(error))
    except _TooLargeError:
        return _error("size", f"it renders to more than {output_bytes} bytes")
    except Exception as error:  # noqa: BLE001  (whatever a template can provoke is its own error)
        return _error("render", f"{type(error).__name__}: {error}")


def _render(template: jinja2.Template, variables: dict[str, Any], output_bytes: int) -> str:
    chunks: list[str] = []
    num_bytes = 0
    for chunk in template.generate(**variables):
        num_bytes += len(chunk.encode())
        if num_bytes > output_bytes:
            raise _TooLargeError
        chunks.append(chunk)
    return "".join(chunks)


def _error(kind: str, message: str) -> dict[str, str]:
    return {"error": kind, "message": message[:_MAX_ERROR_CHARACTERS].encode(errors="replace").decode()}


def _end_with_parent(parent_pid: int) -> None:
    """Have the kernel end us with the thread that started us, also when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit(0)


def _limit(memory_bytes: int) -> int:
    """Limit what this process can take, above what it has now; returns the size at which it is to be replaced."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    size = _address_space_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory_bytes, size + memory_bytes))
    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 16)):
        resource.setrlimit(kind, (most, most))
    return size + memory_bytes // 4


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _read_frame(source: BinaryIO) -> bytes | None:
    header = source.read(_FRAME_HEADER.size)
    if len(header) < _FRAME_HEADER.size:
        return None
    (length,) = _FRAME_HEADER.unpack(header)
    return source.read(length)


def _write_frame(sink: BinaryIO, content: bytes) -> None:
    sink.write(_FRAME_HEADER.pack(len(content)) + content)
    sink.flush()


def main() -> None:
    """Answer requests until the input ends.

    Arguments: seconds of the processor, bytes of memory, bytes of output, the exit code that says "out of memory", the
    parent's pid.
    """
    seconds, memory_bytes, output_bytes, memory_exit_code, parent_pid = float(sys.argv[1]), *map(int, sys.argv[2:6])
    _end_with_parent(parent_pid)
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but frames goes where the parent reads
    compile_template = functools.lru_cache(maxsize=_MAX_CACHED_TEMPLATES)(_environment().from_string)
    compile_template("").render()  # what Jinja imports at its first use is imported before the limits
    largest_size = _limit(memory_bytes)
    _write_frame(responses, b"")
    while (frame := _read_frame(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            response = _answer(compile_template, json.loads(frame), output_bytes)
        except MemoryError:
            os._exit(memory_exit_code)  # saying more could need memory
        signal.setitimer(signal.ITIMER_PROF, 0)
        # What a template left behind (a constant in the cache, a torn heap) is not to weigh on the next one.
        response["is_last"] = _address_space_bytes() > largest_size
        _write_frame(responses, json.dumps(response, ensure_ascii=False).encode())
        if response["is_last"]:
            return


if __name__ == "__main__":
    main()
