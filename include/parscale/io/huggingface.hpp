/// Models from Hugging Face directories and back: plain Qwen2 and ParScale. Names and shapes of tensors are
/// the model's own visitor's; what a checkpoint lacks of ParScale's additions is initialised and reported.
#pragma once

#include <exception>
#include <map>
#include <set>

#include "../causal_lm.hpp"
#include "durable_directory.hpp"
#include "hub.hpp"
#include "model_config.hpp"
#include "sharded_tensors.hpp"
#include "tensor_access.hpp"
#include "together.hpp"

namespace parscale {

/// What loading found: nothing is filled or left out in silence.
struct LoadReport {
  struct Filled {
    std::string name;
    std::vector<Index> extent;
    std::string how;  ///< "N(0, initializer_range)", "zeros", "o_proj, once for each replica", ...
  };
  std::filesystem::path directory;
  std::vector<Filled> filled = {};         ///< tensors that the checkpoint lacks
  std::vector<std::string> unused = {};    ///< tensors of the checkpoint that the model has no place for
  std::vector<std::string> warnings = {};  ///< from reading the config
};

namespace io {

struct SaveOptions {
  Dtype dtype = Dtype::f32;
  std::uint64_t max_shard_bytes = std::uint64_t{5} << 30;
  /// Files copied beside the model: the tokenizer's.
  std::vector<std::filesystem::path> companions = {};
};

/// A small file, durable when this returns. Throws StorageError.
inline void write_file(const std::filesystem::path& path, std::string_view content) {
  OutputFile file(path);
  file.write(content);
  file.close();
}

namespace detail {

/// Tensors that ParScale adds to Qwen2: a checkpoint may lack them.
inline bool is_addition(std::string_view name) {
  for (std::string_view part : {".prefix_k", ".prefix_v", "aggregate_layer.", "cross_attn_proj.",
                                "cross_replica_attn.", "cross_replica_layernorm.", "replica_embedding"})
    if (name.find(part) != std::string_view::npos) return true;
  return false;
}

/// The name of the o_proj that a cross_attn_proj takes the place of; empty for other tensors.
inline std::string tiled_from(std::string_view name) {
  const std::size_t at = name.find("cross_attn_proj");
  return at == std::string_view::npos ? std::string() : concat({name.substr(0, at), "o_proj.weight"});
}

/// o_proj [H,A*D] side by side, once for each replica: [H,P*A*D]. The start is plain attention over the union
/// of keys.
template <class T>
std::vector<T> tiled(const std::vector<T>& o_proj, Index hidden, Index replicas) {
  std::vector<T> out;
  out.reserve(o_proj.size() * static_cast<std::size_t>(replicas));
  const auto width = static_cast<std::ptrdiff_t>(o_proj.size()) / hidden;
  for (Index row = 0; row < hidden; ++row)
    for (Index r = 0; r < replicas; ++r)
      out.insert(out.end(), o_proj.begin() + row * width, o_proj.begin() + (row + 1) * width);
  return out;
}

[[noreturn]] inline void fail_missing(const std::string& name, const std::filesystem::path& directory) {
  throw InputError(
      {.what = "The checkpoint lacks a tensor that the model needs",
       .where = concat({directory.native(), ", tensor \"", name, "\""}),
       .why = "only ParScale's additions (prefixes, aggregation, cross-attention) are initialised",
       .remedy = "check that config.json belongs to these weights; a model whose head is tied needs "
                 "\"tie_word_embeddings\": true"});
}

/// Reads a tensor after checking that it has the model's shape.
template <class T>
std::vector<T> read_tensor(const TensorFiles& files, const std::string& name,
                           const std::vector<Index>& extent) {
  const TensorInfo& info = *files.find(name);
  if (info.shape != extent)
    throw InputError({.what = "A tensor of the checkpoint has another shape than config.json says",
                      .where = files.where(name),
                      .why = concat({to_string(info.shape), " instead of ", to_string(extent)})});
  std::vector<T> values(info.count());
  files.read(name, std::span<T>(values));
  return values;
}

/// The values of one parameter: from the files, tiled, or as a new model would have them.
template <class T>
std::vector<T> parameter_values(const TensorFiles& files, const TensorAccess<T>& parameter,
                                const Shape& shape, std::uint64_t seed, LoadReport& report) {
  const std::string& name = parameter.name;
  if (files.find(name) != nullptr) return read_tensor<T>(files, name, parameter.extent);
  if (!is_addition(name)) fail_missing(name, report.directory);
  const std::string source = tiled_from(name);
  if (const TensorInfo* o_proj = source.empty() ? nullptr : files.find(source); o_proj != nullptr) {
    const Index hidden = parameter.extent[0], width = o_proj->shape.empty() ? 0 : o_proj->shape.back();
    if (width < 1 || parameter.extent[1] % width != 0) fail_missing(name, report.directory);
    report.filled.push_back({name, parameter.extent, "o_proj, once for each replica"});
    return tiled(read_tensor<T>(files, source, {hidden, width}), hidden, parameter.extent[1] / width);
  }
  std::vector<T> values(static_cast<std::size_t>(parameter.count()));
  initialise(std::span(values), name, shape.initializer_range, seed);
  report.filled.push_back({name, parameter.extent, name_of(fill_of(name))});
  return values;
}

/// Throws ConfigurationError when a checkpoint's structure cannot become the model's.
inline void check_convertible(const Architecture& from, const Architecture& to, const std::string& where) {
  const auto refuse = [&](const char* what, TextPiece is, TextPiece wanted) {
    throw ConfigurationError({.what = concat({"The checkpoint cannot become this model: ", what}),
                              .where = where,
                              .why = concat({"the checkpoint has ", is, ", the model ", wanted})});
  };
  if (from.head_dim != to.head_dim) refuse("head sizes differ", from.head_dim, to.head_dim);
  if (from.replicas != to.replicas && from.replicas != 1)
    refuse("only a plain Qwen2 checkpoint can change its number of replicas", from.replicas, to.replicas);
  if (from.cross_attention != CrossAttention::none && from.cross_attention != to.cross_attention)
    refuse("its cross-replica attention would be lost", name_of(from.cross_attention),
           name_of(to.cross_attention));
}

}  // namespace detail

/// The layers of this model that cross, as config.json lists them.
template <Architecture arch>
std::vector<int> crossing_layers(const Shape& shape) {
  std::vector<int> layers;
  for (Index i = 0; i < shape.layers; ++i)
    if (crosses<arch>(shape, i)) layers.push_back(static_cast<int>(i));
  return layers;
}

/// Fills a model's parameters from an open checkpoint. What the checkpoint lacks of ParScale's additions is
/// drawn from `seed`. Throws InputError when a tensor is missing or has another shape.
template <class T>
void fill_parameters(const std::vector<TensorAccess<T>>& parameters, const Shape& shape,
                     const TensorFiles& files, std::uint64_t seed, LoadReport& report) {
  std::set<std::string, std::less<>> used;
  for (const TensorAccess<T>& parameter : parameters) {
    const auto values = detail::parameter_values(files, parameter, shape, seed, report);
    parameter.put(values);
    used.insert(parameter.name);
    used.insert(detail::tiled_from(parameter.name));
  }
  for (const std::string& name : files.names()) {
    const bool tied_copy = shape.tied && name == "lm_head.weight";
    if (!used.contains(name) && !tied_copy) report.unused.push_back(name);
  }
}

namespace detail {

/// A model's parameters on their way into files, in pieces: no process holds more of the others' than that.
template <class T>
class WholePieces {
 public:
  explicit WholePieces(const std::vector<TensorAccess<T>>& parameters) : parameters_(parameters) {}

  const std::vector<TensorAccess<T>>& parameters() const { return parameters_; }
  bool gathered() const { return gathered_; }

  /// Calls use(piece) for all elements of all parameters. When that throws, what other processes take part in
  /// goes on to its end all the same.
  template <class Use>
  void each(Use&& use) {
    gathered_ = true;
    std::exception_ptr failure;
    std::vector<T> piece;
    for (const TensorAccess<T>& parameter : parameters_)
      for (Index first = 0; first < parameter.count(); first += largest) {
        piece.resize(static_cast<std::size_t>(std::min(largest, parameter.count() - first)));
        parameter.copy_whole(first, piece);
        if (failure != nullptr) continue;
        try {
          use(std::span<const T>(piece));
        } catch (const Error&) {
          failure = std::current_exception();
        }
      }
    if (failure != nullptr) std::rethrow_exception(failure);
  }

 private:
  static constexpr Index largest = Index{1} << 22;
  const std::vector<TensorAccess<T>>& parameters_;
  bool gathered_ = false;
};

/// config.json, the tensors and the companions into an existing directory.
template <class T>
void write_model(WholePieces<T>& pieces, ModelConfig config, const std::filesystem::path& directory,
                 const SaveOptions& options) {
  config.dtype = transformers_name_of(options.dtype);
  std::vector<TensorSpec> specs;
  for (const auto& parameter : pieces.parameters())
    specs.push_back({parameter.name, options.dtype, parameter.extent});
  ShardedWriter writer(directory, specs, options.max_shard_bytes);
  pieces.each([&](std::span<const T> piece) { writer.write(piece); });
  writer.finish();
  write_file(directory / "config.json", to_json(config).dump(2) + "\n");
  for (const auto& companion : options.companions)
    write_file(directory / companion.filename(), read_file(companion));
}

/// The first process runs `save(pieces)`, the others hand it their parts.
template <class T, class Save>
void save_together(const std::vector<TensorAccess<T>>& parameters, distributed::Group* group, Save&& save) {
  WholePieces<T> pieces(parameters);
  if (group == nullptr || group->size() == 1) return save(pieces);
  const auto nothing = [](std::span<const T>) {};
  report_together(*group, "the model", [&]() -> std::string {
    try {
      if (group->rank() == 0) save(pieces);
    } catch (const Error&) {
      if (!pieces.gathered()) pieces.each(nothing);
      throw;
    }
    if (!pieces.gathered()) pieces.each(nothing);
    return {};
  });
}

}  // namespace detail

/// Writes parameters as a Hugging Face directory that transformers can load. The directory appears whole or
/// not at all; one that has the name already is replaced. With a group, every process calls it and the first
/// one writes. Throws StorageError.
template <class T>
void save_parameters(const std::vector<TensorAccess<T>>& parameters, const ModelConfig& config,
                     const std::filesystem::path& directory, const SaveOptions& options,
                     distributed::Group* group = nullptr) {
  detail::save_together(parameters, group, [&](detail::WholePieces<T>& pieces) {
    DirectoryInProgress work(directory);
    detail::write_model(pieces, config, work.path(), options);
    const auto previous = work.publish();
    if (!previous.empty()) remove_durably(previous, directory);
  });
}

/// The same into a directory that holds other things too (a run's output): all files are written aside first,
/// then each takes its place in one rename, config.json last. Throws StorageError.
template <class T>
void save_parameters_into(const std::vector<TensorAccess<T>>& parameters, const ModelConfig& config,
                          const std::filesystem::path& directory, const SaveOptions& options,
                          distributed::Group* group = nullptr) {
  detail::save_together(parameters, group, [&](detail::WholePieces<T>& pieces) {
    DirectoryInProgress work(directory / "model");
    detail::write_model(pieces, config, work.path(), options);
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(work.path()))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end(),
              [](const auto& a, const auto& b) { return (a == "config.json") < (b == "config.json"); });
    for (const std::string& name : names) rename_durably(work.path() / name, directory / name);
  });
}

/// A model as a Hugging Face directory; `config` gives what the model itself does not know (token ids,
/// positions).
template <class Model>
void save_model(Model& model, ModelConfig config, const std::filesystem::path& directory,
                const SaveOptions& options = {}) {
  config.architecture = Model::architecture;
  config.shape = model.shape();
  config.shape.cross_layers = crossing_layers<Model::architecture>(model.shape());
  save_parameters(tensors_of(model, &OwnedBy<typename Model::BackendType>::weight), config, directory,
                  options);
}

}  // namespace io

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
BasicCausalLM<arch, B, StoreOf> BasicCausalLM<arch, B, StoreOf>::load(const std::filesystem::path& model,
                                                                      B on, LoadReport* report) {
  LoadReport own;
  LoadReport& filled = report != nullptr ? *report : own;
  filled.directory = io::resolve_model(model.string());
  const io::ModelConfig config = io::load_model_config(filled.directory);
  filled.warnings = config.warnings;
  io::detail::check_convertible(config.architecture, arch, filled.directory.string());
  BasicCausalLM loaded(config.shape, Uninitialised{}, std::move(on));
  io::fill_parameters(io::tensors_of(loaded, &OwnedBy<B>::weight), config.shape,
                      io::TensorFiles(filled.directory), 0, filled);
  return loaded;
}

}  // namespace parscale
