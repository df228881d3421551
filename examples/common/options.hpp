/// What a user may set, and how it is read: built-in defaults, then a YAML file, then the command line.
///
/// The structs below are the values; options_table.cpp holds one line a key (name, type, range, help), from
/// which reading, checking, --help, suggestions and printing follow. options_huggingface.cpp says for every
/// other field of Hugging Face's TrainingArguments what becomes of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <parscale/config.hpp>
#include <parscale/io/json.hpp>
#include <parscale/store/unit_map.hpp>
#include <parscale/train/schedule.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace parscale::program {

/// Section `parscale`: what parallel scaling adds to a model. Names are those of config.json.
struct ParscaleOptions {
  int parscale_n = 1;
  Index parscale_n_tokens = 48;
  double parscale_attn_smooth = 0.01;
  bool enable_cross_attn = false;
  std::optional<std::vector<Index>> parscale_cross_attn_layers = {};  ///< null: every layer
  CrossAttention parscale_cross_attn_kind = CrossAttention::expanded;
  bool enable_replica_rope = false;
  bool parscale_replica_embedding = false;
};

enum class Precision { automatic, float32, float64, bfloat16, tf32 };
enum class Device { automatic, cpu, cuda };
enum class Recompute { automatic, none, pointwise, layer };
enum class Strategy { no, steps };
/// What connects processes. Automatic: NCCL on GPUs; on the CPU MPI under mpirun, else TCP.
enum class Connector { automatic, tcp, mpi, nccl };

/// Where a run starts: at the beginning, at the newest checkpoint of its output folder, or at a given one.
struct ResumeFrom {
  bool latest = false;
  std::filesystem::path checkpoint = {};

  explicit operator bool() const { return latest || !checkpoint.empty(); }
  bool operator==(const ResumeFrom&) const = default;
};

/// Section `training`. Names are those of Hugging Face's TrainingArguments where it has one.
/// After parse_options() every combined value is resolved: warmup_ratio into warmup_steps, bf16 into dtype,
/// and what is automatic in device and dtype into what this machine has.
struct TrainingOptions {
  std::string base_model = "Qwen/Qwen2-1.5B";
  std::optional<std::string> tokenizer = {};  ///< null: the base model's
  std::string output_dir = "./parscale-model";
  bool overwrite_output_dir = false;
  std::optional<std::string> logging_dir = {};  ///< null: output_dir
  std::optional<std::string> run_name = {};

  std::string dataset = "pajama";
  std::string text_field = "text";
  std::optional<std::string> eval_dataset = {};
  double eval_fraction = 0;
  Index max_length = 2048;
  bool cut_documents = false;

  Index max_steps = 76294;
  Index per_device_train_batch_size = 4;
  Index per_device_eval_batch_size = 4;
  Index gradient_accumulation_steps = 4;
  std::optional<Index> global_batch_size = {};
  std::int64_t seed = 42;
  std::optional<std::int64_t> data_seed = {};

  double learning_rate = 3e-4;
  ScheduleKind lr_scheduler_type = ScheduleKind::constant_with_warmup;
  Index warmup_steps = 2000;
  Index lr_decay_steps = 0;  ///< of warmup_stable_decay
  double min_lr_ratio = 0;
  double weight_decay = 0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double max_grad_norm = 1;
  std::vector<std::string> trainable = {};  ///< name patterns of parscale::Trainable; empty: everything

  Index logging_steps = 1000;
  bool logging_first_step = false;
  bool disable_tqdm = false;
  Strategy eval_strategy = Strategy::no;
  Index eval_steps = 0;  ///< parse_options() puts logging_steps for 0
  bool eval_on_start = false;
  std::optional<Index> max_eval_samples = {};
  Strategy save_strategy = Strategy::steps;
  Index save_steps = 76294;
  std::optional<Index> save_total_limit = 1;  ///< null: keep all
  double resume_every_minutes = 30;
  ResumeFrom resume_from_checkpoint = {};

  Device device = Device::automatic;
  Precision dtype = Precision::automatic;
  Index threads = 0;  ///< 0: one a core
  Recompute recompute = Recompute::automatic;
  Sharding sharding = Sharding::full;
  Index sharding_group_size = 0;  ///< ranks that share one copy when hybrid; 0: those of a host
  Precision gradient_reduction_dtype = Precision::float32;
  bool deterministic = false;
  Connector communicator = Connector::automatic;
  Index ddp_timeout = 1800;  ///< seconds
  bool rank_logs = false;
  std::optional<Index> plan_world = {};  ///< null: train
};

/// Who gave a key, and how late: a later word outweighs an earlier one.
struct Origin {
  std::string where;
  int rank = 0;  ///< 1, 2, ... in the order of the sources; the command line is the last
};

struct Options {
  ParscaleOptions parscale;
  TrainingOptions training;
  std::optional<io::Json> model;      ///< config.json of a model built from scratch
  std::vector<std::string> notes;     ///< what was understood in another way than it was written
  std::vector<std::string> warnings;  ///< what is probably not meant
  std::map<std::string, Origin, std::less<>> given;  ///< "training.max_steps" -> where it was said

  bool is_given(std::string_view key) const { return given.contains(key); }
};

/// What the machine and this build can do; options that ask for more are refused.
struct Machine {
  bool cuda = false;
  bool plans_cuda = false;  ///< built for GPUs, whether there is one or not
  const char* why_no_cuda = "this program was built without CUDA";
};

/// Reads all sources, the earlier ones first: YAML files, then the words of a command line (`key=value`,
/// `--key=value`, `--key value`, `--config FILE`). Throws ConfigurationError that names key and place.
Options parse_options(const std::vector<std::filesystem::path>& files, const std::vector<std::string>& words,
                      Machine machine = {});

/// The same for a program: the file named by $CONFIG_FILE, if it is set, then the words.
Options parse_program_options(const std::vector<std::string>& words, Machine machine = {});

/// The explanation of every key, for --help.
std::string options_help();

/// The effective configuration as YAML that reads back to the same options, with the origin of given keys as
/// comments. `only_given` leaves out what stands at its default.
std::string to_yaml(const Options& options, bool only_given = false);

}  // namespace parscale::program
