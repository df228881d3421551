/// The time to tokenise a file, as one string on one thread:  tokenizing TOKENIZER FILE
/// compare_tokenizing runs it beside Hugging Face's tokenizers. Prints one JSON line, times are the best of
/// ten.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <parscale/io/json.hpp>
#include <parscale/io/tokenizer.hpp>

namespace {

template <class F>
double best_ms(int runs, F&& f) {
  double best = 1e300;
  for (int i = 0; i < runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: tokenizing TOKENIZER FILE\n";
    return 2;
  }
  using parscale::io::Tokenizer;
  const std::string text = parscale::io::read_file(argv[2]);
  std::size_t tokens = 0;
  const double first = best_ms(1, [&] { tokens = Tokenizer::load(argv[1]).encode(text).size(); });
  const Tokenizer tokenizer = Tokenizer::load(argv[1]);
  const double warm = best_ms(10, [&] { tokens = tokenizer.encode(text).size(); });
  std::cout << parscale::io::Json{{"tokens", tokens}, {"with_loading_ms", first}, {"encode_ms", warm}}.dump()
            << '\n';
}
