#include <parscale/io/json.hpp>
#include <parscale/io/json_fields.hpp>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::Json;
using io::JsonFields;
using io::parse_json;

namespace {

std::string syntax_error(std::string_view text) {
  return error_of<InputError>([&] { parse_json(text, "some.json"); });
}

std::string nested(std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

}  // namespace

TEST_CASE("JSON values of every type are parsed") {
  const Json json = parse_json(R"( {"a": [1, -2, 2.5, "x", true, null], "b": {}, "c": []} )", "f");
  CHECK(json.dump() == R"({"a":[1,-2,2.5,"x",true,null],"b":{},"c":[]})");
  CHECK(json["a"][0].is_number_unsigned());
  CHECK(json["a"][1].is_number_integer());
  CHECK(parse_json("3", "f") == 3);
}

TEST_CASE("A JSON object keeps the order of the file") {
  const Json json = parse_json(R"({"z":1,"a":2,"m":3})", "f");
  std::string keys;
  for (const auto& [key, value] : json.members()) keys += key;
  CHECK(keys == "zam");
}

TEST_CASE("A JSON object of 200,000 keys is parsed in a moment") {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i)
    text += (i > 0 ? ",\"k" : "\"k") + std::to_string(i) + "\":" + std::to_string(i);
  const Json json = parse_json(text + "}", "f");  // minutes, if every key were searched for
  CHECK(json.size() == 200000);
}

TEST_CASE("A JSON syntax error names file and line") {
  CHECK_THAT(syntax_error("{\n\"a\": 1,\n\"b\": }"),
             ContainsSubstring("not valid JSON") && ContainsSubstring("some.json, line 3"));
}

TEST_CASE("Empty text is not JSON") {
  CHECK_THAT(syntax_error(""), ContainsSubstring("unexpected end of input"));
}

TEST_CASE("Text after the JSON value is an error") {
  CHECK_THAT(syntax_error("{} x"), ContainsSubstring("not valid JSON"));
}

TEST_CASE("A duplicate key is an error with key and line") {
  CHECK_THAT(syntax_error("{\"a\": 1,\n\"b\": {\"a\": 1},\n\"a\": 2}"), ContainsSubstring("same key twice") &&
                                                                            ContainsSubstring("\"a\"") &&
                                                                            ContainsSubstring("line 3"));
  CHECK_NOTHROW(parse_json(R"({"a": {"a": [{"a": 1}, {"a": 1}]}})", "f"));
}

TEST_CASE("JSON may be nested 64 levels deep and no deeper") {
  CHECK_NOTHROW(parse_json(nested(64), "f"));
  CHECK_THAT(syntax_error(nested(65)), ContainsSubstring("nested too deeply"));
}

TEST_CASE("Eight million opening brackets are an error, not a crash") {
  CHECK_THAT(syntax_error(std::string(8'000'000, '[')), ContainsSubstring("nested too deeply"));
  std::string objects;
  for (int i = 0; i < 1'000'000; ++i) objects += "{\"a\":";
  CHECK_THAT(syntax_error(objects), ContainsSubstring("nested too deeply"));
}

TEST_CASE("Invalid UTF-8 in JSON is an error") {
  CHECK_THAT(syntax_error("[\"\xff\"]"), ContainsSubstring("ill-formed UTF-8"));
  CHECK_THAT(syntax_error("{\"\xc3(\": 1}"), ContainsSubstring("ill-formed UTF-8"));
  CHECK_THAT(syntax_error("[\"\xed\xa0\x80\"]"), ContainsSubstring("ill-formed UTF-8"));  // a surrogate
  CHECK_THAT(syntax_error(R"(["\ud800"])"), ContainsSubstring("not valid JSON"));
}

TEST_CASE("A number beyond double is an error") {
  CHECK_THAT(syntax_error("[1e999]"), ContainsSubstring("number overflow"));
}

TEST_CASE("A JSON error quotes only a little of a large file") {
  CHECK(syntax_error("\"" + std::string(1'000'000, 'x')).size() < 500);
}

TEST_CASE("A JSON file that is missing is an input error") {
  CHECK_THAT(error_of<InputError>([] { io::read_json("absent.json"); }), ContainsSubstring("does not exist"));
}

TEST_CASE("A written JSON file reads as the same value") {
  TemporaryDirectory folder;
  const Json json = {{"b", {1, 2}}, {"a", "\u00e4\n"}};
  io::write_json(folder / "x.json", json);
  CHECK(io::read_json(folder / "x.json") == json);
}

TEST_CASE("Text that is not UTF-8 cannot become JSON, and the file is not touched") {
  TemporaryDirectory folder;
  const auto path = folder.file("x.json", "before");
  CHECK_THAT(error_of<ConfigurationError>([&] { io::write_json(path, Json("\xff")); }),
             ContainsSubstring("not valid UTF-8"));
  CHECK(io::read_file(path) == "before");
}

TEST_CASE("Typed fields return what stands there") {
  const Json json =
      parse_json(R"({"n": 5, "x": 0.5, "i": 3, "f": true, "t": "word", "l": [1, 2], "null": null})", "f");
  const JsonFields fields(json, "f");
  CHECK(fields.integer("n", 0) == 5);
  CHECK(fields.integer_or("absent", 7, 0) == 7);
  CHECK(fields.integer_or("null", 7, 0) == 7);
  CHECK(fields.number_or("x", 1) == 0.5);
  CHECK(fields.number_or("i", 1) == 3.0);
  CHECK(fields.flag_or("f", false));
  CHECK(fields.text_or("t", "") == "word");
  CHECK(fields.integers("l") == std::vector<std::int32_t>{1, 2});
  CHECK(fields.integers("n", true) == std::vector<std::int32_t>{5});
  CHECK_FALSE(fields.integers("absent").has_value());
}

TEST_CASE("A field of the wrong type is an error that names the key, the wish and the value") {
  const Json json =
      parse_json(R"({"n": "5", "half": 1.5, "huge": 1e300, "big": 18446744073709551615, "minus": -1})", "f");
  const JsonFields fields(json, "f.json");
  const auto integer = [&](const char* key) { return error_of<InputError>([&] { fields.integer(key, 0); }); };
  CHECK_THAT(integer("n"), ContainsSubstring("n must be a whole number from 0") &&
                               ContainsSubstring("it is \"5\"") && ContainsSubstring("f.json"));
  CHECK_THAT(integer("half"), ContainsSubstring("it is 1.5"));
  CHECK_THAT(integer("huge"), ContainsSubstring("it is 1e+300"));
  CHECK_THAT(integer("big"), ContainsSubstring("18446744073709551615"));
  CHECK_THAT(integer("minus"), ContainsSubstring("it is -1"));
  CHECK_THAT(integer("absent"), ContainsSubstring("The key absent is missing"));
  CHECK_THAT(error_of<InputError>([&] { fields.number_or("n", 0); }), ContainsSubstring("must be a number"));
  CHECK_THAT(error_of<InputError>([&] { fields.flag_or("n", false); }),
             ContainsSubstring("must be true or false"));
  CHECK_THAT(error_of<InputError>([&] { fields.text_or("half", ""); }), ContainsSubstring("must be text"));
  CHECK_THAT(error_of<InputError>([&] { fields.integers("n"); }), ContainsSubstring("must be a list"));
  CHECK_THAT(error_of<InputError>([&] { JsonFields(Json::array(), "f"); }),
             ContainsSubstring("object is needed"));
}
