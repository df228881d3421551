/// Tokenising line by line: a JSON object comes in, a JSON object goes out.
#pragma once

#include <cstdint>
#include <istream>
#include <ostream>
#include <parscale/io/json.hpp>
#include <parscale/io/tokenizer.hpp>
#include <string>
#include <vector>

namespace parscale::program {

/// Runs f(object) -> object for every line. Throws InputError that names the line, StorageError when the
/// output does not take the result.
template <class F>
void for_each_json_line(std::istream& in, std::ostream& out, F&& f) {
  std::string line;
  for (std::size_t number = 1; out && std::getline(in, line); ++number) {
    try {
      out << f(io::parse_json(line, "")).dump() << '\n';
    } catch (const InputError& error) {
      Explanation e = error.explanation();
      e.where = "standard input, line " + std::to_string(number);
      throw InputError(e);
    }
    if (in.rdbuf()->in_avail() <= 0) out.flush();  // whoever talks to us line by line waits for the answer
  }
  out.flush();
  if (in.bad()) throw InputError({.what = "Reading failed", .where = "standard input"});
  if (!out) throw StorageError({.what = "Writing failed", .where = "standard output"});
}

/// {"text": "..."} -> {"ids": [...]}
inline void encode_lines(const io::Tokenizer& tokenizer, std::istream& in, std::ostream& out) {
  for_each_json_line(in, out, [&](const io::Json& object) {
    const io::Json* text = object.find("text");
    if (text == nullptr || !text->is_string())
      throw InputError({.what = "A line has no text", .why = "it should be as {\"text\": \"It was\"}"});
    return io::Json{{"ids", tokenizer.encode(text->text())}};
  });
}

/// The ids of {"ids": [...]}. Throws InputError unless all are numbers of tokens.
inline std::vector<std::int32_t> ids_of(const io::Json& object, const io::Tokenizer& tokenizer) {
  const io::Json* list = object.find("ids");
  if (list == nullptr || !list->is_array())
    throw InputError({.what = "A line has no ids", .why = "it should be as {\"ids\": [5, 7, 9]}"});
  std::vector<std::int32_t> ids;
  for (const io::Json& id : *list) {
    const bool fits =
        id.is_number_unsigned() && id.get<std::uint64_t>() < static_cast<std::uint64_t>(tokenizer.size());
    if (!fits) throw InputError({.what = "There is no token of this id", .why = id.dump()});
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

/// {"ids": [...]} -> {"text": "..."}
inline void decode_lines(const io::Tokenizer& tokenizer, io::SpecialTokens special, std::istream& in,
                         std::ostream& out) {
  for_each_json_line(in, out, [&](const io::Json& object) {
    return io::Json{{"text", tokenizer.decode(ids_of(object, tokenizer), special)}};
  });
}

}  // namespace parscale::program
