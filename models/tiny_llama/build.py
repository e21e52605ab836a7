"""Builds the tiny random Llama that the engine's tests run, with the tokens that Hugging Face makes of its weights.

    python models/tiny_llama/build.py            # needs the dependency group `train`

It writes, deterministically for one set of library versions:

- tests/models/tiny-llama/            the model package: the standard export, fp32, `logits [B,S,V]`
- tests/models/tiny-llama-positions/  the same weights in the other form found in the wild: an input `position_ids`
                                      and pruned `logits [B,1,V]`
- tests/models/graphs/                graphs alone: the weights in int8 and int4 (blocks of 32) and float16, and one
                                      that grows its cache, which the engine refuses
- tests/models/tiny-llama-reference.json   prompts of 1 to 500 tokens with the greedy answer of `transformers`

The weights are random and large, so that the answers vary from token to token and depend on the whole prompt; the
row of the end-of-sequence token is stretched so that some answers end early.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from text import TEXT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 7
CONTEXT_LENGTH = 1024
MAX_NEW_TOKENS = 48
SPECIAL_TOKENS = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
PAD, BEGIN, END = 0, 1, 2
PROMPT_LENGTHS = [
    1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 23, 31, 32, 33,
    47, 63, 64, 65, 90, 127, 128, 129, 180, 255, 256, 257, 333, 400, 499, 500,
]  # fmt: skip
SMALLEST_MARGIN = 2e-3  # logits; a closer race could end differently on another processor

CHAT_TEMPLATE = (
    "{%- for message in messages -%}\n"
    "<|{{ message.role }}|>{{ message.content }}<|end|>\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}\n"
)

MANIFEST = """\
format = 1
name = "{name}"
description = "A random Llama of 0.2 million parameters for the engine's own tests; its answers mean nothing."
license = "Apache-2.0"
engine = "decoder"

[decoder]
graph = "model.onnx"
tokenizer = "tokenizer.json"
context_length = {context_length}
eos_token_ids = [{eos}]
bos_token_id = {bos}

[chat]
template = "default"
roles = ["system", "user", "assistant"]

[chat.templates]
default = "chat.jinja"

[defaults]
max_tokens = 64
temperature = 0.0
top_p = 1.0
top_k = 0

[prices]
session_per_second = 10_000
input_per_million_tokens = 5_000_000
output_per_million_tokens = 15_000_000

[files]
{files}"""


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE of 512 tokens: 6 special ones, 256 bytes, 250 merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    assert tokenizer.get_vocab_size() == 512
    return tokenizer


def make_model() -> LlamaForCausalLM:
    """A Llama with random weights: 2 layers, hidden 64, 4 heads, 2 key/value heads of 16."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT_LENGTH,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=PAD,
        dtype="float32",
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[END] *= 1.35
        model.lm_head.weight[[PAD, BEGIN]] *= 0.1
    return model


def greedy(model: LlamaForCausalLM, prompt: list[int]) -> tuple[list[int], float]:
    """The answer of `generate` and the smallest distance between its best and second logit."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, len(prompt) :].tolist(), float((best[:, 0] - best[:, 1]).min())


def make_reference(model: LlamaForCausalLM) -> dict[str, object]:
    """One prompt of each length with its greedy answer; prompts whose answer hangs on a close race are drawn anew."""
    random = np.random.default_rng(SEED)
    cases = []
    for length in PROMPT_LENGTHS:
        while True:
            prompt = random.integers(len(SPECIAL_TOKENS), 512, length).tolist()
            tokens, margin = greedy(model, prompt)
            if margin >= SMALLEST_MARGIN:
                break
        cases.append({"prompt": prompt, "tokens": tokens})
        print(f"{length:4} tokens -> {len(tokens):2} new, {len(set(tokens)):2} different, margin {margin:.4f}")
    return {"max_tokens": MAX_NEW_TOKENS, "eos_token_ids": [END], "cases": cases}


def export(checkpoint: Path, graph: Path, options: list[str], target: tuple[str, str] = ("fp32", "cpu")) -> None:
    """Run the standard builder for (precision, device) and put its graph and weights into one file."""
    import onnx  # here, so that a test can ask for the model alone
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    with tempfile.TemporaryDirectory() as folder:
        place = (None, str(checkpoint), folder, *target, folder)
        create_model(*place, **parse_extra_options(*place, options))
        model = onnx.load(Path(folder) / "model.onnx")
    onnx.save(model, graph)


def write_growing_graph(graph: Path) -> None:
    """A graph with the names of a decoder export whose cache is the past with something appended: the old kind."""
    from onnx import TensorProto, helper, save

    def cache(name: str, length: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2, length, 16])

    def tokens(name: str, length: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.INT64, ["b", length])

    parts = ("key", "value")
    nodes = [
        helper.make_node("OneHot", ["input_ids", "depth", "on_off"], ["logits"]),
        helper.make_node("ConstantOfShape", ["step"], ["new"]),
        *(helper.make_node("Concat", [f"past_key_values.0.{p}", "new"], [f"present.0.{p}"], axis=2) for p in parts),
    ]
    constants = [
        helper.make_tensor("depth", TensorProto.INT64, [1], [512]),
        helper.make_tensor("on_off", TensorProto.FLOAT, [2], [0.0, 1.0]),
        helper.make_tensor("step", TensorProto.INT64, [4], [1, 2, 1, 16]),
    ]
    inputs = [tokens("input_ids", "s"), tokens("attention_mask", "t")]
    inputs += [cache(f"past_key_values.0.{p}", "past") for p in parts]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "s", 512])]
    outputs += [cache(f"present.0.{p}", "total") for p in parts]
    graph_proto = helper.make_graph(nodes, "growing", inputs, outputs, constants)
    model = helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    save(model, graph)


def write_package(folder: Path, checkpoint: Path, tokenizer: Tokenizer, options: list[str]) -> None:
    """Write one package in the format of docs/model-package.md."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    export(checkpoint, folder / "model.onnx", options)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat.jinja").write_text(CHAT_TEMPLATE)
    lines = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f'"{file.name}" = {{ sha256 = "{digest}", bytes = {len(content)} }}\n')
    manifest = MANIFEST.format(
        name=folder.name, context_length=CONTEXT_LENGTH, eos=END, bos=BEGIN, files="".join(lines)
    )
    (folder / "model.toml").write_text(manifest)


def main() -> None:
    """Build everything into tests/models."""
    target = Path(__file__).parents[2] / "tests" / "models"
    tokenizer, model = train_tokenizer(), make_model()
    reference = make_reference(model)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        model.save_pretrained(checkpoint)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(checkpoint)
        write_package(target / "tiny-llama", checkpoint, tokenizer, [])
        graphs = target / "graphs"
        graphs.mkdir(exist_ok=True)
        write_growing_graph(graphs / "growing-cache.onnx")
        blocks_of_32 = ["block_size=32", "accuracy_level=4", "is_symmetric=true"]
        export(checkpoint, graphs / "tiny-llama-int8.onnx", blocks_of_32, ("int8", "cpu"))
        export(checkpoint, graphs / "tiny-llama-int4.onnx", blocks_of_32, ("int4", "cpu"))
        export(checkpoint, graphs / "tiny-llama-fp16.onnx", [], ("fp16", "cuda"))
        # The builder leaves `position_ids` in the graph where the device does not fuse the rotary embedding. Its
        # modules import each other as `builders`, so this is the class that it really uses.
        sys.modules["builders.base"].Model.is_fused_rope_supported = lambda self: False
        write_package(target / "tiny-llama-positions", checkpoint, tokenizer, ["prune_lm_head=true", "fuse_qkv=false"])
    (target / "tiny-llama-reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
