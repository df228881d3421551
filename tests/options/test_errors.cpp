/// Every way to give an option wrongly: its own message, with the key and the place.
#include "given.hpp"

using namespace parscale;
using namespace parscale::program;

TEST_CASE("A misspelt key is refused with the one that was meant") {
  const std::string error = refusal_of_words({"training.max_step=3"});
  CHECK(contains(error, "'training.max_step' does not exist"));
  CHECK(contains(error, "did you mean training.max_steps?"));
}

TEST_CASE("A key without its section, in another section or with dashes is recognised") {
  CHECK(contains(refusal_of_words({"max_steps=3"}), "did you mean training.max_steps?"));
  CHECK(contains(refusal_of_words({"training.parscale_n=3"}), "did you mean parscale.parscale_n?"));
  CHECK(contains(refusal_of_words({"--learning-rate", "3"}), "did you mean training.learning_rate?"));
  CHECK(contains(refusal_of_words({"training.evaluation_strategy=no"}),
                 "did you mean training.eval_strategy?"));
}

TEST_CASE("A key like no other is refused with a pointer to the help") {
  CHECK(contains(refusal_of_words({"training.xyzzy=3"}), "--help lists all keys"));
}

TEST_CASE("An unknown key of a file is refused with line and column") {
  CHECK(contains(refusal_of_yaml("training:\n  seed: 1\n  max_stepps: 3\n"), "run.yaml, line 3, column 3"));
}

TEST_CASE("An unknown section is refused with the one that was meant") {
  const std::string error = refusal_of_yaml("trainig:\n  seed: 1\n");
  CHECK(contains(error, "'trainig'"));
  CHECK(contains(error, "did you mean training?"));
}

TEST_CASE("A key at the top of a file is shown its section") {
  CHECK(contains(refusal_of_yaml("max_steps: 3\n"), "did you mean training.max_steps?"));
}

TEST_CASE("A stray word is refused") {
  CHECK(contains(refusal_of_words({"training"}), "'training' is not an option"));
  CHECK(contains(refusal_of_words({"-x=1"}), "'-x=1' is not an option"));
}

TEST_CASE("A list that the shell has split is refused with the advice to quote it") {
  CHECK(contains(refusal_of_words({"parscale.parscale_cross_attn_layers=[0,", "6]"}), "quote a value"));
}

TEST_CASE("A key at the end without its value is refused") {
  CHECK(contains(refusal_of_words({"--training.max_steps"}), "training.max_steps needs a value"));
  CHECK(contains(refusal_of_words({"--config"}), "--config needs"));
}

TEST_CASE("A number where a leading zero could mean octal is refused") {
  const std::string error = refusal_of_yaml("training:\n  max_steps: 010\n");
  CHECK(contains(error, "training.max_steps"));
  CHECK(contains(error, "'010' starts with a zero"));
  CHECK(contains(error, "line 2, column 14"));
  CHECK(contains(refusal_of_words({"training.learning_rate=00.1"}), "starts with a zero"));
}

TEST_CASE("Numbers of other notations are refused") {
  CHECK(contains(refusal_of_words({"training.max_steps=0x10"}), "not written as a decimal number"));
  CHECK(contains(refusal_of_words({"training.max_steps=1_000"}), "not written as a decimal number"));
}

TEST_CASE("Numbers that are not finite are refused") {
  for (const char* word : {"nan", "NaN", ".nan", "inf", "-.inf", "-Infinity"})
    CHECK(contains(refusal_of_words({std::string("training.learning_rate=") + word}),
                   "is not a finite number"));
  CHECK(contains(refusal_of_words({"training.learning_rate=1e999"}), "beyond the range of a double"));
  CHECK(contains(refusal_of_words({"training.seed=99999999999999999999"}), "beyond the range of 64 bits"));
}

TEST_CASE("A fraction is no whole number") {
  CHECK(
      contains(refusal_of_words({"training.max_length=1.5"}), "training.max_length must be a whole number"));
}

TEST_CASE("Values out of range are refused with the range") {
  CHECK(contains(refusal_of_words({"parscale.parscale_n=0"}), "from 1 to 64"));
  CHECK(contains(refusal_of_words({"parscale.parscale_n=65"}), "at most 64"));
  CHECK(contains(refusal_of_words({"parscale.parscale_attn_smooth=1.5"}), "from 0 to 1"));
  CHECK(contains(refusal_of_words({"training.learning_rate=0"}), "above 0"));
  CHECK(contains(refusal_of_words({"training.max_steps=-1"}), "at least 1"));
  CHECK(contains(refusal_of_words({"training.max_steps=1e12"}), "at most 2147483648"));
  CHECK(contains(refusal_of_words({"parscale.parscale_cross_attn_layers=[-1]"}), "from 0 to 65535"));
}

TEST_CASE("Values of another type are refused") {
  CHECK(contains(refusal_of_words({"training.max_steps=many"}), "the value is 'many'"));
  CHECK(contains(refusal_of_words({"training.max_steps=[1]"}), "the value is a list"));
  CHECK(contains(refusal_of_words({"training.max_steps=true"}), "whole number"));
  CHECK(contains(refusal_of_words({"training.max_steps=None"}), "nothing (null)"));
  CHECK(contains(refusal_of_words({"training.cut_documents=1"}), "true or false"));
  CHECK(contains(refusal_of_words({"parscale.parscale_cross_attn_layers=3"}), "a list like"));
  CHECK(contains(refusal_of_yaml("training:\n  dataset: {a: b}\n"), "a mapping of keys"));
  CHECK(contains(refusal_of_yaml("training:\n  dataset: [a]\n"), "training.dataset must be a text"));
  CHECK(contains(refusal_of_words({"training.save_steps=[1]"}), "training.save_steps"));
}

TEST_CASE("A quoted number is a text") {
  CHECK(contains(refusal_of_yaml("training:\n  max_steps: '5'\n"), "remove the quotes"));
  CHECK(contains(refusal_of_yaml("training:\n  cut_documents: 'true'\n"), "remove the quotes"));
}

TEST_CASE("A word that is no choice is refused with all choices and the nearest") {
  const std::string error = refusal_of_words({"training.lr_scheduler_type=cosin"});
  CHECK(contains(error, "warmup_stable_decay"));
  CHECK(contains(error, "did you mean cosine?"));
}

TEST_CASE("The same key twice in a file is refused") {
  const std::string error = refusal_of_yaml("training:\n  seed: 1\n  seed: 2\n");
  CHECK(contains(error, "'seed' is given twice"));
  CHECK(contains(error, "line 3, column 3"));
  CHECK(contains(refusal_of_yaml("training:\n  seed: 1\ntraining:\n  max_steps: 2\n"),
                 "'training' is given twice"));
}

TEST_CASE("Tabs are refused with the advice to use spaces") {
  CHECK(contains(refusal_of_yaml("training:\n\tseed: 1\n"), "indent with spaces"));
  CHECK(contains(refusal_of_yaml("training:\n  seed: 1\n\tmax_steps: 2\n"), "line 3"));
}

TEST_CASE("An unclosed quote is refused where it opens") {
  const std::string error = refusal_of_yaml("training:\n  dataset: 'a.txt\n  seed: 2\n");
  CHECK(contains(error, "never closed"));
  CHECK(contains(error, "line 2, column 12"));
  CHECK(contains(refusal_of_yaml("training:\n  dataset: \"a\\\"\n"), "never closed"));
}

TEST_CASE("Quotes that are closed are fine, with whatever they hold") {
  CHECK(from_yaml("training:\n  dataset: 'it''s'\n").training.dataset == "it's");
  CHECK(from_yaml("training:\n  dataset: \"a\\\"b\"\n").training.dataset == "a\"b");
  CHECK(from_yaml("training:\n  dataset: |-\n    'open\n").training.dataset == "'open");
}

TEST_CASE("Several documents are refused") {
  CHECK(contains(refusal_of_yaml("training:\n  seed: 1\n---\ntraining:\n  seed: 2\n"), "one YAML document"));
}

TEST_CASE("Tags, merge keys, directives and keys that are no words are refused") {
  CHECK(contains(refusal_of_yaml("training:\n  seed: !!int 3\n"), "tags"));
  CHECK(contains(refusal_of_yaml("a: &a {seed: 1}\ntraining:\n  <<: *a\n"), "Merge keys"));
  CHECK(contains(refusal_of_yaml("%YAML 1.1\n---\ntraining:\n  seed: 1\n"), "directives"));
  CHECK(contains(refusal_of_yaml("? [a]\n: b\n"), "A key must be a word"));
}

TEST_CASE("Bottomless nesting is refused") {
  CHECK(contains(refusal_of_yaml("model: " + std::string(5000, '[') + std::string(5000, ']')), "16 levels"));
}

TEST_CASE("Aliases that multiply without end are refused") {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
    for (int k = 1; k < 10; ++k) bomb += ", " + last;
    bomb += "]\n";
  }
  CHECK(contains(refusal_of_yaml(bomb), "beyond all measure"));
}

TEST_CASE("Broken syntax is refused with line and column") {
  CHECK(contains(refusal_of_yaml("training:\n  a: b: c\n"), "line 2, column 7"));
  CHECK(contains(refusal_of_yaml("training: [1, 2\n"), "not valid YAML"));
}

TEST_CASE("Text that is not UTF-8 and control characters are refused") {
  CHECK(contains(refusal_of_yaml("training:\n  dataset: \xff\n"), "not UTF-8"));
  CHECK(contains(refusal_of_yaml("training:\n  dataset: \xed\xa0\x80\n"), "line 2, column 12"));
  CHECK(contains(refusal_of_yaml("training:\n  dataset: a\x04\n"), "control character"));
  CHECK(contains(refusal_of_yaml(std::string("training:\n  dataset: a\0b\n", 24)), "control character"));
}

TEST_CASE("A file that is no mapping of sections is refused") {
  CHECK(contains(refusal_of_yaml("- training\n"), "sections of keys"));
  CHECK(contains(refusal_of_yaml("training:seed\n"), "sections of keys"));
  CHECK(contains(refusal_of_yaml("training: 3\n"), "must hold keys and values"));
  CHECK(contains(refusal_of_yaml("model: [1]\n"), "config.json"));
}

TEST_CASE("A configuration that is missing, a folder or too large is refused") {
  const TemporaryFolder folder;
  const auto large = folder.file("large.yaml", std::string((1 << 20) + 1, '\n'));
  CHECK(contains(refusal([&] { parse_options({folder.path() / "none.yaml"}, {}); }), "none.yaml"));
  CHECK(contains(refusal([&] { parse_options({folder.path()}, {}); }), "cannot be read"));
  CHECK(contains(refusal([&] { parse_options({large}, {}); }), "1 MiB"));
}

TEST_CASE("A value in the section model that cannot be a number is refused") {
  CHECK(contains(refusal_of_yaml("model:\n  hidden_size: 010\n"), "'010'"));
  CHECK(contains(refusal_of_words({"model.a.b=1"}), "model.a.b"));
}
