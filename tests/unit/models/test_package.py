import os

import pytest

from tests.unit.models import onnx_bytes
from tests.unit.models.packages import HEAD, TEMPLATE, write_manifest, write_package
from tidemill_models.check import check_package
from tidemill_models.errors import ModelPackageError
from tidemill_models.package import load_package


@pytest.fixture
def folder(tmp_path, byte_level):
    return write_package(tmp_path / "tiny", onnx_bytes.decoder(), byte_level.to_str())


def test_a_package_opens_with_its_files(folder):
    package = load_package(folder)
    assert package.manifest.name == "tiny"
    assert package.digest == package.manifest.digest
    assert package.graph_path == folder.resolve() / "model.onnx"
    assert package.tokenizer_path.name == "tokenizer.json"
    assert package.chat_templates() == {"default": TEMPLATE}
    assert check_package(folder, deep=False) == package


def test_files_in_subfolders_and_links_that_stay_inside_are_taken(folder):
    (folder / "weights").mkdir()
    (folder / "weights" / "w.bin").write_bytes(b"12345")
    (folder / "w2.bin").symlink_to("weights/w.bin")
    write_manifest(folder)
    package = check_package(folder, deep=False)
    assert package.paths["weights/w.bin"].read_bytes() == b"12345"
    assert package.paths["w2.bin"].read_bytes() == b"12345"


def test_a_package_may_be_opened_through_a_link_to_its_folder(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert check_package(tmp_path / "link", deep=False).folder == folder.resolve()


def refused(folder, *, deep=False):
    with pytest.raises(ModelPackageError) as caught:
        check_package(folder, deep=deep)
    return caught.value


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    assert "is missing" in refused(tmp_path).sentence
    assert "is missing" in refused(tmp_path / "nowhere").sentence


def test_a_manifest_that_is_too_large_or_no_text_is_refused(folder):
    (folder / "model.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    assert "has more than 1048576 bytes" in refused(folder).sentence
    (folder / "model.toml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in refused(folder).sentence


def test_a_missing_file_is_named(folder):
    (folder / "chat.jinja").unlink()
    error = refused(folder)
    assert error.path.endswith("chat.jinja")
    assert "is named in [files] and missing" in error.sentence


def test_a_file_of_another_size_is_named_without_reading_it(folder):
    with (folder / "chat.jinja").open("a") as file:
        file.write("x")
    assert "[files] says" in refused(folder).sentence


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "sub/model.toml"])
def test_a_file_that_nobody_named_is_refused(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    error = refused(folder)
    assert error.path.endswith(name)
    assert "is not named in [files]" in error.sentence


def test_a_link_that_leads_outside_is_refused(folder, tmp_path):
    target = tmp_path / "secret"
    target.write_bytes((folder / "chat.jinja").read_bytes())
    (folder / "chat.jinja").unlink()
    (folder / "chat.jinja").symlink_to(target)
    assert "leads outside the folder" in refused(folder).sentence
    (folder / "chat.jinja").unlink()
    (folder / "chat.jinja").symlink_to("chat.jinja")
    assert "missing" in refused(folder).sentence


def test_a_linked_folder_is_refused(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (folder / "sub").symlink_to(tmp_path / "other")
    assert "is not named in [files]" in refused(folder).sentence


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(folder):
    (folder / "chat.jinja").write_text("")
    write_manifest(folder)
    (folder / "chat.jinja").unlink()
    os.mkfifo(folder / "chat.jinja")
    assert "is not a regular file" in refused(folder).sentence


def test_the_engine_that_takes_no_prompts_has_no_decoder(folder):
    head = HEAD[: HEAD.index("[decoder]")].replace('"decoder"', '"triton"') + HEAD[HEAD.index("[prices]") :]
    write_manifest(folder, head)
    with pytest.raises(ModelPackageError, match="engine is triton, not decoder"):
        load_package(folder).graph_path  # noqa: B018


def test_a_changed_byte_is_found_by_the_full_check(folder):
    content = bytearray((folder / "chat.jinja").read_bytes())
    content[0] ^= 1
    (folder / "chat.jinja").write_bytes(content)
    check_package(folder, deep=False)
    error = refused(folder, deep=True)
    assert error.path.endswith("chat.jinja")
    assert "was changed: its SHA-256 is" in error.sentence


def test_tokens_that_the_graph_or_the_tokenizer_does_not_have_are_refused(tmp_path, byte_level):
    graph = onnx_bytes.model(
        onnx_bytes.decoder_inputs(), onnx_bytes.decoder_outputs(vocabulary_size=300), [onnx_bytes.attention()]
    )
    folder = write_package(tmp_path / "small", graph, byte_level.to_str())
    assert "the graph's logits end at 299" in refused(folder, deep=True).sentence
    folder = write_package(tmp_path / "right", onnx_bytes.decoder(), byte_level.to_str())
    for key, value in (("eos_token_ids = [1]", "eos_token_ids = [1, 500]"), ("bos_token_id = 0", "bos_token_id = 500")):
        write_manifest(folder, HEAD.replace(key, value))
        error = refused(folder, deep=True)
        assert error.key == f"decoder.{key.split(' ')[0]}"
        assert "names the token 500" in error.sentence


def test_a_bad_graph_and_a_bad_tokenizer_are_refused_by_the_full_check(tmp_path, byte_level):
    folder = write_package(tmp_path / "graph", b"no graph", byte_level.to_str())
    assert refused(folder, deep=True).path.endswith("model.onnx")
    folder = write_package(tmp_path / "tokenizer", onnx_bytes.decoder(), "{}")
    assert refused(folder, deep=True).path.endswith("tokenizer.json")
