/// Which of cuBLASLt's algorithms was measured to be the fastest for a product, remembered on disk: measured
/// times differ from run to run, remembered choices do not, and with them the last bits of every result.
///
/// One text file for each device and version of the library; a line a product. Lines that are damaged are
/// skipped. The first choice that is written stays, whoever else measured meanwhile.
#pragma once

#include <cublasLt.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <system_error>

#include "../../core/cache_folder.hpp"
#include "device.hpp"

namespace parscale::cuda {

/// All that decides which algorithms fit a product and how fast they are.
using ProductKey = std::array<Index, 14>;

/// The library's own types have no names of their own, which nvcc 13.0 cannot bear in a container.
struct Algorithm {
  cublasLtMatmulAlgo_t value{};
};

class ProductChoices {
 public:
  using Folder = std::filesystem::path;

  /// $PARSCALE_CUBLASLT_CACHE ("off" or nothing: do not remember, and so do not measure), else `cublaslt` in
  /// the project's cache folder.
  static Folder default_folder() {
    if (const char* chosen = std::getenv("PARSCALE_CUBLASLT_CACHE"))
      return std::string(chosen) == "off" ? Folder() : Folder(chosen);
    const Folder cache = default_cache_folder();
    return cache.empty() ? cache : cache / "cublaslt";
  }

  ProductChoices(const Device& device, const Folder& folder) {
    if (folder.empty()) return;
    file_ = folder / file_name(device);
    known_ = read();
  }

  bool remembers() const { return !file_.empty(); }

  bool find(const ProductKey& key, Algorithm& algorithm) const {
    const auto found = known_.find(key);
    if (found != known_.end()) algorithm = found->second;
    return found != known_.end();
  }

  /// Remembers a measured choice and returns the one that counts from now on: another process may have been
  /// first, and a choice that cannot be written is not made, it could be another one next time.
  Algorithm keep(const ProductKey& key, const Algorithm& measured, const Algorithm& unmeasured) {
    try {
      std::filesystem::create_directories(file_.parent_path());
      const Lock lock(file_);
      known_ = read();
      const Algorithm choice = known_.emplace(key, measured).first->second;
      write();
      return choice;
    } catch (const std::filesystem::filesystem_error&) {
      return unmeasured;
    }
  }

 private:
  using Known = std::map<ProductKey, Algorithm>;

  /// Holds other processes off while the file is read and replaced.
  class Lock {
   public:
    explicit Lock(const Folder& file)
        : descriptor_(::open((file.string() + ".lock").c_str(), O_RDWR | O_CREAT, 0666)) {
      if (descriptor_ < 0 || ::flock(descriptor_, LOCK_EX) != 0) {
        const std::error_code why(errno, std::generic_category());
        if (descriptor_ >= 0) ::close(descriptor_);
        throw std::filesystem::filesystem_error("cannot lock", file, why);
      }
    }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    ~Lock() { ::close(descriptor_); }

   private:
    int descriptor_;
  };

  static std::string file_name(const Device& device) {
    std::string name = device.name();
    for (char& c : name)
      if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
    return name + "-" + std::to_string(device.multiprocessors()) + "-cublaslt-" +
           std::to_string(cublasLtGetVersion()) + ".txt";
  }

  /// FNV-1a: tells a damaged line from a whole one.
  static std::uint64_t checksum(const std::string& text) {
    std::uint64_t hash = 14695981039346656037U;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
    return hash;
  }

  static std::string line(const ProductKey& key, const Algorithm& algorithm) {
    std::ostringstream text;
    for (const Index number : key) text << number << ' ';
    text << std::hex;
    for (const std::uint64_t word : algorithm.value.data) text << word << ' ';
    return text.str() + std::to_string(checksum(text.str()));
  }
  static void parse(const std::string& text, Known& known) {
    std::istringstream in(text);
    ProductKey key{};
    Algorithm algorithm{};
    for (Index& number : key) in >> number;
    in >> std::hex;
    for (std::uint64_t& word : algorithm.value.data) in >> word;
    if (in && line(key, algorithm) == text) known.emplace(key, algorithm);
  }

  Known read() const {
    Known known;
    std::ifstream in(file_);
    for (std::string text; std::getline(in, text);) parse(text, known);
    return known;
  }
  void write() const {
    const std::filesystem::path aside = file_.string() + ".unfinished";
    std::ofstream out(aside, std::ios::trunc);
    for (const auto& [key, algorithm] : known_) out << line(key, algorithm) << '\n';
    out.close();
    if (!out)
      throw std::filesystem::filesystem_error("cannot write", aside,
                                              std::make_error_code(std::errc::io_error));
    std::filesystem::rename(aside, file_);
  }

  std::filesystem::path file_;
  Known known_;
};

}  // namespace parscale::cuda
