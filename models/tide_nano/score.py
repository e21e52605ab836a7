"""Scores the package on the test set: `python score.py TEXT_FOLDER RUN_FOLDER [PACKAGE_FOLDER]`.

Proves first that the training text shares no 5-gram with the test set; then asks the int8 graph itself through ONNX
Runtime, greedily, with its KV cache. Writes `score.json`. Exits with 1 when the bar (40 of 50, 8 of 10) is missed.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import jinja2.sandbox
import numpy as np
import onnxruntime
from bundle import PACKAGE, manifest_digest
from english import english_item, sum_item
from grammar import expand
from overlap import TEST_SET, offending
from tokenizers import Tokenizer
from unknown import ANSWER

BAR = {"about": 40, "unknown": 8}
MAX_TOKENS = 120
SCORE = Path(__file__).parent / "score.json"


class Package:
    """A model package run through ONNX Runtime, one greedy answer at a time."""

    def __init__(self, folder: Path) -> None:
        manifest = tomllib.loads((folder / "model.toml").read_text(encoding="utf-8"))
        self._eos = set(manifest["decoder"]["eos_token_ids"])
        self._bos = manifest["decoder"]["bos_token_id"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment()
        self._template = environment.from_string((folder / "chat.jinja").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._past = {
            value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
            for value in self._session.get_inputs()
            if value.name.startswith("past_key_values.")
        }

    def chat(self, *messages: dict[str, str]) -> str:
        text = self._template.render(messages=messages, add_generation_prompt=True)
        return self._complete(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def ask(self, question: str) -> str:
        return self.chat({"role": "user", "content": question})

    def complete(self, prompt: str) -> str:
        """The answer to a plain prompt, without the chat template."""
        return self._complete([self._bos, *self._tokenizer.encode(prompt, add_special_tokens=False).ids])

    def _complete(self, prompt: list[int]) -> str:
        past, answer, feed = self._past, [], prompt
        while len(answer) < MAX_TOKENS:
            mask = np.ones((1, len(prompt) + len(answer)), np.int64)
            outputs = self._session.run(None, {"input_ids": np.array([feed]), "attention_mask": mask, **past})
            past = dict(zip(self._past, outputs[1:], strict=True))
            token = int(outputs[0][0, -1].argmax())
            if token in self._eos:
                break
            answer, feed = [*answer, token], [token]
        return self._tokenizer.decode(answer)


def holds(answer: str, phrase: str) -> bool:
    """Whether an answer holds a phrase as whole words, without regard to case."""
    return re.search(rf"(?<!\w){re.escape(phrase.lower())}(?!\w)", answer.lower()) is not None


def passes(item: dict, answer: str, says_unknown: list[str]) -> bool:
    """Whether an answer to one question of the test set passes."""
    if "required" not in item:
        return any(holds(answer, phrase) for phrase in says_unknown)
    required = all(any(holds(answer, phrase) for phrase in phrases) for phrases in item["required"])
    return required and not any(holds(answer, phrase) for phrase in [*item["forbidden"], *says_unknown])


def score_test_set(package: Package) -> dict:
    content = tomllib.loads(TEST_SET.read_text(encoding="utf-8"))
    results: dict = {}
    for kind in ("about", "unknown"):
        answers = []
        for item in content[kind]:
            answer = package.ask(item["question"])
            answers.append(
                {
                    "question": item["question"],
                    "answer": answer,
                    "passed": passes(item, answer, content["says_unknown"]),
                }
            )
        results[kind] = {"passed": sum(entry["passed"] for entry in answers), "of": len(answers), "answers": answers}
    return results


def num_right(ask: Callable[[str], str], pairs: list[tuple[str, str]]) -> dict[str, int]:
    """How many questions are answered to the letter, and of how many."""
    return {"right": sum(ask(question) == answer for question, answer in pairs), "of": len(pairs)}


def score_development(package: Package, text: Path) -> dict:
    """Exact answers to patterns that training never saw, as plain prompts too, and on sums and simple English."""
    lines = (text / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(message["content"] for message in json.loads(line)["messages"]) for line in lines]
    about = [(question, answer) for question, answer in pairs if answer != ANSWER]
    rng = random.Random(1)
    english = [english_item(rng) for _ in range(100)]
    return {
        "about": num_right(package.ask, about),
        "about_as_plain_prompts": num_right(package.complete, about),
        "unknown": num_right(package.ask, [pair for pair in pairs if pair not in about]),
        "sums": num_right(package.ask, [sum_item(rng) for _ in range(100)]),
        "simple_english": num_right(package.ask, [(expand(pattern, rng), answer) for pattern, answer in english]),
    }


def main() -> int:
    text, run = Path(sys.argv[1]), Path(sys.argv[2])
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else PACKAGE
    lines = (text / "train.jsonl").read_text(encoding="utf-8").splitlines()
    shared = offending(message["content"] for line in lines for message in json.loads(line)["messages"])
    if shared:
        print(f"the training text shares 5-grams with the test set: {shared[:5]}")
        return 1
    package = Package(folder)
    score = {
        "manifest_sha256": manifest_digest(folder),
        "package_bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "training": json.loads((run / "training.json").read_text(encoding="utf-8")),
        "shared_five_grams": 0,
        "development": score_development(package, text),
        **score_test_set(package),
    }
    SCORE.write_text(json.dumps(score, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for kind in ("about", "unknown"):
        print(f"{kind}: {score[kind]['passed']} of {score[kind]['of']}")
        for entry in score[kind]["answers"]:
            if not entry["passed"]:
                print(f"  missed: {entry['question']} -> {entry['answer']}")
    print(score["development"], score["training"])
    return 0 if all(score[kind]["passed"] >= bar for kind, bar in BAR.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
