/// Checkpoints of shared models, as a trainer writes and reads them.
#pragma once

#include <filesystem>
#include <parscale/io/checkpoint.hpp>
#include <parscale/io/tensor_access.hpp>
#include <string>
#include <type_traits>

#include "sharded_run.hpp"

namespace parscale::test {

/// An empty folder, gone when the test ends; in memory where that is possible, since checkpoints wait for the
/// disk.
struct Folder {
  std::filesystem::path path;
  explicit Folder(const std::string& name)
      : path((std::filesystem::exists("/dev/shm") ? std::filesystem::path("/dev/shm")
                                                  : std::filesystem::temp_directory_path()) /
             ("parscale-" + name + "-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

/// The lists that checkpoints take, of a model's tensors.
template <template <class> class Tensor, class Model, class T = ScalarOf<Model>>
io::TrainingTensors<Tensor<T>> training_tensors(Model& model) {
  const auto list = [&](Part<T> Owned<T>::*what) {
    std::vector<Tensor<T>> out;
    for (const auto& t : io::tensors_of(model, what)) {
      if constexpr (std::is_same_v<Tensor<T>, io::TensorSource<T>>)
        out.push_back({t.name, t.extent, t.copy_out, t.owned_part()});
      else
        out.push_back({t.name, t.extent, t.copy_in, t.owned_part()});
    }
    return out;
  };
  return {list(&Owned<T>::weight), list(&Owned<T>::first), list(&Owned<T>::second)};
}

inline int rank_in(const distributed::Group* group) { return group == nullptr ? 0 : group->rank(); }
inline int size_of(const distributed::Group* group) { return group == nullptr ? 1 : group->size(); }

}  // namespace parscale::test
