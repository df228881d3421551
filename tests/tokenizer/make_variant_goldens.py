"""Writes what Hugging Face's tokenizers say of many small variants of one byte-level BPE tokenizer.

    pip install tokenizers==0.21.4
    python3 tests/tokenizer/make_variant_goldens.py tests/data/goldens/tokenizer/variants [SEED [TEXTS]]

OUT/base.json is a tokenizer of 600 entries, trained on the novel that lies in data/. Every other file is a variant: its
first line holds a JSON merge patch (RFC 7386) of base.json, every further line a text, its ids, and both decodings.
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

NOVEL = Path(__file__).parents[2] / "data/austen/emma.txt"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BEHAVIORS = ["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]
TEXTS = [
    "", " ", "a", " a  b ", "Emma Woodhouse, handsome, clever, and rich.", "I'm you'LL they'Ve IT'S '\u017f '\u212a don't",
    "12 345 6789 \u0663\u0664 \u00bd\u00b2\u2460 x1y22", "a\r\n\r\n  b\n \n\tc", "caf\u00e9 cafe\u0301 \u1e9b\u0323 A\u030a \u212b \uac00 \u1100\u1161\u11a8",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u304b\u3099\u30ab\u3099", "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1ec\U0001f1e7", "\u00a0\u2003\u200b\u180e\u0085\u2028x\u2029\ufeff\ufffd\u0000",
    "the the the" * 20, "-" * 100, " " * 70 + "x", "x\u0301" * 40, "snake_case \u203f under\u0301_score \u24b6\u2160",
    "<s>a <s> b<s>", "<end>  <end>\n<end>", "word <word> sword words word_ word\u0301 word, word", "<a><ab><abc><abcd> <e<en<end><enders>",
    "  <l>  <r>  <lr>  x", "<r>   <l> <lr>\u00a0\u3000<lr>", "caf\u00e9X cafe\u0301X \u2126 \u03a9", "\uff5c\u2581 <\uff5cx\u2581y\uff5c> \u00e9\u00e9", "<tab\t>< >< >",
]


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def base():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train([str(NOVEL)], trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return json.loads(t.to_str())


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(use_regex=False, add_prefix_space=False):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def digits(individual):
    return {"type": "Digits", "individual_digits": individual}


def sequence(*steps):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def added(id, content, **flags):
    return {"id": id, "content": content,
            **{f: f in flags for f in ["single_word", "lstrip", "rstrip", "normalized", "special"]}}


def added_tokens(first_id):
    rows = [("<end>", dict(special=1, rstrip=1)), ("word", dict(single_word=1)), ("<e", {}), ("<ender", {}), ("<a>", {}), ("<abc>", {}),
            ("<ab>", dict(normalized=1)), ("<l>", dict(lstrip=1)), ("<r>", dict(rstrip=1)),
            ("<lr>", dict(lstrip=1, rstrip=1, special=1)), ("cafe\u0301X", dict(normalized=1)), ("\u2126", dict(normalized=1)),
            ("<\uff5cx\u2581y\uff5c>", dict(special=1)), ("\u00e9\u00e9", {}), ("  ", dict(normalized=1)), ("<tab\t>", {}), ("< >", dict(special=1))]
    return [added(0, "<s>", special=1)] + [added(first_id + i, c, **f) for i, (c, f) in enumerate(rows)]


def variants(base_json):
    first_id, merges = len(base_json["model"]["vocab"]), base_json["model"]["merges"]
    plain = {"normalizer": None}
    yield "base", {}
    yield "gpt2", plain | {"pre_tokenizer": byte_level(use_regex=True)}
    yield "gpt2_prefix_space", plain | {"pre_tokenizer": byte_level(use_regex=True, add_prefix_space=True)}
    yield "prefix_space_for_each_piece", sequence(split(r"\s+"), byte_level(add_prefix_space=True))
    yield "one_word", plain | {"pre_tokenizer": byte_level()}
    yield "digits_individual", plain | sequence(digits(True), byte_level(use_regex=True))
    yield "digits_together", plain | sequence(digits(False), byte_level(use_regex=True, add_prefix_space=True))
    yield "llama3_ignore_merges", sequence(split(LLAMA3), byte_level()) | {
        "normalizer": None, "model": {"ignore_merges": True, "merges": merges[::3]},
        "post_processor": {"type": "Sequence", "processors": [base_json["pre_tokenizer"]["pretokenizers"][1], {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}]}}
    yield "gpt4o", sequence(split(GPT4O), byte_level())
    yield "deepseek", sequence(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK), byte_level())
    yield "words_and_scripts", sequence(split(r"\w+|\p{Han}+|[\p{^Lu}\s]"), split(r"(?<=[\u0041-Z])\d*\D|\x{E9}|^.|.$"), byte_level())
    yield "empty_matches", sequence(split(r"a*|(?=e)"), byte_level())
    yield "literal", sequence(split("e. ", "MergedWithPrevious", kind="String"), split(" ", "MergedWithNext", kind="String"), byte_level())
    for behavior in BEHAVIORS:
        yield behavior.lower(), sequence(split(r"[\s\p{P}]", behavior), byte_level())
        yield behavior.lower() + "_inverted", sequence(split(r"\p{L}+|\s", behavior, invert=True), byte_level())
    yield "merges_as_strings", {"model": {"merges": ["#version: 0.2"] + [" ".join(m) for m in merges[:100]]}}
    yield "added_tokens", {"added_tokens": added_tokens(first_id)}
    yield "added_tokens_plain", plain | {"added_tokens": added_tokens(first_id), "pre_tokenizer": byte_level(True, True)}
    yield "normalizer_sequence", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFC"}]}}


def texts(seed, count):
    r, novel = random.Random(seed), NOVEL.read_text(encoding="utf-8")
    yield from TEXTS
    ranges = [(32, 127), (160, 0x250), (0x300, 0x370), (0x370, 0x500), (0x600, 0x700), (0x1100, 0x1200), (0x2000, 0x2070), (0x3040, 0x3100),
              (0x4E00, 0x5000), (0xAC00, 0xAD00), (0x1F300, 0x1F600), (9, 14), (48, 58), (32, 33)]
    for i in range(count):
        at = r.randrange(len(novel) - 100)
        yield novel[at: at + r.randrange(1, 100)]
        some = r.sample(ranges, r.randrange(1, 4))
        yield "".join(chr(r.randrange(*r.choice(some))) for _ in range(r.randrange(1, 40)))
        yield "".join(r.choice(TEXTS[17:] + [" ", "x", "\n"]) for _ in range(r.randrange(1, 5)))


def main(out, seed=1, count=10):
    base_json = base()
    out.mkdir(parents=True, exist_ok=True)
    (out / "base.json").write_text(json.dumps(base_json, ensure_ascii=False), encoding="utf-8")
    for name, patch in variants(base_json):
        t = Tokenizer.from_str(json.dumps(merge_patch(base_json, patch)))
        with open(out / (name + ".jsonl"), "w", encoding="utf-8") as f:
            f.write(json.dumps({"patch": patch}) + "\n")
            for text in texts(seed, count):
                ids = t.encode(text, add_special_tokens=False).ids
                f.write(json.dumps(dict(text=text, ids=ids, decoded=t.decode(ids, skip_special_tokens=False),
                                        without_special=t.decode(ids, skip_special_tokens=True))) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
