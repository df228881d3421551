/// From a text file to its documents, one after the other: a .txt file is one, a .jsonl file has one a line.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "../core/error.hpp"
#include "json.hpp"
#include "text_files.hpp"
#include "text_stream.hpp"
#include "unicode.hpp"

namespace parscale::io {

/// A place between two documents of a file, from which reading can go on.
struct Place {
  std::uint64_t byte = 0;      ///< of the unpacked text
  std::uint64_t line = 0;      ///< lines before it
  std::uint64_t document = 0;  ///< documents before it, without the empty ones
  bool operator==(const Place&) const = default;
};

namespace detail {

/// The lines of a stream, without their line feeds.
class LineReader {
 public:
  /// The next line, valid until the next call; nothing at the end. The last one may lack its line feed.
  std::optional<std::string_view> next(TextStream& stream) {
    std::size_t searched = begin_;
    std::size_t end = buffer_.find('\n', searched);
    while (end == std::string::npos) {
      searched = buffer_.size() - begin_;
      if (!read_more(stream)) return rest();
      end = buffer_.find('\n', searched);
    }
    return take(end, end + 1);
  }

  /// Bytes of the lines handed out, line feeds included.
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::optional<std::string_view> rest() {
    if (begin_ == buffer_.size()) return std::nullopt;
    return take(buffer_.size(), buffer_.size());
  }

  std::string_view take(std::size_t end, std::size_t next_begin) {
    const std::string_view line = std::string_view(buffer_).substr(begin_, end - begin_);
    bytes_ += next_begin - begin_;
    begin_ = next_begin;
    return line;
  }

  bool read_more(TextStream& stream) {
    buffer_.erase(0, begin_);
    begin_ = 0;
    const std::size_t have = buffer_.size();
    buffer_.resize(have + std::max(have, std::size_t{1} << 16));
    const std::size_t count = stream.read(std::span(buffer_).subspan(have));
    buffer_.resize(have + count);
    return count > 0;
  }

  std::string buffer_;
  std::size_t begin_ = 0;  // of the next line in the buffer
  std::uint64_t bytes_ = 0;
};

inline bool begins_with_byte_order_mark(std::string_view text) { return text.substr(0, 3) == "\xef\xbb\xbf"; }

/// The names of an object's fields, for an error.
inline std::string fields_of(const Json& object) {
  std::string names;
  for (const auto& [name, value] : object.members()) {
    if (names.size() > 200) return names + ", ...";
    names += (names.empty() ? "" : ", ") + name;
  }
  return names.empty() ? "none" : names;
}

}  // namespace detail

/// Reads the documents of one file in their order. Empty documents and blank lines are left out.
class DocumentReader {
 public:
  /// `text_field`: the field of a .jsonl line that holds the text. `from`: where an earlier reader stopped.
  DocumentReader(TextFile file, std::string text_field, const Place& from = {})
      : file_(std::move(file)), text_field_(std::move(text_field)), place_(from), stream_(open_text(file_)) {
    if (from.byte > 0) stream_->skip(from.byte);
    origin_ = from.byte;
  }

  /// Puts the next document into `text`, valid UTF-8 without a byte order mark. False at the end. Throws
  /// InputError: unreadable or damaged file, invalid UTF-8, a line that is no JSON object or lacks the field.
  bool next(std::string& text) {
    const bool any = file_.one_document_a_line ? next_line(text) : whole_file(text);
    if (any) ++place_.document;
    return any;
  }

  /// Where the next document would begin.
  const Place& place() const { return place_; }

 private:
  bool whole_file(std::string& text) {
    text.clear();
    for (std::size_t have = 0, count = 1; count > 0; have += count) {
      text.resize(have + std::max(have, std::size_t{1} << 16));
      count = stream_->read(std::span(text).subspan(have));
      text.resize(have + count);
    }
    place_.byte += text.size();
    if (const auto at = first_invalid_utf8(text)) fail_as_invalid_utf8(text, *at);
    if (detail::begins_with_byte_order_mark(text)) text.erase(0, 3);
    return !text.empty();
  }

  bool next_line(std::string& text) {
    while (const auto line = lines_.next(*stream_)) {
      const bool first = place_.line++ == 0;
      place_.byte = origin_ + lines_.bytes();
      text = text_of(first && detail::begins_with_byte_order_mark(*line) ? line->substr(3) : *line);
      if (!text.empty()) return true;
    }
    return false;
  }

  /// The text of a line that was just read, empty when there is none.
  std::string text_of(std::string_view line) const {
    if (line.find_first_not_of(" \t\r") == line.npos) return {};
    Json object = parse(line);
    if (!object.is_object())
      fail("A line of this file is no JSON object", std::string("it is of type ") + object.type_name());
    const Json* field = object.find(text_field_);
    if (field == nullptr)
      fail("A document lacks the field \"" + text_field_ + "\"",
           "its fields are " + detail::fields_of(object),
           "name the field that holds the text (training.text_field)");
    if (!field->is_string())
      fail("The field \"" + text_field_ + "\" holds no text",
           std::string("it is of type ") + field->type_name());
    return field->text();
  }

  Json parse(std::string_view line) const {
    try {
      return parse_json(line, file_.path.string());
    } catch (const InputError& error) {
      fail(error.explanation().what, error.explanation().why, "a .jsonl file has one JSON object a line");
    }
  }

  [[noreturn]] void fail(std::string what, std::string why, std::string remedy = {}) const {
    throw InputError({.what = std::move(what),
                      .where = file_.path.string() + ", line " + std::to_string(place_.line),
                      .why = std::move(why),
                      .remedy = std::move(remedy)});
  }

  [[noreturn]] void fail_as_invalid_utf8(std::string_view text, std::size_t at) const {
    const std::string_view start = text.substr(0, 2);
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    throw InputError(
        {.what = "The text is not UTF-8",
         .where = file_.path.string() + ", line " + std::to_string(line) + ", byte " + std::to_string(at),
         .why = start == "\xff\xfe" || start == "\xfe\xff" ? "it looks like UTF-16" : "",
         .remedy = "convert it with iconv -t UTF-8, naming its encoding with -f"});
  }

  TextFile file_;
  std::string text_field_;
  Place place_;
  std::uint64_t origin_ = 0;  // where this reader began in the unpacked text
  std::unique_ptr<TextStream> stream_;
  detail::LineReader lines_;
};

}  // namespace parscale::io
