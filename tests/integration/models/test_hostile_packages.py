"""Packages that somebody made to do harm: each ends in the one error of a wrong package."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.models import onnx_bytes
from tests.unit.models.onnx_bytes import attention, decoder_inputs, decoder_outputs, field, node, tensor, varint
from tests.unit.models.packages import HEAD, TEMPLATE, write_manifest, write_package
from tidemill_models.check import check_package
from tidemill_models.errors import ModelPackageError
from tidemill_models.template_process import TemplateLimits
from tidemill_models.template_renderer import TemplateRenderer

DIGEST = "0" * 64
TOKENIZER = (Path(__file__).parents[2] / "models" / "tiny-llama" / "tokenizer.json").read_text("utf-8")
INPUTS, OUTPUTS = decoder_inputs(), decoder_outputs()
DEEP = "[" * 200_000


@pytest.fixture(scope="module")
def renderer():
    with TemplateRenderer(TemplateLimits(seconds=2), num_processes=1) as one:
        yield one


def refused(folder: Path, renderer: TemplateRenderer) -> ModelPackageError:
    with pytest.raises(ModelPackageError) as caught:
        check_package(folder, renderer=renderer)
    assert len(str(caught.value)) < 4_000
    return caught.value


def right_package(folder: Path) -> Path:
    return write_package(folder, onnx_bytes.decoder(), TOKENIZER)


def test_the_package_that_these_are_made_from_is_right(tmp_path, renderer):
    check_package(right_package(tmp_path / "right"), renderer=renderer)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "../../../../etc/passwd",
        "/etc/passwd",
        "a/../../outside",
        "a/./b",
        "./model.onnx",
        "..",
        ".",
        "",
        "a//b",
        "..\\\\outside",
        "C:\\\\windows",
        "%2e%2e/outside",
        "~/.ssh/id_rsa",
        "a\\u0000b",
        "\\u202Efdp.exe",
        "CON",
        "x" * 5_000,
    ],
)
def test_a_file_by_a_name_that_leads_elsewhere(tmp_path, renderer, name):
    folder = right_package(tmp_path / "package")
    (tmp_path / "outside").write_bytes(b"secret")
    with (folder / "model.toml").open("a") as manifest:
        manifest.write(f'"{name}" = {{ sha256 = "{DIGEST}", bytes = 6 }}\n')
    assert "secret" not in str(refused(folder, renderer))


def link_to(target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "chat.jinja").unlink()
        (folder / "chat.jinja").symlink_to(target)

    return change


def fifo(folder: Path) -> None:
    (folder / "chat.jinja").unlink()
    os.mkfifo(folder / "chat.jinja")


def unix_socket(folder: Path) -> None:
    (folder / "chat.jinja").unlink()
    here = Path.cwd()
    os.chdir(folder)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("chat.jinja")
    finally:
        os.chdir(here)


def folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "chat.jinja").unlink()
    (folder / "chat.jinja").mkdir()


@pytest.mark.parametrize(
    "change",
    [
        link_to("/etc/passwd"),
        link_to("../outside"),
        link_to("/proc/self/environ"),
        link_to("/dev/zero"),
        link_to("/dev/stdin"),
        link_to("chat.jinja"),
        link_to("nowhere"),
        fifo,
        unix_socket,
        folder_in_place_of_a_file,
    ],
)
def test_a_file_that_is_none_or_not_of_the_package(tmp_path, renderer, change):
    (tmp_path / "outside").write_text(TEMPLATE)
    folder = right_package(tmp_path / "package")
    change(folder)
    assert refused(folder, renderer).path.endswith("chat.jinja")


@pytest.mark.parametrize("size", ["0", "1", "-1", "9223372036854775807", "1" + "0" * 40, "1e9", "true", '"6"'])
def test_a_size_that_is_not_the_files(tmp_path, renderer, size):
    folder = right_package(tmp_path / "package")
    text = (folder / "model.toml").read_text()
    head, _, rest = text.partition('"model.onnx" = {')
    before, _, after = rest.partition("bytes = ")
    (folder / "model.toml").write_text(f'{head}"model.onnx" = {{{before}bytes = {size} }}{after.partition("}")[2]}')
    assert "model.onnx" in str(refused(folder, renderer))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + DEEP,
        "a" * (2 << 20),
        HEAD + HEAD,
        "\ufeff\ufeff" + HEAD,
        HEAD.replace("format = 1", "format = 1" + "0" * 5_000),
        HEAD.replace("context_length = 64", "context_length = 2147483648"),
        HEAD.replace('name = "tiny"', 'name = "tiny/../../x"'),
        HEAD.replace("[decoder]", "[decoder.decoder.decoder]"),
        "".join(f"[a{'.a' * number}]\n" for number in range(2_000)),
    ],
    ids=range(9),
)
def test_a_manifest_that_is_made_to_break_its_reader(tmp_path, renderer, text):
    folder = right_package(tmp_path / "package")
    (folder / "model.toml").write_text(text, encoding="utf-8")
    refused(folder, renderer)


def nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = field(1, node("If", attributes=field(5, field(6, graph))))
    return field(7, graph)


GRAPHS = {
    "cut in the middle": onnx_bytes.decoder()[: len(onnx_bytes.decoder()) // 2],
    "cut before its last byte": onnx_bytes.decoder()[:-1],
    "a length beyond the file": varint(7 << 3 | 2) + varint(2**62) + b"x",
    "a number without an end": b"\x38" + b"\xff" * 40,
    "graphs within graphs": nested(300),
    "a name of a megabyte": onnx_bytes.model(INPUTS, OUTPUTS, [attention(), node("x" * (1 << 20))]),
    "a name that is not UTF-8": onnx_bytes.model(INPUTS, OUTPUTS, [attention(), field(4, b"\xff\xfe")]),
    "an operator of its own": onnx_bytes.model(INPUTS, OUTPUTS, [attention(), node("evil::Run")]),
    "weights outside": onnx_bytes.model(INPUTS, OUTPUTS, [attention()], [tensor("w", [1], external="../../../x")]),
    "weights in a device": onnx_bytes.model(INPUTS, OUTPUTS, [attention()], [tensor("w", [1], external="/dev/zero")]),
    "weights in a manifest": onnx_bytes.model(
        INPUTS, OUTPUTS, [attention()], [tensor("w", [1], external="model.toml")]
    ),
    "a vocabulary of nobody": onnx_bytes.model(INPUTS, decoder_outputs(vocabulary_size=1), [attention()]),
    "a negative dimension": onnx_bytes.model(INPUTS, decoder_outputs(vocabulary_size=2**64 - 1), [node("MatMul")]),
    "a pickle": b"\x80\x04\x95" + b"cos\nsystem\n(S'true'\ntR." * 3,
    "an archive": b"PK\x03\x04" + b"../../etc/passwd" * 20,
    "a script": b"#!/bin/sh\ntouch /tmp/owned\n",
}


@pytest.mark.parametrize("content", GRAPHS.values(), ids=GRAPHS)
def test_a_graph_that_is_made_to_break_its_reader(tmp_path, renderer, content):
    folder = write_package(tmp_path / "package", content, TOKENIZER)
    refused(folder, renderer)


def changed_tokenizer(**parts: object) -> str:
    return json.dumps(json.loads(TOKENIZER) | parts)


TOKENIZERS = {
    "deep": DEEP,
    "no object": "[]",
    "a surrogate": '{"model": "\\ud800"}',
    "an id that would fill the memory": changed_tokenizer(
        model={"type": "WordLevel", "vocab": {"a": 0, "b": 2**32 - 1}, "unk_token": "a"}
    ),
    "a negative id": changed_tokenizer(model={"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}),
    "no model": changed_tokenizer(model=None),
    "an unknown model": changed_tokenizer(model={"type": "Pickle", "path": "/etc/passwd"}),
    "a pattern that is none": changed_tokenizer(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 5_000}, "behavior": "Isolated", "invert": False}
    ),
    "an added token of another id": changed_tokenizer(
        added_tokens=[{"id": 2**31, "content": "<|x|>", "special": True}]
    ),
}


@pytest.mark.parametrize("text", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_is_made_to_break_its_reader(tmp_path, renderer, text):
    folder = write_package(tmp_path / "package", onnx_bytes.decoder(), text)
    assert refused(folder, renderer).path.endswith("tokenizer.json")


TEMPLATES = {
    "the classes of everything": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "the classes, spelled by a filter": "{{ ('' | attr('__class__')).__mro__ }}",
    "the classes, spelled in hex": "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'].__mro__ }}",
    "a function's globals": "{{ raise_exception.__globals__.os }}",
    "a macro's code": "{% macro m() %}{% endmacro %}{{ m.__code__.co_consts }}",
    "the environment": "{{ self._TemplateReference__context.environment.from_string('{{ 1 }}') }}",
    "a generator's frame": "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "a format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "a mapped format": "{{ ['{0.__class__.__init__.__globals__}'] | map('format', cycler) | list }}",
    "a file": "{% include '/etc/passwd' %}",
    "a module": "{% import 'os' as os %}{{ os.environ }}",
    "a parent": "{% extends '../../secret' %}",
    "a change of what it was given": "{{ messages.append({}) }}",
    "a loop without an end": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "memory": "{{ 'x' * 10 ** 10 }}",
    "memory by a filter": "{{ messages | batch(10 ** 9, 0) | list }}",
    "memory by sums": "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "a large number": "{{ 10 ** (10 ** 10) }}",
    "a large output": "{% for i in range(90000) %}xxxxxxxxxx{% endfor %}",
    "not UTF-8": "",
}


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_that_reaches_out_or_never_ends(tmp_path, renderer, source):
    folder = right_package(tmp_path / "package")
    (folder / "chat.jinja").write_bytes((TEMPLATE + source).encode() if source else b"\xff\xfe")
    write_manifest(folder)
    assert "root:" not in str(refused(folder, renderer))
