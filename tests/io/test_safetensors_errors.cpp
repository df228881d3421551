#include <parscale/io/safetensors.hpp>
#include <vector>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::SafetensorsFile;

namespace {

/// The error of opening a file with these bytes.
std::string error_of_bytes(const std::string& bytes) {
  TemporaryDirectory folder;
  const auto path = folder.file("bad.safetensors", bytes);
  auto message = error_of<InputError>([&] { SafetensorsFile{path}; });
  CHECK_THAT(message, ContainsSubstring("bad.safetensors"));
  return message;
}

/// The same for a header and eight bytes of data.
std::string error_of_header(std::string_view header, std::string_view data = "01234567") {
  return error_of_bytes(safetensors_bytes(header, data));
}

/// A tensor "w" of eight bytes, with one field replaced.
std::string error_of_tensor(const std::string& fields) { return error_of_header("{\"w\":{" + fields + "}}"); }

std::string length_prefix(std::uint64_t length) {
  return {reinterpret_cast<const char*>(&length), sizeof length};
}

}  // namespace

TEST_CASE("The file that the bad ones are made from is good") {
  TemporaryDirectory folder;
  const auto bytes =
      safetensors_bytes(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "01234567");
  CHECK(SafetensorsFile(folder.file("good", bytes)).tensors().size() == 1);
}

TEST_CASE("A safetensors file of fewer than eight bytes is too short") {
  CHECK_THAT(error_of_bytes(""), ContainsSubstring("too short") && ContainsSubstring("0 bytes"));
  CHECK_THAT(error_of_bytes("1234567"), ContainsSubstring("too short") && ContainsSubstring("7 bytes"));
}

TEST_CASE("A safetensors header beyond 100 MB is impossibly long") {
  CHECK_THAT(error_of_bytes(length_prefix(100'000'001) + "{}"), ContainsSubstring("impossibly long"));
  CHECK_THAT(error_of_bytes(length_prefix(~std::uint64_t{0}) + "{}"), ContainsSubstring("impossibly long"));
}

TEST_CASE("A safetensors file that ends inside its header says so") {
  CHECK_THAT(error_of_bytes(length_prefix(3) + "{}"),
             ContainsSubstring("ends inside the safetensors header"));
  CHECK_THAT(error_of_bytes(length_prefix(1)), ContainsSubstring("ends inside the safetensors header"));
}

TEST_CASE("A safetensors header that is not JSON is an error with its line") {
  CHECK_THAT(error_of_header("{\"w\":"), ContainsSubstring("not valid JSON") && ContainsSubstring("line 1"));
  CHECK_THAT(error_of_header(""), ContainsSubstring("not valid JSON"));
}

TEST_CASE("A safetensors header must be an object") {
  CHECK_THAT(error_of_header("[1]"),
             ContainsSubstring("header is not a JSON object") && ContainsSubstring("array"));
}

TEST_CASE("Safetensors metadata must be an object") {
  CHECK_THAT(error_of_header(R"({"__metadata__":3})"),
             ContainsSubstring("__metadata__ is not a JSON object"));
}

TEST_CASE("Safetensors metadata must be text") {
  CHECK_THAT(error_of_header(R"({"__metadata__":{"a":1}})"),
             ContainsSubstring("something other than text") && ContainsSubstring("\"a\""));
}

TEST_CASE("A tensor name that occurs twice is an error") {
  CHECK_THAT(error_of_header(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                                 "w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
             ContainsSubstring("same key twice") && ContainsSubstring("\"w\""));
}

TEST_CASE("A tensor's description must be an object") {
  CHECK_THAT(error_of_header(R"({"w":[1]})"),
             ContainsSubstring("description is not a JSON object") && ContainsSubstring("tensor \"w\""));
}

TEST_CASE("A tensor without dtype is an error") {
  CHECK_THAT(error_of_tensor(R"("shape":[2],"data_offsets":[0,8])"), ContainsSubstring("has no dtype"));
}

TEST_CASE("A tensor without shape is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","data_offsets":[0,8])"), ContainsSubstring("has no shape"));
}

TEST_CASE("A tensor without data_offsets is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[2])"), ContainsSubstring("has no data_offsets"));
}

TEST_CASE("A dtype that is not text is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":32,"shape":[2],"data_offsets":[0,8])"),
             ContainsSubstring("dtype is not text"));
}

TEST_CASE("An unknown dtype is an error that names it") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"),
             ContainsSubstring("unknown dtype") && ContainsSubstring("F33"));
}

TEST_CASE("A shape that is not an array is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"),
             ContainsSubstring("shape is not an array"));
}

TEST_CASE("A negative size in a shape is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"),
             ContainsSubstring("shape holds something other than a whole number") && ContainsSubstring("-2"));
}

TEST_CASE("A fraction in a shape is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"),
             ContainsSubstring("shape holds something other than a whole number"));
}

TEST_CASE("Text in a shape is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])"),
             ContainsSubstring("shape holds something other than a whole number"));
}

TEST_CASE("A size beyond 63 bits is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])"),
             ContainsSubstring("size is impossibly large"));
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[1e30],"data_offsets":[0,8])"),
             ContainsSubstring("shape holds something other than a whole number"));
}

TEST_CASE("A shape whose product overflows is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"),
             ContainsSubstring("shape is impossibly large"));
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8])"),
             ContainsSubstring("shape is impossibly large"));  // the elements fit, their bytes do not
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0])"),
             ContainsSubstring("shape is impossibly large"));
}

TEST_CASE("data_offsets that are not an array are an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[2],"data_offsets":{})"),
             ContainsSubstring("data_offsets is not an array"));
}

TEST_CASE("data_offsets of another length than two are an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,16])"),
             ContainsSubstring("data_offsets needs two numbers"));
}

TEST_CASE("A negative offset is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])"),
             ContainsSubstring("data_offsets holds something other than a whole number"));
}

TEST_CASE("A tensor that ends before it begins is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"),
             ContainsSubstring("ends before it begins"));
}

TEST_CASE("A tensor that reaches beyond the file is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])"),
             ContainsSubstring("beyond the end of the file") && ContainsSubstring("incomplete"));
  CHECK_THAT(error_of_tensor(
                 R"("dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615])"),
             ContainsSubstring("beyond the end of the file"));
}

TEST_CASE("Offsets that do not match the shape are an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"),
             ContainsSubstring("do not match its shape") && ContainsSubstring("F32 [1] needs 4 bytes"));
}

TEST_CASE("Overlapping tensors are an error") {
  CHECK_THAT(error_of_header(R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},
                                 "b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
             ContainsSubstring("overlap") && ContainsSubstring("tensor \"b\""));
  CHECK_THAT(error_of_header(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},
                                 "b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})"),
             ContainsSubstring("overlap"));
}

TEST_CASE("A hole between tensors is an error") {
  CHECK_THAT(error_of_header(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},
                                 "b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
             ContainsSubstring("belong to no tensor") && ContainsSubstring("tensor \"b\""));
}

TEST_CASE("A hole before the first tensor is an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"),
             ContainsSubstring("Bytes before a tensor belong to no tensor"));
}

TEST_CASE("Bytes behind the last tensor are an error") {
  CHECK_THAT(error_of_tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"),
             ContainsSubstring("Bytes at the end of the file belong to no tensor"));
  CHECK_THAT(error_of_header("{}"), ContainsSubstring("Bytes at the end of the file belong to no tensor"));
}

TEST_CASE("A safetensors file truncated anywhere is an error") {
  const auto whole =
      safetensors_bytes(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "01234567");
  for (std::size_t size = 0; size < whole.size(); ++size) error_of_bytes(whole.substr(0, size));
}

TEST_CASE("Reading into a buffer of another size is a configuration error") {
  TemporaryDirectory folder;
  const auto bytes =
      safetensors_bytes(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "01234567");
  const SafetensorsFile file(folder.file("x", bytes));
  std::vector<float> three(3);
  CHECK_THAT(error_of<ConfigurationError>([&] { file.read(file.tensors()[0], std::span(three)); }),
             ContainsSubstring("buffer of another size") && ContainsSubstring("tensor \"w\""));
  CHECK_THAT(error_of<ConfigurationError>([&] { file.read_part(file.tensors()[0], 0, std::span(three)); }),
             ContainsSubstring("buffer of another size"));
  CHECK_THAT(
      error_of<ConfigurationError>([&] { file.read_part(file.tensors()[0], 3, std::span(three).first(0)); }),
      ContainsSubstring("buffer of another size"));
}

TEST_CASE("8-bit floating point can be listed but its values cannot be read") {
  TemporaryDirectory folder;
  const auto bytes =
      safetensors_bytes(R"({"w":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", "01234567");
  const SafetensorsFile file(folder.file("x", bytes));
  std::vector<float> out(8);
  CHECK_THAT(error_of<InputError>([&] { file.read(file.tensors()[0], std::span(out)); }),
             ContainsSubstring("F8_E4M3 cannot be read") && ContainsSubstring("tensor \"w\""));
}
