"""Folders become packages that the server finds, or are refused with a sentence and leave nothing behind."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.integration.models.exports import builder_folder, transformers_js_folder, write_side_files
from tidemill_models.check import check_package
from tidemill_models.errors import ModelError, ModelImportError, VariantNeededError
from tidemill_models.importing import staging
from tidemill_models.importing.import_report import report
from tidemill_models.importing.package_maker import Wishes, import_model
from tidemill_models.importing.source import FolderSource


@pytest.fixture
def models(tmp_path):
    """Where the server finds packages."""
    return tmp_path / "data" / "models"


def take(folder: Path, models: Path, *, try_out=lambda package: None, **wishes):
    wished = Wishes("tiny", **wishes)
    return import_model(FolderSource(folder), models, wished, origin="a test", try_out=try_out)


def assert_nothing_is_left(models: Path):
    assert not models.exists() or not any(models.iterdir())
    importing = models.parent / "importing"
    assert not importing.exists() or not any(importing.iterdir())


def test_what_the_builder_writes_becomes_a_package(tmp_path, models):
    imported = take(builder_folder(tmp_path / "export"), models)
    package = check_package(models / "tiny")
    assert package.digest == imported.package.digest
    assert package.decoder.context_length == 1024
    assert package.decoder.eos_token_ids == (2, 5)
    assert package.decoder.bos_token_id == 1
    assert package.decoder.cache == "in-place"
    assert package.manifest.license == "mit"
    assert package.manifest.chat.roles == ("system", "user", "assistant")
    assert sorted(path.name for path in package.folder.iterdir()) == [
        "chat.jinja", "model.onnx", "model.toml", "tokenizer.json",
    ]  # fmt: skip
    told = report(imported, {"load_seconds": 0.5, "tokens_per_second": 12.0})
    assert told.facts["bytes_per_slot"] == 2 * 2 * 2 * 16 * 4 * 1024
    assert "It appends to its KV cache in place." in told.sentences
    assert "A full slot takes 0.5 MB of memory; 8 slots take 4.2 MB." in told.sentences


def test_the_same_import_gives_the_same_digest(tmp_path, models):
    export = builder_folder(tmp_path / "export")
    first = take(export, models)
    assert take(export, models, may_replace=True).package.digest == first.package.digest
    assert_nothing_is_left(models.parent / "none")


@pytest.mark.parametrize(
    ("variant", "graph"),
    [("fp32", "model.onnx"), ("q8", "model_q8.onnx"), ("onnx/model_fp16.onnx", "model_fp16.onnx")],
)
def test_a_variant_is_taken_by_its_name(tmp_path, models, variant, graph):
    take(transformers_js_folder(tmp_path / "export"), models, variant=variant, context_length=512)
    package = check_package(models / "tiny")
    assert package.decoder.graph == graph
    assert package.decoder.context_length == 512


def test_several_variants_are_asked_about(tmp_path, models):
    export = transformers_js_folder(tmp_path / "export")
    (export / "onnx" / "decoder_model_merged.onnx").unlink()
    with pytest.raises(VariantNeededError, match=r"several graphs: fp32 .*--variant") as caught:
        take(export, models)
    assert sorted(caught.value.variants) == ["fp16", "fp32", "q8"]
    with pytest.raises(VariantNeededError, match="has no graph 'q5'; it has"):
        take(export, models, variant="q5")
    assert_nothing_is_left(models)


def test_an_export_that_grows_its_cache_is_marked_slow(tmp_path, models):
    export = transformers_js_folder(tmp_path / "export")
    imported = take(export, models, variant="merged")
    assert imported.package.decoder.cache == "grows"
    assert "slow" in imported.package.manifest.description
    assert any("onnxruntime_genai.models.builder" in sentence for sentence in report(imported, {}).sentences)


def test_a_context_that_the_model_cannot_have_is_refused(tmp_path, models):
    export = builder_folder(tmp_path / "export")
    with pytest.raises(ModelImportError, match="can be 1024 tokens at most, not 1025"):
        take(export, models, context_length=1025)
    assert_nothing_is_left(models)


@pytest.mark.parametrize(
    ("change", "longest"),
    [
        ({"sliding_window": 64}, 64),
        ({"sliding_window": 64, "use_sliding_window": False}, 1024),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 128}, 128),
        ({"max_position_embeddings": 10**9}, 1024),
        ({"text_config": {"max_position_embeddings": 99, "eos_token_id": 2}}, 99),
    ],
)
def test_the_context_ends_where_the_graph_would_answer_wrongly(tmp_path, models, change, longest):
    export = write_side_files(builder_folder(tmp_path / "export"), **change)
    assert take(export, models).package.decoder.context_length == longest


def test_a_template_that_refuses_the_system_role_is_served_without_it(tmp_path, models):
    export = builder_folder(tmp_path / "export")
    refusal = "{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template = "{% for m in messages %}" + refusal + "{{ m.content }}{% endfor %}"
    (export / "chat_template.jinja").write_text(template)
    assert take(export, models).package.manifest.chat.roles == ("user", "assistant")


def test_a_template_that_changes_what_users_say_is_left_out_with_a_sentence(tmp_path, models):
    export = builder_folder(tmp_path / "export")
    (export / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    imported = take(export, models)
    assert imported.package.manifest.chat is None
    assert "left out: the chat template changes what messages say" in imported.left_out[0]


def test_named_templates_are_all_kept(tmp_path, models):
    export = builder_folder(tmp_path / "export")
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    named = [
        {"name": "rag", "template": plain},
        {"name": "default", "template": plain},
        {"name": "Größe", "template": plain},
    ]
    (export / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    imported = take(export, models)
    assert dict(imported.package.manifest.chat.templates) == {"default": "chat.jinja", "rag": "chat-rag.jinja"}
    assert imported.package.manifest.chat.template == "default"
    assert len(imported.left_out) == 1


def test_a_model_that_does_not_answer_is_not_taken(tmp_path, models):
    def refuse(package: Path):
        check_package(package)
        raise ModelImportError("it does not run here")

    with pytest.raises(ModelImportError, match="does not run here"):
        take(builder_folder(tmp_path / "export"), models, try_out=refuse)
    assert_nothing_is_left(models)


def test_a_package_that_is_there_is_replaced_only_when_asked(tmp_path, models):
    export = builder_folder(tmp_path / "export")
    take(export, models)
    with pytest.raises(ModelImportError, match="is there already: give another --name, or --replace"):
        take(export, models)
    (export / "README.md").unlink()
    assert take(export, models, may_replace=True).package.manifest.license == "unknown"


def test_what_a_killed_import_left_goes_with_the_next(tmp_path, models):
    abandoned = models.parent / "importing" / "abandoned"
    abandoned.mkdir(parents=True)
    (abandoned / "lock").touch()
    (abandoned / "half.onnx").write_bytes(b"half")
    with staging.staging_folder(models.parent / "importing") as other:
        take(builder_folder(tmp_path / "export"), models)
        assert other.is_dir()
    assert_nothing_is_left(models.parent / "none")
    assert not any((models.parent / "importing").iterdir())


def test_a_full_disk_is_said_before_anything_is_copied(tmp_path, models, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(ModelImportError, match="no room for it"):
        take(builder_folder(tmp_path / "export"), models)
    assert_nothing_is_left(models)


def link_outside(export: Path):
    secret = export.parent / "secret.json"
    (export / "tokenizer.json").rename(secret)
    (export / "tokenizer.json").symlink_to(secret)


HOSTILE = {
    "a link out of the folder": (link_outside, "leads outside the folder"),
    "no tokenizer": (lambda e: (e / "tokenizer.json").unlink(), "has no tokenizer.json: make one with transformers"),
    "a tokenizer that is none": (lambda e: (e / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
    "a config that is no JSON": (lambda e: (e / "config.json").write_text("{"), "is not JSON"),
    "a config that is a list": (lambda e: (e / "config.json").write_text("[]"), "is not a JSON object"),
    "a deep config": (lambda e: (e / "config.json").write_text("[" * 100_000), "is not JSON"),
    "a graph that is none": (lambda e: (e / "model.onnx").write_bytes(b"\x08\x0bnothing"), "is not an ONNX file"),
    "a fifo for a config": (
        lambda e: ((e / "config.json").unlink(), os.mkfifo(e / "config.json")),
        "",
    ),
    "no end token": (
        lambda e: [path.write_text("{}") for path in e.glob("*config.json")],
        "does not say which token ends an answer",
    ),
    "end tokens that are not there": (
        lambda e: [
            (e / "generation_config.json").write_text('{"eos_token_id": [99999, -1, true, "x", 1e300]}'),
            (e / "tokenizer_config.json").write_text('{"eos_token": ["x"]}'),
        ],
        "does not say which token ends an answer",
    ),
    "a model package": (
        lambda e: [(e / "model.toml").touch(), *(path.write_text("{}") for path in e.glob("*config.json"))],
        "is a model package already",
    ),
    "nothing": (lambda e: [path.unlink() for path in e.iterdir()], "holds no ONNX graph and no checkpoint"),
    "pickles": (
        lambda e: (e / "model.onnx").rename(e / "pytorch_model.bin"),
        "holds its weights as pickles, which may run code",
    ),
    "GGUF": (lambda e: (e / "model.onnx").rename(e / "model.gguf"), "holds GGUF files"),
    "a checkpoint": (lambda e: (e / "model.onnx").rename(e / "model.safetensors"), "is a checkpoint: add --convert"),
    "not a folder": (shutil.rmtree, "is not a folder"),
}  # fmt: skip


def test_a_gguf_file_is_refused_with_what_to_name_instead(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelImportError, match="name the folder of the checkpoint that it was made of"):
        _ = FolderSource(tmp_path / "model.gguf").files


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_broken_or_hostile_folder_is_refused_with_a_sentence_and_leaves_nothing(tmp_path, models, kind):
    export = builder_folder(tmp_path / "export")
    harm, sentence = HOSTILE[kind]
    harm(export)
    if not sentence:
        assert take(export, models).package.decoder.context_length == 1024
        return
    with pytest.raises(ModelError, match=sentence) as refused:
        take(export, models)
    assert "importing" not in str(refused.value), "a folder that is gone by now"
    assert_nothing_is_left(models)


def test_a_snapshot_in_a_hubs_cache_is_taken_though_it_is_made_of_links(tmp_path, models):
    repository = tmp_path / "models--owner--name"
    blobs = builder_folder(repository / "blobs")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    take(snapshot, models)
    assert not any(path.is_symlink() for path in (models / "tiny").iterdir())
