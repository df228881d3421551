/// Where files go that can be made anew: tokens of a text, measured choices of a library's algorithms.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace parscale {

/// $XDG_CACHE_HOME/parscale, else ~/.cache/parscale; empty (no cache) when neither is known.
inline std::filesystem::path default_cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache != nullptr && *cache == '/') return std::filesystem::path(cache) / "parscale";
  if (home != nullptr && *home == '/') return std::filesystem::path(home) / ".cache" / "parscale";
  return {};
}

}  // namespace parscale
